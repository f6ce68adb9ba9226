//! Floor 2: values with a shape, named parameters, and their first values.
//!
//! | file | what |
//! |---|---|
//! | [`value`] | [`Tensor`]: an ndarray in standard layout whose memory is used again |
//! | [`params`] | [`Params`]: tensors by name |
//! | [`init`] | normal random values that depend on (seed, name) only |
//!
//! This folder never knows operations, gradients or models.

pub mod init;
pub mod params;
pub mod value;

pub use params::{ParamId, Params};
pub use value::Tensor;
