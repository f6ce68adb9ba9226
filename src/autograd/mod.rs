//! Floor 3: operations with a gradient, and the tape that records them.
//!
//! | file | what |
//! |---|---|
//! | [`op`] | [`Op`]: forward, what it saves, backward |
//! | [`tape`] | [`Tape`]: records operations and runs their backward passes once, last first |
//! | [`gradients`] | [`Gradients`]: where gradients go, by rule R7 |
//! | `laws` | what every operation must prove in its own file (tests only) |
//!
//! This folder never names an operation, a model or an optimiser.

pub mod gradients;
#[cfg(test)]
pub(crate) mod laws;
pub mod op;
pub mod tape;

pub use gradients::{Gradients, Sink};
pub use op::Op;
pub use tape::{Leaf, Tape, Var};
