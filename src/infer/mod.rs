//! Decoding: the heads draft and the trunk verifies.
//!
//! In [`DecodeMode::Exact`], the default, no draft ever changes a token: the tokens are those of plain decoding,
//! whatever the drafter, the number of drafts, and the other sequences of a session. [`DecodeMode::Rejection`] keeps
//! the distribution of the tokens only: other drafts give another sample.
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
//! | [`verify`] | the trunk's pass over the drafts; the only place that makes a [`DecodedToken`] |
//! | [`sample`](mod@sample) | [`Sampler`], and the one function that decides a token |
//! | `noise` | random numbers keyed by (seed, token index, token) |
//! | [`rejection`] | rejection sampling, for comparison |
//! | [`policy`] | [`DraftLength`]: how many tokens to draft |
//! | `pass_times` | measured times of passes |
//! | [`decode_exec`] | [`DecodeExec`]: what decoding needs of an executor |
//! | `runner` | a model on an executor, with the executor's type erased |
//! | [`replay`] | [`OfflineReplay`]: the accepted drafts, predicted from a finished text |
//! | [`costs`] | what decoding costs on this machine |
//!
//! This folder knows nothing about training, files or text. [`replay`] runs the training graph, without gradients.
//!
//! Rules R1, R2, .. are those of [`crate::manual::one_answer`].

pub mod costs;
pub mod decode_exec;
pub mod draft;
pub mod drafter;
pub mod generate;
mod heads;
mod noise;
mod pass_times;
pub mod policy;
mod prefill;
pub mod rejection;
pub mod replay;
pub mod request;
mod runner;
pub mod sample;
pub mod sequence;
pub mod session;
pub mod step;
pub mod verify;

pub use decode_exec::{DecodeExec, SampleRequest};
pub use draft::Draft;
pub use drafter::{DraftContext, DraftRequest, Drafter, HeadDrafter, NoDrafts};
pub use generate::{Generated, OnToken, generate, generate_batch};
pub use policy::DraftLength;
pub use rejection::Distribution;
pub use replay::OfflineReplay;
pub use request::{DecodeMode, GenerateOptions, Request};
pub use sample::{Sampler, sample};
pub use sequence::{FinishReason, Sequence, SequenceId};
pub use session::Session;
pub use step::StepOutput;
pub use verify::DecodedToken;
