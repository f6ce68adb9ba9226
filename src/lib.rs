//! foretoken
pub mod autograd;
pub mod checkpoint;
pub mod data;
mod error;
pub mod exec;
pub mod kernels;
pub mod model;
pub mod ops;
pub mod simd;
pub mod tensor;
pub use error::{Error, Result};
