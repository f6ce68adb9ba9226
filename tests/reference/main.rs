//! A second implementation of training's arithmetic, in plain scalar Rust, and the crate compared with it bit for bit.
//!
//! The reference is written from the rules in `docs/02-one-answer.md` and the sequences documented with the kernels.
//! It uses +, −, ·, /, √ and `mul_add` on single numbers and calls none of the crate's kernels, with one exception:
//! rule R4's functions (exp, ln, sigmoid, sine, cosine, powers and the normal distribution) are the crate's own
//! definitions, which have tests of their own in `src/simd`. It is slow, and plain enough to be read side by side with
//! the rules.
//!
//! | file | what |
//! |---|---|
//! | `rules` | the rules as functions: sums, matrix multiplication, AdamW, Muon, initial values |
//! | `graph` | every operation, forward and backward |
//! | `model` | a model of any head kind, its training step, its file |
//! | `ours` | the crate under test |
//! | `operations` | every operation compared, at sizes on boundaries |
//! | `kernels` | the loss, norms, optimisers and learning rates compared |
//! | `steps` | whole training steps compared |
//! | `noise` | sampling in a sliding window, by hand |

#[path = "../common/mod.rs"]
mod common;
mod graph;
mod kernels;
mod model;
mod noise;
mod operations;
mod ours;
mod rules;
mod steps;
