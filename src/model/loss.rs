//! The joint loss: L = L_0 + λ Σ_k w_k L_k with w_k = β^{k-1}, normalised to sum 1 over the active heads.
//!
//! [`Model::losses`] computes the losses on any executor, and evaluation uses it. Training uses [`Model::backward`],
//! which computes the same losses and their gradient in less memory; `tests/gradients.rs` compares the two bit for bit.

use super::{Model, layout};
use crate::Result;
use crate::autograd::Var;
use crate::data::Batch;
use crate::exec::{Exec, NoGrad, Rows};
use crate::ops::CrossEntropy;

/// What a training step minimises, and which parameters its gradient reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JointLoss {
    /// λ, the weight of all active heads together.
    pub lambda: f64,
    /// β, the ratio of a head's weight to that of the head before it; 1 weights all heads equally.
    pub beta: f64,
    /// Heads 1..=n are active: in the loss, and trained by it. `None` means all of them.
    pub active_heads: Option<usize>,
    /// Where the gradients go.
    pub grad_flow: GradFlow,
}

/// Where the gradients of the losses go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GradFlow {
    /// Everywhere.
    #[default]
    Joint,
    /// The heads' losses reach the heads only: no gradient of theirs reaches the trunk, the embedding or the LM head,
    /// so the trunk is trained as it would be without heads.
    Detached,
    /// The heads' losses reach the heads only, and the main loss has no gradient: the trunk is not trained.
    Frozen,
}

impl Default for JointLoss {
    /// λ = 0.3 and β = 0.6, all heads active, gradients everywhere.
    fn default() -> Self {
        Self {
            lambda: 0.3,
            beta: 0.6,
            active_heads: None,
            grad_flow: GradFlow::Joint,
        }
    }
}

impl JointLoss {
    /// Weights of L_0 and of the losses of the active heads, for a model with `num_heads` heads.
    pub fn weights(&self, num_heads: usize) -> Vec<f64> {
        let active = self.active_heads.map_or(num_heads, |n| n.min(num_heads));
        let powers = std::iter::successors(Some(1.0), |power| Some(power * self.beta));
        let powers: Vec<f64> = powers.take(active).collect();
        let total: f64 = powers.iter().sum();
        let heads = powers.iter().map(|w| self.lambda * (w / total));
        std::iter::once(1.0).chain(heads).collect()
    }

    /// Whether a step on this loss changes the parameter of that name.
    pub fn trains(&self, name: &str) -> bool {
        match layout::first_head(name) {
            None => self.grad_flow != GradFlow::Frozen,
            Some(k) => self.active_heads.is_none_or(|n| k <= n),
        }
    }
}

/// The loss of the main head or of one prediction head on a batch.
#[derive(Clone, Debug)]
pub struct LossReport<V = Var> {
    /// [1, 3]: weighted loss, mean loss in nats, fraction of targets that have the largest logit.
    pub value: V,
    /// Number of targets.
    pub targets: usize,
}

impl<V> LossReport<V> {
    /// The report in host memory.
    ///
    /// # Errors
    /// Returns the errors of [`Exec::host`].
    pub fn on_host<E: Exec<Value = V>>(&self, exec: &mut E) -> Result<LossReport> {
        Ok(LossReport {
            value: Var::constant(exec.host(&self.value)?),
            targets: self.targets,
        })
    }
}

impl LossReport {
    /// Mean loss over the targets, in nats, without its weight in the joint loss.
    pub fn mean(&self) -> f32 {
        self.value.value().data()[1]
    }

    /// Fraction of the targets that have the largest logit.
    pub fn accuracy(&self) -> f32 {
        self.value.value().data()[2]
    }
}

impl Model {
    /// The losses of the main head and of every active head that has targets in the batch, in forward order.
    ///
    /// Head k is computed on positions 0..T − k of each sequence; the targets of later positions lie outside it.
    ///
    /// # Panics
    /// Panics if a token is not below V, or if a sequence is longer than the model's positions.
    pub fn losses<E: Exec>(
        &self,
        exec: &mut E,
        batch: &Batch,
        joint: JointLoss,
    ) -> Vec<LossReport<E::Value>> {
        let weights = joint.weights(self.config.mtp_depth);
        let rows = Rows::batch(batch.batch_size(), batch.seq_len());
        let trunk = &mut NoGrad::when(joint.grad_flow == GradFlow::Frozen, exec);
        let h = self.trunk(trunk, &batch.inputs(), &rows);
        let logits = self.logits(trunk, &h);
        let mut reports = vec![self.loss(trunk, &logits, batch, 0, weights[0])];
        let reach_trunk = joint.grad_flow == GradFlow::Joint;
        let h = if reach_trunk { h } else { exec.detached(&h) };
        let mut states = vec![(h, rows)];
        for k in (1..weights.len()).take_while(|k| batch.num_targets(*k) > 0) {
            let state =
                self.head_forward_full(exec, k, &states, &batch.head_inputs(k), reach_trunk);
            let logits = self.logits(&mut NoGrad::when(!reach_trunk, exec), &state.0);
            reports.push(self.loss(exec, &logits, batch, k, weights[k]));
            states.push(state);
        }
        reports
    }

    /// [`Model::losses`] of all heads, for callers that read [`LossReport::mean`] and [`LossReport::accuracy`] only,
    /// which do not depend on the weights of the joint loss.
    pub fn mean_losses<E: Exec>(&self, exec: &mut E, batch: &Batch) -> Vec<LossReport<E::Value>> {
        self.losses(exec, batch, JointLoss::default())
    }

    /// The loss of head k from its logits.
    fn loss<E: Exec>(
        &self,
        exec: &mut E,
        logits: &E::Value,
        batch: &Batch,
        k: usize,
        weight: f64,
    ) -> LossReport<E::Value> {
        let op = CrossEntropy {
            targets: batch.targets(k).into(),
            weight,
            total_targets: batch.total_targets(k),
        };
        let targets = op.targets.len();
        LossReport {
            value: exec.apply(op, [logits]),
            targets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_fall_by_beta_and_sum_to_lambda() {
        let joint = JointLoss {
            lambda: 0.5,
            beta: 0.5,
            ..JointLoss::default()
        };
        let w = joint.weights(3);
        assert_eq!(w.len(), 4);
        assert!((w[1..].iter().sum::<f64>() - 0.5).abs() < 1e-12);
        assert!((w[1] / w[2] - 2.0).abs() < 1e-12);
        assert_eq!(JointLoss::default().weights(0), [1.0]);
    }

    #[test]
    fn lambda_is_shared_out_among_the_active_heads() {
        let weights = |active_heads| {
            let joint = JointLoss {
                active_heads,
                ..JointLoss::default()
            };
            joint.weights(3)
        };
        assert_eq!(weights(Some(1)), [1.0, 0.3]);
        assert_eq!(weights(Some(0)), [1.0]);
        assert_eq!(weights(Some(9)), weights(None));
    }
}
