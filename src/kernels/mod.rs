//! Loops over slices, each with its order of operations fixed by a rule of the contract.
//! Rules R1, R2, .. are those of [`crate::manual::one_answer`].
//!
//! | file | what | rule |
//! |---|---|---|
//! | [`gemm`](mod@gemm) | matrix multiplication | R1 |
//! | [`attention`] | causal grouped-query attention, forward and backward, and its KV cache | R5 |
//! | [`norm`] | RMS normalisation | R2, R3 |
//! | [`cross_entropy`] | softmax cross entropy with its gradient | R2, R8 |
//! | [`linear_cross_entropy`] | LM head and cross entropy in chunks of rows | R1, R7, R8 |
//! | [`swiglu`] | SwiGLU | - |
//! | [`silu`] | SiLU | - |
//! | [`bias`] | a vector added to every row | R3 |
//! | [`elementwise`] | additions | - |
//! | [`rope`] | rotary position embedding | R4 |
//! | [`adamw`] | a step of AdamW | R9 |
//! | [`muon`] | a step of Muon | R1, R9 |
//! | [`reduce`] | sums along a row, over rows, over a tensor | R2, R3, R9 |
//! | [`stream`] | a plain read of memory, to compare decoding with | - |
//! | [`scratch`] | memory that is reused | - |
//! | [`par`] | threads | - |
//!
//! This folder knows nothing about named parameters or the collection of gradients: it sees slices and sizes. A kernel
//! panics if slices and sizes do not fit. `par` is the only user of rayon.

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
pub mod scratch;
pub mod silu;
pub mod stream;
pub mod swiglu;
