//! An executor inside another that gives parameters no gradient.

use super::{Exec, Rows};
use crate::Result;
use crate::autograd::Op;
use crate::kernels::attention::AttentionHeads;
use crate::tensor::{ParamId, Tensor};
use std::sync::Arc;

/// Runs operations on another executor with parameters as constants. Gradients of other values are computed as before.
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
