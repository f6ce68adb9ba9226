//! Every operation and kernel of training against the reference, on every instruction set and with 1, 2 and 3 threads.
//!
//! Sizes lie on the boundaries of lanes (16), of vectors of output columns (32), of chunks of rows (32), of the norm's
//! chunks (4,096 elements) and of what kernels give to one thread.

use super::common::{painted, same_bits};
use super::graph::{Graph, Heads, Id, cross_entropy, total};
use super::model::{EPS, THETA};
use super::ours::{self, Ran, everywhere};
use super::rules::{AdamW, Mat, Muon, matmul, rate, squared_norm};

const ROWS: [usize; 13] = [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 161];
const COLS: [usize; 9] = [1, 2, 15, 16, 17, 31, 32, 33, 48];

fn mat(rows: usize, cols: usize, salt: usize) -> Mat {
    let data = painted(salt).take(rows * cols).collect();
    Mat { cols, data }
}

#[track_caller]
fn same(what: &str, got: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(got.len(), expected.len(), "{what}: number of results");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        same_bits(&format!("{what}, result {i}"), 1, got, expected);
    }
}

/// Forward, backward, and backward once more into the same accumulators.
#[track_caller]
fn check(
    what: &str,
    inputs: &[Mat],
    reference: impl Fn(&mut Graph, &[Id]) -> Id,
    ours: impl Fn(&[Mat], &Mat) -> Ran + Sync,
) {
    let (mut expected, mut dy) = (Ran::new(), Mat::zeros(1, 1));
    let mut sums: Vec<Mat> = inputs
        .iter()
        .map(|x| Mat::zeros(x.rows(), x.cols))
        .collect();
    for _ in 0..2 {
        let mut graph = Graph::new();
        let parameters = inputs.iter().zip(&sums);
        let parameters = parameters.map(|(x, sum)| graph.parameter(x.clone(), sum.clone()));
        let ids: Vec<Id> = parameters.collect();
        let id = reference(&mut graph, &ids);
        let y = graph.value(id);
        dy = mat(y.rows(), y.cols, 99);
        if expected.is_empty() {
            expected.push(y.data.clone());
        }
        let mut gradients = graph.backward(vec![(id, dy.clone())]);
        sums = ids
            .iter()
            .map(|id| gradients.accumulator(*id).clone())
            .collect();
        expected.extend(sums.iter().map(|sum| sum.data.clone()));
    }
    let shapes: Vec<[usize; 2]> = inputs.iter().map(|x| [x.rows(), x.cols]).collect();
    everywhere(|place| {
        let what = format!("{what} of {shapes:?}, {place}");
        same(&what, &ours(inputs, &dy), &expected);
    });
}

#[test]
fn linear() {
    let one = |rows, c, n| {
        let inputs = [mat(rows, c, 1), mat(n, c, 2)];
        let reference = |g: &mut Graph, x: &[Id]| g.linear(x[0], &x[1..]);
        check("linear", &inputs, reference, ours::linear);
    };
    for rows in ROWS {
        for (c, n) in [(1, 1), (15, 17), (16, 16), (33, 31), (17, 65)] {
            one(rows, c, n);
        }
    }
    // Chains longer than a block of k, forward and backward.
    one(3, 1030, 5);
    one(1030, 3, 5);
    for rows in [1, 31, 33, 70] {
        let inputs = [
            mat(rows, 17, 1),
            mat(16, 17, 2),
            mat(5, 17, 3),
            mat(9, 17, 4),
        ];
        let reference = |g: &mut Graph, x: &[Id]| g.linear(x[0], &x[1..]);
        check("linear, three weights", &inputs, reference, ours::linear);
    }
}

#[test]
fn norms() {
    let reference = |g: &mut Graph, x: &[Id]| g.norm(x[0], EPS as f32, vec![(x[1], 0, 1)]);
    for rows in ROWS {
        for cols in COLS {
            let inputs = [mat(rows, cols, 1), mat(1, cols, 2)];
            check("RMSNorm", &inputs, reference, ours::rms_norm);
        }
    }
    let inputs = [mat(1025, 9, 1), mat(1, 9, 2)];
    check("RMSNorm", &inputs, reference, ours::rms_norm);
}

#[test]
fn heads_are_normalised() {
    for (query, key_value, size) in [(1, 1, 1), (4, 2, 15), (2, 1, 16), (3, 3, 34)] {
        let heads = Heads {
            query,
            key_value,
            size,
        };
        for rows in [1, 31, 32, 33, 65, 97, 160] {
            let inputs = [
                mat(rows, heads.width(), 1),
                mat(1, size, 2),
                mat(1, size, 3),
            ];
            let reference = |g: &mut Graph, x: &[Id]| {
                let segments = vec![(x[1], 0, query), (x[2], query * size, key_value)];
                g.norm(x[0], EPS as f32, segments)
            };
            let ours = |x: &[Mat], dy: &Mat| ours::qk_norm(x, heads, dy);
            check("QK norm", &inputs, reference, ours);
        }
    }
}

/// What is one operation in the crate, to keep less, and several here.
#[test]
fn norm_and_linear_together() {
    for rows in [1, 32, 33, 65, 513, 1025] {
        for (c, n) in [(1, [1, 1, 1]), (16, [32, 16, 16]), (33, [17, 5, 31])] {
            let weights = n.map(|n| mat(n, c, n + 2));
            let inputs = [&[mat(rows, c, 1), mat(1, c, 2)], &weights[..]].concat();
            let reference = |g: &mut Graph, x: &[Id]| {
                let n = g.norm(x[0], EPS as f32, vec![(x[1], 0, 1)]);
                g.linear(n, &x[2..])
            };
            check("norm and linear", &inputs, reference, ours::normed_linear);
        }
    }
}

#[test]
fn gated_mlp() {
    for rows in [1, 32, 33, 65, 513, 1025] {
        for (c, f) in [(1, 1), (16, 33), (17, 15)] {
            let (gate, up, down) = (mat(f, c, 3), mat(f, c, 4), mat(c, f, 5));
            let inputs = [mat(rows, c, 1), mat(1, c, 2), gate, up, down];
            let reference = |g: &mut Graph, x: &[Id]| {
                let n = g.norm(x[0], EPS as f32, vec![(x[1], 0, 1)]);
                let gu = g.linear(n, &x[2..4]);
                let a = g.swiglu(gu);
                g.linear(a, &x[4..])
            };
            check("gated MLP", &inputs, reference, ours::gated_mlp);
        }
    }
}

/// The last sizes are shared out to threads.
const ACTIVATIONS: [(usize, usize); 7] = [
    (1, 1),
    (3, 15),
    (2, 16),
    (5, 17),
    (33, 33),
    (1200, 31),
    (1, 40_000),
];

#[test]
fn activations() {
    let wide = |rows, cols, salt| mat(rows, cols, salt).map(|_, x| x * 9.0);
    for (rows, cols) in ACTIVATIONS {
        let reference = |g: &mut Graph, x: &[Id]| g.swiglu(x[0]);
        check(
            "SwiGLU",
            &[wide(rows, 2 * cols, 1)],
            reference,
            ours::swiglu,
        );
        let reference = |g: &mut Graph, x: &[Id]| g.silu(x[0]);
        check("SiLU", &[wide(rows, cols, 1)], reference, ours::silu);
    }
}

#[test]
fn additions() {
    for (rows, cols) in ACTIVATIONS {
        let inputs = [mat(rows, cols, 1), mat(rows, cols, 2)];
        check("add", &inputs, |g, x| g.add(x[0], x[1]), ours::add);
    }
    for rows in ROWS.into_iter().chain([1025]) {
        for cols in COLS {
            let inputs = [mat(rows, cols, 1), mat(1, cols, 2)];
            let reference = |g: &mut Graph, x: &[Id]| g.add_bias(x[0], x[1]);
            check("bias", &inputs, reference, ours::add_bias);
        }
    }
}

#[test]
fn rows_moved() {
    for (rows, cols) in [(1, 1), (33, 17), (65, 16)] {
        // Every id comes several times.
        let ids: Vec<u32> = (0..rows as u32).map(|i| i * i % 7).collect();
        let ours = |x: &[Mat], dy: &Mat| ours::embedding(x, &ids, dy);
        let reference = |g: &mut Graph, x: &[Id]| g.embedding(x[0], &ids);
        check("embedding", &[mat(7, cols, 1)], reference, ours);

        let keep: Vec<u32> = (0..rows as u32).filter(|r| r % 5 != 3).collect();
        let ours = |x: &[Mat], dy: &Mat| ours::select_rows(x, &keep, dy);
        let reference = |g: &mut Graph, x: &[Id]| g.select_rows(x[0], &keep);
        check("select rows", &[mat(rows, cols, 1)], reference, ours);

        let inputs = [mat(rows, cols, 1), mat(rows, cols + 4, 2)];
        check("concat", &inputs, |g, x| g.concat(x[0], x[1]), ours::concat);
    }
}

const SEQUENCES: [&[usize]; 6] = [&[1], &[15, 1], &[16, 2, 17], &[31, 32], &[33], &[65, 3]];

fn attention_heads() -> [Heads; 4] {
    let heads = |(query, key_value, size)| Heads {
        query,
        key_value,
        size,
    };
    [(1, 1, 2), (4, 2, 8), (2, 1, 34), (6, 2, 16)].map(heads)
}

#[test]
fn rope() {
    for (heads, lengths) in attention_heads()
        .into_iter()
        .zip(SEQUENCES.into_iter().skip(2))
    {
        let inputs = [mat(lengths.iter().sum(), heads.width(), 1)];
        let reference = |g: &mut Graph, x: &[Id]| g.rope(x[0], heads, THETA, lengths);
        let ours = |x: &[Mat], dy: &Mat| ours::rope(x, heads, lengths, dy);
        check("RoPE", &inputs, reference, ours);
    }
}

#[test]
fn attention() {
    for heads in attention_heads() {
        for lengths in SEQUENCES {
            let qkv = mat(lengths.iter().sum(), heads.width(), 1);
            let inputs = [qkv.map(|_, x| x * 3.0)];
            let reference = |g: &mut Graph, x: &[Id]| g.attention(x[0], heads, lengths);
            let ours = |x: &[Mat], dy: &Mat| ours::attention(x, heads, lengths, dy);
            check("attention", &inputs, reference, ours);
        }
    }
}

fn targets(rows: usize, vocab: usize) -> Vec<u32> {
    (0..rows).map(|i| (i * i * 7 % vocab) as u32).collect()
}

#[test]
fn cross_entropies() {
    let mut right = 0.0;
    for rows in [1, 2, 31, 32, 33, 65, 97, 161] {
        for vocab in [1, 2, 15, 16, 17, 31, 32, 33, 300] {
            // A period of 241: a vocabulary of 300 has ties. Some probabilities are 0.
            let z = mat(rows, vocab, 1).map(|_, x| x * 60.0);
            let targets = targets(rows, vocab);
            let (weight, n) = (0.7, rows + 3);
            let factor = (weight / n as f64) as f32;
            let (losses, hits, dz) = cross_entropy(&z, &targets, factor);
            let own = rows as f64;
            let report = [
                weight * (total(&losses) / n as f64),
                total(&losses) / own,
                total(&hits) / own,
            ];
            let report = report.map(|x| x as f32).to_vec();
            let twice = dz.map(|_, d| d + d);
            let expected = [report, dz.data, twice.data];
            everywhere(|place| {
                let what = format!("cross entropy, {rows} of {vocab}, {place}");
                same(
                    &what,
                    &ours::cross_entropy(&z, &targets, weight, n),
                    &expected,
                );
            });
            right += hits.iter().sum::<f32>();
        }
    }
    assert!(right > 100.0, "targets with the largest logit occur");
}

/// The last one is computed in several chunks of rows.
#[test]
fn logits_and_cross_entropy_in_chunks() {
    for (rows, c, vocab) in [(1, 1, 1), (33, 17, 40), (65, 16, 131), (131, 3, 8193)] {
        let (h, w) = (mat(rows, c, 1), mat(vocab, c, 2));
        let (targets, dw, factor) = (targets(rows, vocab), mat(vocab, c, 3), 0.3);
        let z = matmul(&h, &w.t(), Mat::zeros(rows, vocab));
        let (losses, hits, dz) = cross_entropy(&z, &targets, factor);
        let dh = matmul(&dz, &w, Mat::zeros(rows, c)).data;
        let expected = [losses, hits, dh, matmul(&dz.t(), &h, dw.clone()).data];
        everywhere(|place| {
            let what = format!("logits and cross entropy, {rows} of {vocab}, {place}");
            same(
                &what,
                &ours::linear_cross_entropy(&h, &w, &targets, factor, &dw),
                &expected,
            );
        });
    }
}

#[test]
fn sums_of_whole_tensors() {
    let lane = [0, 1, 15, 16, 17, 31, 32, 33];
    let chunk = [4095, 4096, 4097, 8191, 8192, 8193, 12_289, 40_961];
    for n in lane.into_iter().chain(chunk) {
        let x = mat(1, n, 1).data;
        let expected = squared_norm(&x);
        everywhere(|place| {
            let got = ours::squared_norm(&x);
            assert_eq!(got.to_bits(), expected.to_bits(), "{n} elements, {place}");
        });
    }
    for n in ROWS.into_iter().chain([0, 1023, 1025, 4097]) {
        // Of several magnitudes: sums in f64 are rounded too.
        let x = mat(1, n, 2).map(|i, x| x * [1.0, 1e9, 1e-9][i % 3]).data;
        assert_eq!(ours::total(&x).to_bits(), total(&x).to_bits(), "{n} rows");
    }
}

#[test]
fn adamw() {
    for n in [0, 1, 15, 16, 17, 33, 16_383, 16_384, 16_385, 40_000] {
        let mut expected = [mat(1, n, 1).data, vec![0.0; n], vec![0.0; n]];
        let starts = expected.clone();
        let step = |t: usize| AdamW {
            rate: 0.01,
            betas: [0.9, 0.95],
            eps: 1e-8,
            clip: [1.0, 0.3, 0.7][t % 3],
            decay: [0.1, 0.1, 0.0][t % 3],
            step: t as u64 + 1,
        };
        for t in 0..3 {
            let [w, m, v] = &mut expected;
            step(t).update(w, m, v, &mat(1, n, t + 5).data);
        }
        everywhere(|place| {
            let mut got = starts.clone();
            for t in 0..3 {
                let [w, m, v] = &mut got;
                ours::adamw(step(t), w, m, v, &mat(1, n, t + 5).data);
            }
            same(&format!("AdamW, {n} elements, {place}"), &got, &expected);
        });
    }
}

#[test]
fn muon() {
    let shapes = [
        (1, 1),
        (1, 17),
        (16, 16),
        (15, 33),
        (33, 15),
        (3, 50),
        (65, 64),
        (2, 16_400),
    ];
    for (rows, cols) in shapes {
        let n = rows * cols;
        let (start, zeros) = (mat(rows, cols, 1), vec![0.0; n]);
        let (mut w, mut m) = (start.clone(), zeros.clone());
        let step = |t: usize| Muon {
            rate: 0.01,
            momentum: 0.95,
            clip: [1.0, 0.3, 0.7][t % 3],
            decay: 0.1,
        };
        for t in 0..3 {
            step(t).update(&mut w, &mut m, &mat(1, n, t + 5).data);
        }
        everywhere(|place| {
            let (mut got, mut momentum) = (start.clone(), zeros.clone());
            for t in 0..3 {
                ours::muon(step(t), &mut got, &mut momentum, &mat(1, n, t + 5).data);
            }
            let what = format!("Muon, {rows} x {cols}, {place}");
            same(&what, &[got.data, momentum], &[w.data.clone(), m.clone()]);
        });
    }
}

#[test]
fn learning_rates() {
    for (steps, warmup) in [(1, 0), (1, 3), (5, 5), (40, 2), (203, 10)] {
        for (step, wsd) in (0..steps + 2).flat_map(|step| [(step, true), (step, false)]) {
            let got = ours::rate(3e-3, step, warmup, steps, wsd);
            let expected = rate(3e-3, step, warmup, steps, wsd);
            assert_eq!(
                got.to_bits(),
                expected.to_bits(),
                "step {step} of {steps}, wsd {wsd}"
            );
        }
    }
}
