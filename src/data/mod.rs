//! Text on its way to numbers: tokens, windows of tokens, batches of windows.
//!
//! This folder never knows a model, a tensor or how training goes. It names no other folder of the crate.
//!
//! | file | holds |
//! |---|---|
//! | `tokenizer` | text to token ids and back, and `tokenizer.json` |
//! | `text.rs` | files to one stream of tokens, and the split into training and validation |
//! | `content.rs` | what a file held when it was read, by its SHA-256 |
//! | `pieces.rs` | a long text in pieces, cut where it does not matter |
//! | `tokens.rs` | tokens in memory or in a file |
//! | `token_file.rs` | the file |
//! | `batch.rs` | a batch of windows; the one place where targets are shifted |
//! | `windows.rs` | which windows: drawn at random to train, one after the other to evaluate |
//! | `stream.rs` | text from tokens as they are generated |
//! | `corpus` | the built-in text: a small grammar that writes stories |
//! | `draws.rs` | seeded random numbers that never change between versions and machines |
//!
//! *Invariant*: no other file of the crate computes which token is a target of which position.

pub mod corpus;

mod batch;
mod content;
mod draws;
mod pieces;
mod stream;
mod text;
mod token_file;
mod tokenizer;
mod tokens;
mod windows;

pub use batch::Batch;
pub use content::Content;
pub use stream::TextStream;
pub use text::{Texts, check_length, open_hashed, open_tokens, read_tokens};
pub(crate) use token_file::hex;
pub use token_file::{TokenFile, write_tokens};
pub use tokenizer::{Tokenizer, guarded};
pub use tokens::Tokens;
pub use windows::{RandomWindows, consecutive};
