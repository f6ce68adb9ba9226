//! An executor inside another: parameters are values, and nobody wants their gradients.

use super::{Exec, Rows};
use crate::autograd::{Op, Var};
use crate::kernels::attention::Heads;
use crate::tensor::ParamId;

/// What is done through this leaves the parameters' gradients alone; gradients of other values pass as before.
#[derive(Debug)]
pub struct Constants<'e, E>(pub &'e mut E);

impl<E: Exec> Exec for Constants<'_, E> {
    fn param(&mut self, id: ParamId) -> Var {
        self.0.param(id).detached()
    }

    fn apply<O, const N: usize>(&mut self, op: O, inputs: [&Var; N]) -> Var
    where
        O: Op<N> + 'static,
        O::Saved: 'static,
    {
        self.0.apply(op, inputs)
    }

    fn attend(&mut self, cache: usize, heads: Heads, rows: &Rows, qkv: &Var) -> Var {
        self.0.attend(cache, heads, rows, qkv)
    }
}
