//! Floor 5: executors, which run a model's operations.
//!
//! A model is written once, against [`Exec`]. [`Train`] records a tape; [`Decode`] keeps keys and values and frees
//! everything else. That these two agree bit for bit is what makes speculation exact.
//!
//! | file | what |
//! |---|---|
//! | [`rows`] | [`Rows`]: which sequence and position each row of a computation belongs to |
//! | [`train`] | [`Train`]: whole sequences on a tape |
//! | [`sequences`] | [`SequenceCache`]: KV caches and hidden states by sequence, for decoding |
//! | [`decode`] | [`Decode`]: rows appended to caches |
//! | [`no_grad`] | [`NoGrad`]: another executor without gradients of parameters |
//!
//! This folder never knows what a model looks like: it sees operations, parameters and cache numbers.

pub mod decode;
pub mod no_grad;
pub mod rows;
pub mod sequences;
pub mod train;

pub use decode::Decode;
pub use no_grad::NoGrad;
pub use rows::{Rows, Span};
pub use sequences::SequenceCache;
pub use train::Train;

use crate::Result;
use crate::autograd::Op;
use crate::kernels::attention::AttentionHeads;
use crate::tensor::{ParamId, Tensor};
use std::sync::Arc;

/// Runs operations.
///
/// Values lie wherever the executor computes. An executor whose machine can fail gives no errors here: what follows from
/// the failure is a value like any other, until [`Exec::host`] is asked for it.
pub trait Exec {
    /// What operations take and give: the place of a matrix.
    type Value: Clone;

    /// A parameter as a value.
    fn param(&mut self, id: ParamId) -> Self::Value;

    /// Does an operation.
    fn apply<O, const N: usize>(&mut self, op: O, inputs: [&Self::Value; N]) -> Self::Value
    where
        O: Op<N> + 'static,
        O::Saved: 'static;

    /// Causal attention of rows to everything that cache `cache` holds of their sequences, themselves included.
    ///
    /// qkv [rows, (H + 2 G) D] -> [rows, H D]
    fn attend(
        &mut self,
        cache: usize,
        heads: AttentionHeads,
        rows: &Rows,
        qkv: &Self::Value,
    ) -> Self::Value;

    /// The same value, whose gradient nobody wants.
    fn detached(&mut self, value: &Self::Value) -> Self::Value {
        value.clone()
    }

    /// The value in this program's memory.
    ///
    /// # Errors
    /// Where the executor's machine failed.
    fn host(&mut self, value: &Self::Value) -> Result<Arc<Tensor>>;
}
