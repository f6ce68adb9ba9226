//! Every form, size, split and instruction set against the chain written out, bit for bit.

use super::*;
use crate::kernels::par::Threads;
use crate::simd::Isa;
use crate::simd::matrix::MatrixMut;

/// Values with a prime period, so that swapped blocks cannot cancel, of both signs and many exponents.
fn paint(n: usize, seed: usize) -> Vec<f32> {
    (0..n)
        .map(|i| {
            let x = ((i * 7 + seed * 13) % 251) as f32 - 125.0;
            x * [0.01, 1.3, 7e-4][(i + seed) % 3]
        })
        .collect()
}

/// Rule R1, written out.
fn chains(a: View<'_>, b: View<'_>, c: &mut [f32], start: Start) {
    for i in 0..a.rows() {
        for j in 0..b.cols() {
            let c = &mut c[i * b.cols() + j];
            if start == Start::Zero {
                *c = 0.0;
            }
            for k in 0..a.cols() {
                *c = a.at(i, k).mul_add(b.at(k, j), *c);
            }
        }
    }
}

#[track_caller]
fn check(m: usize, k: usize, n: usize) {
    let (x, w) = (paint(m * k, 1), paint(k * n, 2));
    let forms = [
        (View::new(&x, m, k), View::new(&w, n, k).t()),
        (View::new(&x, m, k), View::new(&w, k, n)),
        (View::new(&x, k, m).t(), View::new(&w, k, n)),
    ];
    for (form, (a, b)) in forms.into_iter().enumerate() {
        for start in [Start::Zero, Start::Continue] {
            let mut expected = paint(m * n, 3);
            chains(a, b, &mut expected, start);
            let panels = Panels::pack(b);
            for right in [Right::Matrix(b), Right::Packed(&panels)] {
                let mut c = paint(m * n, 3);
                product(a, right, MatrixMut::new(&mut c, m, n), start);
                let same = c
                    .iter()
                    .zip(&expected)
                    .all(|(x, y)| x.to_bits() == y.to_bits());
                assert!(same, "form {form}, {m} x {k} x {n}, {start:?}");
            }
        }
    }
}

#[test]
fn sizes_on_boundaries() {
    for isa in Isa::all() {
        isa.scope(|| {
            for m in [0, 1, 2, 3, 5, 6, 7, 11, 12, 13, 25] {
                for k in [0, 1, 15, 16, 17, 40] {
                    for n in [0, 1, 15, 16, 17, 31, 32, 33, 70] {
                        check(m, k, n);
                    }
                }
            }
        });
    }
}

#[test]
fn blocks_of_rows_and_of_k() {
    for isa in Isa::all() {
        let small = isa.name() == "portable";
        isa.scope(|| {
            for (m, k, n) in [(97, 191, 33), (193, 193, 65), (200, 385, 40), (48, 600, 97)] {
                if !small || m < 100 {
                    check(m, k, n);
                }
            }
        });
    }
}

#[test]
fn threads_do_not_show() {
    for threads in [1, 2, 3, 8] {
        Threads::new(threads).expect("a small pool").scope(|| {
            for (m, k, n) in [(1, 300, 700), (5, 257, 600), (49, 100, 130), (130, 70, 100)] {
                check(m, k, n);
            }
        });
    }
}

#[test]
fn zero_times_infinity_is_not_hidden() {
    // Padding k with zeros would turn these into NaN; padding columns must not.
    let x = [f32::INFINITY, 1.0];
    let w = [1.0, f32::INFINITY];
    let mut c = [0.0];
    product(
        View::new(&x, 1, 2),
        Right::Matrix(View::new(&w, 1, 2).t()),
        MatrixMut::new(&mut c, 1, 1),
        Start::Zero,
    );
    assert_eq!(c, [f32::INFINITY]);
}

#[test]
#[should_panic(expected = "product: [2, 3] x [4, 1] -> [2, 1]")]
fn shapes_that_do_not_fit_are_named() {
    product(
        View::new(&[0.0; 6], 2, 3),
        Right::Matrix(View::new(&[0.0; 4], 4, 1)),
        MatrixMut::new(&mut [0.0; 2], 2, 1),
        Start::Zero,
    );
}
