//! Executors: what runs a model's operations.
//!
//! A model is written once, against [`Exec`]. [`TapeExec`] records a tape; [`CacheExec`] keeps the KV cache and frees
//! everything else. That these two agree bit for bit is what makes speculation exact.
//!
//! | file | what |
//! |---|---|
//! | [`rows`] | [`Rows`]: which sequence and position each row of a computation belongs to |
//! | [`train`] | [`TapeExec`]: whole sequences on a tape |
//! | [`sequences`] | [`SequenceCache`]: KV caches and hidden states by sequence, for decoding |
//! | [`decode`] | [`CacheExec`]: rows appended to caches |
//! | [`no_grad`] | [`NoGrad`]: another executor without gradients of parameters |
//!
//! This folder does not know what a model looks like: it sees operations, parameters and cache indices.

pub mod decode;
pub mod no_grad;
pub mod rows;
pub mod sequences;
pub mod train;

pub use decode::CacheExec;
pub use no_grad::NoGrad;
pub use rows::{Rows, Span};
pub use sequences::SequenceCache;
pub use train::TapeExec;

use crate::Result;
use crate::autograd::Op;
use crate::kernels::attention::AttentionHeads;
use crate::tensor::{ParamId, Tensor};
use std::sync::Arc;

/// Runs operations. Implemented by [`TapeExec`], [`CacheExec`], [`NoGrad`] and, with the feature `cuda`,
/// `gpu::GpuExec`.
///
/// Device executors report errors lazily: after a failure, operations return placeholder values and [`Exec::host`]
/// returns the error.
///
/// It may be implemented outside the crate, for example to count operations. Before version 1.0 it may gain methods.
pub trait Exec {
    /// A matrix where the executor computes: in memory or on a device.
    type Value: Clone;

    /// A parameter as a value.
    fn param(&mut self, id: ParamId) -> Self::Value;

    /// Runs an operation.
    fn apply<O, const N: usize>(&mut self, op: O, inputs: [&Self::Value; N]) -> Self::Value
    where
        O: Op<N> + 'static;

    /// Causal attention. Appends the rows' keys and values to KV cache `cache` of their sequences; each row then
    /// attends to the positions of its sequence up to its own.
    ///
    /// qkv [rows, (H + 2 G) D] -> [rows, H D], with G key/value heads
    ///
    /// # Panics
    /// Panics if a span does not start at the end of its sequence's cache ([`TapeExec`]: at position 0).
    fn attend(
        &mut self,
        cache: usize,
        heads: AttentionHeads,
        rows: &Rows,
        qkv: &Self::Value,
    ) -> Self::Value;

    /// The same value without a gradient.
    fn detached(&mut self, value: &Self::Value) -> Self::Value {
        value.clone()
    }

    /// The value in this program's memory.
    ///
    /// # Errors
    /// Returns [`Error::Device`](crate::Error::Device) if the executor's device failed at any time before.
    fn host(&mut self, value: &Self::Value) -> Result<Arc<Tensor>>;
}
