//! Matrix multiplication on a device against the CPU's.

use super::devices;
use super::rows::assert_same;
use crate::gpu::{Device, Matrix, matmul_nt};
use crate::kernels::gemm::{self, Beta, Rhs, View};
use crate::simd::matrix::MatrixMut;
use proptest::prelude::*;

/// Values with a prime period, so that swapped blocks cannot cancel, of both signs and many exponents.
fn pattern(n: usize, seed: usize) -> Vec<f32> {
    let value = |i: usize| {
        let x = ((i * 7 + seed * 13) % 251) as f32 - 125.0;
        x * [0.01, 1.3, 7e-4][(i + seed) % 3]
    };
    (0..n).map(value).collect()
}

/// Compares x [m, k] · wᵀ with the CPU's. x and w [n, k] start at these elements of their arrays, and are followed by
/// others.
#[track_caller]
fn check_data(device: &Device, [m, k, n]: [usize; 3], offsets: [usize; 2], x: &[f32], w: &[f32]) {
    let [x_here, w_here] = [(x, offsets[0], m), (w, offsets[1], n)]
        .map(|(data, offset, rows)| View::new(&data[offset..][..rows * k], rows, k));
    let mut expected = vec![0.0; m * n];
    let c = MatrixMut::new(&mut expected, m, n);
    gemm::matmul(x_here, Rhs::View(w_here.t()), c, Beta::Zero);
    let (x, w) = (device.upload(x), device.upload(w));
    let y = matmul_nt(
        &Matrix::new(&x, offsets[0], m, k),
        &Matrix::new(&w, offsets[1], n, k),
    );
    let found = device.download(&y.array).expect("a device that works");
    let what = format!("{m} x {k} x {n}, {offsets:?}, {}", device.name());
    assert_same(&what, &found, &expected);
}

#[track_caller]
fn check(device: &Device, [m, k, n]: [usize; 3], offsets: [usize; 2], seed: usize) {
    let x = pattern(offsets[0] + m * k + 5, seed);
    let w = pattern(offsets[1] + n * k + 5, seed + 1);
    check_data(device, [m, k, n], offsets, &x, &w);
}

#[test]
fn few_rows_on_boundaries() {
    for device in devices() {
        let boundaries = [1, 3, 16, 17, 31, 32, 1, 1, 1, 2];
        let sizes = [
            ([0, 1, 2, 3, 8, 15, 16, 17, 31, 32], [40, 300], [16, 33]),
            (boundaries, [127, 128], [1, 15]),
            (boundaries, [129, 255], [17, 32]),
            (boundaries, [256, 257], [31, 64]),
            (boundaries, [0, 1], [0, 5]),
            (boundaries, [513, 770], [3, 16]),
        ];
        for (rows, ks, ns) in sizes {
            for (seed, m) in rows.into_iter().enumerate() {
                for (k, n) in ks.into_iter().zip(ns) {
                    check(&device, [m, k, n], [0, 0], seed);
                }
            }
        }
    }
}

#[test]
fn many_rows_on_boundaries() {
    for device in devices() {
        let sizes = [
            [33, 0, 3],
            [33, 1, 1],
            [127, 7, 127],
            [128, 8, 128],
            [129, 9, 129],
            [64, 15, 130],
            [130, 16, 64],
            [256, 17, 33],
            [34, 33, 257],
            [40, 24, 200],
        ];
        for (seed, size) in sizes.into_iter().enumerate() {
            check(&device, size, [0, 0], seed);
        }
    }
}

/// Zeros of both signs, subnormals, infinities: no chain is longer than k, and nothing is flushed.
#[test]
fn special_values() {
    let (tiny, huge) = (f32::from_bits(1), f32::MAX);
    let values = [
        -0.0, 0.0, tiny, -tiny, 1e-38, -1e-38, 1e-20, -1e-20, huge, -huge, 1.0, -0.5,
    ];
    for device in devices() {
        for [m, k, n] in [[3, 5, 17], [3, 261, 5], [40, 9, 20], [130, 3, 5]] {
            let x: Vec<f32> = (0..m * k)
                .map(|i| values[i * 5 % 11 % values.len()])
                .collect();
            let w: Vec<f32> = (0..k * n).map(|i| values[(i * 7 + i / 13) % 12]).collect();
            check_data(&device, [m, k, n], [0, 0], &x, &w);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]
    #[test]
    fn any_sizes_and_offsets(
        size in prop_oneof![
            [1_usize..40, 0_usize..40, 1_usize..50],
            [1_usize..33, 200_usize..600, 1_usize..20],
            [100_usize..150, 1_usize..20, 100_usize..150],
        ],
        offsets in [0_usize..9, 0_usize..9],
        seed in 0_usize..1000,
    ) {
        for device in devices() {
            check(&device, size, offsets, seed);
        }
    }
}
