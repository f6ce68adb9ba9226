//! The interface of a differentiable operation.

use super::GradSink;
use crate::tensor::Tensor;
use std::sync::Arc;

/// A differentiable operation with N inputs and one output.
///
/// Backward stands right under forward, in one file with the maths and the laws. What backward needs is named in
/// `Saved` and nowhere else: it may share an input (`Arc`), hold something computed on the way, or be empty. So the
/// memory that an operation costs in training can be read off its `Saved`.
pub trait Op<const N: usize> {
    /// What forward leaves for backward.
    type Saved;

    /// Inputs -> output.
    fn forward(&self, inputs: [&Arc<Tensor>; N]) -> (Tensor, Self::Saved);

    /// The output's gradient -> the gradients of those inputs that want one, given to `sink`.
    fn backward(&self, saved: Self::Saved, dy: Tensor, sink: &mut GradSink<'_, N>);
}
