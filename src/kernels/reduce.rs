//! Reductions with a fixed order: along a row by rule R2, over rows by rule R3, whole tensors by rule R9.

use super::par;
use crate::simd::{self, Kernel, LANES, Simd, math};
use std::ops::AddAssign;

/// Rows of a chunk whose partial sum is one leaf of the tree of rule R3.
pub const CHUNK_ROWS: usize = 32;
/// Elements of a chunk in a squared norm (rule R9).
pub const NORM_CHUNK: usize = 4096;

/// Σ `x[i] y[i]` by rule R2: lane i mod 16 accumulates by fma, then the lanes fold.
///
/// # Panics
/// Panics if the lengths differ.
#[inline(always)]
pub fn dot<S: Simd>(s: S, x: &[f32], y: &[f32]) -> f32 {
    let (x_len, y_len) = (x.len(), y.len());
    assert_eq!(x_len, y_len, "reduce::dot: [{x_len}] · [{y_len}]");
    let mut acc = s.splat(0.0);
    for (x, y) in x.chunks(LANES).zip(y.chunks(LANES)) {
        acc = s.fma(s.load_partial(x, 0.0), s.load_partial(y, 0.0), acc);
    }
    s.sum(acc)
}

/// max `x[i]` by rule R2; −∞ for an empty row.
#[inline(always)]
pub fn maximum<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut acc = s.splat(f32::NEG_INFINITY);
    for x in x.chunks(LANES) {
        acc = s.max(acc, s.load_partial(x, f32::NEG_INFINITY));
    }
    s.maximum(acc)
}

/// x becomes exp(x − max); returns the sum of that by rule R2.
#[inline(always)]
pub fn exponentials<S: Simd>(s: S, x: &mut [f32], max: f32) -> f32 {
    let max = s.splat(max);
    let mut acc = s.splat(0.0);
    for x in x.chunks_mut(LANES) {
        let e = math::exp(s, s.sub(s.load_partial(x, f32::NEG_INFINITY), max));
        s.store_partial(e, x);
        acc = s.add(acc, e);
    }
    s.sum(acc)
}

/// Adds partial sums, neighbours first: a tree whose shape depends on their number only (rule R3).
///
/// partials [n, width] -> total `[width]`, +0 if n is 0
///
/// # Panics
/// Panics if the partials are not rows of `width`.
#[track_caller]
pub fn fold_tree<T: Copy + Default + AddAssign>(mut partials: Vec<T>, width: usize) -> Vec<T> {
    let len = partials.len();
    let n = len.checked_div(width).unwrap_or(0);
    assert!(
        len == n * width,
        "reduce::fold_tree: {len} partials in rows of {width}"
    );
    let mut step = 1;
    while step < n {
        for i in (0..n - step).step_by(2 * step) {
            let (left, right) = partials.split_at_mut((i + step) * width);
            let left = &mut left[i * width..][..width];
            for (x, y) in left.iter_mut().zip(&right[..width]) {
                *x += *y;
            }
        }
        step *= 2;
    }
    partials.resize(width, T::default());
    partials
}

/// Σ `x[i]` in `f64` by rule R3: chunks of [`CHUNK_ROWS`] ascending, then the tree.
pub fn total(x: &[f32]) -> f64 {
    let chunk = |x: &[f32]| x.iter().fold(0.0, |sum, x| sum + f64::from(*x));
    fold_tree(x.chunks(CHUNK_ROWS).map(chunk).collect(), 1)[0]
}

/// Σ `x[i]`² by rule R9: chunks of [`NORM_CHUNK`] by rule R2, added in `f64` in order.
pub fn squared_norm(x: &[f32]) -> f64 {
    struct Chunk<'a>(&'a [f32]);
    impl Kernel<f32> for Chunk<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> f32 {
            dot(s, self.0, self.0)
        }
    }
    let mut sums = vec![0.0; x.len().div_ceil(NORM_CHUNK)];
    // Chunks are computed by any thread and added by one.
    let each = par::part(sums.len(), 1, 1).max(4);
    let tasks = sums.chunks_mut(each).zip(x.chunks(each * NORM_CHUNK));
    par::for_each(tasks, |(sums, x)| {
        for (sum, x) in sums.iter_mut().zip(x.chunks(NORM_CHUNK)) {
            *sum = simd::run(Chunk(x));
        }
    });
    sums.into_iter()
        .fold(0.0, |total, sum| total + f64::from(sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Isa;

    struct Both<'a>(&'a [f32], &'a [f32]);

    impl Kernel<(f32, f32)> for Both<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> (f32, f32) {
            (dot(s, self.0, self.1), maximum(s, self.0))
        }
    }

    /// Rule R2, written out.
    fn by_lanes(x: &[f32], y: &[f32]) -> (f32, f32) {
        let (mut sum, mut max) = ([0.0f32; 16], [f32::NEG_INFINITY; 16]);
        for i in 0..x.len().next_multiple_of(16) {
            let (a, b) = if i < x.len() {
                (x[i], y[i])
            } else {
                (0.0, 0.0)
            };
            sum[i % 16] = a.mul_add(b, sum[i % 16]);
            let a = if i < x.len() { a } else { f32::NEG_INFINITY };
            max[i % 16] = if max[i % 16] > a { max[i % 16] } else { a };
        }
        for w in [8, 4, 2, 1] {
            for j in 0..w {
                sum[j] += sum[j + w];
                max[j] = if max[j] > max[j + w] {
                    max[j]
                } else {
                    max[j + w]
                };
            }
        }
        (sum[0], max[0])
    }

    #[test]
    fn rows_reduce_by_lanes() {
        let x: Vec<f32> = (0..100)
            .map(|i| ((i * 37) % 101) as f32 * 0.3 - 12.0)
            .collect();
        let y: Vec<f32> = (0..100)
            .map(|i| ((i * 53) % 97) as f32 * 0.7 - 30.0)
            .collect();
        for isa in Isa::all() {
            for n in [0, 1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 100] {
                let (x, y) = (&x[..n], &y[..n]);
                let got = isa.scope(|| simd::run(Both(x, y)));
                let expected = by_lanes(x, y);
                assert_eq!(got.0.to_bits(), expected.0.to_bits(), "{} {n}", isa.name());
                assert_eq!(got.1, expected.1, "{} {n}", isa.name());
            }
        }
    }

    #[test]
    fn the_tree_adds_every_partial_once() {
        for n in 0..70 {
            let partials: Vec<f32> = (0..n * 3).map(|i| (1 << (i % 20)) as f32).collect();
            let expected: Vec<f32> = (0..3)
                .map(|c| partials.iter().skip(c).step_by(3).sum())
                .collect();
            assert_eq!(fold_tree(partials, 3), expected, "{n}");
            let ones = vec![1.0; n * 7];
            assert_eq!(total(&ones), (n * 7) as f64);
        }
    }

    #[test]
    fn the_squared_norm_is_near_the_exact_one() {
        let x: Vec<f32> = (0..10_000)
            .map(|i| ((i * 31) % 1009) as f32 * 1e-3 - 0.5)
            .collect();
        let exact: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!((squared_norm(&x) / exact - 1.0).abs() < 1e-5);
    }
}
