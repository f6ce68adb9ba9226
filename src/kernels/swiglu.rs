//! SwiGLU (Shazeer 2020): one pass over the rows, no sums.

use super::elementwise::{self, Elementwise};
use super::par;
use crate::simd::{Simd, math};

/// gu [rows, 2F] (gate, then up) -> y [rows, F] = silu(gate) · up, with silu(x) = x · sigmoid(x).
///
/// # Panics
/// Panics if f is 0 or the shapes do not fit.
#[track_caller]
pub fn forward(gu: &[f32], f: usize, y: &mut [f32]) {
    check("swiglu::forward", gu, f, y);
    let rows = par::rows_per_task(y.len(), f);
    let tasks = gu.chunks(rows * 2 * f).zip(y.chunks_mut(rows * f));
    par::for_each(tasks, |(gu, y)| {
        for (gu, y) in gu.chunks(2 * f).zip(y.chunks_mut(f)) {
            let (gate, up) = gu.split_at(f);
            elementwise::update_here(Forward, [y], [gate, up]);
        }
    });
}

#[track_caller]
fn check(name: &str, gu: &[f32], f: usize, y: &[f32]) {
    let (gu, y) = (gu.len(), y.len());
    assert!(
        f > 0 && gu == 2 * y && y.is_multiple_of(f),
        "{name}: [rows, 2 · {f}] of {gu} elements, [rows, {f}] of {y}"
    );
}

#[derive(Clone, Copy)]
struct Forward;

impl Elementwise<1, 2> for Forward {
    #[inline(always)]
    fn lanes<S: Simd>(self, s: S, _: [S::V; 1], [gate, up]: [S::V; 2]) -> [S::V; 1] {
        [s.mul(math::silu(s, gate), up)]
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
    let tasks = gu.chunks_mut(rows * 2 * f).zip(dy.chunks_mut(rows * f));
    par::for_each(tasks, |(gu, dy)| {
        for (gu, dy) in gu.chunks_mut(2 * f).zip(dy.chunks_mut(f)) {
            let (gate, up) = gu.split_at_mut(f);
            elementwise::update_here(Backward, [gate, up, dy], []);
        }
    });
}

#[derive(Clone, Copy)]
struct Backward;

impl Elementwise<3, 0> for Backward {
    #[inline(always)]
    fn lanes<S: Simd>(self, s: S, [gate, up, dy]: [S::V; 3], []: [S::V; 0]) -> [S::V; 3] {
        let one = s.splat(1.0);
        let sigmoid = math::sigmoid(s, gate);
        let slope = s.mul(sigmoid, s.fma(gate, s.sub(one, sigmoid), one));
        let silu = s.mul(gate, sigmoid);
        [
            s.mul(s.mul(dy, up), slope),
            s.mul(dy, silu),
            s.mul(silu, up),
        ]
    }
}
