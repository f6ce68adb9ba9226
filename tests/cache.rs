//! KV rollback == never drafted: whatever was appended to the caches and truncated again, what comes after is bitwise
//! identical to a fresh decode of the tokens that remain.
//!
//! How: random runs of append, draft and truncate on several sequences at once, with heads that keep up or fall behind;
//! every pair of lengths around a panel's boundary (panels hold 32 positions); and drafts of NaN and infinity, which
//! would show if one bit of a forgotten position were ever read again.

mod common;

use common::decoder::Decoder;
use common::{Fixture, answer, cases, same_logits, tokens};
use foretoken::exec::{CacheExec, Rows, SequenceCache};
use foretoken::model::Model;
use proptest::prelude::*;

/// Lengths around the boundaries of panels.
const BOUNDARIES: [usize; 10] = [0, 1, 2, 3, 31, 32, 33, 63, 64, 65];

/// One thing to do with a sequence.
#[derive(Clone, Debug)]
enum Action {
    /// Append this many tokens, together with this many of the next sequence.
    Feed(usize, usize),
    /// Run every head on what there is.
    Heads,
    /// Run one head on at most this many rows: it, or the depths above it, fall behind.
    Head(usize, usize),
    /// Keep this fraction of the tokens, in percent.
    Keep(usize),
    /// Keep this many tokens, if there are more.
    KeepFirst(usize),
}

fn action() -> impl Strategy<Value = (usize, Action)> {
    let action = prop_oneof![
        3 => (1..9_usize, 0..3_usize).prop_map(|(a, b)| Action::Feed(a, b)),
        1 => (20..40_usize, 0..40_usize).prop_map(|(a, b)| Action::Feed(a, b)),
        2 => Just(Action::Heads),
        2 => (1..=3_usize, 1..9_usize).prop_map(|(k, max)| Action::Head(k, max)),
        2 => (60..=100_usize).prop_map(Action::Keep),
        2 => prop::sample::select(&BOUNDARIES[..]).prop_map(Action::KeepFirst),
    ];
    (0..3_usize, action)
}

/// No decode is longer than this.
const MOST: usize = 120;

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn any_run_of_appending_and_truncating(
        fixture in prop::sample::select(Fixture::all()),
        seed in 0..1000_u64,
        packed in any::<bool>(),
        actions in prop::collection::vec(action(), 1..24),
    ) {
        let model = if packed { fixture.packed(seed) } else { fixture.model(seed) };
        let mut decoder = Decoder::new(&model, 3);
        for (step, (s, action)) in actions.iter().enumerate() {
            let (s, len) = (*s, decoder.tokens(*s).len());
            let new = |n: usize, len: usize, salt: usize| {
                tokens(n.min(MOST.saturating_sub(len)), fixture.vocab, salt)
            };
            match action {
                Action::Feed(n, others) => {
                    let mate = (s + 1) % 3;
                    let (a, b) = (
                        new(*n, len, step),
                        new(*others, decoder.tokens(mate).len(), step + 99),
                    );
                    decoder.feed(&[(mate, &b), (s, &a)]);
                }
                Action::Heads => decoder.heads(&[s]),
                Action::Head(k, max) => decoder.head(*k, &[2, 0, 1], *max),
                Action::Keep(percent) => decoder.truncate(s, len * percent / 100),
                Action::KeepFirst(n) => decoder.truncate(s, *n),
            }
        }
        for s in 0..3 {
            finish_and_check(&fixture, &model, &mut decoder, s, "after a random run");
        }
    }
}

/// Decodes a little further and compares every row of every depth with a fresh decode, and with training.
#[track_caller]
fn finish_and_check(
    fixture: &Fixture,
    model: &Model,
    decoder: &mut Decoder<'_>,
    s: usize,
    what: &str,
) {
    let more = tokens(5, fixture.vocab, 1234);
    decoder.feed(&[(s, &more[..4])]);
    decoder.heads(&[s]);
    decoder.feed(&[(s, &more[4..])]);
    decoder.heads(&[s]);

    let x = decoder.tokens(s).to_vec();
    let mut fresh = Decoder::new(model, 1);
    fresh.feed(&[(0, &x)]);
    fresh.heads(&[0]);
    let what = format!("{fixture:?}, {what}, {} tokens", x.len());
    same_logits(&what, fixture.vocab, decoder.logits(s), fresh.logits(0));
    assert_eq!(decoder.rows(s, fixture.depth), fresh.rows(0, fixture.depth));
    assert_eq!(
        decoder.cache_lengths(s),
        fresh.cache_lengths(0),
        "{what}: positions in the caches"
    );
    let expected = answer(model, &x);
    same_logits(&what, fixture.vocab, fresh.logits(0), &expected);
}

#[test]
fn from_any_boundary_to_any_boundary() {
    for fixture in Fixture::all() {
        let model = fixture.model(6);
        for from in BOUNDARIES {
            for to in BOUNDARIES {
                let mut decoder = Decoder::new(&model, 1);
                decoder.feed(&[(0, &tokens(from, fixture.vocab, 1))]);
                decoder.heads(&[0]);
                // Truncating to more than there is changes nothing.
                decoder.truncate(0, to);
                assert_eq!(decoder.tokens(0).len(), from.min(to));
                let what = format!("truncated from {from} to {to}");
                finish_and_check(&fixture, &model, &mut decoder, 0, &what);
            }
        }
    }
}

/// The executor alone, by cache index: what it holds, what it forgets, and what it ignores.
#[test]
fn lengths_of_caches() {
    let fixture = Fixture::all()[0];
    let model = fixture.model(6);
    let mut decode = CacheExec::new(model.params());
    let (a, b) = (decode.add_sequence(), decode.add_sequence());
    assert_eq!([decode.len(a, 0), decode.len(b, 9)], [0, 0]);
    decode.truncate(a, 0, 0);
    decode.truncate(b, 9, 5);

    let x = tokens(33, fixture.vocab, 0);
    model.trunk(&mut decode, &x, &Rows::one(b, 0, 33));
    let lens =
        |decode: &CacheExec<'_>| [a, b].map(|slot| [0, 1].map(|cache| decode.len(slot, cache)));
    assert_eq!(lens(&decode), [[0, 0], [33, 33]]);
    decode.truncate(b, 1, 40);
    decode.truncate(b, 0, 32);
    assert_eq!(lens(&decode), [[0, 0], [32, 33]]);
    decode.truncate(b, 0, 0);
    decode.truncate(b, 1, 0);
    assert_eq!(lens(&decode), [[0, 0], [0, 0]]);

    // A removed sequence leaves nothing to the one that gets its slot, and nothing happens to the other.
    model.trunk(&mut decode, &x, &Rows::one(a, 0, 33));
    let h = model.trunk(&mut decode, &x[..5], &Rows::one(b, 0, 5));
    decode.store_hidden(0, &Rows::one(b, 0, 5), &h);
    decode.remove_sequence(a);
    assert_eq!(decode.add_sequence(), a);
    assert_eq!(lens(&decode), [[0, 0], [5, 5]]);
    let c = decode.add_sequence();
    assert!(c != a && c != b);
    model.trunk(&mut decode, &x[5..7], &Rows::one(b, 5, 2));
    assert_eq!(lens(&decode), [[0, 0], [7, 7]]);
}

#[test]
#[should_panic(expected = "rows append to cache 0")]
fn rows_that_leave_a_gap_are_refused() {
    let fixture = Fixture::all()[0];
    let model = fixture.model(6);
    let mut decode = CacheExec::new(model.params());
    let s = decode.add_sequence();
    model.trunk(&mut decode, &[1, 2], &Rows::one(s, 0, 2));
    model.trunk(&mut decode, &[3], &Rows::one(s, 3, 1));
}

/// Keys and values of a draft that is not a number, and of one that overflows.
#[test]
fn a_poisoned_draft_leaves_nothing_behind() {
    for fixture in Fixture::all() {
        for (poison, untouched) in [(f32::NAN, false), (f32::INFINITY, false), (0.25, true)] {
            let mut model = fixture.model(7);
            let last = fixture.vocab - 1;
            let id = model.params().find("model.embed_tokens.weight");
            let table = model.params_mut().get_mut(id.expect("every model has one"));
            table.data_mut()[last * 32..].fill(poison);
            let clean = |n: usize, salt| -> Vec<u32> { tokens(n, last, salt) };
            for from in BOUNDARIES {
                let run = |drafts: usize| {
                    let mut decoder = Decoder::new(&model, 1);
                    decoder.feed(&[(0, &clean(from, 2))]);
                    decoder.heads(&[0]);
                    decoder.feed(&[(0, &vec![last as u32; drafts])]);
                    let seen = decoder.logits(0)[0].clone();
                    decoder.heads(&[0]);
                    decoder.truncate(0, from);
                    decoder.feed(&[(0, &clean(3, 3))]);
                    decoder.heads(&[0]);
                    (seen, decoder.logits(0).clone())
                };
                let (seen, got) = run(4);
                // The drafts' own logits show that the poison was in the caches.
                let numbers = seen[from * fixture.vocab..].iter().all(|x| x.is_finite());
                assert_eq!(numbers, untouched, "drafts of {poison}");
                let what = format!("{fixture:?}, drafts of {poison} after {from} tokens");
                same_logits(&what, fixture.vocab, &got, &run(0).1);
            }
        }
    }
}
