//! Floor 8: decoding. The heads draft, the trunk verifies, and no token ever changes.
//!
//! | file | what |
//! |---|---|
//! | [`pick`](mod@pick) | the one function that decides a token |
//! | `noise` | random numbers keyed by (seed, position, token) |
//! | [`rejection`] | the mode that keeps the distribution instead of the sample |
//! | `sequence` | [`Session`]: known tokens, caches and hidden states of the sequences decoded together |
//! | [`engine`] | [`Decoder`]: what decoding asks of an executor; a model's passes over one |
//! | [`draft`] | [`Drafter`] and the drafter that runs the prediction heads |
//! | `verify` | the trunk's pass over the drafts; the only place that makes an [`Accepted`] token |
//! | `cost` | measured times of passes |
//! | `policy` | [`Drafts`]: how many tokens to draft |
//! | [`agreement`] | how drafting would go on a finished text |
//! | [`measure`] | what decoding costs on this machine |
//! | [`generate`](mod@generate) | prefill, then draft, verify, accept until the end |
//!
//! This folder never knows training, files or text.

pub mod agreement;
mod cost;
pub mod draft;
pub mod engine;
pub mod generate;
pub mod measure;
mod noise;
pub mod pick;
mod policy;
pub mod rejection;
mod sequence;
mod verify;

pub use agreement::Hindsight;
pub use draft::{Draft, Drafter, HeadDrafter, NoDrafts};
pub use engine::{Ask, Decoder, Told};
pub use generate::{
    Generated, Listener, Mode, Options, Request, generate, generate_batch, generate_batch_on,
};
pub(crate) use pick::pick_at;
pub use pick::{Sampler, pick};
pub use policy::Drafts;
pub use rejection::Distribution;
pub use sequence::{Sequence, Session};
pub use verify::Accepted;
