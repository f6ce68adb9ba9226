//! Tokens wherever they are: in memory, or in a file that may be larger than memory.

use std::ops::Range;
use std::sync::Arc;

use super::TokenFile;
use crate::{Error, Result};

/// A run of tokens. Cloning it and taking a part of it copies no token.
#[derive(Clone, Debug)]
pub struct Tokens {
    source: Source,
    range: Range<usize>,
}

#[derive(Clone, Debug)]
enum Source {
    Memory(Arc<Vec<u32>>),
    /// With the number of bytes of the text that each stands for: a vocabulary that changes texts does not tell.
    Measured(Arc<(Vec<u32>, Vec<u32>)>),
    File(Arc<TokenFile>),
}

impl Tokens {
    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Tokens, and how many bytes of the text each of them stands for.
    ///
    /// # Panics
    /// Panics if there are not as many lengths as tokens.
    #[track_caller]
    pub(super) fn with_lengths(tokens: Vec<u32>, lengths: Vec<u32>) -> Self {
        let (range, measured) = (0..tokens.len(), lengths.len());
        assert_eq!(measured, range.len(), "Tokens: lengths for the tokens");
        let source = Source::Measured(Arc::new((tokens, lengths)));
        Self { source, range }
    }

    /// How many bytes of the text the tokens of a range stand for; none if only the tokenizer can tell. It can if it is
    /// reversible ([`Tokenizer::is_reversible`](super::Tokenizer::is_reversible)); if not, the tokens come from a file.
    ///
    /// # Panics
    /// Panics if there are fewer tokens.
    #[track_caller]
    pub fn text_bytes(&self, range: Range<usize>) -> Option<u64> {
        let Source::Measured(measured) = &self.source else {
            return None;
        };
        let lengths = &measured.1[self.range.clone()][range];
        Some(lengths.iter().map(|n| u64::from(*n)).sum())
    }

    /// Whether they lie in a file.
    pub fn in_file(&self) -> bool {
        matches!(self.source, Source::File(_))
    }

    /// Checks that the tokens' file has not changed since it was opened, by its length and the time of its last change.
    ///
    /// # Errors
    /// Returns the errors of [`TokenFile::unchanged`]; none for tokens in memory.
    pub fn unchanged(&self) -> Result<()> {
        match &self.source {
            Source::Memory(_) | Source::Measured(_) => Ok(()),
            Source::File(file) => file.unchanged(),
        }
    }

    /// Appends `count` tokens to `into`, the first of them number `start`.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be read and [`Error::File`] if a token is outside the vocabulary; none
    /// for tokens in memory.
    ///
    /// # Panics
    /// Panics if there are fewer tokens.
    #[track_caller]
    pub fn read(&self, start: usize, count: usize, into: &mut Vec<u32>) -> Result<()> {
        assert!(
            start <= self.len() && count <= self.len() - start,
            "Tokens: {count} tokens from {start} on, of {}",
            self.len()
        );
        let from = self.range.start + start;
        let tokens = match &self.source {
            Source::Memory(tokens) => tokens,
            Source::Measured(measured) => &measured.0,
            Source::File(file) => return file.read(from as u64, count, into),
        };
        into.extend_from_slice(&tokens[from..from + count]);
        Ok(())
    }

    /// The first `max` tokens, or all if there are fewer.
    ///
    /// # Errors
    /// Returns the errors of [`Tokens::read`], and [`Error::Text`] if memory does not suffice.
    pub fn first(&self, max: usize) -> Result<Vec<u32>> {
        let count = max.min(self.len());
        let mut tokens = Vec::new();
        // A plain allocation would abort the process if memory does not suffice.
        if tokens.try_reserve_exact(count).is_err() {
            let reason = format!("{count} tokens do not fit in memory");
            return Err(Error::Text { byte: None, reason });
        }
        self.read(0, count, &mut tokens)?;
        Ok(tokens)
    }

    /// The tokens to train on, the first 90 % rounded down, and the tokens to validate on, the rest.
    pub fn split(&self) -> (Self, Self) {
        // floor(9 n / 10) without the product, which could overflow.
        let (tens, ones) = (self.len() / 10, self.len() % 10);
        let middle = self.range.start + tens * 9 + ones * 9 / 10;
        let part = |range| Self {
            source: self.source.clone(),
            range,
        };
        (part(self.range.start..middle), part(middle..self.range.end))
    }
}

impl From<Vec<u32>> for Tokens {
    fn from(tokens: Vec<u32>) -> Self {
        let range = 0..tokens.len();
        let source = Source::Memory(Arc::new(tokens));
        Self { source, range }
    }
}

impl From<&[u32]> for Tokens {
    fn from(tokens: &[u32]) -> Self {
        tokens.to_vec().into()
    }
}

impl From<TokenFile> for Tokens {
    fn from(file: TokenFile) -> Self {
        let range = 0..file.len();
        let source = Source::File(Arc::new(file));
        Self { source, range }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_keeps_order_and_loses_nothing() {
        for length in 0..200 {
            let all: Vec<u32> = (0..length).collect();
            let tokens = Tokens::from(all.clone());
            let (train, valid) = tokens.split();
            assert_eq!(train.len(), length as usize * 9 / 10);
            let parts = [&train, &valid].map(|part| part.first(usize::MAX).unwrap());
            assert_eq!(parts.concat(), all);
            let few = valid.len().min(3);
            assert_eq!(valid.first(3).unwrap(), parts[1][..few]);
            assert_eq!(tokens.is_empty(), length == 0);
        }
    }

    #[test]
    fn tokens_of_a_list_stay_where_they_are() {
        let list: Vec<u32> = (0..9).collect();
        let place = list.as_ptr();
        let tokens = Tokens::from(list);
        let Source::Memory(kept) = &tokens.split().1.source else {
            panic!("the tokens are in memory");
        };
        assert_eq!(kept.as_ptr(), place);
    }

    #[test]
    fn parts_know_the_bytes_of_their_text() {
        let tokens = Tokens::with_lengths((0..20).collect(), (100..120).collect());
        let (train, valid) = tokens.split();
        assert_eq!(
            (train.text_bytes(0..2), valid.text_bytes(1..2)),
            (Some(201), Some(119))
        );
        assert_eq!(valid.text_bytes(0..1), Some(118));
        assert_eq!(Tokens::from(vec![1, 2]).text_bytes(0..1), None);
    }

    #[test]
    #[should_panic(expected = "2 tokens from 4 on, of 5")]
    fn reading_past_the_end_names_the_numbers() {
        let _ = Tokens::from(vec![0; 5]).read(4, 2, &mut Vec::new());
    }
}
