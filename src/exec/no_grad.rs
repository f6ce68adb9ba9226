//! An executor inside another: parameters are values, and nobody wants their gradients.

use super::{Exec, Rows};
use crate::Result;
use crate::autograd::Op;
use crate::kernels::attention::AttentionHeads;
use crate::tensor::{ParamId, Tensor};
use std::sync::Arc;

/// What is done through this leaves the parameters' gradients alone; gradients of other values pass as before.
#[derive(Debug)]
pub struct NoGrad<'e, E>(pub &'e mut E);

impl<E: Exec> Exec for NoGrad<'_, E> {
    type Value = E::Value;

    fn param(&mut self, id: ParamId) -> E::Value {
        let value = self.0.param(id);
        self.0.detached(&value)
    }

    fn apply<O, const N: usize>(&mut self, op: O, inputs: [&E::Value; N]) -> E::Value
    where
        O: Op<N> + 'static,
        O::Saved: 'static,
    {
        self.0.apply(op, inputs)
    }

    fn attend(
        &mut self,
        cache: usize,
        heads: AttentionHeads,
        rows: &Rows,
        qkv: &E::Value,
    ) -> E::Value {
        self.0.attend(cache, heads, rows, qkv)
    }

    fn detached(&mut self, value: &E::Value) -> E::Value {
        self.0.detached(value)
    }

    fn host(&mut self, value: &E::Value) -> Result<Arc<Tensor>> {
        self.0.host(value)
    }
}
