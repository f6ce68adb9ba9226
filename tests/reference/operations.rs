//! Every operation of training, forward and backward, against the reference, on every instruction set and with 1, 2
//! and 3 threads.
//!
//! Sizes lie on the boundaries of lanes (16), of panels of columns (32), of chunks of rows (32), and of what kernels
//! give to one thread.

use super::common::{painted, same_bits};
use super::graph::{Graph, Heads, Id};
use super::model::{EPS, THETA};
use super::ours::{self, Ran, everywhere};
use super::rules::Mat;

pub const ROWS: [usize; 13] = [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 161];
const COLS: [usize; 9] = [1, 2, 15, 16, 17, 31, 32, 33, 48];

pub fn mat(rows: usize, cols: usize, salt: usize) -> Mat {
    let data = painted(salt).take(rows * cols).collect();
    Mat { cols, data }
}

#[track_caller]
pub fn same(what: &str, got: &[Vec<f32>], expected: &[Vec<f32>]) {
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
            check("norm and linear", &inputs, reference, ours::rms_norm_linear);
        }
    }
}

#[test]
fn rms_norm_mlp() {
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
            check("gated MLP", &inputs, reference, ours::rms_norm_mlp);
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
