//! Products on a device against those of the CPU.

use crate::devices;
use foretoken::gpu::Device;
use foretoken::gpu::products::{Matrix, matmul};
use foretoken::kernels::gemm::{self, Right, Start, View};
use foretoken::simd::matrix::MatrixMut;
use proptest::prelude::*;

/// Values with a prime period, so that swapped blocks cannot cancel, of both signs and many exponents.
fn pattern(n: usize, seed: usize) -> Vec<f32> {
    let value = |i: usize| {
        let x = ((i * 7 + seed * 13) % 251) as f32 - 125.0;
        x * [0.01, 1.3, 7e-4][(i + seed) % 3]
    };
    (0..n).map(value).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// How an operand lies in memory.
#[derive(Clone, Copy, Debug)]
struct Lie {
    /// Columns are neighbours, not rows.
    turned: bool,
    /// Elements before it, and unused ones after each of its rows, or columns.
    at: usize,
    gap: usize,
}

impl Lie {
    const PLAIN: Self = Self {
        turned: false,
        at: 0,
        gap: 0,
    };
    const TURNED: Self = Self {
        turned: true,
        ..Self::PLAIN
    };

    /// Elements of a [rows, cols] matrix with everything around it.
    fn len(self, rows: usize, cols: usize) -> usize {
        let (rows, cols) = if self.turned {
            (cols, rows)
        } else {
            (rows, cols)
        };
        rows * (self.at + cols + self.gap)
    }

    /// The same matrix on the CPU and on the device.
    fn of<'a>(
        self,
        data: &'a [f32],
        array: &'a foretoken::gpu::Array,
        rows: usize,
        cols: usize,
    ) -> (View<'a>, Matrix<'a>) {
        let (r, c) = if self.turned {
            (cols, rows)
        } else {
            (rows, cols)
        };
        let width = self.at + c + self.gap;
        let (from, to) = (self.at, self.at + c);
        let here = View::new(data, r, width).columns(from, to);
        let there = Matrix::new(array, r, width).columns(from, to);
        match self.turned {
            true => (here.t(), there.t()),
            false => (here, there),
        }
    }
}

/// a [m, k] times b [k, n], from zero and going on.
#[track_caller]
fn check(device: &Device, [m, k, n]: [usize; 3], [a, b, c]: [Lie; 3], salt: usize) {
    assert!(!c.turned);
    let (a_data, b_data) = (pattern(a.len(m, k), salt), pattern(b.len(k, n), salt + 1));
    let (a_there, b_there) = (device.upload(&a_data), device.upload(&b_data));
    let (a_here, a_there) = a.of(&a_data, &a_there, m, k);
    let (b_here, b_there) = b.of(&b_data, &b_there, k, n);
    let before = pattern(c.len(m, n), salt + 2);
    for start in [Start::Zero, Start::Continue] {
        let mut expected = before.clone();
        let mut packed = vec![0.0; m * n];
        let width = c.at + n + c.gap;
        for i in 0..m {
            packed[i * n..][..n].copy_from_slice(&expected[i * width + c.at..][..n]);
        }
        gemm::matmul(
            a_here,
            Right::View(b_here),
            MatrixMut::new(&mut packed, m, n),
            start,
        );
        for i in 0..m {
            expected[i * width + c.at..][..n].copy_from_slice(&packed[i * n..][..n]);
        }
        let array = device.upload(&before);
        let c_there = Matrix::new(&array, m, width).columns(c.at, c.at + n);
        matmul(device, a_there, b_there, c_there, start);
        let found = device.download(&array).expect("a device that works");
        // What lies between the rows of c as well.
        let same = bits(&found) == bits(&expected);
        assert!(
            same,
            "{m} x {k} x {n}, {start:?}, {a:?}, {b:?}, {c:?}, {device:?}"
        );
    }
}

/// y = x Wᵀ, dx = dy W, dW = dyᵀ x.
const FORMS: [[Lie; 2]; 3] = [
    [Lie::PLAIN, Lie::TURNED],
    [Lie::PLAIN, Lie::PLAIN],
    [Lie::TURNED, Lie::PLAIN],
];

#[test]
fn few_rows_on_boundaries() {
    for device in devices() {
        let sizes = [
            ([0, 1, 2, 3, 8, 15, 16, 17, 31, 32], [40, 300], [16, 33]),
            ([1, 3, 16, 17, 31, 32, 1, 1, 1, 2], [127, 128], [1, 15]),
            ([1, 3, 16, 17, 31, 32, 1, 1, 1, 2], [129, 255], [17, 32]),
            ([1, 3, 16, 17, 31, 32, 1, 1, 1, 2], [256, 257], [31, 64]),
            ([1, 3, 16, 17, 31, 32, 1, 1, 1, 2], [0, 1], [0, 5]),
            ([1, 3, 16, 17, 31, 32, 1, 1, 1, 2], [513, 770], [3, 16]),
        ];
        for (rows, ks, ns) in sizes {
            for (salt, m) in rows.into_iter().enumerate() {
                for (k, n) in ks.into_iter().zip(ns) {
                    check(
                        &device,
                        [m, k, n],
                        [Lie::PLAIN, Lie::TURNED, Lie::PLAIN],
                        salt,
                    );
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
            [1, 24, 200],
        ];
        for (salt, size) in sizes.into_iter().enumerate() {
            for [a, b] in FORMS {
                check(&device, size, [a, b, Lie::PLAIN], salt);
            }
            check(&device, size, [Lie::TURNED, Lie::TURNED, Lie::PLAIN], salt);
        }
    }
}

/// Zeros of both signs, subnormals, infinities: no chain may be longer than k, and nothing may be flushed.
#[test]
fn special_values() {
    let (tiny, huge) = (f32::from_bits(1), f32::MAX);
    let values = [
        -0.0, 0.0, tiny, -tiny, 1e-38, -1e-38, 1e-20, -1e-20, huge, -huge, 1.0, -0.5,
    ];
    for device in devices() {
        for (m, k, n) in [(3, 5, 17), (3, 261, 5), (40, 9, 20), (130, 3, 5)] {
            let a: Vec<f32> = (0..m * k)
                .map(|i| values[i * 5 % 11 % values.len()])
                .collect();
            let w: Vec<f32> = (0..k * n).map(|i| values[(i * 7 + i / 13) % 12]).collect();
            let (a_here, w_here) = (View::new(&a, m, k), View::new(&w, n, k).t());
            let mut expected = vec![0.0; m * n];
            let c = MatrixMut::new(&mut expected, m, n);
            gemm::matmul(a_here, Right::View(w_here), c, Start::Zero);
            let (a, w, c) = (device.upload(&a), device.upload(&w), device.empty(m * n));
            let (a, w) = (Matrix::new(&a, m, k), Matrix::new(&w, n, k).t());
            matmul(&device, a, w, Matrix::new(&c, m, n), Start::Zero);
            let found = device.download(&c).expect("a device that works");
            // All NaNs are one value.
            let same =
                |(x, y): (&f32, &f32)| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
            assert!(
                found.iter().zip(&expected).all(same),
                "{m} x {k} x {n}, {device:?}"
            );
        }
    }
}

fn lie(turned: impl Strategy<Value = bool>) -> impl Strategy<Value = Lie> {
    (turned, 0_usize..6, 0_usize..6).prop_map(|(turned, at, gap)| Lie { turned, at, gap })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]
    #[test]
    fn any_sizes_and_strides(
        size in prop_oneof![
            [1_usize..40, 0_usize..40, 1_usize..50],
            [1_usize..33, 200_usize..600, 1_usize..20],
            [100_usize..150, 1_usize..20, 100_usize..150],
        ],
        a in lie(any::<bool>()),
        b in lie(any::<bool>()),
        c in lie(Just(false)),
        salt in 0_usize..1000,
    ) {
        for device in devices() {
            check(&device, size, [a, b, c], salt);
        }
    }
}
