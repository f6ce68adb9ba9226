//! Every form, size, split and instruction set against the chain written out, bit for bit.

use super::*;
use crate::kernels::par::Threads;
use crate::simd::Isa;
use crate::simd::matrix::MatrixMut;

/// Values with a prime period, so that swapped blocks cannot cancel, of both signs and many exponents.
fn pattern(n: usize, seed: usize) -> Vec<f32> {
    (0..n)
        .map(|i| {
            let x = ((i * 7 + seed * 13) % 251) as f32 - 125.0;
            x * [0.01, 1.3, 7e-4][(i + seed) % 3]
        })
        .collect()
}

/// The widened values of b [k, n] in a format, by the definitions, transposed: [n, k].
fn rounded(b: View<'_>, format: WeightFormat) -> Vec<f32> {
    let mut w = Vec::new();
    for j in 0..b.cols() {
        let column: Vec<f32> = (0..b.rows()).map(|k| b.at(k, j)).collect();
        match format {
            WeightFormat::F32 => w.extend(column),
            WeightFormat::Bf16 => w.extend(column.iter().map(|w| {
                // The upper half as it is, or one more: the nearer, and the even one of two equally near. None is near
                // overflow.
                let (upper, lower) = (w.to_bits() >> 16, w.to_bits() & 0xffff);
                let up = lower > 0x8000 || (lower == 0x8000 && upper % 2 == 1);
                f32::from_bits((upper + u32::from(up)) << 16)
            })),
            WeightFormat::Q8 => {
                for block in column.chunks(32) {
                    let scale = block.iter().fold(0.0f32, |m, w| m.max(w.abs())) / 127.0;
                    w.extend(block.iter().map(|w| match scale {
                        0.0 => 0.0,
                        _ => (w / scale).round_ties_even().clamp(-127.0, 127.0) * scale + 0.0,
                    }));
                }
            }
        }
    }
    w
}

/// Rule R1, written out.
fn chains(a: View<'_>, b: View<'_>, c: &mut [f32], beta: Beta) {
    for i in 0..a.rows() {
        for j in 0..b.cols() {
            let c = &mut c[i * b.cols() + j];
            if beta == Beta::Zero {
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
    let (x, w) = (pattern(m * k, 1), pattern(k * n, 2));
    let forms = [
        (View::new(&x, m, k), View::new(&w, n, k).t()),
        (View::new(&x, m, k), View::new(&w, k, n)),
        (View::new(&x, k, m).t(), View::new(&w, k, n)),
    ];
    for (form, (a, b)) in forms.into_iter().enumerate() {
        for beta in [Beta::Zero, Beta::One] {
            let mut expected = pattern(m * n, 3);
            chains(a, b, &mut expected, beta);
            let panels = Panels::pack(b);
            for right in [Rhs::View(b), Rhs::Panels(&panels)] {
                let mut c = pattern(m * n, 3);
                matmul(a, right, MatrixMut::new(&mut c, m, n), beta);
                let same = equal(&c, &expected);
                assert!(same, "form {form}, {m} x {k} x {n}, {beta:?}");
            }
        }
    }
}

fn equal(x: &[f32], y: &[f32]) -> bool {
    x.len() == y.len() && x.iter().zip(y).all(|(x, y)| x.to_bits() == y.to_bits())
}

/// Panels of every format against the chain over the widened values, and these against their definitions.
#[track_caller]
fn check_formats(rows: &[usize], k: usize, n: usize) {
    let w = pattern(k * n, 2);
    // Both ways of packing: neighbours in memory run along k, as in a multiplication by Wᵀ, or along n.
    for b in [View::new(&w, n, k).t(), View::new(&w, k, n)] {
        for format in WeightFormat::ALL {
            let panels = Panels::pack_as(b, format);
            assert_eq!(panels.format(), format);
            let expected = rounded(b, format);
            let mut widened = vec![f32::NAN; n * k];
            panels.widen(&mut widened);
            assert!(equal(&widened, &expected), "{format:?}, [{k}, {n}]");
            for (j, expected) in expected.chunks(k.max(1)).enumerate() {
                let mut column = vec![f32::NAN; k];
                panels.column(j, &mut column);
                assert!(equal(&column, expected), "{format:?}, [{k}, {n}], {j}");
            }
            let b = View::new(&widened, n, k).t();
            for &m in rows {
                let x = pattern(m * k, 1);
                let a = View::new(&x, m, k);
                for beta in [Beta::Zero, Beta::One] {
                    let (mut c, mut expected) = (pattern(m * n, 3), pattern(m * n, 3));
                    chains(a, b, &mut expected, beta);
                    let right = Rhs::Panels(&panels);
                    matmul(a, right, MatrixMut::new(&mut c, m, n), beta);
                    let same = equal(&c, &expected);
                    assert!(same, "{format:?}, {m} x {k} x {n}, {beta:?}");
                }
            }
        }
    }
}

const BOUNDARIES: [usize; 11] = [0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65];

#[test]
fn narrow_weights_on_boundaries() {
    for isa in Isa::all() {
        isa.scope(|| {
            for k in BOUNDARIES {
                for n in BOUNDARIES {
                    check_formats(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 25], k, n);
                }
            }
        });
    }
}

#[test]
fn narrow_weights_in_blocks_and_on_threads() {
    for isa in Isa::all() {
        for threads in [1, 2, 3, 8] {
            let pool = Threads::new(threads).expect("a small pool");
            isa.scope(|| {
                pool.scope(|| {
                    check_formats(&[1, 2, 5, 16], 300, 130);
                    if isa.name() != "portable" && threads < 3 {
                        // More rows than a block of the left operand, and than threads split columns for.
                        check_formats(&[49, 195], 545, 33);
                    }
                });
            });
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
        // One thread, which is given all rows.
        let pool = Threads::new(1).expect("a small pool");
        isa.scope(|| {
            pool.scope(|| {
                for (m, k, n) in [
                    (65, 513, 33),
                    (97, 191, 33),
                    (193, 513, 65),
                    (13, 1024, 33),
                    (49, 1030, 40),
                    (5, 2049, 33),
                ] {
                    if !small || m < 100 {
                        check(m, k, n);
                    }
                }
            });
        });
    }
}

#[test]
fn threads_do_not_show() {
    for threads in [1, 2, 3, 8] {
        Threads::new(threads).expect("a small pool").scope(|| {
            for (m, k, n) in [
                (1, 300, 700),
                (5, 257, 600),
                (49, 100, 130),
                (130, 70, 100),
                (49, 1030, 40),
            ] {
                check(m, k, n);
            }
        });
    }
}

#[test]
fn several_products_are_each_as_if_alone() {
    for threads in [1, 2, 3, 8] {
        Threads::new(threads).expect("a small pool").scope(|| {
            for (m, k, widths) in [
                (1, 300, vec![32, 7, 200]),
                (4, 97, vec![96, 96, 96]),
                (1, 64, vec![1, 700]),
                (5, 40, vec![500]),
                (60, 40, vec![64, 33]),
                (3, 50, vec![400, 0, 31, 32, 33]),
                (0, 5, vec![4, 4]),
            ] {
                let x = pattern(m * k, 1);
                let a = View::new(&x, m, k);
                let w: Vec<Vec<f32>> = widths.iter().map(|n| pattern(k * n, *n)).collect();
                let views: Vec<View<'_>> =
                    w.iter().map(|w| View::new(w, w.len() / k, k).t()).collect();
                let total = widths.iter().sum();
                let mut expected = vec![7.0; m * total];
                let mut rest = MatrixMut::new(&mut expected, m, total);
                for view in &views {
                    let (c, right) = rest.split_cols(view.cols());
                    rest = right;
                    matmul(a, Rhs::View(*view), c, Beta::Zero);
                }
                let panels: Vec<Panels> = views.iter().map(|view| Panels::pack(*view)).collect();
                for packed in [true, false] {
                    let right = |i: usize| {
                        if packed {
                            Rhs::Panels(&panels[i])
                        } else {
                            Rhs::View(views[i])
                        }
                    };
                    let mut c = vec![9.0; m * total];
                    matmul_many(
                        a,
                        (0..views.len()).map(right),
                        MatrixMut::new(&mut c, m, total),
                    );
                    assert!(c == expected, "{m} x {k} x {widths:?}, {threads} threads");
                }
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
    matmul(
        View::new(&x, 1, 2),
        Rhs::View(View::new(&w, 1, 2).t()),
        MatrixMut::new(&mut c, 1, 1),
        Beta::Zero,
    );
    assert_eq!(c, [f32::INFINITY]);
}

#[test]
#[should_panic(expected = "matmul: [2, 3] x [4, 1] -> [2, 1]")]
fn shapes_that_do_not_fit_are_named() {
    matmul(
        View::new(&[0.0; 6], 2, 3),
        Rhs::View(View::new(&[0.0; 4], 4, 1)),
        MatrixMut::new(&mut [0.0; 2], 2, 1),
        Beta::Zero,
    );
}
