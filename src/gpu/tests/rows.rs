//! Operations on rows: every result is bitwise identical to that of the CPU's operation.

use super::devices;
use crate::autograd::Op;
use crate::gpu::device::{Array, Device, Matrix, THREADS, args};
use crate::gpu::rows;
use crate::kernels::attention::AttentionHeads;
use crate::kernels::{cross_entropy, rope, swiglu};
use crate::ops;
use crate::simd::{self, Kernel, LANES, Simd, math, scalar};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Sizes on, below and above the widths of lanes and blocks.
const SIZES: [usize; 14] = [1, 2, 15, 16, 17, 31, 32, 33, 64, 127, 128, 129, 300, 2100];

/// Numbers of both signs and several magnitudes, a function of the seed.
pub fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let number = |_| {
        let unit = next() as f32 / (1 << 23) as f32 - 1.0;
        unit * [0.01, 1.0, 1.0, 3.0][next() as usize % 4]
    };
    (0..n).map(number).collect()
}

/// Compares bits; all NaNs are one value.
#[track_caller]
pub fn assert_same(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}: number of elements");
    for (i, (x, y)) in got.iter().zip(expected).enumerate() {
        let same = x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
        assert!(same, "{what}: element {i} is {x:e}, not {y:e}");
    }
}

/// A matrix on a device with this number of columns.
pub fn matrix(device: &Device, data: &[f32], cols: usize) -> Matrix {
    Matrix::new(&device.upload(data), 0, data.len() / cols, cols)
}

/// Compares a device's result with the CPU's operation on the same matrices.
#[track_caller]
fn check<const N: usize>(
    device: &Device,
    what: &str,
    got: &Matrix,
    op: impl Op<N>,
    inputs: [(&[f32], usize); N],
) {
    let tensor = |(x, cols): (&[f32], usize)| {
        let x = x.to_vec();
        Arc::new(Tensor::new(&[x.len() / cols, cols], x))
    };
    let tensors = inputs.map(tensor);
    let (expected, _) = op.forward(tensors.each_ref());
    let got = device.download(&got.array).expect("a device that works");
    assert_same(&format!("{}: {what}", device.name()), &got, expected.data());
}

#[test]
fn rows_are_gathered() {
    for device in devices() {
        for c in SIZES {
            let embeddings = numbers(7 * c, 1);
            let there = matrix(&device, &embeddings, c);
            let ids: Arc<[u32]> = [3u32, 0, 6, 6, 1].into();
            let ids_there = device.upload_u32(&ids);
            let y = rows::embedding(&there, &ids_there);
            let op = ops::Embedding { ids };
            check(&device, "embedding", &y, op, [(&embeddings, c)]);
        }
    }
}

#[test]
fn missing_rows_are_nan() {
    for device in devices() {
        let embeddings = matrix(&device, &[1.0; 12], 4);
        let ids = device.upload_u32(&[3, 2, u32::MAX]);
        let y = device.download(&rows::embedding(&embeddings, &ids).array);
        let y = y.expect("a device that works");
        let expected: Vec<f32> = (0..12).map(|i| [f32::NAN, 1.0, f32::NAN][i / 4]).collect();
        assert_same("embedding", &y, &expected);
    }
}

#[test]
fn norms() {
    for device in devices() {
        for c in SIZES.into_iter().chain([4096, 5000]) {
            let (mut x, weight) = (numbers(3 * c, 2), numbers(c, 3));
            let eps = 1e-5;
            // A row of zeros, a NaN in the last lane that is used, and squares that overflow.
            x[c..2 * c].fill(if c % 3 == 0 { 0.0 } else { 1e25 });
            x[3 * c - 1] = if c % 2 == 0 { f32::NAN } else { 1e-30 };
            let [there, weight_there] = [&x, &weight].map(|x| matrix(&device, x, c));
            let y = rows::rms_norm(&there, &weight_there, eps);
            let op = ops::RmsNorm { eps };
            check(&device, "rms_norm", &y, op, [(&x, c), (&weight, c)]);
        }
    }
}

/// (H, G, D) with few and many heads, and heads on, below and above a block's lanes.
pub const HEADS: [AttentionHeads; 7] = [
    heads(1, 1, 2),
    heads(4, 2, 8),
    heads(3, 1, 16),
    heads(2, 2, 34),
    heads(6, 3, 64),
    heads(8, 1, 66),
    heads(2, 1, 128),
];

const fn heads(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> AttentionHeads {
    AttentionHeads {
        num_heads,
        num_kv_heads,
        head_dim,
    }
}

#[test]
fn norms_of_heads() {
    for device in devices() {
        for heads in HEADS {
            let x = numbers(5 * heads.width(), 4);
            let (q, k) = (numbers(heads.head_dim, 5), numbers(heads.head_dim, 6));
            let there = matrix(&device, &x, heads.width());
            let [q_there, k_there] = [&q, &k].map(|x| matrix(&device, x, heads.head_dim));
            let eps = 1e-6;
            let y = rows::qk_norm(&there, &q_there, &k_there, heads, eps);
            let op = ops::QkNorm { heads, eps };
            let inputs = [
                (&*x, heads.width()),
                (&*q, heads.head_dim),
                (&*k, heads.head_dim),
            ];
            check(&device, "qk_norm", &y, op, inputs);
        }
    }
}

#[test]
fn rope_angles() {
    for device in devices() {
        for heads in HEADS {
            let table = Arc::new(rope::RopeTable::new(300, heads.head_dim, 10_000.0));
            let angles = rows::Angles::new(&device, &table);
            // Positions of several sequences, not from 0.
            let positions: Arc<[u32]> = [0u32, 1, 299, 17, 18, 19].into();
            let x = numbers(6 * heads.width(), 7);
            let there = matrix(&device, &x, heads.width());
            let at = device.upload_u32(&positions);
            let y = rows::rope(&there, &angles, heads, &at);
            let op = ops::Rope {
                table,
                heads,
                positions,
            };
            check(&device, "rope", &y, op, [(&x, heads.width())]);
        }
    }
}

#[test]
fn elements() {
    for device in devices() {
        for c in SIZES {
            let (mut x, z, bias) = (numbers(3 * c, 8), numbers(3 * c, 9), numbers(c, 10));
            x[c] = f32::NEG_INFINITY;
            x[c / 2] = -0.0;
            let [there, z_there, bias_there] = [&x, &z, &bias].map(|x| matrix(&device, x, c));
            let y = rows::add(&there, &z_there);
            check(&device, "add", &y, ops::Add, [(&x, c), (&z, c)]);
            let y = rows::add_bias(&there, &bias_there);
            check(&device, "add_bias", &y, ops::AddBias, [(&x, c), (&bias, c)]);
            let y = rows::silu(&there);
            check(&device, "silu", &y, ops::Silu, [(&x, c)]);
            let gu: Vec<f32> = x.iter().chain(&z).copied().collect();
            let y = rows::swiglu(&matrix(&device, &gu, 2 * c));
            let mut expected = vec![0.0; 3 * c];
            swiglu::forward(&gu, c, &mut expected);
            let got = device.download(&y.array).expect("a device that works");
            assert_same(&format!("{}: swiglu", device.name()), &got, &expected);
            for other in [1, 16, 33] {
                let z = numbers(3 * other, 11);
                let y = rows::concat(&there, &matrix(&device, &z, other));
                check(&device, "concat", &y, ops::Concat, [(&x, c), (&z, other)]);
            }
        }
    }
}

/// Logits with ties, and rows without a finite loss.
#[test]
fn losses() {
    for device in devices() {
        for v in SIZES.into_iter().chain([2048, 4097]) {
            let targets: Vec<u32> = (0..10).map(|i| (i * 5 % v) as u32).collect();
            let mut z = numbers(10 * v, 12);
            // The same maximum twice: at the target and before or after it.
            let (one, two) = (targets[2] as usize, v - 1);
            (z[2 * v + one], z[2 * v + two]) = (50.0, 50.0);
            (z[3 * v], z[3 * v + targets[3] as usize]) = (50.0, 50.0);
            // A NaN that the padding of the last lanes replaces.
            z[4 * v + (v / 16 * 16).saturating_sub(1)] = f32::NAN;
            z[4 * v + targets[4] as usize] = 9.0;
            z[5 * v + v / 2] = f32::NAN;
            z[6 * v + v - 1] = f32::NAN;
            z[7 * v..8 * v].fill(f32::NEG_INFINITY);
            z[8 * v + v / 3] = f32::INFINITY;
            z[9 * v..].fill(-0.0);
            let y = rows::cross_entropy(&matrix(&device, &z, v), &device.upload_u32(&targets));
            let got = device.download(&y.array).expect("a device that works");
            let (mut losses, mut hits) = (vec![0.0; 10], vec![0.0; 10]);
            cross_entropy::forward_backward(&mut z, &targets, 1.0, &mut losses, &mut hits);
            assert_same(&format!("losses, V = {v}"), &got[..10], &losses);
            assert_same(&format!("hits, V = {v}"), &got[10..], &hits);
        }
    }
}

/// The functions of `elementary.cu`.
#[derive(Clone, Copy, Debug)]
enum Elementary {
    Exp,
    Ln,
    /// −ln(−ln x) in `f64`, in two words.
    Gumbel,
}

fn elementary(device: &Device, function: Elementary, x: &Array) -> Array {
    let words = if let Elementary::Gumbel = function {
        2
    } else {
        1
    };
    let y = device.empty(words * x.len());
    let args = args![x, &y, x.len(), function as u32];
    let grid = [rows::blocks(x.len()), 1, 1];
    // SAFETY: the kernel's parameters; y has the function's words for each x.
    unsafe { device.launch("elementary", grid, THREADS, &args) };
    y
}

struct Exp<'a>(&'a mut [f32; LANES]);

impl Kernel for Exp<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        s.store(math::exp(s, s.load(self.0)), self.0);
    }
}

#[test]
fn exponentials_and_logarithms() {
    // A prime step covers every exponent and both signs; then the neighbours of every limit.
    let mut x: Vec<f32> = (0..u32::MAX).step_by(30_011).map(f32::from_bits).collect();
    let limits = [
        0.0,
        -0.0,
        1.0,
        -87.3,
        88.722_83,
        f32::MIN_POSITIVE,
        f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
        std::f32::consts::FRAC_1_SQRT_2,
        std::f32::consts::SQRT_2,
    ];
    x.extend(limits.iter().flat_map(|x| [x.next_down(), *x, x.next_up()]));
    x.push(f32::NAN);
    // Few bit patterns lie between the limits of exp.
    x.extend((0..100_000).map(|i| -90.0 + i as f32 * 0.001_8));
    x.resize(x.len().next_multiple_of(LANES), 0.5);
    for device in devices() {
        let there = device.upload(&x);
        for function in [Elementary::Exp, Elementary::Ln] {
            let got = device.download(&elementary(&device, function, &there));
            let got = got.expect("a device that works");
            let mut expected = x.clone();
            match function {
                Elementary::Ln => expected.iter_mut().for_each(|x| *x = math::ln(*x)),
                _ => expected
                    .as_chunks_mut()
                    .0
                    .iter_mut()
                    .for_each(|x| simd::run(Exp(x))),
            }
            assert_same(&format!("{function:?}"), &got, &expected);
        }
    }
}

#[test]
fn noise_of_uniform_numbers() {
    // The generator's numbers are (2 b + 1) 2^-24; these are some of them and both ends.
    let bits = (0..1u32 << 23).step_by(257).chain([(1 << 23) - 1]);
    let x: Vec<f32> = bits
        .map(|b| (2 * b + 1) as f32 / (1 << 24) as f32)
        .collect();
    for device in devices() {
        let y = elementary(&device, Elementary::Gumbel, &device.upload(&x));
        let words = device
            .read_u32(&y, 0..y.len())
            .expect("a device that works");
        for (x, words) in x.iter().zip(words.as_chunks::<2>().0) {
            let got = u64::from(words[1]) << 32 | u64::from(words[0]);
            let expected = -scalar::ln(-scalar::ln(f64::from(*x)));
            assert_eq!(got, expected.to_bits(), "{x:e}: {expected:e}");
        }
    }
}
