//! The handbook: the chapters of `docs/`, compiled here so that their code blocks run as tests.
//!
//! | chapter | what it answers |
//! |---|---|
//! | [`map`] | what is where, and what must stay true |
//! | [`model_and_loss`] | what is computed, which position predicts which token, what a draft is worth |
//! | [`one_answer`] | why the result never depends on batch, threads or instruction set |
//! | [`tape`] | how gradients are computed, and how to add an operation |
//! | [`decoding`] | what a step does, how many tokens are drafted, what happens at the end of the context |
//! | [`training`] | what a step computes, what a checkpoint holds, how to read the curves |
//! | [`gpu`] | what a GPU computes, why its bits are the CPU's, how that is tested without one |
//! | [`performance`] | how fast training and decoding are, compared with other programs, and where the time goes |
//! | [`experiments`] | what heads, regimes, kinds and widths do on small models |
//! | [`reference`](mod@reference) | flags, files and environment variables |
//!
//! Files that are not part of the handbook: `docs/log.md`, the log of what was tried; `docs/CONTRIBUTING.md`;
//! `docs/SECURITY.md`; `docs/CITATION.cff`; `CHANGELOG.md`.

// A chapter refers to another one by a label, and defines the label as a file at its end: that is what a code host and
// an editor follow. In front of the chapter stand the definitions of `links.md`. Of two definitions the first one
// counts, so rustdoc follows the labels to its own pages.

#[doc = include_str!("links.md")]
#[doc = include_str!("../docs/00-map.md")]
pub mod map {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../docs/01-model-and-loss.md")]
pub mod model_and_loss {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../docs/02-one-answer.md")]
pub mod one_answer {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../docs/03-tape.md")]
pub mod tape {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../docs/04-decoding.md")]
pub mod decoding {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../docs/05-training.md")]
pub mod training {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../docs/06-gpu.md")]
pub mod gpu {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../docs/performance.md")]
pub mod performance {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../docs/experiments.md")]
pub mod experiments {}

#[doc = include_str!("links.md")]
#[doc = include_str!("../docs/reference.md")]
pub mod reference {}
