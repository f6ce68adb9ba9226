//! The step that trains: the joint loss and its gradient, with the peak memory of the trunk plus one head.
//!
//! ```text
//! 1  run the trunk, recorded on a tape                                       h^0
//! 2  run heads 1..K-1 of a chained kind, recording nothing                   h^1 .. h^{K-1}
//! 3  for k = K..1: run head k again, on a tape of its own; its loss;
//!    its backward pass gives the gradient of its source; free h^{k-1}
//! 4  the main loss; the trunk's backward pass
//! ```
//!
//! The order of uses is that of one tape with everything on it, run backwards: loss K, head K, .., loss 1, head 1, main
//! loss, trunk. So the embedding, the LM head and each h^k receive their gradients in the order of rule R7, and the
//! result equals that of [`Model::losses`] and [`TapeExec::backward`] bit for bit (`tests/gradients.rs`). The logits
//! are computed in chunks of rows and never stored ([`crate::kernels::linear_cross_entropy`]).
//!
//! The price is that heads 1..K-1 of a chained kind run forward twice.

use super::{GradFlow, JointLoss, LossReport, Model};
use crate::autograd::{Gradients, Var};
use crate::data::Batch;
use crate::exec::{Rows, TapeExec};
use crate::kernels::{elementwise, linear_cross_entropy};
use crate::ops::CrossEntropy;
use crate::tensor::Tensor;
use std::sync::Arc;

impl Model {
    /// The losses, as [`Model::losses`] returns them. The gradient of their weighted sum is added to `gradients`.
    ///
    /// # Panics
    /// Panics if a token is not below V, if a sequence is longer than the model's positions, or if the model is packed.
    pub fn backward(
        &self,
        batch: &Batch,
        joint: JointLoss,
        gradients: &mut Gradients,
    ) -> Vec<LossReport> {
        let (kind, weights) = (self.config.mtp_kind, joint.weights(self.config.mtp_depth));
        let heads = 1..weights.len();
        let active = heads.take_while(|k| batch.num_targets(*k) > 0).count();
        let rows = Rows::batch(batch.batch_size(), batch.seq_len());
        // Whether gradients of the heads' losses reach the trunk, the embedding and the LM head.
        let reach_trunk = joint.grad_flow == GradFlow::Joint;
        let (mut tape, main) = if joint.grad_flow == GradFlow::Frozen {
            (TapeExec::no_grad(&self.params), GradTargets::None)
        } else {
            (TapeExec::new(&self.params), GradTargets::HiddenAndLmHead)
        };
        let h0 = self.trunk(&mut tape, &batch.inputs(), &rows);

        // The hidden states that the remaining heads read, with their rows: h^0, and h^1, h^2, .. of a chained kind.
        let mut states = self.chain((h0.detached(), rows), batch, active, reach_trunk);
        // The gradient so far of the state that was read last: h^{k-1} of a chained kind, h^0 of the others.
        let mut d_state: Option<Tensor> = None;
        let mut reports = Vec::with_capacity(active + 1);
        for k in (1..=active).rev() {
            let source = kind.source(k);
            let mut head = TapeExec::new(&self.params);
            // The gradient of h^0 is needed only if it reaches the trunk, that of h^1, h^2, .. always.
            let leaf = (source > 0 || reach_trunk).then(|| {
                let (state, leaf) = head.leaf(&states[source].0);
                states[source].0 = state;
                leaf
            });
            let head_inputs = batch.head_inputs(k);
            let (h, _) = self.head_forward_full(&mut head, k, &states, &head_inputs, reach_trunk);
            if kind.chained() {
                // No remaining head reads h^{k-1}, and the tape has what the backward pass needs of it.
                let held = Arc::strong_count(states[source].0.value());
                debug_assert!(source == 0 || held == 1, "h^{source} would not be freed");
                states.truncate(source);
            }
            let targets = if reach_trunk {
                GradTargets::HiddenAndLmHead
            } else {
                GradTargets::Hidden
            };
            let (report, dh) = self.loss_backward(&h, batch, k, weights[k], targets, gradients);
            reports.push(report);
            // Head k + 1 of a chain has read h^k, and its backward pass has run.
            let from_next = kind.chained().then(|| d_state.take()).flatten();
            let d_source = head.backward_to(roots(h, from_next, dh), leaf, gradients);
            match (&mut d_state, d_source) {
                (Some(sum), Some(d)) => elementwise::accumulate(sum.data_mut(), d.data()),
                (d_state, d_source) => *d_state = d_source,
            }
        }
        drop(states);

        let (report, dh) = self.loss_backward(&h0, batch, 0, weights[0], main, gradients);
        reports.push(report);
        tape.backward_to(roots(h0, d_state, dh), None, gradients);
        reports.reverse();
        reports
    }

    /// h^0 and, for a chained kind, h^1 .. h^{active-1}, each with its rows.
    fn chain(
        &self,
        h0: (Var, Rows),
        batch: &Batch,
        active: usize,
        embedding_grad: bool,
    ) -> Vec<(Var, Rows)> {
        let mut states = vec![h0];
        let chained = self.config.mtp_kind.chained();
        for k in 1..if chained { active } else { 0 } {
            let mut exec = TapeExec::no_grad(&self.params);
            let head_inputs = batch.head_inputs(k);
            let next = self.head_forward_full(&mut exec, k, &states, &head_inputs, embedding_grad);
            states.push(next);
        }
        states
    }

    /// The loss of head k from h^k, and dh; the gradient of the LM head is accumulated into `gradients`.
    fn loss_backward(
        &self,
        h: &Var,
        batch: &Batch,
        k: usize,
        weight: f64,
        targets: GradTargets,
        gradients: &mut Gradients,
    ) -> (LossReport, Option<Tensor>) {
        let (h, lm_head) = (h.value(), self.lm_head());
        let loss = CrossEntropy {
            targets: batch.targets(k).into(),
            weight,
            total_targets: batch.total_targets(k),
        };
        let rows = loss.targets.len();
        let mut dh = (targets != GradTargets::None).then(|| Tensor::empty(h.shape()));
        let inputs = linear_cross_entropy::Inputs {
            h: h.matrix(),
            w: self.params.get(lm_head).matrix(),
            targets: &loss.targets,
            factor: (weight / loss.total_targets.max(1) as f64) as f32,
        };
        let outputs = linear_cross_entropy::Gradients {
            dh: dh.as_mut().map(Tensor::matrix_mut),
            dw: (targets == GradTargets::HiddenAndLmHead)
                .then(|| gradients.get_mut(lm_head).matrix_mut()),
        };
        let [losses, hits] = linear_cross_entropy::forward_backward(inputs, outputs);
        let report = LossReport {
            value: Var::constant(loss.report(&losses, &hits)),
            targets: rows,
        };
        (report, dh)
    }
}

/// Which gradients of a loss are computed.
#[derive(Clone, Copy, PartialEq)]
enum GradTargets {
    None,
    Hidden,
    HiddenAndLmHead,
}

/// Gradients of h: first the one that came from later uses of h, then that of its own loss.
fn roots(h: Var, from_uses: Option<Tensor>, from_loss: Option<Tensor>) -> Vec<(Var, Tensor)> {
    let gradients = from_uses.into_iter().chain(from_loss);
    gradients.map(|d| (h.clone(), d)).collect()
}
