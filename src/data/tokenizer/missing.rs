//! The first character of a text for which a vocabulary has no token.
//!
//! The library drops a character in silence if a byte-pair vocabulary has no token for it, none for its bytes and none
//! for unknown text; the other models return an error without a place. So a text is taken apart again here, as the
//! library does it, and each word is compared with the vocabulary: after the normalizer, which may itself remove
//! characters, and before anything is merged.

use std::cell::RefCell;
use std::ops::Range;

use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::tokenizer::normalizer::Range as Place;
use tokenizers::{Model, PreTokenizer, Tokenizer};

use super::file::byte_characters;
use super::guard::guard;
use crate::files::escape;

/// The place and a description of the first character that has no token; none if all have one.
///
/// # Errors
/// Returns the library's reason if it cannot take the text apart.
pub(super) fn missing(
    tokenizer: &Tokenizer,
    text: &str,
    bytes: bool,
) -> Result<Option<(usize, String)>, String> {
    let first = RefCell::new(None);
    let apart = || {
        let added = tokenizer.get_added_vocabulary();
        let mut words = added.extract_and_normalize(tokenizer.get_normalizer(), text);
        if let Some(cut) = tokenizer.get_pre_tokenizer() {
            cut.pre_tokenize(&mut words)?;
        }
        words.tokenize(|word| {
            let mut first = first.borrow_mut();
            if first.is_none()
                && let Some(part) = without_token(tokenizer.get_model(), word.get())
            {
                let spelt = word.get()[part.clone()].to_owned();
                let shift = word.offsets_original().0;
                let place = word.convert_offsets(Place::Normalized(part));
                let place = place.unwrap_or_default();
                *first = Some((shift + place.start..shift + place.end, spelt));
            }
            Ok(Vec::new())
        })
    };
    guard(apart)?;
    let describe = |(place, spelt): (Range<usize>, String)| {
        let start = place.start;
        // Empty if the normalizer has inserted the character.
        let found = text.get(place).filter(|found| !found.is_empty());
        let found = named(found.unwrap_or(&spelt));
        let byte = spelt.chars().next().filter(|_| bytes).and_then(byte_of);
        let what = match byte {
            Some(byte) => format!("byte {byte:#04x} of {found}"),
            None => found,
        };
        (start, format!("the vocabulary has no token for {what}"))
    };
    Ok(first.into_inner().map(describe))
}

/// The first part of a word that gets no token.
fn without_token(model: &ModelWrapper, word: &str) -> Option<Range<usize>> {
    let character = |(at, c): (usize, char)| at..at + c.len_utf8();
    match model {
        ModelWrapper::BPE(bpe) => dropped(bpe, word),
        model if model.tokenize(word).is_ok() => None,
        ModelWrapper::Unigram(_) => {
            // A character may have no token of its own and still be part of one.
            let vocab = model.get_vocab();
            let unknown = |(_, c): &(usize, char)| !vocab.keys().any(|token| token.contains(*c));
            let alone = |(_, c): &(usize, char)| model.tokenize(&c.to_string()).is_err();
            let mut characters = word.char_indices();
            let first = characters.find(unknown);
            first
                .or_else(|| word.char_indices().find(alone))
                .map(character)
        }
        // The others know whole words.
        _ => Some(0..word.len()),
    }
}

/// The first character that a byte-pair model drops.
fn dropped(bpe: &BPE, word: &str) -> Option<Range<usize>> {
    let has = |token: &str| bpe.token_to_id(token).is_some();
    if bpe.unk_token.as_deref().is_some_and(has) || bpe.ignore_merges && has(word) {
        return None;
    }
    let affix = |affix: &Option<String>| affix.clone().unwrap_or_default();
    let (prefix, suffix) = (
        affix(&bpe.continuing_subword_prefix),
        affix(&bpe.end_of_word_suffix),
    );
    let known = |place: &Range<usize>| {
        let mut token = word[place.clone()].to_owned();
        if place.start > 0 {
            token.insert_str(0, &prefix);
        }
        if place.end == word.len() {
            token += &suffix;
        }
        has(&token) || bpe.byte_fallback && token.bytes().all(|byte| has(&fallback(byte)))
    };
    let mut places = word.char_indices().map(|(at, c)| at..at + c.len_utf8());
    places.find(|place| !known(place))
}

/// Whether a model drops what it does not know.
pub(super) fn may_drop(model: &ModelWrapper) -> bool {
    match model {
        ModelWrapper::BPE(bpe) => {
            let has = |token: &str| bpe.token_to_id(token).is_some();
            let unknown = bpe.unk_token.as_deref().is_some_and(has);
            !(unknown || bpe.byte_fallback && (0..=255).all(|byte| has(&fallback(byte))))
        }
        _ => false,
    }
}

/// How SentencePiece spells the token of a byte.
pub(super) fn fallback(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

/// The byte that a character of a byte-level vocabulary stands for.
fn byte_of(character: char) -> Option<u8> {
    let place = byte_characters().iter().position(|c| *c == character);
    place.map(|byte| byte as u8)
}

/// A character with its code, since not every one is visible; or a word.
fn named(text: &str) -> String {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(c), None) => format!("`{}` (U+{:04X})", escape(text), u32::from(c)),
        _ => format!("`{}`", escape(text)),
    }
}
