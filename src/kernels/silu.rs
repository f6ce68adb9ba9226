//! SiLU, element by element: one pass, no sums.

use super::elementwise::{self, Elementwise};
use crate::simd::{Simd, math};

/// y = x · sigmoid(x).
///
/// # Panics
/// Panics if the lengths differ.
#[track_caller]
pub fn forward(x: &[f32], y: &mut [f32]) {
    elementwise::update("silu::forward", Forward, [y], [x]);
}

#[derive(Clone, Copy)]
struct Forward;

impl Elementwise<1, 1> for Forward {
    #[inline(always)]
    fn lanes<S: Simd>(self, s: S, _: [S::V; 1], [x]: [S::V; 1]) -> [S::V; 1] {
        [math::silu(s, x)]
    }
}

/// x, dy -> dx = dy · (σ · fma(x, 1 − σ, 1)) with σ = sigmoid(x).
///
/// # Panics
/// Panics if the lengths differ.
#[track_caller]
pub fn backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    elementwise::update("silu::backward", Backward, [dx], [x, dy]);
}

#[derive(Clone, Copy)]
struct Backward;

impl Elementwise<1, 2> for Backward {
    #[inline(always)]
    fn lanes<S: Simd>(self, s: S, _: [S::V; 1], [x, dy]: [S::V; 2]) -> [S::V; 1] {
        let one = s.splat(1.0);
        let sigmoid = math::sigmoid(s, x);
        let slope = s.mul(sigmoid, s.fma(x, s.sub(one, sigmoid), one));
        [s.mul(dy, slope)]
    }
}
