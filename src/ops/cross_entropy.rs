//! The loss: softmax cross entropy, averaged over rows and weighted.
//!
//! ```text
//! z [rows, V], targets [rows] -> [weight · L · rows / n, L, hits]
//! L    = mean over rows of ln Σ exp(z) − z[target]          in nats
//! hits = fraction of the rows whose target has the largest logit
//! dz   = (softmax(z) − [j = target]) · weight / n            the factor is one number, rounded once (rule R8)
//! ```
//!
//! n is the number of rows, or that of the whole batch if these rows are a micro-batch: then the first elements sum to
//! the batch's.
//!
//! Only the first element of the output is differentiable; the other two are for reports. The gradient is computed in
//! the forward pass, which has the exponentials. Row sums follow rule R2, the mean rule R3 in `f64`.

use crate::autograd::{GradSink, Op};
use crate::kernels::{cross_entropy, reduce};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Logits [rows, V] -> [1, 3]: the weighted loss, the mean loss in nats, the fraction of hits.
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// The target of each row, below V.
    pub targets: Arc<[u32]>,
    /// The loss's weight in the sum of losses.
    pub weight: f64,
    /// n, the number of targets in the whole batch.
    pub total_targets: usize,
}

/// The gradient of the first element, for dy = 1.
pub struct Saved {
    dz: Tensor,
}

impl CrossEntropy {
    /// The output, from the loss of each row and whether its target has the largest logit.
    pub fn report(&self, losses: &[f32], hits: &[f32]) -> Tensor {
        let (own, n) = (losses.len().max(1) as f64, self.total_targets.max(1) as f64);
        let sum = reduce::total(losses);
        let report = [
            self.weight * (sum / n),
            sum / own,
            reduce::total(hits) / own,
        ];
        Tensor::new(&[1, 3], report.map(|x| x as f32).to_vec())
    }
}

impl Op<1> for CrossEntropy {
    type Saved = Saved;

    fn forward(&self, [z]: [&Arc<Tensor>; 1]) -> (Tensor, Saved) {
        let rows = self.targets.len();
        let n = self.total_targets.max(1) as f64;
        let (mut losses, mut hits) = (vec![0.0; rows], vec![0.0; rows]);
        let mut dz = Tensor::clone(z);
        let factor = (self.weight / n) as f32;
        let data = dz.data_mut();
        cross_entropy::forward_backward(data, &self.targets, factor, &mut losses, &mut hits);
        (self.report(&losses, &hits), Saved { dz })
    }

    fn backward(&self, Saved { mut dz }: Saved, dy: Tensor, sink: &mut GradSink<'_, 1>) {
        let d = dy.data()[0];
        // Usually 1, which changes nothing.
        if d != 1.0 {
            dz.data_mut().iter_mut().for_each(|x| *x *= d);
        }
        sink.add(0, dz);
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{batch_invariant, check, pattern, slice_rows};

    #[test]
    fn laws() {
        for (targets, v) in [
            (vec![0u32], 1),
            (vec![2, 0, 4], 5),
            (vec![16, 3, 3, 0, 32], 33),
        ] {
            let rows = targets.len() as f64;
            let reference = |x: &[Vec<f64>]| {
                let (mut loss, mut hits) = (0.0, 0.0);
                for (z, t) in x[0].chunks(v).zip(&targets) {
                    let total: f64 = z.iter().map(|z| z.exp()).sum();
                    loss += total.ln() - z[*t as usize];
                    let best = z.iter().fold(f64::MIN, |m, z| m.max(*z));
                    hits += f64::from(z.iter().position(|z| *z == best) == Some(*t as usize));
                }
                vec![0.7 * loss / rows, loss / rows, hits / rows]
            };
            let op = CrossEntropy {
                targets: targets.clone().into(),
                weight: 0.7,
                total_targets: targets.len(),
            };
            let z = pattern(&[targets.len(), v], 5);
            // Only the first element has a gradient.
            check(&First(op), [z], [true], &|x| reference(x)[..1].to_vec());
            let z = Arc::new(pattern(&[targets.len(), v], 5));
            let op = CrossEntropy {
                targets: targets.clone().into(),
                weight: 0.7,
                total_targets: targets.len(),
            };
            let exact: Vec<f64> = z.data().iter().map(|x| f64::from(*x)).collect();
            for (got, expected) in op.forward([&z]).0.data().iter().zip(reference(&[exact])) {
                assert!((f64::from(*got) - expected).abs() < 1e-5);
            }
            batch_invariant(targets.len(), |r| {
                // The rows as part of a batch of 7.
                let op = CrossEntropy {
                    targets: targets[r.clone()].into(),
                    weight: 0.7,
                    total_targets: 7,
                };
                op.forward([&slice_rows(&z, r)]).1.dz
            });
        }
    }

    /// The differentiable part of the output.
    #[derive(Clone)]
    struct First(CrossEntropy);

    impl Op<1> for First {
        type Saved = Saved;
        fn forward(&self, x: [&Arc<Tensor>; 1]) -> (Tensor, Saved) {
            let (y, saved) = self.0.forward(x);
            (Tensor::new(&[1, 1], y.data()[..1].to_vec()), saved)
        }
        fn backward(&self, saved: Saved, dy: Tensor, sink: &mut GradSink<'_, 1>) {
            self.0.backward(saved, dy, sink);
        }
    }
}
