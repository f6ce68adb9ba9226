//! Floor 9: GPUs, in builds with the feature `cuda`.
//!
//! Kernels are CUDA C (`kernels/*.cu`), compiled at run time for the device that is found. They do what the kernels of
//! the CPU do, with the same operations in the same order, and so have their bits.
//!
//! | file | what |
//! |---|---|
//! | [`device`] | [`Device`], [`Array`]: memory, copies, launches |
//! | `driver` | what a machine has to be able to do |
//! | `cuda` | the machine that is a GPU |
//! | `nvrtc` | the compiler of kernels, loaded at run time |
//! | `cache` | compiled kernels in the user's cache directory |
//! | `emulated` | the machine that is the host's CPU, for tests |
//! | `source` | the kernels' source |
//! | [`products`] | matrix products |
//! | [`rows`] | operations on rows: embedding, norms, rotation and the like |
//! | [`attention`] | keys and values, and attention over them |
//! | [`pick`] | the choice of tokens |
//! | [`weights`] | [`Weights`]: a model's parameters |
//! | [`exec`] | [`OnDevice`]: the executor |
//! | `ops` | operations by their kernels |
//!
//! `unsafe` stands here and in the folder of SIMD kernels only. Lower floors never name this one: they define the traits
//! that it implements.

pub mod attention;
pub mod device;
pub mod exec;
pub mod pick;
pub mod products;
pub mod rows;
pub mod weights;

mod cache;
mod cuda;
mod driver;
mod emulated;
mod nvrtc;
mod ops;
mod source;

pub use device::{Array, Device, Order};
pub use exec::OnDevice;
pub use weights::Weights;
