//! Softmax cross entropy of rows of logits, with its gradient (rules R2 and R8).
//!
//! ```text
//! m = max z;  e = exp(z − m);  Z = Σ e         both by rule R2 over the whole vocabulary
//! loss = ln Z − (z[target] − m)
//! dz = (e / Z − [j = target]) · factor          the factor λ w / n is known in the forward pass
//! ```

use super::{par, reduce};
use crate::simd::{self, Kernel, LANES, Simd, math};

/// logits [rows, V] become the gradient; losses `[rows]`; hits `[rows]` is 1 where the target has the largest logit (the
/// lowest id wins a tie), else 0.
pub fn forward_backward(
    logits: &mut [f32],
    targets: &[u32],
    factor: f32,
    losses: &mut [f32],
    hits: &mut [f32],
) {
    let vocab = logits.len() / targets.len().max(1);
    let rows = par::part(targets.len(), 1, 1).max(4096 / vocab.max(1) + 1);
    let tasks = logits
        .chunks_mut((rows * vocab).max(1))
        .zip(targets.chunks(rows))
        .zip(losses.chunks_mut(rows).zip(hits.chunks_mut(rows)))
        .collect();
    par::for_each(tasks, |((logits, targets), (losses, hits))| {
        simd::run(Rows {
            logits,
            targets,
            factor,
            losses,
            hits,
        });
    });
}

struct Rows<'a> {
    logits: &'a mut [f32],
    targets: &'a [u32],
    factor: f32,
    losses: &'a mut [f32],
    hits: &'a mut [f32],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let vocab = self.logits.len() / self.targets.len();
        let results = self.losses.iter_mut().zip(self.hits);
        let rows = self.logits.chunks_mut(vocab).zip(self.targets);
        for ((z, target), (loss, hit)) in rows.zip(results) {
            let target = *target as usize;
            let max = reduce::maximum(s, z);
            let at_target = z[target];
            // Most rows have no tie; only where the target attains the maximum does the lowest id matter.
            let first = at_target == max && z[..target].iter().all(|x| *x != max);
            *hit = f32::from(u8::from(first));
            let total = reduce::exponentials(s, z, max);
            let mut log = [0.0; LANES];
            s.store(math::ln(s, s.splat(total)), &mut log);
            *loss = log[0] - (at_target - max);
            let (total, factor) = (s.splat(total), s.splat(self.factor));
            let at_target = z[target];
            for from in (0..vocab).step_by(LANES) {
                let part = &mut z[from..vocab.min(from + LANES)];
                let p = s.div(s.load_partial(part, 0.0), total);
                s.store_partial(s.mul(p, factor), part);
            }
            let p = s.sub(s.div(s.splat(at_target), total), s.splat(1.0));
            s.store_partial(s.mul(p, factor), &mut z[target..target + 1]);
        }
    }
}
