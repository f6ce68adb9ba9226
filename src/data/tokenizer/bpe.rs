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
//! A word of more than [`MAX_WORD`] bytes is counted as several, cut between characters. Text without spaces, such as
//! DNA or a long rule of `=`, would be one word otherwise, and a merge takes time in proportion to the length of every
//! word that it changes: a text would take time in proportion to its square. Other programs have such a bound too: 16
//! characters of a piece in SentencePiece (`max_sentencepiece_length`), 100 of a word in WordPiece
//! (`max_input_chars_per_word`), 25,000 characters in the reference code of Llama 3 (`MAX_NO_WHITESPACES_CHARS`). Only
//! learning needs it: the library encodes a word in time n log n.
//!
//! The library reports no progress, so merges are learned in rounds. After each, the words are rewritten in the tokens
//! made so far, as if these were characters.
//!
//! So the result is a function of the text. The library has hash tables of random order and several threads, but its
//! order among pairs is total. A pair enters its queue once, when the younger of its two tokens is made, and its count
//! can only fall afterwards. No two pairs spell the same token: all merges inside a token follow from its spelling. The
//! tests compare the library with the definition.

use std::collections::{BTreeMap, HashMap};

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{Model, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::file::{END_OF_TEXT, byte_characters, json_of};
use super::guard::guard;

/// How often a pair of characters may occur: the library counts in 32 bits and does not notice an overflow.
/// A pair of longer tokens occurs no more often than the two characters where they meet.
const MOST: u64 = i32::MAX as u64;

/// Longest word in bytes. No word of usual prose or code is longer, and the public vocabularies have no longer token
/// (128 spaces, in that of GPT-4).
const MAX_WORD: usize = 128;

/// Merges of the first round. Later ones have as many as there are, so that a vocabulary takes a few rounds, but at
/// most [`MAX_ROUND`], so that progress is visible.
const FIRST_ROUND: usize = 128;
/// Most merges of a round.
const MAX_ROUND: usize = 4096;

/// Pairs of spellings, first to last.
type Merges = Vec<(String, String)>;

/// How often each word occurs in a text; words are spelt in the characters that stand for bytes.
#[derive(Debug, Default)]
pub(super) struct WordCounts(BTreeMap<String, u64>);

impl WordCounts {
    fn count(&mut self, word: &str) {
        match self.0.get_mut(word) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(word.to_owned(), 1)),
        }
    }

    /// Counts the words of a piece of text. Bytes that are not UTF-8 belong to no word.
    ///
    /// # Errors
    /// Returns the library's reason; no case is known.
    pub(super) fn add(&mut self, text: &[u8]) -> Result<(), String> {
        let cut = ByteLevel::new(false, true, true);
        let inside = continuations();
        for chunk in text.utf8_chunks() {
            let mut words = PreTokenizedString::from(chunk.valid());
            guard(|| cut.pre_tokenize(&mut words))?;
            for (word, _, _) in words.get_splits(OffsetReferential::Original, OffsetType::Byte) {
                parts(word, &inside).for_each(|part| self.count(part));
            }
        }
        Ok(())
    }

    /// The `tokenizer.json` of a vocabulary of at most `size` tokens. The number of tokens is passed to `progress` from
    /// time to time.
    ///
    /// # Errors
    /// Returns a reason if a pair of characters occurs too often to be counted.
    pub(super) fn learn(
        &self,
        size: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<String, String> {
        self.check_counts()?;
        let characters = byte_characters();
        // The end of text is one more.
        let made = &mut |tokens| progress(tokens + 1);
        let (merges, learned) = learn(&self.0, &characters, size - 1, FIRST_ROUND, made)?;
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

/// The characters that stand for the bytes of UTF-8 that continue a character.
fn continuations() -> Vec<char> {
    let mut inside = byte_characters()[0x80..0xc0].to_vec();
    inside.sort_unstable();
    inside
}

/// A word in parts of at most [`MAX_WORD`] bytes. None ends inside a character, if the word is valid text.
fn parts<'a>(word: &'a str, inside: &[char]) -> impl Iterator<Item = &'a str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        // Each character stands for one byte.
        let beyond = rest.char_indices().nth(MAX_WORD);
        let starts = |(_, c): &(usize, char)| inside.binary_search(c).is_err();
        let end = beyond.map_or(rest.len(), |(beyond, c)| {
            let last = rest[..beyond + c.len_utf8()].char_indices().rfind(starts);
            let last = last.map(|(at, _)| at).filter(|at| *at > 0);
            last.unwrap_or(beyond)
        });
        let (part, after) = rest.split_at(end);
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}

/// A word in tokens, and how often it occurs.
type Word = (Vec<u32>, u64);

/// Merges, first to last, and the tokens that they make, until there are `size` tokens with the characters. The number
/// of tokens is passed to `progress` after each round; the first has `round` merges.
fn learn(
    words: &BTreeMap<String, u64>,
    characters: &[char],
    size: usize,
    round: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<(Merges, Vec<String>), String> {
    // In the order of their code points, by which the library breaks ties. The caller numbers them as it likes.
    let mut characters = characters.to_vec();
    characters.sort_unstable();
    let ids: HashMap<char, u32> = characters.iter().copied().zip(0..).collect();
    let word = |(word, count): (&String, &u64)| (word.chars().map(|c| ids[&c]).collect(), *count);
    let mut words: Vec<Word> = words.iter().map(word).collect();
    let mut vocab: Vec<String> = characters.iter().map(char::to_string).collect();
    let mut merges = Vec::new();
    let mut round = round;
    while vocab.len() < size {
        let wanted = size.min(vocab.len() + round);
        let made = learn_round(&mut words, vocab.len(), wanted)?;
        for (left, right) in made {
            let pair = [left, right].map(|id| vocab[id as usize].clone());
            vocab.push(pair.concat());
            let [left, right] = pair;
            merges.push((left, right));
        }
        progress(vocab.len());
        if vocab.len() < wanted {
            break;
        }
        round = (2 * round).min(MAX_ROUND);
    }
    Ok((merges, vocab.split_off(characters.len())))
}

/// The next merges, as pairs of tokens, until there are `wanted` tokens instead of `have`. The words are rewritten.
fn learn_round(
    words: &mut Vec<Word>,
    have: usize,
    wanted: usize,
) -> Result<Vec<(u32, u32)>, String> {
    // Nothing is left to merge in a word of one token.
    words.retain(|(word, _)| word.len() > 1);
    let spell = |word: &[u32]| word.iter().map(|id| symbol(*id)).collect::<String>();
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .min_frequency(2)
        .vocab_size(wanted)
        .initial_alphabet((0..have as u32).map(symbol).collect())
        .build();
    let counts = words.iter().map(|(word, n)| (spell(word).into(), *n));
    let counts = counts.collect();
    // Without a cache: a thread would keep it after the model is gone.
    let mut model = guard(|| BPE::builder().cache_capacity(0).build())?;
    guard(|| trainer.do_train(&counts, &mut model))?;
    drop(counts);
    // The symbols have the first ids, in their order, and merges follow in theirs.
    let vocab = model.get_vocab();
    // The library gives its merges in its file format only.
    let mut written = guard(|| serde_json::to_value(&model))?;
    let merges: Merges = guard(|| serde_json::from_value(written["merges"].take()))?;
    let merges = merges
        .iter()
        .map(|(left, right)| (vocab[left], vocab[right]));
    let merges: Vec<(u32, u32)> = merges.collect();
    for (word, _) in words {
        let tokens = guard(|| model.tokenize(&spell(word)))?;
        word.clear();
        word.extend(tokens.iter().map(|token| token.id));
    }
    Ok(merges)
}

/// The character that stands for a token in a round: in the order of the ids, around the surrogates.
fn symbol(id: u32) -> char {
    let code = if id < 0xd800 { id } else { id + 0x800 };
    // Ids lie below 2^20, the highest code is 0x10ffff.
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
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
        let mut characters = characters.to_vec();
        characters.sort_unstable();
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
        let (merges, tokens) = learn(&words, &letters, letters.len() + 5, 9, &mut |_| ()).unwrap();
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
            // Their order in the alphabet decides, and not that in the list.
            let letters = ['c', 'a', 'd', 'b'];
            let expected = naive(&words, &letters, size);
            // The library's tables have a different order each time. Rounds change nothing.
            for round in [1, 2, 5, 100] {
                let found = learn(&words, &letters, size, round, &mut |_| ()).unwrap();
                prop_assert_eq!(found, expected.clone());
            }
        }
    }

    #[test]
    fn pairs_that_cannot_be_counted_are_refused() {
        let words =
            |count: u64| WordCounts([("ab".to_owned(), count), ("abc".to_owned(), 1)].into());
        let reason = words(MOST).learn(300, &mut |_| ()).unwrap_err();
        assert!(reason.contains("`ab` 2147483648 times"), "{reason}");
        assert!(words(u64::MAX).learn(300, &mut |_| ()).is_err());
        let json = words(MOST - 1).learn(300, &mut |_| ()).unwrap();
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

    /// Text without spaces is no longer one word, so that learning takes time in proportion to it.
    #[test]
    fn words_have_a_bounded_length_and_whole_characters() {
        let euro = "\u{20ac}".repeat(MAX_WORD);
        for text in [
            "=".repeat(10 * MAX_WORD + 7),
            " ".repeat(1 << 17),
            "acgt".repeat(999),
            euro,
        ] {
            let mut words = WordCounts::default();
            words.add(text.as_bytes()).unwrap();
            let bytes = byte_characters();
            let byte = |c: char| bytes.iter().position(|x| *x == c).unwrap() as u8;
            let (mut all, mut parts) = (0, 0);
            for (word, count) in &words.0 {
                let word: Vec<u8> = word.chars().map(byte).collect();
                assert!(word.len() <= MAX_WORD && std::str::from_utf8(&word).is_ok());
                all += word.len() as u64 * count;
                parts += count;
            }
            assert_eq!(all, text.len() as u64);
            assert!(parts <= text.len() as u64 / (MAX_WORD as u64 - 3) + 2);
        }
    }

    #[test]
    fn parts_of_a_word_follow_each_other() {
        let inside = continuations();
        let characters = byte_characters();
        for length in [0, 1, MAX_WORD - 1, MAX_WORD, MAX_WORD + 1, 3 * MAX_WORD] {
            for bytes in [vec![0x80; length], vec![b'a'; length], vec![0xc3; length]] {
                let word: String = bytes.iter().map(|b| characters[usize::from(*b)]).collect();
                let found: Vec<&str> = parts(&word, &inside).collect();
                assert_eq!(found.concat(), word);
                assert_eq!(found.len(), length.div_ceil(MAX_WORD), "{length}");
            }
        }
    }

    #[test]
    fn progress_rises_to_the_size_of_the_vocabulary() {
        let mut words = WordCounts::default();
        let text: String = (0..3000)
            .map(|i| format!("{} ", i * 7919 % 10_007))
            .collect();
        words.add(text.as_bytes()).unwrap();
        let mut seen = Vec::new();
        words.learn(700, &mut |tokens| seen.push(tokens)).unwrap();
        assert!(seen.len() > 2 && seen.is_sorted(), "{seen:?}");
        assert_eq!(seen.last(), Some(&700));
    }
}
