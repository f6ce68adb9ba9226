//! AdamW (Loshchilov and Hutter 2019), one pass over a parameter.

use super::elementwise::{self, Elementwise};
use crate::simd::Simd;

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
    elementwise::update("adamw::update", step, [w, m, v], [g]);
}

impl Elementwise<3, 1> for Step {
    #[inline(always)]
    fn lanes<S: Simd>(self, s: S, [w, m, v]: [S::V; 3], [g]: [S::V; 1]) -> [S::V; 3] {
        let grad = s.mul(g, s.splat(self.clip));
        let fresh = s.mul(s.splat(self.one_minus_beta1), grad);
        let mean = s.fma(s.splat(self.beta1), m, fresh);
        let fresh = s.mul(s.splat(self.one_minus_beta2), s.mul(grad, grad));
        let square = s.fma(s.splat(self.beta2), v, fresh);
        let root = s.sqrt(s.mul(square, s.splat(self.bias_correction2)));
        let u = s.div(
            s.mul(mean, s.splat(self.bias_correction1)),
            s.add(root, s.splat(self.eps)),
        );
        let move_by = s.fma(s.splat(self.weight_decay), w, u);
        [s.fma(s.splat(-self.lr), move_by, w), mean, square]
    }
}
