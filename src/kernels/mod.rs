//! Floor 1: loops over slices, each with its order of operations fixed by a rule of the contract.
//!
//! | file | what | rule |
//! |---|---|---|
//! | [`gemm`] | matrix products in three forms | R1 |
//! | [`attention`] | causal grouped-query attention, forward and backward, and its cache | R5 |
//! | [`norm`] | RMS normalisation | R2, R3 |
//! | [`cross_entropy`] | softmax cross entropy with its gradient | R2, R8 |
//! | [`linear_cross_entropy`] | output matrix and cross entropy in chunks of rows | R1, R7, R8 |
//! | [`swiglu`] | SwiGLU | - |
//! | [`silu`] | SiLU | - |
//! | [`bias`] | a vector added to every row | R3 |
//! | [`elementwise`] | additions | - |
//! | [`rope`] | rotary position embedding | R4 |
//! | [`adamw`] | AdamW's step | R9 |
//! | [`muon`] | Muon's step | R1, R9 |
//! | [`reduce`] | sums along a row, over rows, over a tensor | R2, R3, R9 |
//! | [`stream`] | a plain read of memory | - |
//! | [`par`] | threads | - |
//!
//! This folder never knows shapes with names, parameters or gradients' bookkeeping: it sees slices and sizes. It holds
//! the only user of rayon.

pub mod adamw;
pub mod attention;
pub mod bias;
pub mod cross_entropy;
pub mod elementwise;
pub mod gemm;
pub mod linear_cross_entropy;
pub mod muon;
pub mod norm;
pub mod par;
pub mod reduce;
pub mod rope;
pub mod silu;
pub mod stream;
pub mod swiglu;
