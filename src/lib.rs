#![doc = include_str!("../README.md")]
pub mod autograd;
pub mod checkpoint;
pub mod cli;
pub mod data;
mod error;
pub mod exec;
mod files;
#[cfg(feature = "cuda")]
pub mod gpu;
pub mod infer;
pub mod kernels;
pub mod manual;
pub mod model;
pub mod ops;
pub mod profile;
pub mod simd;
pub mod tensor;
pub mod train;
pub use error::{Error, Result};
