//! The executor for training: whole sequences from position 0, every operation on a tape.

use super::{Exec, Rows};
use crate::Result;
use crate::autograd::{Gradients, Leaf, Op, Tape, Var};
use crate::kernels::attention::AttentionHeads;
use crate::ops::Attention;
use crate::tensor::{ParamId, Params, Tensor};
use std::sync::Arc;

/// Records what a model does.
pub struct Train<'m> {
    params: &'m Params,
    tape: Tape,
    frozen: bool,
}

impl<'m> Train<'m> {
    /// An empty tape over these parameters.
    pub fn new(params: &'m Params) -> Self {
        Self {
            params,
            tape: Tape::default(),
            frozen: false,
        }
    }

    /// For evaluation: no parameter wants a gradient, so nothing is recorded and values are freed on the way.
    pub fn no_grad(params: &'m Params) -> Self {
        Self {
            frozen: true,
            ..Self::new(params)
        }
    }

    /// A value from elsewhere whose gradient [`Train::backward_to`] returns, and its place.
    pub fn leaf(&mut self, value: &Var) -> (Var, Leaf) {
        self.tape.leaf(Arc::clone(value.value()))
    }

    /// Backward from given gradients of some values; returns the leaf's gradient, as [`Tape::backward_to`] does.
    pub fn backward_to(
        self,
        roots: Vec<(Var, Tensor)>,
        leaf: Option<Leaf>,
        gradients: &mut Gradients,
    ) -> Option<Tensor> {
        self.tape.backward_to(roots, leaf, gradients)
    }

    /// The gradient of the sum of the losses, added to `gradients`. Losses are [1, n] with the loss first.
    pub fn backward(self, losses: &[Var], gradients: &mut Gradients) {
        let one = |loss: &Var| {
            let mut d = Tensor::zeros(loss.value().shape());
            d.data_mut()[0] = 1.0;
            d
        };
        let roots: Vec<_> = losses.iter().map(|loss| (loss, one(loss))).collect();
        self.tape.backward(&roots, gradients);
    }
}

impl Exec for Train<'_> {
    type Value = Var;

    fn param(&mut self, id: ParamId) -> Var {
        let value = Arc::clone(self.params.get(id));
        match self.frozen {
            true => Var::constant(value),
            false => Var::parameter(id, value),
        }
    }

    fn apply<O, const N: usize>(&mut self, op: O, inputs: [&Var; N]) -> Var
    where
        O: Op<N> + 'static,
        O::Saved: 'static,
    {
        self.tape.apply(op, inputs)
    }

    fn attend(&mut self, _cache: usize, heads: AttentionHeads, rows: &Rows, qkv: &Var) -> Var {
        let lengths = rows.spans().iter().map(|span| {
            assert_eq!(span.first, 0, "training starts sequences at position 0");
            span.len
        });
        let op = Attention {
            heads,
            lengths: lengths.collect(),
        };
        self.tape.apply(op, [qkv])
    }

    fn detached(&mut self, value: &Var) -> Var {
        value.detached()
    }

    fn host(&mut self, value: &Var) -> Result<Arc<Tensor>> {
        Ok(Arc::clone(value.value()))
    }
}
