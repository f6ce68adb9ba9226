//! An executor inside another that gives parameters no gradient.

use super::{Exec, Rows};
use crate::Result;
use crate::autograd::Op;
use crate::kernels::attention::AttentionHeads;
use crate::tensor::{ParamId, Tensor};
use std::sync::Arc;

/// Runs operations on another executor with parameters as constants. Gradients of other values are computed as before.
#[derive(Debug)]
pub struct NoGrad<'e, E> {
    exec: &'e mut E,
    constant: bool,
}

impl<'e, E> NoGrad<'e, E> {
    /// Parameters are constants if `constant` is set; else it is just the other executor.
    pub fn when(constant: bool, exec: &'e mut E) -> Self {
        Self { exec, constant }
    }
}

impl<E: Exec> Exec for NoGrad<'_, E> {
    type Value = E::Value;

    fn param(&mut self, id: ParamId) -> E::Value {
        let value = self.exec.param(id);
        if self.constant {
            self.exec.detached(&value)
        } else {
            value
        }
    }

    fn apply<O, const N: usize>(&mut self, op: O, inputs: [&E::Value; N]) -> E::Value
    where
        O: Op<N> + 'static,
    {
        self.exec.apply(op, inputs)
    }

    fn attend(
        &mut self,
        cache: usize,
        heads: AttentionHeads,
        rows: &Rows,
        qkv: &E::Value,
    ) -> E::Value {
        self.exec.attend(cache, heads, rows, qkv)
    }

    fn detached(&mut self, value: &E::Value) -> E::Value {
        self.exec.detached(value)
    }

    fn host(&mut self, value: &E::Value) -> Result<Arc<Tensor>> {
        self.exec.host(value)
    }
}
