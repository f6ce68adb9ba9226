//! Text to token ids and back.
//!
//! This folder knows nothing about models, or about where a text comes from.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the tokenizer |
//! | `file.rs` | the `tokenizer.json` of byte-level vocabularies, and the byte vocabulary's own |
//! | `library.rs` | every other `tokenizer.json`, run by the public library |
//! | `bpe.rs` | a byte-pair vocabulary learned from a text |
//! | `guard.rs` | a panic of the library becomes an error |
//!
//! The last three need the feature `tokenizers`.

#[cfg(feature = "tokenizers")]
mod bpe;
mod file;
#[cfg(feature = "tokenizers")]
mod guard;
#[cfg(feature = "tokenizers")]
mod library;

use std::borrow::Cow;
use std::path::Path;
#[cfg(feature = "tokenizers")]
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::chunks::Chunks;
use crate::files::{escape, hex};
use crate::{Error, Result};
#[cfg(feature = "tokenizers")]
use library::Library;

#[cfg(feature = "tokenizers")]
pub use guard::guarded;

/// The end-of-text token of the byte vocabulary: the first id that is no byte.
const END_OF_TEXT_ID: u32 = 256;

/// Turns text into token ids and back.
///
/// Every text is plain: if it spells a special token such as `<|endoftext|>`, the result is the tokens of these
/// characters. Special tokens are inserted where texts are joined. (The public library finds them in the text.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenizer {
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// A token's id is its byte's value; one more token ends a text.
    Bytes,
    #[cfg(feature = "tokenizers")]
    Library(Arc<Library>),
}

impl Tokenizer {
    /// Tokens that a learned vocabulary may have at most.
    pub const MAX_LEARNED: usize = 1 << 20;

    /// The byte vocabulary: a token's id is the byte's value, and 256 is the end of a text.
    pub fn bytes() -> Self {
        Self { kind: Kind::Bytes }
    }

    /// Learns a byte-pair vocabulary of `size` tokens from the chunks of a text.
    ///
    /// Token ids 0..=255 are the bytes and 256 is the end of a text, as in the byte vocabulary; each merge adds one.
    /// The result is a function of the chunks. It has fewer than `size` tokens if no pair occurs twice any more.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] for a size that is not 257 to [`Tokenizer::MAX_LEARNED`], [`Error::Text`] if two
    /// bytes are neighbours more than 2^31 - 1 times, and the first error among the chunks.
    #[cfg(feature = "tokenizers")]
    pub fn learn(chunks: impl IntoIterator<Item = Result<Vec<u8>>>, size: usize) -> Result<Self> {
        let min = END_OF_TEXT_ID as usize + 1;
        if size < min || size > Self::MAX_LEARNED {
            let expected = format!("{min} to {} tokens", Self::MAX_LEARNED);
            return Err(Error::setting("vocab", expected, size));
        }
        let wrong = |reason| Error::Text { byte: None, reason };
        let mut words = bpe::WordCounts::default();
        for chunk in chunks {
            words.add(&chunk?).map_err(wrong)?;
        }
        let learned = words.learn(size).and_then(Self::from_json);
        learned.map_err(wrong)
    }

    /// Reads a `tokenizer.json` of any kind that the public `tokenizers` library knows; without the feature
    /// `tokenizers`, only that of the byte vocabulary.
    ///
    /// The fields `truncation` and `padding` and the model's `dropout` are not applied.
    ///
    /// The library may panic on a hostile file. Its panics are caught and become errors, which needs `panic =
    /// "unwind"`: a program built with `panic = "abort"` ends.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be read and [`Error::File`] if it does not describe a tokenizer.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_json(file::read(path)?).map_err(|reason| Error::file(path, reason))
    }

    /// The tokenizer that the text of a `tokenizer.json` describes, or what is wrong with it.
    fn from_json(json: String) -> std::result::Result<Self, String> {
        let parsed: Value = serde_json::from_str(&json)
            .map_err(|reason| format!("expected JSON: {}", escape(&reason.to_string())))?;
        match file::check_bytes(&parsed) {
            Ok(()) => Ok(Self::bytes()),
            #[cfg(feature = "tokenizers")]
            Err(_) => {
                let kind = Kind::Library(Library::new(json, parsed)?);
                Ok(Self { kind })
            }
            #[cfg(not(feature = "tokenizers"))]
            Err(difference) => Err(format!(
                "not the byte vocabulary ({difference}); this build reads no other: enable the feature `tokenizers`"
            )),
        }
    }

    /// The number of token ids: one more than the highest.
    pub fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Bytes => END_OF_TEXT_ID as usize + 1,
            #[cfg(feature = "tokenizers")]
            Kind::Library(library) => library.vocab_size(),
        }
    }

    /// The token that ends a text, if there is one. No text contains it.
    ///
    /// In a file it is the first of these that is listed as special: `<|endoftext|>`, `<|end_of_text|>`, `</s>`,
    /// `<eos>`, `[EOS]`, `[SEP]`.
    pub fn end_of_text(&self) -> Option<u32> {
        match &self.kind {
            Kind::Bytes => Some(END_OF_TEXT_ID),
            #[cfg(feature = "tokenizers")]
            Kind::Library(library) => library.end_of_text,
        }
    }

    /// The tokens of a text. No special token is added before or after it.
    ///
    /// A text of more than 256 KiB is encoded in chunks that end where a word ends (`data/chunks.rs` has the rule).
    /// Bytes that are not UTF-8 become tokens of single bytes, if the vocabulary is byte-level and has them.
    ///
    /// # Errors
    /// Returns [`Error::Text`] with the place and reason if the vocabulary lacks a token. The byte vocabulary and
    /// learned ones have all bytes and encode everything; public ones may lack bytes that text never has.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        for chunk in Chunks::new(text, &[]) {
            let chunk = chunk.expect("memory can be read");
            let encoded = self.encode_chunk(&chunk.text);
            tokens.extend(encoded.map_err(|(place, reason)| Error::Text {
                byte: Some(chunk.start + place as u64),
                reason,
            })?);
        }
        Ok(tokens)
    }

    /// The tokens of one chunk, or the byte where it went wrong and the reason.
    pub(super) fn encode_chunk(
        &self,
        text: &[u8],
    ) -> std::result::Result<Vec<u32>, (usize, String)> {
        match &self.kind {
            Kind::Bytes => Ok(text.iter().map(|&byte| u32::from(byte)).collect()),
            #[cfg(feature = "tokenizers")]
            Kind::Library(library) => library.encode(text),
        }
    }

    /// The text of some tokens. Special tokens and ids outside the vocabulary decode to nothing.
    ///
    /// Each token has bytes of its own, which may end inside a character, so text can be written token by token. A
    /// SentencePiece vocabulary keeps the space that it puts before the first word. The library itself decodes only for
    /// decoders of other kinds (WordPiece, CTC), and may then treat the first token differently.
    pub fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        match &self.kind {
            Kind::Bytes => tokens
                .iter()
                .filter_map(|&token| u8::try_from(token).ok())
                .collect(),
            #[cfg(feature = "tokenizers")]
            Kind::Library(library) => library.decode(tokens),
        }
    }

    /// How the vocabulary spells a token; none for an unused id.
    pub fn spelling(&self, token: u32) -> Option<String> {
        match &self.kind {
            Kind::Bytes if token == END_OF_TEXT_ID => Some(file::END_OF_TEXT.to_owned()),
            Kind::Bytes => {
                let character = file::byte_characters().get(token as usize).copied();
                character.map(String::from)
            }
            #[cfg(feature = "tokenizers")]
            Kind::Library(library) => library.inner.id_to_token(token),
        }
    }

    /// The text of `tokenizer.json`, the same every time: the file that was read, or our own.
    pub fn to_json(&self) -> String {
        self.json().into_owned()
    }

    /// [`Tokenizer::to_json`] without a copy: public files have tens of megabytes.
    pub(crate) fn json(&self) -> Cow<'_, str> {
        match &self.kind {
            Kind::Bytes => file::bytes_json().into(),
            #[cfg(feature = "tokenizers")]
            Kind::Library(library) => Cow::from(&library.json),
        }
    }

    /// SHA-256 of [`Tokenizer::to_json`].
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.json().as_bytes()).into()
    }

    /// [`Tokenizer::sha256`] in lower-case hexadecimal digits.
    pub fn sha256_hex(&self) -> String {
        hex(&self.sha256())
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
