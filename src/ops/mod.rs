//! The differentiable operations, one per file.
//!
//! Every file has the same five sections: the maths with its source and shapes; the struct; what is saved; forward and
//! backward; the laws that prove it ([`crate::autograd::testing`]).
//!
//! | file | operation |
//! |---|---|
//! | [`embedding`] | rows of the embedding matrix |
//! | [`linear`] | matrix multiplication with one or more weights |
//! | [`rms_norm_linear`] | RMS normalisation of rows, then matrix multiplication |
//! | [`rms_norm_mlp`] | the gated MLP of a layer, its norm included |
//! | [`rms_norm`] | RMS normalisation of rows |
//! | [`qk_norm`] | RMS normalisation of query and key heads |
//! | [`rope`] | rotary position embedding |
//! | [`attention`] | causal grouped-query attention |
//! | [`silu`] | the activation SiLU |
//! | [`add`] | residual addition |
//! | [`add_bias`] | one vector added to every row |
//! | [`concat`](mod@concat) | columns side by side |
//! | [`select_rows`] | some of the rows |
//! | [`cross_entropy`] | the loss |
//!
//! This folder knows nothing about layers, models or executors.
//!
//! Rules R1, R2, .. are those of [`crate::manual::one_answer`].

pub mod add;
pub mod add_bias;
pub mod attention;
pub mod concat;
pub mod cross_entropy;
pub mod embedding;
pub mod linear;
pub mod qk_norm;
pub mod rms_norm;
pub mod rms_norm_linear;
pub mod rms_norm_mlp;
pub mod rope;
pub mod select_rows;
pub mod silu;

pub use add::Add;
pub use add_bias::AddBias;
pub use attention::Attention;
pub use concat::Concat;
pub use cross_entropy::CrossEntropy;
pub use embedding::Embedding;
pub use linear::Linear;
pub use qk_norm::QkNorm;
pub use rms_norm::RmsNorm;
pub use rms_norm_linear::RmsNormLinear;
pub use rms_norm_mlp::RmsNormMlp;
pub use rope::Rope;
pub use select_rows::SelectRows;
pub use silu::Silu;
