//! Muon (Jordan et al. 2024): momentum, made orthogonal, as the update of a matrix.
//!
//! For w, m, g `[rows, cols]`, by exactly this sequence:
//!
//! ```text
//! g' = g · clip
//! m  = fma(μ, m, g')
//! u  = fma(μ, m, g')                                     Nesterov's look ahead
//! n  = √(Σ u²) + 1e-7                                    the sum by rule R9, in f64
//! X  = u · (1 / n)                                       the factor rounded once to f32
//! five times, for rows <= cols:   A = X Xᵀ   B = fma(c, A A, b·A)   X = a·X + B X      (multiplied by rule R1)
//!             for rows >  cols:   A = Xᵀ X   B = fma(c, A A, b·A)   X = a·X + X B
//! w  = fma(−lr, fma(weight_decay, w, scale · X), w)      scale = 0.2 · √max(rows, cols)
//! ```
//!
//! `a·X + B X` is one chain for each element: it starts at a·X, rounded. The coefficients a, b, c = 3.4445, −4.7750,
//! 2.0315 are Jordan's, each an `f32` constant. The polynomial a x + b x³ + c x⁵, applied five times, moves every
//! singular value from 0.002 to 1 into 0.68..1.21. The two forms give a matrix that is not square and its transpose the
//! same bits from the same X, because A and B are symmetric to the bit: elements (i, j) and (j, i) are one chain of the
//! same factors. The scale is that of Liu et al. 2025 ("Muon is scalable for LLM training", section 2.2): the update
//! has the size of AdamW's, so that AdamW's learning rate and weight decay carry over.

use super::elementwise::{self, Elementwise};
use super::gemm::{Beta, Rhs, View, matmul};
use super::reduce;
use crate::simd::Simd;
use crate::simd::matrix::MatrixMut;

/// Coefficients a, b, c of the polynomial.
const A: f32 = 3.4445;
const B: f32 = -4.775;
const C: f32 = 2.0315;
/// Times that the polynomial is applied.
const ITERATIONS: usize = 5;
/// Keeps a gradient of zero from being divided by zero.
const EPS: f64 = 1e-7;

/// The numbers of one step, each rounded once from `f64`.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Learning rate of this step.
    pub lr: f32,
    /// μ
    pub momentum: f32,
    /// Factor of the gradient: 1, or less if its norm was too large.
    pub clip: f32,
    /// Weight decay.
    pub weight_decay: f32,
}

/// w, m, g [rows, cols]; w and m are updated.
///
/// # Panics
/// Panics if a slice does not have the length of the matrix.
#[track_caller]
pub fn update(step: Step, rows: usize, cols: usize, w: &mut [f32], m: &mut [f32], g: &[f32]) {
    let lengths = [w.len(), m.len(), g.len()];
    assert!(
        lengths == [rows * cols; 3],
        "muon::update: w, m, g of {lengths:?} elements for [{rows}, {cols}]"
    );
    let mut u = vec![0.0; w.len()];
    elementwise::update("muon::update", Momentum(step), [m, &mut u], [g]);
    let x = orthogonal(u, rows, cols);
    let scale = (0.2 * (rows.max(cols) as f64).sqrt()) as f32;
    elementwise::update("muon::update", Move { step, scale }, [w], [&x]);
}

/// u [rows, cols] -> a matrix near the orthogonal one closest to u, its singular values about 1.
pub fn orthogonal(mut u: Vec<f32>, rows: usize, cols: usize) -> Vec<f32> {
    let norm = reduce::squared_norm(&u).sqrt() + EPS;
    scale((1.0 / norm) as f32, &mut u);
    iterate(u, rows, cols)
}

/// The polynomial, five times; x [rows, cols] with a norm of 1 at most.
fn iterate(mut x: Vec<f32>, rows: usize, cols: usize) -> Vec<f32> {
    let n = rows.min(cols);
    let (mut y, mut gram, mut square) = (vec![0.0; x.len()], vec![0.0; n * n], vec![0.0; n * n]);
    for _ in 0..ITERATIONS {
        let whole = View::new(&x, rows, cols);
        let short = if rows <= cols { whole } else { whole.t() };
        let mut c = MatrixMut::new(&mut gram, n, n);
        matmul(short, Rhs::View(short.t()), c.reborrow(), Beta::Zero);
        let a = View::new(&gram, n, n);
        let c = MatrixMut::new(&mut square, n, n);
        matmul(a, Rhs::View(a), c, Beta::Zero);
        elementwise::update("muon", Combine, [&mut square], [&gram]);
        y.copy_from_slice(&x);
        scale(A, &mut y);
        let (b, c) = (View::new(&square, n, n), MatrixMut::new(&mut y, rows, cols));
        if rows <= cols {
            matmul(b, Rhs::View(whole), c, Beta::One);
        } else {
            matmul(whole, Rhs::View(b), c, Beta::One);
        }
        std::mem::swap(&mut x, &mut y);
    }
    x
}

/// x = factor · x
fn scale(factor: f32, x: &mut [f32]) {
    elementwise::update("muon", Scale(factor), [x], []);
}

#[derive(Clone, Copy)]
struct Scale(f32);

impl Elementwise<1, 0> for Scale {
    #[inline(always)]
    fn lanes<S: Simd>(self, s: S, [x]: [S::V; 1], []: [S::V; 0]) -> [S::V; 1] {
        [s.mul(x, s.splat(self.0))]
    }
}

/// m and u from g.
#[derive(Clone, Copy)]
struct Momentum(Step);

impl Elementwise<2, 1> for Momentum {
    #[inline(always)]
    fn lanes<S: Simd>(self, s: S, [m, _]: [S::V; 2], [g]: [S::V; 1]) -> [S::V; 2] {
        let momentum = s.splat(self.0.momentum);
        let grad = s.mul(g, s.splat(self.0.clip));
        let mean = s.fma(momentum, m, grad);
        [mean, s.fma(momentum, mean, grad)]
    }
}

/// square = fma(c, square, b · gram)
#[derive(Clone, Copy)]
struct Combine;

impl Elementwise<1, 1> for Combine {
    #[inline(always)]
    fn lanes<S: Simd>(self, s: S, [square]: [S::V; 1], [gram]: [S::V; 1]) -> [S::V; 1] {
        [s.fma(s.splat(C), square, s.mul(s.splat(B), gram))]
    }
}

/// w from X.
#[derive(Clone, Copy)]
struct Move {
    step: Step,
    scale: f32,
}

impl Elementwise<1, 1> for Move {
    #[inline(always)]
    fn lanes<S: Simd>(self, s: S, [w]: [S::V; 1], [x]: [S::V; 1]) -> [S::V; 1] {
        let u = s.mul(s.splat(self.scale), x);
        let move_by = s.fma(s.splat(self.step.weight_decay), w, u);
        [s.fma(s.splat(-self.step.lr), move_by, w)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::par::Threads;
    use crate::simd::Isa;

    fn pattern(n: usize, salt: usize) -> Vec<f32> {
        let value = |i: usize| ((i * 29 + salt * 17) % 241) as f32 / 120.0 - 1.0;
        (0..n).map(value).collect()
    }

    fn transposed<T: Copy>(x: &[T], rows: usize, cols: usize) -> Vec<T> {
        let at = |i: usize| x[i % rows * cols + i / rows];
        (0..x.len()).map(at).collect()
    }

    /// a [n, k] · b [k, m] in `f64`.
    fn times(a: &[f64], b: &[f64], n: usize, k: usize, m: usize) -> Vec<f64> {
        let at = |i: usize| (0..k).map(|l| a[i / m * k + l] * b[l * m + i % m]).sum();
        (0..n * m).map(at).collect()
    }

    /// Jordan's five lines in `f64`, always as X = a X + (b X Xᵀ + c (X Xᵀ)²) X.
    fn reference(u: &[f64], rows: usize, cols: usize) -> Vec<f64> {
        let norm = u.iter().map(|x| x * x).sum::<f64>().sqrt() + 1e-7;
        let mut x: Vec<f64> = u.iter().map(|x| x / norm).collect();
        for _ in 0..5 {
            let gram = times(&x, &transposed(&x, rows, cols), rows, cols, rows);
            let square = times(&gram, &gram, rows, rows, rows);
            let pairs = gram.iter().zip(&square);
            let b: Vec<f64> = pairs.map(|(g, s)| -4.775 * g + 2.0315 * s).collect();
            let bx = times(&b, &x, rows, rows, cols);
            x = x.iter().zip(bx).map(|(x, y)| 3.4445 * x + y).collect();
        }
        x
    }

    const SHAPES: [[usize; 2]; 7] = [
        [1, 1],
        [1, 17],
        [16, 16],
        [15, 33],
        [33, 15],
        [48, 40],
        [3, 50],
    ];

    #[test]
    fn updates_follow_the_paper() {
        for shape @ [rows, cols] in SHAPES {
            let n = rows * cols;
            let step = Step {
                lr: 0.01,
                momentum: 0.95,
                clip: 0.5,
                weight_decay: 0.1,
            };
            let (mut w, mut m) = (pattern(n, 3), vec![0.0; n]);
            let mut exact: Vec<f64> = w.iter().map(|x| f64::from(*x)).collect();
            let mut mean = vec![0.0; n];
            for t in 0..3 {
                let g = pattern(n, t + 5);
                update(step, rows, cols, &mut w, &mut m, &g);
                let mut ahead = vec![0.0; n];
                for i in 0..n {
                    let g = f64::from(g[i]) * 0.5;
                    mean[i] = 0.95 * mean[i] + g;
                    ahead[i] = 0.95 * mean[i] + g;
                }
                let scale = 0.2 * (rows.max(cols) as f64).sqrt();
                for (w, x) in exact.iter_mut().zip(reference(&ahead, rows, cols)) {
                    *w -= 0.01 * (scale * x + 0.1 * *w);
                }
            }
            for (i, (w, exact)) in w.iter().zip(&exact).enumerate() {
                assert!(
                    (f64::from(*w) - exact).abs() < 3e-5,
                    "{shape:?}, {i}: {w}, {exact}"
                );
            }
        }
    }

    /// (1 − 2 v vᵀ / |v|²) a for a [n, m] and v `[n]`: an orthogonal matrix times a.
    fn reflect(v: &[f64], a: &[f64], m: usize) -> Vec<f64> {
        let square: f64 = v.iter().map(|x| x * x).sum();
        let along = times(v, a, 1, v.len(), m);
        let at = |i: usize| a[i] - 2.0 * v[i / m] * along[i % m] / square;
        (0..a.len()).map(at).collect()
    }

    /// U S V with reflections U and V has the singular values of S, which here are known. U X V then has those of X: X
    /// may only have moved the values, so it is nearly diagonal, and each singular value is as near to an element of
    /// the diagonal as the rest is large (Weyl's inequality, with the Frobenius norm of the rest).
    #[test]
    fn singular_values_end_near_one() {
        for [rows, cols] in [[24, 60], [60, 24], [32, 32], [1, 9]] {
            let n = rows.min(cols);
            let [u, v] = [(rows, 1), (cols, 2)].map(|(n, salt)| {
                let v = pattern(n, salt).into_iter();
                v.map(f64::from).collect::<Vec<_>>()
            });
            // Both reflections are their own inverse.
            let turn = |a: &[f64]| {
                let a = reflect(&u, a, cols);
                let a = reflect(&v, &transposed(&a, rows, cols), rows);
                transposed(&a, cols, rows)
            };
            // From 1 down to 0.006, which is more than 0.002 of the norm.
            let mut s = vec![0.0; rows * cols];
            let value = |i: usize| 0.006_f64.powf(i as f64 / n.max(2) as f64);
            (0..n).for_each(|i| s[i * cols + i] = value(i));
            let norm = s.iter().map(|x| x * x).sum::<f64>().sqrt();
            assert!((0..n).all(|i| value(i) / norm > 0.002));

            let start = turn(&s).iter().map(|x| *x as f32).collect();
            let x = orthogonal(start, rows, cols);
            let mut d = turn(&x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
            let diagonal: Vec<f64> = (0..n)
                .map(|i| std::mem::take(&mut d[i * cols + i]))
                .collect();
            let rest = d.iter().map(|x| x * x).sum::<f64>().sqrt();
            assert!(rest < 5e-4, "{rows} x {cols}: {rest}");
            for (i, x) in diagonal.into_iter().enumerate() {
                let within = 0.68 < x - rest && x + rest < 1.21;
                assert!(within, "{rows} x {cols}, value {i}: {x} from {}", value(i));
            }
        }
    }

    #[test]
    fn a_transposed_matrix_has_the_transposed_answer() {
        for [rows, cols] in SHAPES.into_iter().filter(|[rows, cols]| rows != cols) {
            let mut u = pattern(rows * cols, 2);
            scale(1.0 / (rows * cols) as f32, &mut u);
            let x = iterate(u.clone(), rows, cols);
            let y = iterate(transposed(&u, rows, cols), cols, rows);
            assert_eq!(transposed(&x, rows, cols), y, "{rows} x {cols}");
        }
    }

    #[test]
    fn a_gradient_of_zero_moves_nothing_but_decay() {
        let step = Step {
            lr: 0.5,
            momentum: 0.95,
            clip: 1.0,
            weight_decay: 0.0,
        };
        let (mut w, mut m) = (pattern(12, 1), vec![0.0; 12]);
        update(step, 3, 4, &mut w, &mut m, &[0.0; 12]);
        assert_eq!((w, m), (pattern(12, 1), vec![0.0; 12]));
    }

    #[test]
    fn one_answer_on_every_instruction_set_and_number_of_threads() {
        let step = Step {
            lr: 0.1,
            momentum: 0.95,
            clip: 0.7,
            weight_decay: 0.1,
        };
        for [rows, cols] in [[33, 130], [150, 120]] {
            let n = rows * cols;
            let run = || {
                let (mut w, mut m) = (pattern(n, 1), pattern(n, 2));
                update(step, rows, cols, &mut w, &mut m, &pattern(n, 3));
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                (bits(&w), bits(&m))
            };
            let expected = run();
            for isa in Isa::all() {
                for threads in [1, 2, 3, 8] {
                    let pool = Threads::new(threads).expect("a small pool");
                    let got = isa.scope(|| pool.scope(run));
                    assert!(got == expected, "{}, {threads} threads", isa.name());
                }
            }
        }
    }
}
