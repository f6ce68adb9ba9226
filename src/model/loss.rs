//! The joint loss: L = L_0 + λ Σ_k w_k L_k with w_k = β^{k-1}, normalised to sum 1.

use super::{Model, layout};
use crate::Result;
use crate::autograd::Var;
use crate::data::Batch;
use crate::exec::{Exec, NoGrad, Rows};
use crate::ops::CrossEntropy;

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

/// Where gradients go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GradFlow {
    /// Everywhere.
    #[default]
    Joint,
    /// The heads' stay in the heads: none reaches trunk, embedding or output matrix, so that the trunk learns as it would
    /// without heads.
    Detached,
    /// To the heads only; the trunk does not learn.
    Frozen,
}

/// What a step of training minimises, and what it may change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// How much the heads count.
    pub joint: JointLoss,
    /// Heads that count: depths 1..=`depths`, K at most. λ is shared out among them.
    pub depths: usize,
    /// Where their gradients go.
    pub flow: GradFlow,
}

impl From<JointLoss> for Objective {
    /// All heads, and gradients everywhere.
    fn from(joint: JointLoss) -> Self {
        Self {
            joint,
            depths: usize::MAX,
            flow: GradFlow::Joint,
        }
    }
}

impl Objective {
    /// Weights of L_0 and of the heads that count, of a model with `depth` heads.
    pub fn weights(&self, depth: usize) -> Vec<f64> {
        self.joint.weights(depth.min(self.depths))
    }

    /// Whether a step changes the parameter of that name.
    pub fn trains(&self, name: &str) -> bool {
        match layout::first_depth(name) {
            None => self.flow != GradFlow::Frozen,
            Some(k) => k <= self.depths,
        }
    }
}

/// One depth's loss on a batch.
#[derive(Clone, Debug)]
pub struct LossReport<V = Var> {
    /// [1, 3]: weighted loss, mean loss in nats, share of targets with the largest logit.
    pub value: V,
    /// Number of targets.
    pub targets: usize,
}

impl<V> LossReport<V> {
    /// The report in this program's memory.
    ///
    /// # Errors
    /// As [`Exec::host`].
    pub fn on_host<E: Exec<Value = V>>(&self, exec: &mut E) -> Result<LossReport> {
        Ok(LossReport {
            value: Var::constant(exec.host(&self.value)?),
            targets: self.targets,
        })
    }
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
    /// The losses of the main head and of every head that counts and has targets in the batch, in forward order.
    ///
    /// Depth k is computed on positions 0..T − k of each window: the last ones have no target inside it.
    pub fn losses<E: Exec>(
        &self,
        exec: &mut E,
        batch: &Batch,
        objective: impl Into<Objective>,
    ) -> Vec<LossReport<E::Value>> {
        let objective = objective.into();
        let weights = objective.weights(self.config.mtp_depth);
        let whole = Rows::batch(batch.batch_size(), batch.seq_len());
        let inputs = batch.inputs();
        let (h, main) = match objective.flow {
            GradFlow::Frozen => {
                let mut exec = NoGrad(exec);
                let h = self.trunk(&mut exec, &inputs, &whole);
                let logits = self.logits(&mut exec, &h);
                (h, self.loss(&mut exec, &logits, batch, 0, weights[0]))
            }
            GradFlow::Joint | GradFlow::Detached => {
                let h = self.trunk(exec, &inputs, &whole);
                let logits = self.logits(exec, &h);
                (h, self.loss(exec, &logits, batch, 0, weights[0]))
            }
        };
        let mut reports = vec![main];
        let shared = objective.flow == GradFlow::Joint;
        let mut states = vec![(if shared { h } else { exec.detached(&h) }, whole)];
        for k in (1..weights.len()).take_while(|k| batch.num_targets(*k) > 0) {
            let state = self.next_depth(exec, k, &states, &batch.head_inputs(k), shared);
            let logits = match shared {
                true => self.logits(exec, &state.0),
                false => self.logits(&mut NoGrad(exec), &state.0),
            };
            reports.push(self.loss(exec, &logits, batch, k, weights[k]));
            states.push(state);
        }
        reports
    }

    fn loss<E: Exec>(
        &self,
        exec: &mut E,
        logits: &E::Value,
        batch: &Batch,
        k: usize,
        weight: f64,
    ) -> LossReport<E::Value> {
        let targets = batch.targets(k);
        let count = targets.len();
        let op = CrossEntropy {
            targets: targets.into(),
            weight,
            whole_rows: batch.total_targets(k),
        };
        LossReport {
            value: exec.apply(op, [logits]),
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
