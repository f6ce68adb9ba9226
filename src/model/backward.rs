//! The joint loss with its gradient, in the memory of the trunk and one head.
//!
//! ```text
//! the trunk on a tape: h^0;  for chained kinds h^1..h^{K-1}, of which nothing else is kept
//! for k = K..1:   head k again on a tape of its own; h^{k-1} of a chain is freed; its loss; its backward pass
//! the main loss;  the trunk's backward pass
//! ```
//!
//! The order of uses is that of the whole tape run backwards: loss K, head K, .., loss 1, head 1, main loss, trunk. So
//! the embedding, the output matrix and each h^k take their gradients in the order of rule R7, and the result equals
//! that of [`Model::losses`] and [`Train::backward`] bit for bit. Each loss makes its logits in chunks
//! ([`crate::kernels::linear_cross_entropy`]).
//!
//! A head's forward pass is computed twice where a chain needs its output, K − 1 times in all. It is what is paid for
//! memory that does not grow with K.

use super::{GradFlow, LossReport, Model, Objective};
use crate::autograd::{Gradients, Var};
use crate::data::Batch;
use crate::exec::{Rows, Train};
use crate::kernels::{elementwise, linear_cross_entropy, reduce};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Which gradients of a loss are wanted.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    /// None.
    Nothing,
    /// The hidden state's.
    Hidden,
    /// The hidden state's and the output matrix's.
    Both,
}

/// The gradients of h: what arrived from later uses, then the loss's own.
fn roots(h: Var, arrived: Option<Tensor>, dh: Option<Tensor>) -> Vec<(Var, Tensor)> {
    let gradients = arrived.into_iter().chain(dh);
    gradients.map(|d| (h.clone(), d)).collect()
}

impl Model {
    /// The losses, as [`Model::losses`] gives them, and the gradient of their sum, added to `gradients`.
    pub fn backward(
        &self,
        batch: &Batch,
        objective: impl Into<Objective>,
        gradients: &mut Gradients,
    ) -> Vec<LossReport> {
        let objective = objective.into();
        let weights = objective.weights(self.config.mtp_depth);
        let heads = 1..weights.len();
        let depth = heads.take_while(|k| batch.num_targets(*k) > 0).count();
        let kind = self.config.mtp_kind;
        let (shared, main) = match objective.flow {
            GradFlow::Joint => (true, Wanted::Both),
            GradFlow::Detached => (false, Wanted::Both),
            GradFlow::Frozen => (false, Wanted::Nothing),
        };
        let whole = Rows::batch(batch.batch_size(), batch.seq_len());
        let mut tape = match main {
            Wanted::Nothing => Train::no_grad(&self.params),
            _ => Train::new(&self.params),
        };
        let h0 = self.trunk(&mut tape, &batch.inputs(), &whole);

        // h^0, and where it is needed h^1 .. h^{K-1}, each with its rows.
        let mut states = vec![(h0.detached(), whole)];
        let chain = if kind.chained() { depth } else { 0 };
        for k in 1..chain {
            let mut quiet = Train::no_grad(&self.params);
            let next = self.next_depth(&mut quiet, k, &states, &batch.head_inputs(k), shared);
            states.push(next);
        }
        let mut reports = Vec::with_capacity(depth + 1);
        // What has arrived so far: at h^k of a chain, at h^0 of the other kinds.
        let mut arrived: Option<Tensor> = None;
        for k in (1..=depth).rev() {
            let from = kind.source(k);
            let mut tape = Train::new(&self.params);
            let leaf = (from > 0 || shared).then(|| {
                let (state, leaf) = tape.leaf(&states[from].0);
                states[from].0 = state;
                leaf
            });
            let (h, _) = self.next_depth(&mut tape, k, &states, &batch.head_inputs(k), shared);
            if kind.chained() {
                // No depth before this one reads h^{k−1}, and the tape has what its backward pass needs. Of h^0 the trunk's
                // own value is left.
                let held = Arc::strong_count(states[from].0.value());
                debug_assert!(from == 0 || held == 1, "h^{from} would not be freed");
                states.truncate(from);
            }
            let wanted = if shared { Wanted::Both } else { Wanted::Hidden };
            let (report, dh) =
                self.linear_cross_entropy(&h, batch, k, weights[k], wanted, gradients);
            reports.push(report);
            // The depth after this one was differentiated before, so its gradient comes first.
            let later = if kind.chained() { arrived.take() } else { None };
            let roots = roots(h, later, dh);
            let d = tape.backward_to(roots, leaf, gradients);
            match (&mut arrived, d) {
                (Some(sum), Some(d)) => elementwise::accumulate(sum.data_mut(), d.data()),
                (slot, d) => *slot = d,
            }
        }
        drop(states);
        let (report, dh) = self.linear_cross_entropy(&h0, batch, 0, weights[0], main, gradients);
        reports.push(report);
        tape.backward_to(roots(h0, arrived, dh), None, gradients);
        reports.reverse();
        reports
    }

    /// The loss of depth k from h^k, and dh; the output matrix's gradient goes on in `gradients`.
    fn linear_cross_entropy(
        &self,
        h: &Var,
        batch: &Batch,
        k: usize,
        weight: f64,
        wanted: Wanted,
        gradients: &mut Gradients,
    ) -> (LossReport, Option<Tensor>) {
        let (h, targets, output) = (h.value(), batch.targets(k), self.output());
        let rows = targets.len();
        let (own, n) = (rows.max(1) as f64, batch.total_targets(k).max(1) as f64);
        let (mut losses, mut hits) = (vec![0.0; rows], vec![0.0; rows]);
        let mut dh = (wanted != Wanted::Nothing).then(|| Tensor::empty(h.shape()));
        let inputs = linear_cross_entropy::Inputs {
            h: h.matrix(),
            w: self.params.get(output).matrix(),
            targets: &targets,
            factor: (weight / n) as f32,
        };
        let places = linear_cross_entropy::Gradients {
            dh: dh.as_mut().map(Tensor::matrix_mut),
            dw: (wanted == Wanted::Both).then(|| gradients.get_mut(output).matrix_mut()),
        };
        linear_cross_entropy::forward_backward(inputs, &mut losses, &mut hits, places);
        let sum = reduce::total(&losses);
        let report = [weight * (sum / n), sum / own, reduce::total(&hits) / own].map(|x| x as f32);
        let report = LossReport {
            value: Var::constant(Tensor::new(&[1, 3], report.to_vec())),
            targets: rows,
        };
        (report, dh)
    }
}
