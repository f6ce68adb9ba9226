//! The joint loss: L = L_0 + λ Σ_k w_k L_k with w_k = β^{k-1}, normalised to sum 1.

use super::Model;
use crate::autograd::Var;
use crate::data::Batch;
use crate::exec::{Exec, Rows};
use crate::ops::{CrossEntropy, SelectRows};

/// How much the heads count.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct JointLoss {
    /// λ, the weight of all heads together.
    pub lambda: f64,
    /// β, how fast weights fall with depth; 1 gives each head the same.
    pub beta: f64,
}

impl Default for JointLoss {
    fn default() -> Self {
        Self {
            lambda: 0.3,
            beta: 0.6,
        }
    }
}

impl JointLoss {
    /// Weights of L_0, L_1, .., L_K.
    pub fn weights(&self, depth: usize) -> Vec<f64> {
        let mut powers = Vec::with_capacity(depth);
        let mut power = 1.0;
        for _ in 0..depth {
            powers.push(power);
            power *= self.beta;
        }
        let total: f64 = powers.iter().sum();
        let heads = powers.iter().map(|w| self.lambda * (w / total));
        std::iter::once(1.0).chain(heads).collect()
    }
}

/// One depth's loss on a batch.
#[derive(Clone, Debug)]
pub struct LossReport {
    /// [1, 3]: weighted loss, mean loss in nats, share of targets with the largest logit.
    pub value: Var,
    /// Number of targets.
    pub targets: usize,
}

impl LossReport {
    /// Mean loss over the targets, in nats.
    pub fn mean(&self) -> f32 {
        self.value.value().data()[1]
    }

    /// Share of the targets that were the most likely token.
    pub fn accuracy(&self) -> f32 {
        self.value.value().data()[2]
    }
}

impl Model {
    /// The losses of the main head and of every head that has targets in the batch, in forward order.
    ///
    /// Depth k is computed on positions 0..T − k of each window: the last ones have no target inside it.
    pub fn losses<E: Exec>(
        &self,
        exec: &mut E,
        batch: &Batch,
        joint: JointLoss,
    ) -> Vec<LossReport> {
        let weights = joint.weights(self.config.mtp_depth);
        let whole = Rows::batch(batch.sequences(), batch.context());
        let trunk = self.trunk(exec, &batch.inputs(), &whole);
        let mut reports = vec![self.loss(exec, &trunk, batch, 0, weights[0])];
        let (mut previous, mut previous_rows) = (trunk.clone(), whole.clone());
        for k in (1..=self.config.mtp_depth).take_while(|k| batch.rows(*k) > 0) {
            let (source, source_rows, drop) = match self.config.mtp_kind.chained() {
                true => (&previous, &previous_rows, 1),
                false => (&trunk, &whole, k),
            };
            let (rows, keep) = source_rows.without_last(drop);
            let h = exec.apply(SelectRows { keep }, [source]);
            let h = self.head(exec, k, &h, &batch.following(k), &rows);
            reports.push(self.loss(exec, &h, batch, k, weights[k]));
            (previous, previous_rows) = (h, rows);
        }
        reports
    }

    fn loss<E: Exec>(
        &self,
        exec: &mut E,
        h: &Var,
        batch: &Batch,
        k: usize,
        weight: f64,
    ) -> LossReport {
        let targets = batch.targets(k);
        let count = targets.len();
        let logits = self.logits(exec, h);
        let op = CrossEntropy {
            targets: targets.into(),
            weight,
            whole_rows: batch.whole_rows(k),
        };
        LossReport {
            value: exec.apply(op, [&logits]),
            targets: count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_fall_by_beta_and_sum_to_lambda() {
        let w = JointLoss {
            lambda: 0.5,
            beta: 0.5,
        }
        .weights(3);
        assert_eq!(w.len(), 4);
        assert!((w[1..].iter().sum::<f64>() - 0.5).abs() < 1e-12);
        assert!((w[1] / w[2] - 2.0).abs() < 1e-12);
        assert_eq!(JointLoss::default().weights(0), [1.0]);
    }
}
