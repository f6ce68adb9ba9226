//! Floor 3: operations with a gradient, and the tape that records them.
//!
//! | file | what |
//! |---|---|
//! | [`op`] | [`Op`]: forward, what it saves, backward |
//! | [`tape`] | [`Tape`]: records operations and runs their backward passes once, last first |
//! | [`gradients`] | [`Gradients`]: where gradients go, by rule R7 |
//! | `testing` | what every operation must prove in its own file (tests only) |
//!
//! This folder never names an operation, a model or an optimiser.

pub mod gradients;
pub mod op;
pub mod tape;
#[cfg(test)]
pub(crate) mod testing;

pub use gradients::{GradSink, Gradients};
pub use op::Op;
pub use tape::{Leaf, Tape, Var};
