//! AdamW (Loshchilov and Hutter 2019), one pass over a parameter.

use super::par;
use crate::simd::{self, Kernel, LANES, Simd};

/// The numbers of one step, each rounded once from `f64`.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Learning rate of this step.
    pub rate: f32,
    /// β₁
    pub beta1: f32,
    /// β₂
    pub beta2: f32,
    /// 1 − β₁
    pub rest1: f32,
    /// 1 − β₂
    pub rest2: f32,
    /// 1 / (1 − β₁^t)
    pub unbias1: f32,
    /// 1 / (1 − β₂^t)
    pub unbias2: f32,
    /// ε
    pub eps: f32,
    /// What the gradient is multiplied by first: 1, or less where its norm was too large.
    pub clip: f32,
    /// Weight decay; 0 for a parameter that does not decay.
    pub decay: f32,
}

/// w, m, v, g `[n]`; w, m and v are updated by exactly this sequence:
///
/// `clip` is min(1, limit / norm) in `f64`, rounded once, with one norm over the trunk's tensors and one over the heads'.
/// `decay` is set for every matrix (shape outputs, inputs): `embed_tokens`, `lm_head`, all `*_proj`, and the heads' `fc`,
/// `down`, `up` and `linear`; weights and biases do not decay.
///
/// ```text
/// g' = g · clip
/// m  = fma(β₁, m, (1 − β₁) · g')
/// v  = fma(β₂, v, (1 − β₂) · (g' · g'))
/// u  = (m · unbias₁) / (√(v · unbias₂) + ε)
/// w  = fma(−rate, fma(decay, w, u), w)
/// ```
pub fn update(step: Step, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    let part = par::part(w.len(), LANES, 1).max(1 << 14);
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
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { step, w, m, v, g } = self;
        for from in (0..w.len()).step_by(LANES) {
            let part = from..w.len().min(from + LANES);
            let grad = s.mul(s.load_partial(&g[part.clone()], 0.0), s.splat(step.clip));
            let fresh = s.mul(s.splat(step.rest1), grad);
            let mean = s.load_partial(&m[part.clone()], 0.0);
            let mean = s.fma(s.splat(step.beta1), mean, fresh);
            let fresh = s.mul(s.splat(step.rest2), s.mul(grad, grad));
            let square = s.load_partial(&v[part.clone()], 0.0);
            let square = s.fma(s.splat(step.beta2), square, fresh);
            let root = s.sqrt(s.mul(square, s.splat(step.unbias2)));
            let u = s.div(
                s.mul(mean, s.splat(step.unbias1)),
                s.add(root, s.splat(step.eps)),
            );
            let old = s.load_partial(&w[part.clone()], 0.0);
            let move_by = s.fma(s.splat(step.decay), old, u);
            s.store_partial(mean, &mut m[part.clone()]);
            s.store_partial(square, &mut v[part.clone()]);
            s.store_partial(s.fma(s.splat(-step.rate), move_by, old), &mut w[part]);
        }
    }
}
