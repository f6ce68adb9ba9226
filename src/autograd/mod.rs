//! Reverse-mode differentiation: operations with a gradient, and the tape that records them.
//!
//! | file | what |
//! |---|---|
//! | [`op`] | [`Op`]: forward, what it saves, backward |
//! | [`tape`] | [`Tape`]: records operations and runs their backward passes once, last first |
//! | [`gradients`] | [`Gradients`] of parameters, and the [`GradSink`] of an operation, by rule R7 |
//! | [`testing`] | the laws: what every operation must prove, in this crate or outside it |
//!
//! This folder never names an operation, a model or an optimiser.
//!
//! Rules R1, R2, .. are those of [`crate::manual::one_answer`].

pub mod gradients;
pub mod op;
pub mod tape;
pub mod testing;

pub use gradients::{GradSink, Gradients};
pub use op::Op;
pub use tape::{Leaf, Tape, Var};
