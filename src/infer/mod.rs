//! Floor 8: decoding. The heads draft, the trunk verifies, and no token ever changes.
//!
//! | file | what |
//! |---|---|
//! | [`pick`](mod@pick) | the one function that decides a token |
//! | `noise` | random numbers keyed by (seed, position, token) |
//! | `sequence` | [`Sequence`]: known tokens, caches and hidden states |
//! | [`draft`] | [`Drafter`] and the drafter that runs the prediction heads |
//! | `verify` | the trunk's pass over the drafts; the only place that makes an [`Accepted`] token |
//! | [`generate`](mod@generate) | prefill, then draft, verify, accept until the end |
//!
//! This folder never knows training, files or text.

pub mod draft;
pub mod generate;
mod noise;
pub mod pick;
mod sequence;
mod verify;

pub use draft::{Drafter, HeadDrafter, NoDrafts};
pub use generate::{Generated, Options, generate};
pub use pick::{Sampler, pick};
pub use sequence::Sequence;
pub use verify::Accepted;
