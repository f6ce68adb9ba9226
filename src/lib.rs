#![doc = include_str!("links.md")]
#![doc = include_str!("../README.md")]
// The functions of libm round differently from platform to platform (`.ci/clippy.toml` lists them). Tests compare with
// them.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

#[macro_use]
mod names;

pub mod autograd;
pub mod checkpoint;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod data;
mod error;
pub mod exec;
mod files;
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
pub mod gpu;
pub mod infer;
pub mod kernels;
pub mod manual;
pub mod model;
pub mod ops;
pub mod profile;
#[allow(unsafe_code)]
pub mod simd;
pub mod tensor;
pub mod train;
pub use error::{Error, Result};
