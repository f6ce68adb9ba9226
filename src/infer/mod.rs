//! Decoding: the heads draft, the trunk verifies, and no token ever changes.
//!
//! | file | what |
//! |---|---|
//! | [`step`] | one step of a session, from top to bottom; start reading here |
//! | [`generate`](mod@generate) | [`generate()`], [`generate_batch`] and other simple functions over a session |
//! | [`request`] | [`Request`], [`GenerateOptions`]: what to generate |
//! | [`session`] | [`Session`]: sequences that are decoded together, and join and leave between steps |
//! | [`sequence`] | [`Sequence`]: known tokens, and how far the model has computed them |
//! | `prefill` | the trunk's passes over prompts |
//! | [`draft`] | [`Draft`]: a proposed token |
//! | [`drafter`] | [`Drafter`], and the view of a session that it gets |
//! | `heads` | drafting with the model's prediction heads |
//! | [`verify`] | the trunk's pass over the drafts; the only place that makes an [`Accepted`] token |
//! | [`pick`](mod@pick) | [`Sampler`], and the one function that decides a token |
//! | `noise` | random numbers keyed by (seed, position, token) |
//! | [`rejection`] | rejection sampling, for comparison |
//! | [`policy`] | [`Drafts`]: how many tokens to draft |
//! | `cost` | measured times of passes |
//! | [`decoder`] | [`Decoder`]: what decoding needs of an executor |
//! | `runner` | a model on an executor, with the executor's type erased |
//! | [`replay`] | [`OfflineReplay`]: the accepted drafts, predicted from a finished text |
//! | [`measure`] | what decoding costs on this machine |
//!
//! This folder knows nothing about training, files or text.

mod cost;
pub mod decoder;
pub mod draft;
pub mod drafter;
pub mod generate;
mod heads;
pub mod measure;
mod noise;
pub mod pick;
pub mod policy;
mod prefill;
pub mod rejection;
pub mod replay;
pub mod request;
mod runner;
pub mod sequence;
pub mod session;
pub mod step;
pub mod verify;

pub use decoder::{Decoder, SampleRequest};
pub use draft::Draft;
pub use drafter::{DraftRequest, Drafter, Drafting, HeadDrafter, NoDrafts};
pub use generate::{Generated, OnToken, generate, generate_batch};
pub use pick::{Sampler, pick};
pub use policy::Drafts;
pub use rejection::Distribution;
pub use replay::OfflineReplay;
pub use request::{DecodeMode, GenerateOptions, Request};
pub use sequence::{FinishReason, Sequence, SequenceId};
pub use session::Session;
pub use step::StepOutput;
pub use verify::Accepted;
