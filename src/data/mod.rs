//! Text on its way to numbers: tokens, windows of tokens, batches of windows.
//!
//! This folder never knows a model, a tensor or how training goes. It names no other folder of the crate.
//!
//! | file | holds |
//! |---|---|
//! | `tokenizer` | text to token ids and back, and `tokenizer.json` |
//! | `text.rs` | files to one stream of tokens, and the split into training and validation |
//! | `batch.rs` | a batch of windows; the one place where targets are shifted |
//! | `windows.rs` | which windows: drawn at random to train, one after the other to evaluate |
//! | `corpus` | the built-in text: a small grammar that writes stories |
//! | `draws.rs` | seeded random numbers that never change between versions and machines |
//!
//! *Invariant*: no other file of the crate computes which token is a target of which position.

pub mod corpus;

mod batch;
mod draws;
mod text;
mod tokenizer;
mod windows;

pub use batch::Batch;
pub use text::{check_length, read_tokens, split};
pub use tokenizer::Tokenizer;
pub use windows::{RandomWindows, consecutive};
