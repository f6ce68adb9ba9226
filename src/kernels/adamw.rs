//! AdamW (Loshchilov and Hutter 2019), one pass over a parameter.

use super::par;
use crate::simd::{self, Kernel, LANES, Simd};

/// The numbers of one step, each rounded once from `f64`.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Learning rate of this step.
    pub lr: f32,
    /// β₁
    pub beta1: f32,
    /// β₂
    pub beta2: f32,
    /// 1 − β₁
    pub one_minus_beta1: f32,
    /// 1 − β₂
    pub one_minus_beta2: f32,
    /// 1 / (1 − β₁^t)
    pub bias_correction1: f32,
    /// 1 / (1 − β₂^t)
    pub bias_correction2: f32,
    /// ε
    pub eps: f32,
    /// Factor of the gradient: 1, or less if its norm was too large.
    pub clip: f32,
    /// Weight decay; 0 for a parameter that does not decay.
    pub weight_decay: f32,
}

/// w, m, v, g `[n]`; w, m and v are updated by exactly this sequence:
///
/// ```text
/// g' = g · clip
/// m  = fma(β₁, m, (1 − β₁) · g')
/// v  = fma(β₂, v, (1 − β₂) · (g' · g'))
/// u  = (m · bias_correction₁) / (√(v · bias_correction₂) + ε)
/// w  = fma(−lr, fma(weight_decay, w, u), w)
/// ```
///
/// `clip` is min(1, limit / norm) in `f64`, rounded once, with one norm over the trunk's tensors and one over the
/// heads'. `weight_decay` is set for every matrix (shape outputs, inputs): `embed_tokens`, `lm_head`, all `*_proj`, and
/// the heads' `fc`, `down`, `up` and `linear`; norm weights and biases do not decay.
///
/// # Panics
/// Panics if the lengths differ.
#[track_caller]
pub fn update(step: Step, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    let lengths = [w.len(), m.len(), v.len(), g.len()];
    assert!(
        lengths.iter().all(|n| *n == w.len()),
        "adamw::update: w, m, v, g of {lengths:?} elements"
    );
    let part = par::elements_per_task(w.len());
    let tasks = w
        .chunks_mut(part)
        .zip(m.chunks_mut(part))
        .zip(v.chunks_mut(part).zip(g.chunks(part)))
        .collect();
    par::for_each(tasks, |((w, m), (v, g))| {
        simd::run(Update { step, w, m, v, g });
    });
}

struct Update<'a> {
    step: Step,
    w: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    g: &'a [f32],
}

impl Kernel for Update<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { step, w, m, v, g } = self;
        for from in (0..w.len()).step_by(LANES) {
            let part = from..w.len().min(from + LANES);
            let grad = s.mul(s.load_partial(&g[part.clone()], 0.0), s.splat(step.clip));
            let fresh = s.mul(s.splat(step.one_minus_beta1), grad);
            let mean = s.load_partial(&m[part.clone()], 0.0);
            let mean = s.fma(s.splat(step.beta1), mean, fresh);
            let fresh = s.mul(s.splat(step.one_minus_beta2), s.mul(grad, grad));
            let square = s.load_partial(&v[part.clone()], 0.0);
            let square = s.fma(s.splat(step.beta2), square, fresh);
            let root = s.sqrt(s.mul(square, s.splat(step.bias_correction2)));
            let u = s.div(
                s.mul(mean, s.splat(step.bias_correction1)),
                s.add(root, s.splat(step.eps)),
            );
            let old = s.load_partial(&w[part.clone()], 0.0);
            let move_by = s.fma(s.splat(step.weight_decay), old, u);
            s.store_partial(mean, &mut m[part.clone()]);
            s.store_partial(square, &mut v[part.clone()]);
            s.store_partial(s.fma(s.splat(-step.lr), move_by, old), &mut w[part]);
        }
    }
}
