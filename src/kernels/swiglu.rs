//! SwiGLU (Shazeer 2020): one pass over the rows, no sums.

use super::par;
use crate::simd::{self, Kernel, LANES, Simd, math};

/// gu [rows, 2F] (gate, then up) -> y [rows, F] = silu(gate) · up, with silu(x) = x · sigmoid(x).
///
/// # Panics
/// Panics if f is 0 or the shapes do not fit.
#[track_caller]
pub fn forward(gu: &[f32], f: usize, y: &mut [f32]) {
    check("swiglu::forward", gu, f, y);
    let rows = par::rows_per_task(y.len(), f);
    let tasks = gu
        .chunks(rows * 2 * f)
        .zip(y.chunks_mut(rows * f))
        .collect();
    par::for_each(tasks, |(gu, y)| simd::run(Forward { gu, f, y }));
}

#[track_caller]
fn check(name: &str, gu: &[f32], f: usize, y: &[f32]) {
    let (gu, y) = (gu.len(), y.len());
    assert!(
        f > 0 && gu == 2 * y && y.is_multiple_of(f),
        "{name}: [rows, 2 · {f}] of {gu} elements, [rows, {f}] of {y}"
    );
}

struct Forward<'a> {
    gu: &'a [f32],
    f: usize,
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let f = self.f;
        for (gu, y) in self.gu.chunks(2 * f).zip(self.y.chunks_mut(f)) {
            let (gate, up) = gu.split_at(f);
            for from in (0..f).step_by(LANES) {
                let part = from..f.min(from + LANES);
                let g = s.load_partial(&gate[part.clone()], 0.0);
                let u = s.load_partial(&up[part.clone()], 0.0);
                s.store_partial(s.mul(math::silu(s, g), u), &mut y[part]);
            }
        }
    }
}

/// gu [rows, 2F], dy [rows, F] -> dgu [rows, 2F] in the memory of gu, which is in the cache when it is written.
///
/// With σ = sigmoid(gate): dup = dy · (gate · σ); dgate = (dy · up) · (σ · fma(gate, 1 − σ, 1)), by exactly these
/// operations.
///
/// dy is overwritten with y = (gate · σ) · up, so the forward pass need not have kept it.
///
/// # Panics
/// Panics if f is 0 or the shapes do not fit.
#[track_caller]
pub fn backward(gu: &mut [f32], f: usize, dy: &mut [f32]) {
    check("swiglu::backward", gu, f, dy);
    let rows = par::rows_per_task(dy.len(), f);
    let tasks = gu
        .chunks_mut(rows * 2 * f)
        .zip(dy.chunks_mut(rows * f))
        .collect();
    par::for_each(tasks, |(gu, dy)| simd::run(Backward { gu, f, dy }));
}

struct Backward<'a> {
    gu: &'a mut [f32],
    f: usize,
    dy: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let f = self.f;
        for (gu, dy) in self.gu.chunks_mut(2 * f).zip(self.dy.chunks_mut(f)) {
            let (gate, up) = gu.split_at_mut(f);
            let one = s.splat(1.0);
            for from in (0..f).step_by(LANES) {
                let part = from..f.min(from + LANES);
                let g = s.load_partial(&gate[part.clone()], 0.0);
                let u = s.load_partial(&up[part.clone()], 0.0);
                let d = s.load_partial(&dy[part.clone()], 0.0);
                let sigmoid = math::sigmoid(s, g);
                let slope = s.mul(sigmoid, s.fma(g, s.sub(one, sigmoid), one));
                s.store_partial(s.mul(s.mul(d, u), slope), &mut gate[part.clone()]);
                let silu = s.mul(g, sigmoid);
                s.store_partial(s.mul(d, silu), &mut up[part.clone()]);
                s.store_partial(s.mul(silu, u), &mut dy[part]);
            }
        }
    }
}
