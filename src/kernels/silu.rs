//! SiLU, element by element: one pass, no sums.

use super::par;
use crate::simd::{self, Kernel, LANES, Simd, math};

/// y = x · sigmoid(x).
///
/// # Panics
/// Panics if the lengths differ.
#[track_caller]
pub fn forward(x: &[f32], y: &mut [f32]) {
    let (x_len, y_len) = (x.len(), y.len());
    assert_eq!(x_len, y_len, "silu::forward: [{x_len}] -> [{y_len}]");
    let part = par::elements_per_task(y_len);
    let tasks = x.chunks(part).zip(y.chunks_mut(part)).collect();
    par::for_each(tasks, |(x, y)| simd::run(Forward { x, y }));
}

struct Forward<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (x, y) in self.x.chunks(LANES).zip(self.y.chunks_mut(LANES)) {
            s.store_partial(math::silu(s, s.load_partial(x, 0.0)), y);
        }
    }
}

/// x, dy -> dx = dy · (σ · fma(x, 1 − σ, 1)) with σ = sigmoid(x).
///
/// # Panics
/// Panics if the lengths differ.
#[track_caller]
pub fn backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let [x_len, dy_len, dx_len] = [x.len(), dy.len(), dx.len()];
    assert!(
        x_len == dx_len && dy_len == dx_len,
        "silu::backward: x [{x_len}], dy [{dy_len}] -> dx [{dx_len}]"
    );
    let part = par::elements_per_task(dx_len);
    let tasks = x.chunks(part).zip(dy.chunks(part)).zip(dx.chunks_mut(part));
    par::for_each(tasks.collect(), |((x, dy), dx)| {
        simd::run(Backward { x, dy, dx });
    });
}

struct Backward<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let one = s.splat(1.0);
        let inputs = self.x.chunks(LANES).zip(self.dy.chunks(LANES));
        for ((x, dy), dx) in inputs.zip(self.dx.chunks_mut(LANES)) {
            let (x, d) = (s.load_partial(x, 0.0), s.load_partial(dy, 0.0));
            let sigmoid = math::sigmoid(s, x);
            let slope = s.mul(sigmoid, s.fma(x, s.sub(one, sigmoid), one));
            s.store_partial(s.mul(d, slope), dx);
        }
    }
}
