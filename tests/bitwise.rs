//! One input has one answer, to the last bit (the one-answer contract).
//!
//! Held here: the training forward pass == prefill in any chunks == decoding one by one == verify with rollback, alone
//! or alongside other sequences, packed or not, for the trunk and for every head fed the same tokens; and a training
//! step's losses and gradients on every instruction set and for 1, 2, 3 and 8 threads.
//!
//! How: the answer is the training graph's, computed once; a [`Decoder`] then computes the same rows in a different
//! order, on a different instruction set and with a different number of threads, and every logit is compared bit by
//! bit. Drafts are fed too and taken back, so the caches have also held rows that were discarded.
//!
//! A missing instruction set is reported on stderr. `FORETOKEN_REQUIRE_ISA=avx512` makes its absence a failure.

mod common;

use common::decoder::Decoder;
use common::{Fixture, LENGTHS, answer, cases, matrix, on, same_bits, same_logits, tokens};
use foretoken::autograd::{Gradients, Op};
use foretoken::data::Batch;
use foretoken::exec::TapeExec;
use foretoken::model::{HeadKind, JointLoss, Model};
use foretoken::ops::CrossEntropy;
use foretoken::simd::Isa;
use proptest::prelude::*;
use std::io::Write;
use std::sync::Arc;

/// The instruction sets of this machine; the others are named on stderr, past the test harness's capture.
fn instruction_sets() -> Vec<Isa> {
    let missing = |name: &&&str| Isa::named(name).is_none();
    for name in foretoken::simd::isa::NAMES.iter().filter(missing) {
        let line = format!("*** NOT TESTED: this CPU has no {name} ***\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    if let Ok(name) = std::env::var("FORETOKEN_REQUIRE_ISA") {
        let found = Isa::named(&name).is_some();
        assert!(found, "FORETOKEN_REQUIRE_ISA: this CPU has no `{name}`");
    }
    Isa::all()
}

/// How many rows the passes of one run take: these in turn, again and again.
fn chunks() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![3 => 1..=9_usize, 1 => prop::sample::select(&LENGTHS[..])];
    prop::collection::vec(size, 1..6)
}

fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![prop::sample::select(&LENGTHS[..]), 1..=70_usize]
}

/// A model, the machine that decodes it, and what is decoded.
fn setting() -> impl Strategy<Value = (Fixture, u64, bool, Isa, usize)> {
    (
        prop::sample::select(Fixture::all()),
        0..1000_u64,
        any::<bool>(),
        prop::sample::select(Isa::all()),
        1..=3_usize,
    )
}

fn model(fixture: Fixture, seed: u64, packed: bool) -> Model {
    match packed {
        true => fixture.packed(seed),
        false => fixture.model(seed),
    }
}

proptest! {
    #![proptest_config(cases(48))]

    /// Trunk and heads in chunks that know nothing of each other.
    #[test]
    fn prefill_in_any_chunks(
        (fixture, seed, packed, isa, threads) in setting(),
        n in lengths(),
        chunks in chunks(),
        head_chunks in chunks(),
    ) {
        let x = tokens(n, fixture.vocab, seed as usize);
        let expected = answer(&fixture.model(seed), &x);
        let model = model(fixture, seed, packed);
        let got = on(isa, threads, || {
            let mut decoder = Decoder::new(&model, 1);
            let mut rest = &x[..];
            for size in chunks.iter().cycle() {
                let (now, later) = rest.split_at((*size).min(rest.len()));
                decoder.feed(&[(0, now)]);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            for k in 1..=fixture.depth {
                for size in head_chunks.iter().cycle() {
                    decoder.head(k, &[0], *size);
                    if decoder.rows(0, k) == decoder.available(0, k) {
                        break;
                    }
                }
            }
            assert_complete(&decoder, 0, &fixture, n);
            decoder.logits(0).clone()
        });
        same_logits("prefill in chunks", fixture.vocab, &got, &expected);
    }

    /// Steps of one known token and K drafts, with any number of correct drafts; the heads run between steps.
    #[test]
    fn verify_with_rollback(
        (fixture, seed, packed, isa, threads) in setting(),
        prompt in 1..40_usize,
        accepted in prop::collection::vec(0..=3_usize, 1..10),
        all_depths in any::<bool>(),
    ) {
        let n = prompt + accepted.iter().map(|a| a + 1).sum::<usize>();
        let x = tokens(n, fixture.vocab, seed as usize);
        let expected = answer(&fixture.model(seed), &x);
        let model = model(fixture, seed, packed);
        let got = on(isa, threads, || {
            let mut decoder = Decoder::new(&model, 1);
            decoder.feed(&[(0, &x[..prompt])]);
            for a in &accepted {
                let from = decoder.tokens(0).len();
                let end = x.len().min(from + 1 + fixture.depth);
                let mut rows = x[from..end].to_vec();
                // The first draft that is not accepted is wrong, and those after it may be wrong too.
                if let Some(wrong) = rows.get_mut(a + 1) {
                    *wrong = (*wrong + 1) % fixture.vocab as u32;
                }
                decoder.feed(&[(0, &rows)]);
                if all_depths {
                    decoder.heads(&[0]);
                }
                decoder.truncate(0, from + 1 + a);
            }
            assert_eq!(decoder.tokens(0), x);
            decoder.heads(&[0]);
            assert_complete(&decoder, 0, &fixture, n);
            decoder.logits(0).clone()
        });
        same_logits("verify with rollback", fixture.vocab, &got, &expected);
    }

    /// Sequences of different lengths in one `Rows`; some take part in a pass while others wait.
    #[test]
    fn batch_mates(
        (fixture, seed, packed, isa, threads) in setting(),
        lens in prop::collection::vec(lengths(), 2..5),
        chunks in chunks(),
    ) {
        let sequences: Vec<_> = { lens.iter().enumerate() }
            .map(|(s, n)| tokens(*n, fixture.vocab, seed as usize + s))
            .collect();
        let plain = fixture.model(seed);
        let mut exec = TapeExec::new(plain.params());
        let together = common::train_logits(&mut exec, &plain, &sequences);
        let model = model(fixture, seed, packed);
        let decoded = on(isa, threads, || {
            let mut decoder = Decoder::new(&model, sequences.len());
            let mut sizes = chunks.iter().cycle();
            while (0..lens.len()).any(|s| decoder.tokens(s).len() < lens[s]) {
                // Each sequence takes a different part; one that is done or waits has a span of no rows.
                let ends = (0..lens.len()).map(|s| {
                    let from = decoder.tokens(s).len();
                    (s, from, lens[s].min(from + sizes.next().expect("a cycle") - 1 + s % 2))
                });
                let ends: Vec<_> = ends.collect();
                let jobs: Vec<_> = { ends.iter() }
                    .map(|(s, from, end)| (*s, &sequences[*s][*from..*end]))
                    .collect();
                decoder.feed(&jobs);
                let all: Vec<_> = (0..lens.len()).collect();
                for k in 1..=fixture.depth {
                    decoder.head(k, &all, *sizes.next().expect("a cycle"));
                }
                // Chunks of one row may leave every sequence waiting; the first one then advances alone.
                let first = (0..lens.len()).find(|s| decoder.tokens(*s).len() < lens[*s]);
                if let Some(s) = first {
                    let next = decoder.tokens(s).len();
                    decoder.feed(&[(s, &sequences[s][next..next + 1])]);
                }
            }
            let all: Vec<_> = (0..lens.len()).rev().collect();
            decoder.heads(&all);
            (0..lens.len())
                .map(|s| {
                    assert_complete(&decoder, s, &fixture, lens[s]);
                    decoder.logits(s).clone()
                })
                .collect::<Vec<_>>()
        });
        for (s, x) in sequences.iter().enumerate() {
            let expected = answer(&plain, x);
            same_logits("trained together", fixture.vocab, &together[s], &expected);
            same_logits("decoded together", fixture.vocab, &decoded[s], &expected);
        }
    }
}

/// Every depth has every row it can have.
#[track_caller]
fn assert_complete(decoder: &Decoder<'_>, sequence: usize, fixture: &Fixture, n: usize) {
    assert_eq!(decoder.rows(sequence, 0), n);
    for k in 1..=fixture.depth {
        let rows = match fixture.kind.chained() {
            true => n.saturating_sub(k),
            false => n,
        };
        assert_eq!(decoder.rows(sequence, k), rows, "depth {k}");
    }
}

#[test]
fn one_by_one_at_every_length_on_a_boundary() {
    for fixture in Fixture::all() {
        let (plain, packed) = (fixture.model(3), fixture.packed(3));
        for n in LENGTHS {
            let x = tokens(n, fixture.vocab, n);
            let expected = answer(&plain, &x);
            for model in [&plain, &packed] {
                let mut decoder = Decoder::new(model, 1);
                for token in &x {
                    decoder.feed(&[(0, &[*token])]);
                    decoder.heads(&[0]);
                }
                assert_complete(&decoder, 0, &fixture, n);
                let what = format!("{fixture:?}, {n} tokens one by one");
                same_logits(&what, fixture.vocab, decoder.logits(0), &expected);
            }
        }
    }
}

/// Matrix multiplications that are split over threads and over blocks of k in one form and not in the other; and the
/// rotary table, which is made again when a sequence passes its end, at 256.
#[test]
fn large_products_and_long_sequences() {
    for kind in HeadKind::ALL {
        let fixture = Fixture::wide(kind);
        let (plain, packed) = (fixture.model(5), fixture.packed(5));
        let x = tokens(270, fixture.vocab, 5);
        let expected = answer(&plain, &x);
        for (model, threads, chunk) in [(&plain, 1, 47), (&packed, 3, 1), (&packed, 8, 5)] {
            let got = on(Isa::current(), threads, || {
                let mut decoder = Decoder::new(model, 1);
                for part in x.chunks(chunk) {
                    decoder.feed(&[(0, part)]);
                    decoder.heads(&[0]);
                }
                decoder.logits(0).clone()
            });
            let what = format!("{fixture:?}, {threads} threads, {chunk} rows at a time");
            same_logits(&what, fixture.vocab, &got, &expected);
        }
    }
}

/// The tests above do not cover [`Model::losses`], because they run the heads themselves.
#[test]
fn losses_are_those_of_the_decoded_logits() {
    for fixture in Fixture::all() {
        let (model, joint) = (fixture.model(8), JointLoss::default());
        let batch = batch(&fixture, 2, 33);
        let reports = model.losses(&mut TapeExec::new(model.params()), &batch, joint);
        assert_eq!(reports.len(), fixture.depth + 1);
        let mut decoder = Decoder::new(&model, 2);
        let inputs = batch.inputs();
        decoder.feed(&[(0, &inputs[..33]), (1, &inputs[33..])]);
        decoder.heads(&[0, 1]);
        for (k, (report, weight)) in reports.iter().zip(joint.weights(3)).enumerate() {
            let rows = (33 - k) * fixture.vocab;
            let logits = [0, 1].map(|s| &decoder.logits(s)[k][..rows]).concat();
            let op = CrossEntropy {
                targets: batch.targets(k).into(),
                weight,
                total_targets: batch.num_targets(k),
            };
            let loss = op.forward([&Arc::new(matrix(fixture.vocab, logits))]).0;
            let what = format!("{fixture:?}, loss {k}");
            same_bits(&what, 3, report.value.value().data(), loss.data());
        }
    }
}

fn batch(fixture: &Fixture, sequences: usize, context: usize) -> Batch {
    let x = tokens(sequences * (context + 1), fixture.vocab, 11);
    Batch::new(sequences, context, x)
}

/// Losses and all gradients of one training step, by name.
fn step(model: &Model, batch: &Batch) -> Vec<(String, Vec<f32>)> {
    let mut exec = TapeExec::new(model.params());
    let losses: Vec<_> = {
        model
            .losses(&mut exec, batch, JointLoss::default())
            .into_iter()
    }
    .map(|report| report.value)
    .collect();
    let named = losses.iter().enumerate();
    let mut results: Vec<_> = named
        .map(|(k, loss)| (format!("loss {k}"), loss.value().data().to_vec()))
        .collect();
    let mut gradients = Gradients::zeros(model.params());
    exec.backward(&losses, &mut gradients);
    for id in model.params().ids() {
        let name = model.params().name(id).to_owned();
        let gradient = gradients.get(id).data();
        assert!(gradient.iter().any(|d| *d != 0.0), "{name} has no gradient");
        results.push((name, gradient.to_vec()));
    }
    results
}

#[test]
fn whole_training_steps() {
    let isas = instruction_sets();
    let small = Fixture::all().into_iter().map(|f| (f, 3, 33));
    // So many rows that the gradient of a weight, a sum over rows, is made in several blocks too.
    let wide = HeadKind::ALL.map(|kind| (Fixture::wide(kind), 5, 83));
    for (fixture, sequences, context) in small.chain(wide) {
        let (model, batch) = (fixture.model(2), batch(&fixture, sequences, context));
        let expected = on(isas[0], 1, || step(&model, &batch));
        for isa in &isas {
            // The portable definition is slow if built without FMA: large multiplications get one other split.
            let slow = isa.name() == "portable" && fixture.vocab > 100;
            for threads in if slow { &[3][..] } else { &[1, 2, 3, 8] } {
                let got = on(*isa, *threads, || step(&model, &batch));
                for ((name, got), (_, expected)) in got.iter().zip(&expected) {
                    let what = format!("{fixture:?}, {}, {threads} threads, {name}", isa.name());
                    same_bits(&what, 32, got, expected);
                }
            }
        }
    }
}
