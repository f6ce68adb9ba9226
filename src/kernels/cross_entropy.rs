//! Softmax cross entropy of rows of logits, with its gradient (rules R2 and R8).
//!
//! ```text
//! m = max z;  e = exp(z − m);  Z = Σ e         both by rule R2 over the whole vocabulary
//! loss = ln Z − (z[target] − m)
//! dz = (e / Z − [j = target]) · factor          the factor λ w / n is known in the forward pass
//! ```

use super::{par, reduce};
use crate::simd::{self, Kernel, LANES, Simd, math};

/// Fewest logits of a task. Each takes an exponential and a division, so waking a thread pays off earlier than in other
/// kernels.
const LOGITS_PER_TASK: usize = 4096;

/// logits [rows, V] become the gradient; losses `[rows]`; hits `[rows]` is 1 if the target has the largest logit (the
/// lowest id wins a tie), else 0.
///
/// # Panics
/// Panics if the shapes do not fit or a target is not below V.
#[track_caller]
pub fn forward_backward(
    logits: &mut [f32],
    targets: &[u32],
    factor: f32,
    losses: &mut [f32],
    hits: &mut [f32],
) {
    let n = targets.len();
    let vocab = logits.len() / n.max(1);
    assert!(
        logits.len() == n * vocab && losses.len() == n && hits.len() == n,
        "cross_entropy::forward_backward: {n} targets, logits [{}], losses [{}], hits [{}]",
        logits.len(),
        losses.len(),
        hits.len()
    );
    if let Some(id) = targets.iter().find(|id| **id as usize >= vocab) {
        panic!("cross_entropy::forward_backward: target {id} in a vocabulary of {vocab}");
    }
    let rows = par::part(n, 1, 1).max(LOGITS_PER_TASK / vocab.max(1) + 1);
    let tasks = logits
        .chunks_mut((rows * vocab).max(1))
        .zip(targets.chunks(rows))
        .zip(losses.chunks_mut(rows).zip(hits.chunks_mut(rows)));
    par::for_each(tasks, |((logits, targets), (losses, hits))| {
        let rows = logits.chunks_mut(vocab).zip(targets);
        for ((z, target), (loss, hit)) in rows.zip(losses.iter_mut().zip(hits)) {
            let target = *target as usize;
            (*loss, *hit) = simd::run(Row { z, target, factor });
        }
    });
}

/// One row, with its loss and hit.
struct Row<'a> {
    z: &'a mut [f32],
    target: usize,
    factor: f32,
}

impl Kernel<(f32, f32)> for Row<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (f32, f32) {
        let Self { z, target, factor } = self;
        let max = reduce::maximum(s, z);
        let at_target = z[target];
        // The lowest id matters only if the target attains the maximum, so most rows are not searched.
        let first = at_target == max && z[..target].iter().all(|x| *x != max);
        let total = reduce::exponentials(s, z, max);
        let loss = math::ln(total) - (at_target - max);
        let (total, factor) = (s.splat(total), s.splat(factor));
        let at_target = z[target];
        for part in z.chunks_mut(LANES) {
            let p = s.div(s.load_partial(part, 0.0), total);
            s.store_partial(s.mul(p, factor), part);
        }
        let p = s.sub(s.div(s.splat(at_target), total), s.splat(1.0));
        s.store_partial(s.mul(p, factor), &mut z[target..target + 1]);
        (loss, f32::from(u8::from(first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "target 5 in a vocabulary of 5")]
    fn a_target_outside_the_vocabulary_panics() {
        forward_backward(&mut [0.0; 10], &[4, 5], 1.0, &mut [0.0; 2], &mut [0.0; 2]);
    }

    #[test]
    #[should_panic(expected = "3 targets, logits [10]")]
    fn rows_of_no_equal_length_panic() {
        forward_backward(&mut [0.0; 10], &[0; 3], 1.0, &mut [0.0; 3], &mut [0.0; 3]);
    }
}
