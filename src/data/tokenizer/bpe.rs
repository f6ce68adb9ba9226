//! A byte-pair vocabulary learned from a text (Gage 1994; Sennrich, Haddow and Birch 2016, section 3.2).
//!
//! Words are split as GPT-2 splits them and merges are found by the trainer of the public library. Only the words are
//! counted here: the library's own counting takes all texts from one iterator of strings, and reading ours may fail.
//!
//! ```text
//! tokens  0..=255 the bytes, 256 the end of text, then one for each merge
//! repeat  merge the most frequent pair of neighbours inside words; among equal ones, the pair whose left token is the
//!         oldest, then whose right token is; single characters are ordered by their code points
//! until   the vocabulary is full, or no pair occurs twice
//! ```
//!
//! So the result is a function of the text. The library has hash tables of random order and several threads, but its
//! order among pairs is total. A pair enters its queue once, when the younger of its two tokens is made, and its count
//! can only fall afterwards. No two pairs spell the same token: all merges inside a token follow from its spelling. The
//! tests compare the library with the definition.

use std::collections::{BTreeMap, HashMap};

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::file::{END_OF_TEXT, byte_characters, json_of};
use super::guard::guard;
use super::library::by_id;

/// How often a pair of characters may occur: the library counts in 32 bits and does not notice an overflow.
/// A pair of longer tokens occurs no more often than the two characters where they meet.
const MOST: u64 = i32::MAX as u64;

/// Pairs of spellings, first to last.
type Merges = Vec<(String, String)>;

/// How often each word occurs in a text; words are spelt in the characters that stand for bytes.
#[derive(Debug, Default)]
pub(super) struct WordCounts(BTreeMap<String, u64>);

impl WordCounts {
    /// Counts the words of a piece of text. Bytes that are not UTF-8 belong to no word.
    ///
    /// # Errors
    /// Returns the library's reason; no case is known.
    pub(super) fn add(&mut self, text: &[u8]) -> Result<(), String> {
        let cut = ByteLevel::new(false, true, true);
        for chunk in text.utf8_chunks() {
            let mut words = PreTokenizedString::from(chunk.valid());
            guard(|| cut.pre_tokenize(&mut words))?;
            for (word, _, _) in words.get_splits(OffsetReferential::Original, OffsetType::Byte) {
                match self.0.get_mut(word) {
                    Some(count) => *count += 1,
                    None => drop(self.0.insert(word.to_owned(), 1)),
                }
            }
        }
        Ok(())
    }

    /// The `tokenizer.json` of a vocabulary of at most `size` tokens.
    ///
    /// # Errors
    /// Returns a reason if a pair of characters occurs too often to be counted.
    pub(super) fn learn(&self, size: usize) -> Result<String, String> {
        self.check_counts()?;
        let characters = byte_characters();
        let (merges, learned) = learn(&self.0, &characters, size - 1)?;
        let mut vocab: Vec<String> = characters.iter().map(char::to_string).collect();
        vocab.push(END_OF_TEXT.to_owned());
        vocab.extend(learned);
        Ok(json_of(&vocab, &merges, true))
    }

    fn check_counts(&self) -> Result<(), String> {
        let mut counts: HashMap<(char, char), u64> = HashMap::new();
        for (word, count) in &self.0 {
            for pair in word.chars().zip(word.chars().skip(1)) {
                let sum = counts.entry(pair).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
        let max = counts
            .into_iter()
            .max_by_key(|(pair, count)| (*count, *pair));
        match max {
            Some(((left, right), count)) if count > MOST => Err(format!(
                "the text has `{left}{right}` {count} times, expected {MOST} at most: learn from a part of it"
            )),
            _ => Ok(()),
        }
    }
}

/// Merges, first to last, and the tokens that they make, until there are `size` tokens with the characters.
fn learn(
    words: &BTreeMap<String, u64>,
    characters: &[char],
    size: usize,
) -> Result<(Merges, Vec<String>), String> {
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .min_frequency(2)
        .vocab_size(size)
        .initial_alphabet(characters.iter().copied().collect())
        .build();
    let words = words.iter().map(|(word, n)| (word.as_str().into(), *n));
    let words = words.collect();
    let mut model = BPE::default();
    guard(|| trainer.do_train(&words, &mut model))?;
    // The characters have the first ids, and merges follow in their order.
    let tokens = by_id(model.get_vocab()).into_iter().skip(characters.len());
    // The library gives its merges in its file format only.
    let mut written = guard(|| serde_json::to_value(&model))?;
    let merges = guard(|| serde_json::from_value(written["merges"].take()))?;
    Ok((merges, tokens.map(|(_, token)| token).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Pair = (u32, u32);

    /// The definition: all pairs recounted before every merge.
    fn naive(
        words: &BTreeMap<String, u64>,
        characters: &[char],
        size: usize,
    ) -> (Merges, Vec<String>) {
        let id = |c: char| characters.iter().position(|x| *x == c).unwrap() as u32;
        let mut words: Vec<(Vec<u32>, u64)> = words
            .iter()
            .map(|(word, count)| (word.chars().map(id).collect(), *count))
            .collect();
        let mut vocab: Vec<String> = characters.iter().map(char::to_string).collect();
        let mut merges = Vec::new();
        while vocab.len() < size {
            let mut counts: BTreeMap<Pair, u64> = BTreeMap::new();
            for (word, count) in &words {
                for at in 1..word.len() {
                    *counts.entry((word[at - 1], word[at])).or_default() += count;
                }
            }
            let max = counts.values().max().copied().unwrap_or(0);
            // The map is in order, so the first of the highest count is the lowest pair.
            let Some((pair, _)) = counts.iter().find(|(_, n)| **n == max && max > 1) else {
                break;
            };
            let spelling = |id: u32| vocab[id as usize].clone();
            let (left, right) = (spelling(pair.0), spelling(pair.1));
            let whole = left.clone() + &right;
            assert!(!vocab.contains(&whole), "{whole} is spelt by two pairs");
            for (word, _) in &mut words {
                let mut rest = word.as_slice();
                let mut new = Vec::new();
                while let Some((first, after)) = rest.split_first() {
                    if (*first, after.first().copied()) == (pair.0, Some(pair.1)) {
                        new.push(vocab.len() as u32);
                        rest = &after[1..];
                    } else {
                        new.push(*first);
                        rest = after;
                    }
                }
                *word = new;
            }
            vocab.push(whole);
            merges.push((left, right));
        }
        (merges, vocab.split_off(characters.len()))
    }

    /// The example of Sennrich et al., listing 1: low, lower, newest, widest.
    #[test]
    fn the_papers_example() {
        let words = [("low", 5), ("lower", 2), ("newest", 6), ("widest", 3)];
        let words = words.map(|(word, n)| (word.to_owned(), n)).into();
        let letters: Vec<char> = "deilnorstw".chars().collect();
        let (merges, tokens) = learn(&words, &letters, letters.len() + 5).unwrap();
        // es 9 (before st 9), est 9, lo 7 (before ow 7), low 7; then ew, ne and w-est have 6 each, and e is the lowest.
        assert_eq!(tokens, ["es", "est", "lo", "low", "ew"], "{merges:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn merges_follow_the_definition(
            words in proptest::collection::btree_map("[a-d]{0,14}|a{1,40}b?", 1_u64..5, 0..20),
            size in 4_usize..60,
        ) {
            let letters = ['a', 'b', 'c', 'd'];
            let expected = naive(&words, &letters, size);
            // The library's tables have a different order each time.
            for _ in 0..4 {
                prop_assert_eq!(learn(&words, &letters, size).unwrap(), expected.clone());
            }
        }
    }

    #[test]
    fn pairs_that_cannot_be_counted_are_refused() {
        let words =
            |count: u64| WordCounts([("ab".to_owned(), count), ("abc".to_owned(), 1)].into());
        let reason = words(MOST).learn(300).unwrap_err();
        assert!(reason.contains("`ab` 2147483648 times"), "{reason}");
        assert!(words(u64::MAX).learn(300).is_err());
        let json = words(MOST - 1).learn(300).unwrap();
        assert!(json.contains("\"ab\": 257"), "{json}");
    }

    #[test]
    fn words_are_counted_whatever_the_bytes() {
        let mut words = WordCounts::default();
        words.add(b"the cat \xff the\n").unwrap();
        // GPT-2 puts the space before a word with it; \u{120} stands for a space, \u{10a} for a line feed.
        let found: Vec<(&str, u64)> = words
            .0
            .iter()
            .map(|(word, n)| (word.as_str(), *n))
            .collect();
        let expected = [
            ("the", 1),
            ("\u{10a}", 1),
            ("\u{120}", 1),
            ("\u{120}cat", 1),
            ("\u{120}the", 1),
        ];
        assert_eq!(found, expected);
    }
}
