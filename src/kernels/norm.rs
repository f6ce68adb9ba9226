//! RMS normalisation of segments of rows (Zhang and Sennrich 2019), forward and backward.
//!
//! ```text
//! rstd = 1 / √(Σ x² / n + ε)       the sum by rule R2
//! y = (x · rstd) · g
//! backward, x̂ = x · rstd, dx̂ = dy · g:
//! dx = rstd · (dx̂ − x̂ · (Σ dx̂ x̂ / n))   the sum by rule R2
//! dg = Σ over segments of dy · x̂        by rule R3, chunks of rows
//! ```

use super::{par, reduce};
use crate::simd::{self, Kernel, LANES, Simd};

/// The segments of a row that are normalised: `count` neighbours of `width` elements from column `start`.
#[derive(Clone, Copy, Debug)]
pub struct Segments {
    /// Elements of a row.
    pub stride: usize,
    /// First column of the first segment.
    pub start: usize,
    /// Segments in a row.
    pub count: usize,
    /// Elements of a segment, n above.
    pub width: usize,
}

impl Segments {
    /// The whole row as one segment.
    pub fn row(width: usize) -> Self {
        Self {
            stride: width,
            start: 0,
            count: 1,
            width,
        }
    }

    /// Columns of segment `h`.
    #[inline(always)]
    fn range(&self, h: usize) -> std::ops::Range<usize> {
        let from = self.start + h * self.width;
        from..from + self.width
    }

    /// Checks x, y, dy and the like [rows, stride], the weight `[width]` and rstd [rows · count].
    #[track_caller]
    fn check(&self, name: &str, matrices: &[&[f32]], weight: &[f32], rstd: &[f32]) {
        let lengths: Vec<usize> = matrices.iter().map(|x| x.len()).collect();
        let rows = lengths[0].checked_div(self.stride).unwrap_or(0);
        let fits = self.stride > 0
            && self.start + self.count * self.width <= self.stride
            && lengths.iter().all(|n| *n == rows * self.stride)
            && weight.len() == self.width
            && rstd.len() == rows * self.count;
        assert!(
            fits,
            "{name}: {self:?} of rows of {lengths:?} elements, weight [{}], rstd [{}]",
            weight.len(),
            rstd.len()
        );
    }
}

/// Fewest elements of a task: half as many as in kernels that read each only once.
const ELEMENTS_PER_TASK: usize = 8192;

/// x [rows, stride], weight `[width]` -> the segments of y [rows, stride], and rstd [rows · count].
///
/// # Panics
/// Panics if the shapes do not fit.
#[track_caller]
pub fn forward(at: Segments, eps: f32, x: &[f32], weight: &[f32], y: &mut [f32], rstd: &mut [f32]) {
    at.check("norm::forward", &[x, y], weight, rstd);
    let rows = par::part(x.len() / at.stride, 1, 1).max(ELEMENTS_PER_TASK / at.stride + 1);
    let tasks = x
        .chunks(rows * at.stride)
        .zip(y.chunks_mut(rows * at.stride))
        .zip(rstd.chunks_mut(rows * at.count));
    par::for_each(tasks, |((x, y), rstd)| {
        simd::run(Forward {
            at,
            eps,
            x,
            weight,
            y,
            rstd,
        });
    });
}

struct Forward<'a> {
    at: Segments,
    eps: f32,
    x: &'a [f32],
    weight: &'a [f32],
    y: &'a mut [f32],
    rstd: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let at = self.at;
        let rows = self.x.chunks(at.stride).zip(self.y.chunks_mut(at.stride));
        for ((x, y), rstd) in rows.zip(self.rstd.chunks_mut(at.count)) {
            for (h, rstd) in rstd.iter_mut().enumerate() {
                let x = &x[at.range(h)];
                let mean = reduce::dot(s, x, x) / at.width as f32;
                *rstd = 1.0 / (mean + self.eps).sqrt();
                scale(s, x, *rstd, self.weight, &mut y[at.range(h)]);
            }
        }
    }
}

/// y = (x · rstd) · g
#[inline(always)]
fn scale<S: Simd>(s: S, x: &[f32], rstd: f32, weight: &[f32], y: &mut [f32]) {
    let rstd = s.splat(rstd);
    let inputs = x.chunks(LANES).zip(weight.chunks(LANES));
    for ((x, g), y) in inputs.zip(y.chunks_mut(LANES)) {
        let (x, g) = (s.load_partial(x, 0.0), s.load_partial(g, 0.0));
        s.store_partial(s.mul(s.mul(x, rstd), g), y);
    }
}

/// x, dy [rows, stride], weight `[width]`, rstd [rows · count] -> the segments of dx [rows, stride]; returns dweight
/// `[width]`.
///
/// # Panics
/// Panics if the shapes do not fit.
#[track_caller]
pub fn backward(
    at: Segments,
    x: &[f32],
    weight: &[f32],
    rstd: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) -> Vec<f32> {
    let mut partials = vec![0.0; partials(at, x.len())];
    backward_parts(at, x, weight, rstd, dy, dx, &mut partials);
    reduce::fold_tree(partials, at.width)
}

/// Number of elements of the partial sums of dweight for `elements` elements of x. [`reduce::fold_tree`] adds them.
pub fn partials(at: Segments, elements: usize) -> usize {
    elements.div_ceil(reduce::CHUNK_ROWS * at.stride) * at.width
}

/// [`backward`] of some of the rows, from a multiple of [`reduce::CHUNK_ROWS`] on; `partials` are +0 and become these
/// rows' partial sums of dweight.
///
/// # Panics
/// Panics if the shapes do not fit.
#[track_caller]
pub fn backward_parts(
    at: Segments,
    x: &[f32],
    weight: &[f32],
    rstd: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    partials: &mut [f32],
) {
    at.check("norm::backward", &[x, dy, dx], weight, rstd);
    assert_eq!(
        partials.len(),
        self::partials(at, x.len()),
        "norm::backward: partial sums of {} elements",
        x.len()
    );
    let rows = reduce::CHUNK_ROWS;
    let tasks = x
        .chunks(rows * at.stride)
        .zip(rstd.chunks(rows * at.count))
        .zip(dy.chunks(rows * at.stride))
        .zip(dx.chunks_mut(rows * at.stride))
        .zip(partials.chunks_mut(at.width));
    par::for_each(tasks, |((((x, rstd), dy), dx), partial)| {
        simd::run(Backward {
            at,
            x,
            weight,
            rstd,
            dy,
            dx,
            partial,
        });
    });
}

struct Backward<'a> {
    at: Segments,
    x: &'a [f32],
    weight: &'a [f32],
    rstd: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    /// `[width]`, the chunk's partial sum of dweight.
    partial: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (at, n) = (self.at, self.at.width);
        let rows = self.x.chunks(at.stride).zip(self.dy.chunks(at.stride));
        let rows = rows.zip(self.dx.chunks_mut(at.stride));
        for (((x, dy), dx), rstd) in rows.zip(self.rstd.chunks(at.count)) {
            for (h, rstd) in rstd.iter().enumerate() {
                let (x, dy, dx) = (&x[at.range(h)], &dy[at.range(h)], &mut dx[at.range(h)]);
                let rstd = s.splat(*rstd);
                let mut acc = s.splat(0.0);
                for from in (0..n).step_by(LANES) {
                    let part = from..n.min(from + LANES);
                    let x_hat = s.mul(s.load_partial(&x[part.clone()], 0.0), rstd);
                    let dy = s.load_partial(&dy[part.clone()], 0.0);
                    let weight = s.load_partial(&self.weight[part.clone()], 0.0);
                    acc = s.fma(s.mul(dy, weight), x_hat, acc);
                    let partial = &mut self.partial[part];
                    s.store_partial(s.fma(dy, x_hat, s.load_partial(partial, 0.0)), partial);
                }
                let mean = s.splat(s.sum(acc) / n as f32);
                for from in (0..n).step_by(LANES) {
                    let part = from..n.min(from + LANES);
                    let x_hat = s.mul(s.load_partial(&x[part.clone()], 0.0), rstd);
                    let dy = s.load_partial(&dy[part.clone()], 0.0);
                    let dx_hat = s.mul(dy, s.load_partial(&self.weight[part.clone()], 0.0));
                    let d = s.mul(rstd, s.sub(dx_hat, s.mul(x_hat, mean)));
                    s.store_partial(d, &mut dx[part]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "of rows of [8, 8] elements, weight [3], rstd [2]")]
    fn a_short_weight_panics() {
        let (y, rstd) = (&mut [0.0; 8], &mut [0.0; 2]);
        forward(Segments::row(4), 1e-6, &[1.0; 8], &[1.0; 3], y, rstd);
    }
}
