//! Weights in narrow formats: a model whose matrices were rounded is a model like any other, with one answer.
//!
//! For each format: the training forward pass == the same on an unpacked model of the widened weights == prefill in
//! chunks == decoding one by one == verify with rollback, for the trunk and every head, on every instruction set and
//! for 1, 2, 3 and 8 threads. And the weights themselves against the definition of each format.

mod common;

use common::decoder::Decoder;
use common::{Fixture, Logits, answer, on, same_logits, tokens};
use foretoken::model::{HeadKind, Model, Preset, WeightFormat};
use foretoken::simd::Isa;

/// A model of the same numbers in plain `f32` matrices, nothing packed.
fn widened(model: &Model) -> Model {
    let params = model.params();
    Model::from_parts(model.config().clone(), |name, _| {
        let id = params.find(name).expect("a tensor of the same layout");
        Ok(params.get(id).values().into_owned())
    })
    .expect("the same sizes")
}

/// `size` tokens per pass. Each pass ends with two wrong tokens, which are taken back before the heads run.
fn decode(model: &Model, x: &[u32], size: usize, wrong: &[u32]) -> Logits {
    let mut decoder = Decoder::new(model, 1);
    for part in x.chunks(size) {
        let known = decoder.tokens(0).len();
        decoder.feed(&[(0, &[part, wrong].concat())]);
        decoder.truncate(0, known + part.len());
        decoder.heads(&[0]);
    }
    decoder.logits(0).clone()
}

#[test]
fn one_answer_in_every_format() {
    let small = HeadKind::ALL.map(|kind| (Fixture::small(kind, true, true), 33));
    let untied = (Fixture::small(HeadKind::Recursive, false, false), 18);
    // Matrix multiplications that are split over threads and blocks of k.
    let wide = (Fixture::wide(HeadKind::Recursive), 21);
    for (fixture, n) in small.into_iter().chain([untied, wide]) {
        let x = tokens(n, fixture.vocab, 4);
        let exact = answer(&fixture.model(9), &x);
        for format in WeightFormat::ALL {
            let model = fixture.stored(9, format);
            let expected = answer(&model, &x);
            let rounded = format != WeightFormat::F32;
            assert_eq!(expected != exact, rounded, "{fixture:?}, {format:?}");
            for isa in Isa::all() {
                // The portable definition is slow if built without FMA.
                let slow = isa.name() == "portable" && fixture.vocab > 100;
                for threads in if slow { &[3][..] } else { &[1, 2, 3, 8] } {
                    let what = format!(
                        "{fixture:?}, {}, {}, {threads} threads",
                        format.name(),
                        isa.name()
                    );
                    let same = |how: &str, got: &Logits| {
                        same_logits(&format!("{what}, {how}"), fixture.vocab, got, &expected);
                    };
                    on(isa, *threads, || {
                        same("trained", &answer(&model, &x));
                        same("unpacked", &answer(&widened(&model), &x));
                        same("one by one", &decode(&model, &x, 1, &[]));
                        same("verified", &decode(&model, &x, 2, &x[..2]));
                        same("in chunks", &decode(&model, &x, 7, &[]));
                        same("at once", &decode(&model, &x, n, &[]));
                    });
                }
            }
        }
    }
}

#[test]
fn matrices_are_rounded_by_the_definition_and_norm_weights_are_not() {
    let fixture = Fixture::small(HeadKind::Recursive, true, false);
    let exact = fixture.model(2);
    for format in WeightFormat::ALL {
        let stored = fixture.stored(2, format);
        for ((name, w), (_, got)) in exact.params().iter().zip(stored.params().iter()) {
            let packed = got.panels().map(|panels| panels.format());
            let got = got.values();
            let matrix = w.shape().len() == 2;
            assert_eq!(packed, matrix.then_some(format), "{name}");
            let rows = w.data().chunks(w.cols()).zip(got.chunks(w.cols()));
            for (w, got) in rows {
                // Blocks run along the inputs and start again in each row.
                for (w, got) in w.chunks(32).zip(got.chunks(32)) {
                    let largest = w.iter().fold(0.0, |m: f64, w| m.max(f64::from(w.abs())));
                    for (w, got) in w.iter().zip(got) {
                        let (w, got) = (f64::from(*w), f64::from(*got));
                        // Half the distance of bfloat16 numbers, which have eight significant bits; half a scale.
                        let max = match format {
                            _ if !matrix => 0.0,
                            WeightFormat::F32 => 0.0,
                            WeightFormat::Bf16 => w.abs() / 256.0,
                            WeightFormat::Q8 => largest / 127.0 * (0.5 + 2f64.powi(-16)),
                            other => panic!("no bound for {other:?}"),
                        };
                        assert!((w - got).abs() <= max, "{name}: {w:e} became {got:e}");
                        let bits = (got as f32).to_bits();
                        assert!(packed != Some(WeightFormat::Bf16) || bits << 16 == 0);
                    }
                }
            }
        }
    }
}

/// No size leaves a column of a panel unused, so that the bytes follow from the definition of each format.
#[test]
fn the_bytes_that_a_step_reads() {
    for tied in [true, false] {
        let mut config = Preset::Tiny.config(256, HeadKind::Recursive, 2);
        config.tie_word_embeddings = tied;
        let mut model = Model::new(config, 1).expect("valid sizes");
        let (mut matrices, mut weights) = (0, 0);
        for (name, t) in model
            .params()
            .iter()
            .filter(|(n, _)| !n.starts_with("mtp."))
        {
            match t.shape() {
                _ if !tied && name.contains("embed_tokens") => {}
                [n] => weights += n,
                [n, k] => {
                    assert!(n % 32 == 0 && k % 32 == 0, "{name}");
                    matrices += n * k;
                }
                shape => panic!("{name}: {shape:?}"),
            }
        }
        assert_eq!(model.weight_bytes(), 4 * (matrices + weights), "unpacked");
        for (format, bits) in [
            (WeightFormat::F32, 32),
            (WeightFormat::Bf16, 16),
            (WeightFormat::Q8, 9),
        ] {
            model.pack(format);
            assert_eq!(model.weight_bytes(), matrices * bits / 8 + 4 * weights);
        }
    }
}
