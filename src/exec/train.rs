//! The executor for training: whole sequences from position 0, every operation on a tape.

use super::{Exec, Rows};
use crate::Result;
use crate::autograd::{Gradients, Leaf, Op, Tape, Var};
use crate::kernels::attention::AttentionHeads;
use crate::ops::Attention;
use crate::tensor::{ParamId, Params, Tensor};
use std::sync::Arc;

/// Records a model's operations on a tape.
pub struct TapeExec<'m> {
    params: &'m Params,
    tape: Tape,
    /// Whether parameters have no gradient.
    no_grad: bool,
}

impl<'m> TapeExec<'m> {
    /// An empty tape over these parameters.
    pub fn new(params: &'m Params) -> Self {
        Self {
            params,
            tape: Tape::default(),
            no_grad: false,
        }
    }

    /// For evaluation: parameters have no gradient, so nothing is recorded and values are freed as soon as possible.
    pub fn no_grad(params: &'m Params) -> Self {
        Self {
            no_grad: true,
            ..Self::new(params)
        }
    }

    /// Imports a value, as [`Tape::leaf`] does.
    pub fn leaf(&mut self, value: &Var) -> (Var, Leaf) {
        self.tape.leaf(Arc::clone(value.value()))
    }

    /// Runs backward from some outputs and the gradient of each, and returns the leaf's gradient, as
    /// [`Tape::backward_to`] does.
    ///
    /// # Panics
    /// As [`Tape::backward_to`].
    #[track_caller]
    pub fn backward_to(
        self,
        outputs: Vec<(Var, Tensor)>,
        leaf: Option<Leaf>,
        gradients: &mut Gradients,
    ) -> Option<Tensor> {
        self.tape.backward_to(outputs, leaf, gradients)
    }

    /// Adds the gradient of the sum of the losses to `gradients`. The loss is the first element of each [1, n].
    pub fn backward(self, losses: &[Var], gradients: &mut Gradients) {
        let one = |loss: &Var| {
            let mut d = Tensor::zeros(loss.value().shape());
            d.data_mut()[0] = 1.0;
            d
        };
        let losses: Vec<_> = losses.iter().map(|loss| (loss, one(loss))).collect();
        self.tape.backward(&losses, gradients);
    }
}

impl Exec for TapeExec<'_> {
    type Value = Var;

    fn param(&mut self, id: ParamId) -> Var {
        let value = Arc::clone(self.params.get(id));
        if self.no_grad {
            Var::constant(value)
        } else {
            Var::parameter(id, value)
        }
    }

    fn apply<O, const N: usize>(&mut self, op: O, inputs: [&Var; N]) -> Var
    where
        O: Op<N> + 'static,
    {
        self.tape.apply(op, inputs)
    }

    fn attend(&mut self, _cache: usize, heads: AttentionHeads, rows: &Rows, qkv: &Var) -> Var {
        let lengths = rows.spans().iter().map(|span| {
            assert_eq!(span.first, 0, "a training sequence starts at position 0");
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
