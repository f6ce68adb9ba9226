//! The interface of a differentiable operation.

use super::GradSink;
use crate::tensor::Tensor;
use std::sync::Arc;

/// A differentiable operation with N inputs and one output.
///
/// Backward stands right under forward, in one file with the maths and the laws ([`testing`](super::testing)). What
/// backward needs is named in `Saved` and nowhere else: it may share an input (`Arc`), hold an intermediate result, or
/// be empty. So the memory that an operation costs in training can be read off its `Saved`.
pub trait Op<const N: usize> {
    /// What forward keeps for backward.
    type Saved;

    /// Computes the output.
    fn forward(&self, inputs: [&Arc<Tensor>; N]) -> (Tensor, Self::Saved);

    /// Computes the inputs' gradients from the output's gradient `dy` and hands them to `sink`. Inputs for which
    /// [`GradSink::needs_grad`] is false can be skipped.
    fn backward(&self, saved: Self::Saved, dy: Tensor, sink: &mut GradSink<'_, N>);
}
