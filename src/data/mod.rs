//! Text to batches: tokenizers, token streams, windows of tokens, batches of windows.
//!
//! This folder knows nothing about models, tensors or training. It names no other folder of the crate but `files`.
//!
//! | file | holds |
//! |---|---|
//! | `tokenizer` | text to token ids and back, and `tokenizer.json` |
//! | `text.rs` | files to one stream of tokens, and the check of its length |
//! | `chunks.rs` | a long text in chunks, cut where it does not change the tokens |
//! | `tokens.rs` | tokens in memory or in a file, and the split into training and validation |
//! | `token_file.rs` | the file |
//! | `batch.rs` | a batch of windows; the one place where targets are shifted |
//! | `windows.rs` | random windows to train on, consecutive ones to evaluate on |
//! | `stream.rs` | text from tokens as they are generated |
//! | `corpus` | the built-in text: a small grammar that writes stories |
//! | `draws.rs` | seeded random numbers that never change between versions and machines |
//!
//! *Invariant*: no other file of the crate decides which token each position has to predict.

pub mod corpus;

mod batch;
mod chunks;
mod draws;
mod stream;
mod text;
mod token_file;
mod tokenizer;
mod tokens;
mod windows;

pub use crate::files::Fingerprint;
pub use batch::Batch;
pub use stream::TextStream;
pub use text::{Reading, TextChunks, TextFiles, check_length, open_tokens};
pub use token_file::{TokenFile, write_tokens};
pub use tokenizer::Tokenizer;
#[cfg(feature = "tokenizers")]
pub use tokenizer::guarded;
pub use tokens::Tokens;
pub use windows::{RandomWindows, consecutive};
