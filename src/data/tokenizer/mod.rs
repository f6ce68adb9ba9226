//! Text to token ids and back.
//!
//! This folder never knows a model, nor where a text comes from.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the tokenizer |
//! | `file.rs` | its `tokenizer.json` |

mod file;

use std::path::Path;

use crate::{Error, Result};

/// The end-of-text token of the byte vocabulary: the first id that is no byte.
const END_OF_TEXT_ID: u32 = 256;

/// Turns text into token ids and back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenizer {
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// A token's id is its byte's value; one more token ends a text.
    Bytes,
}

impl Tokenizer {
    /// The byte vocabulary: a token's id is the byte's value, and 256 is the end of a text.
    pub fn bytes() -> Self {
        Self { kind: Kind::Bytes }
    }

    /// Reads a `tokenizer.json`.
    ///
    /// Only the byte vocabulary is known today. A file that would encode some text in another way is refused.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read. [`Error::File`] if it is no JSON, or with the first field
    /// that is not as expected.
    pub fn load(path: &Path) -> Result<Self> {
        let file = file::read(path)?;
        file::check_bytes(&file).map_err(|reason| Error::file(path, reason))?;
        Ok(Self::bytes())
    }

    /// The number of token ids.
    pub fn vocab_size(&self) -> usize {
        match self.kind {
            Kind::Bytes => END_OF_TEXT_ID as usize + 1,
        }
    }

    /// The token that ends a text. No text contains it.
    pub fn end_of_text(&self) -> u32 {
        match self.kind {
            Kind::Bytes => END_OF_TEXT_ID,
        }
    }

    /// The tokens of a text, which need not be UTF-8.
    ///
    /// The text is taken as plain: where it spells `<|endoftext|>`, these are thirteen characters and not
    /// the special token. (The Hugging Face library would find the special token there.)
    pub fn encode(&self, text: &[u8]) -> Vec<u32> {
        match self.kind {
            Kind::Bytes => text.iter().map(|&byte| u32::from(byte)).collect(),
        }
    }

    /// The text of some tokens. The end of text and ids outside the vocabulary decode to nothing.
    pub fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        match self.kind {
            Kind::Bytes => tokens
                .iter()
                .filter_map(|&token| u8::try_from(token).ok())
                .collect(),
        }
    }

    /// What `tokenizer.json` holds, the same text every time.
    pub fn to_json(&self) -> String {
        match self.kind {
            Kind::Bytes => file::bytes_json(),
        }
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
        assert_eq!(tokenizer.encode(&all), ids);
        assert_eq!(tokenizer.decode(&ids), all);
        assert_eq!(
            (tokenizer.vocab_size(), tokenizer.end_of_text()),
            (257, 256)
        );
        assert_eq!(tokenizer.decode(&[104, 256, 257, u32::MAX, 105]), b"hi");
    }

    #[test]
    fn plain_text_never_holds_the_special_token() {
        let tokens = Tokenizer::bytes().encode(b"<|endoftext|>");
        assert_eq!(tokens.len(), 13);
        assert!(tokens.iter().all(|&token| token < 256));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_bytes_come_back(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let tokenizer = Tokenizer::bytes();
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text)), text);
        }
    }
}
