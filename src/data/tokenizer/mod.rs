//! Text to token ids and back.
//!
//! This folder never knows a model, nor where a text comes from.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the tokenizer |
//! | `file.rs` | the `tokenizer.json` of byte-level vocabularies, and the byte vocabulary's own |
//! | `library.rs` | every other `tokenizer.json`, run by the public library |
//! | `pairs.rs` | a byte-pair vocabulary learned from a text |
//! | `guard.rs` | a panic of the library becomes an error |

mod file;
mod guard;
mod library;
mod pairs;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::pieces::Pieces;
use crate::{Error, Result};
use library::Library;

pub use guard::guarded;

/// The end-of-text token of the byte vocabulary: the first id that is no byte.
const END_OF_TEXT_ID: u32 = 256;

/// Turns text into token ids and back.
///
/// Every text is plain: where it spells a special token such as `<|endoftext|>`, these are characters and not the
/// token. Special tokens are put between texts by whoever joins them. (The public library finds them in the text.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenizer {
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// A token's id is its byte's value; one more token ends a text.
    Bytes,
    Library(Arc<Library>),
}

impl Tokenizer {
    /// Tokens that a learned vocabulary may have at most.
    pub const MAX_LEARNED: usize = 1 << 20;

    /// The byte vocabulary: a token's id is the byte's value, and 256 is the end of a text.
    pub fn bytes() -> Self {
        Self { kind: Kind::Bytes }
    }

    /// Learns a byte-pair vocabulary of `size` tokens from the pieces of a text.
    ///
    /// Token ids 0..=255 are the bytes and 256 is the end of a text, as in the byte vocabulary; each merge adds one.
    /// The result is a function of the pieces. It has fewer tokens than asked for where no pair occurs twice any more.
    ///
    /// # Errors
    /// [`Error::Usage`] for a size that is not 257 to [`Tokenizer::MAX_LEARNED`], or two bytes that stand side by side
    /// more than 2^31 - 1 times; the first error among the pieces.
    pub fn learn(pieces: impl IntoIterator<Item = Result<Vec<u8>>>, size: usize) -> Result<Self> {
        let least = END_OF_TEXT_ID as usize + 1;
        if size < least || size > Self::MAX_LEARNED {
            return Err(Error::Usage(format!(
                "expected a vocabulary of {least} to {} tokens, found {size}",
                Self::MAX_LEARNED
            )));
        }
        let mut words = pairs::Words::default();
        for piece in pieces {
            words.add(&piece?).map_err(Error::Usage)?;
        }
        let learned = words.learn(size).and_then(Self::from_json);
        learned.map_err(Error::Usage)
    }

    /// Reads a `tokenizer.json` of any kind that the public `tokenizers` library knows.
    ///
    /// Its fields `truncation`, `padding` and the model's `dropout` are not applied.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read. [`Error::File`] if it is no JSON, or describes no tokenizer.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_json(file::read(path)?).map_err(|reason| Error::file(path, reason))
    }

    /// The tokenizer that the text of a `tokenizer.json` describes, or what is wrong with it.
    fn from_json(json: String) -> std::result::Result<Self, String> {
        let parsed: Value = serde_json::from_str(&json)
            .map_err(|reason| format!("expected JSON: {}", guard::short(&reason.to_string())))?;
        if file::check_bytes(&parsed).is_ok() {
            return Ok(Self::bytes());
        }
        let kind = Kind::Library(Library::new(json, parsed)?);
        Ok(Self { kind })
    }

    /// The number of token ids: one more than the highest.
    pub fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Bytes => END_OF_TEXT_ID as usize + 1,
            Kind::Library(library) => library.vocab_size(),
        }
    }

    /// The token that ends a text, where there is one. No text contains it.
    ///
    /// In a file it is the first of these that is listed as special: `<|endoftext|>`, `<|end_of_text|>`, `</s>`,
    /// `<eos>`, `[EOS]`, `[SEP]`.
    pub fn end_of_text(&self) -> Option<u32> {
        match &self.kind {
            Kind::Bytes => Some(END_OF_TEXT_ID),
            Kind::Library(library) => library.end_of_text(),
        }
    }

    /// The tokens of a text. No special token is added in front or behind.
    ///
    /// A text of more than 256 KiB is encoded in pieces that end where a word ends (`data/pieces.rs` has the rule). Bytes
    /// that are not UTF-8 become tokens of single bytes, where the vocabulary is byte-level and has them.
    ///
    /// # Errors
    /// [`Error::Usage`] with the place and reason, where the vocabulary has no token for what stands there. The byte
    /// vocabulary and learned ones have all bytes and encode everything; public ones may lack bytes that text never has.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        for piece in Pieces::new(text, &[]) {
            let piece = piece.expect("memory can be read");
            let encoded = self.encode_piece(&piece.text);
            tokens.extend(encoded.map_err(|(place, reason)| {
                Error::Usage(format!(
                    "text at byte {}: {reason}",
                    piece.start + place as u64
                ))
            })?);
        }
        Ok(tokens)
    }

    /// The tokens of one piece, or the byte where it went wrong and the reason.
    pub(super) fn encode_piece(
        &self,
        text: &[u8],
    ) -> std::result::Result<Vec<u32>, (usize, String)> {
        match &self.kind {
            Kind::Bytes => Ok(text.iter().map(|&byte| u32::from(byte)).collect()),
            Kind::Library(library) => library.encode(text),
        }
    }

    /// The text of some tokens. Special tokens and ids outside the vocabulary decode to nothing.
    ///
    /// Each token has bytes of its own, which may end inside a character, so that text may be written token by token.
    /// A SentencePiece vocabulary keeps the space that it puts before the first word. Only for decoders of other kinds
    /// (WordPiece, CTC) is it the library that decodes, which may treat the first token it sees in a way of its own.
    pub fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        match &self.kind {
            Kind::Bytes => tokens
                .iter()
                .filter_map(|&token| u8::try_from(token).ok())
                .collect(),
            Kind::Library(library) => library.decode(tokens),
        }
    }

    /// How the vocabulary writes a token; none for an id that it does not use.
    pub fn spelling(&self, token: u32) -> Option<String> {
        match &self.kind {
            Kind::Bytes if token == END_OF_TEXT_ID => Some(file::END_OF_TEXT.to_owned()),
            Kind::Bytes => {
                let character = file::byte_characters().get(token as usize).copied();
                character.map(String::from)
            }
            Kind::Library(library) => library.token(token),
        }
    }

    /// What `tokenizer.json` holds, the same text every time: the file that was read, or our own.
    pub fn to_json(&self) -> String {
        match &self.kind {
            Kind::Bytes => file::bytes_json(),
            Kind::Library(library) => library.json().to_owned(),
        }
    }

    /// SHA-256 of [`Tokenizer::to_json`].
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.to_json()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_are_their_own_ids() {
        let tokenizer = Tokenizer::bytes();
        let all: Vec<u8> = (0..=255).collect();
        let ids: Vec<u32> = (0..256).collect();
        assert_eq!(tokenizer.encode(&all).unwrap(), ids);
        assert_eq!(tokenizer.decode(&ids), all);
        assert_eq!(
            (tokenizer.vocab_size(), tokenizer.end_of_text()),
            (257, Some(256))
        );
        assert_eq!(tokenizer.decode(&[104, 256, 257, u32::MAX, 105]), b"hi");
    }

    #[test]
    fn plain_text_never_holds_the_special_token() {
        let tokens = Tokenizer::bytes().encode(b"<|endoftext|>").unwrap();
        assert_eq!(tokens.len(), 13);
        assert!(tokens.iter().all(|&token| token < 256));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_bytes_come_back(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let tokenizer = Tokenizer::bytes();
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()), text);
        }
    }
}
