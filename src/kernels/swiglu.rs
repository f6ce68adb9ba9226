//! SwiGLU (Shazeer 2020): one pass over the rows, no sums.

use super::par;
use crate::simd::{self, Kernel, LANES, Simd, math};

/// Elements that one task handles at least; fewer are not worth another thread.
const WORTH: usize = 1 << 14;

/// gu [rows, 2F] (gate, then up) -> y [rows, F] = silu(gate) · up, with silu(x) = x · sigmoid(x).
pub fn forward(gu: &[f32], f: usize, y: &mut [f32]) {
    let rows = par::part(y.len() / f.max(1), 1, 1).max(WORTH / f.max(1) + 1);
    let tasks = gu
        .chunks(rows * 2 * f)
        .zip(y.chunks_mut(rows * f))
        .collect();
    par::for_each(tasks, |(gu, y)| simd::run(Forward { gu, f, y }));
}

struct Forward<'a> {
    gu: &'a [f32],
    f: usize,
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

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

/// gu [rows, 2F], dy [rows, F] -> dgu [rows, 2F], in the place of gu: memory that was just read is written at once.
///
/// With σ = sigmoid(g): dup = dy · (g · σ); dgate = (dy · up) · (σ · (1 + g · (1 − σ))).
///
/// dy becomes y, which the forward pass need not have kept.
pub fn backward(gu: &mut [f32], f: usize, dy: &mut [f32]) {
    let rows = par::part(dy.len() / f.max(1), 1, 1).max(WORTH / f.max(1) + 1);
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
    type Output = ();

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
