//! Values with a shape, named parameters, and their initial values.
//!
//! | file | what |
//! |---|---|
//! | [`value`] | [`Tensor`]: values in row-major order, or packed for matrix multiplication |
//! | [`params`] | [`Params`]: tensors by name |
//! | [`init`] | normal random values that depend on (seed, name) only |
//!
//! This folder knows nothing about operations, gradients or models.

pub mod init;
pub mod params;
pub mod value;

pub use params::{ParamId, Params};
pub use value::Tensor;
