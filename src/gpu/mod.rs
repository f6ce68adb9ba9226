//! Running a model on an NVIDIA GPU, bitwise identical to the CPU. Needs the feature `cuda`.
//!
//! The kernels are CUDA C (`kernels/*.cu`), compiled at run time for the GPU at hand. They perform the operations of
//! the CPU's kernels in the same order.
//!
//! | file | what |
//! |---|---|
//! | `device` | [`Device`], [`Array`], [`Matrix`]: memory, copies, launches |
//! | `backend` | the interface that a device needs |
//! | `cuda` | the backend on CUDA's driver |
//! | `nvrtc` | NVIDIA's run-time compiler |
//! | `compile_cache` | compiled kernels in the user's cache directory |
//! | `source` | the kernels' source |
//! | `matmul` | [`matmul_nt`]: matrix multiplication |
//! | `rows` | operations on rows: embedding, norms, RoPE, activations, loss |
//! | `growing` | rows that are appended one after another |
//! | `attention` | KV cache and attention |
//! | `sample` | sampling tokens |
//! | `params` | [`DeviceParams`]: a model's parameters |
//! | `value` | [`Value`]: a matrix of the executor |
//! | `ops` | which operation runs which kernels |
//! | `exec` | [`GpuExec`]: the executor |
//! | `tests` | every kernel and whole models against the CPU; a device emulated by the host's CPU |
//!
//! `unsafe` occurs here and in [`simd`](crate::simd) only. Lower layers never name this one; they define the traits
//! that it implements.

mod attention;
mod backend;
mod compile_cache;
mod cuda;
mod device;
mod exec;
mod growing;
mod matmul;
mod nvrtc;
mod ops;
mod params;
mod rows;
mod sample;
mod source;
#[cfg(test)]
mod tests;
mod value;

pub use device::{Array, Device, Matrix};
pub use exec::GpuExec;
pub use matmul::matmul_nt;
pub use params::DeviceParams;
pub use value::Value;
