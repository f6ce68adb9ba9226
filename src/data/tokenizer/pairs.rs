//! A byte-pair vocabulary learned from a text (Gage 1994; Sennrich, Haddow and Birch 2016, section 3.2).
//!
//! Words are cut as GPT-2 cuts them, by the public library. The merges are found here, and not by the library's trainer,
//! whose choice among equal pairs may depend on the order of a hash table. Ours is a function of the text:
//!
//! ```text
//! tokens  0..=255 the bytes, 256 the end of text, then one for each merge
//! repeat  the pair of neighbours inside words that occurs most often; of equal ones the lowest left id, then the lowest
//!         right id; replace it everywhere, left to right, by the next id
//! until   the vocabulary is full, or no pair occurs twice
//! ```
//!
//! Two pairs may spell the same bytes. The second then becomes a merge into the token that is there, and the vocabulary
//! does not grow.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::END_OF_TEXT_ID;
use super::file::{END_OF_TEXT, byte_characters, json_of};
use super::guard::guard;

type Pair = (u32, u32);

/// How often each word occurs in a text; a word is spelt in the characters that stand for bytes.
#[derive(Debug, Default)]
pub(super) struct Words(BTreeMap<String, u64>);

impl Words {
    /// Counts the words of a piece of text. Bytes that are not UTF-8 belong to no word.
    ///
    /// # Errors
    /// The library's reason; none is known.
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
    pub(super) fn learn(&self, size: usize) -> String {
        let characters = byte_characters();
        let id = |c: char| characters.iter().position(|x| *x == c).map(|id| id as u32);
        let word = |(word, count): (&String, &u64)| (word.chars().filter_map(id).collect(), *count);
        let mut vocab: Vec<String> = characters.iter().map(char::to_string).collect();
        vocab.push(END_OF_TEXT.to_owned());
        debug_assert_eq!(vocab.len(), END_OF_TEXT_ID as usize + 1);
        let merges = merges(self.0.iter().map(word).collect(), &mut vocab, size);
        json_of(&vocab, &merges, true)
    }
}

/// Merges until `vocab` has `size` tokens, and gives them as spellings, first to last.
fn merges(
    words: Vec<(Vec<u32>, u64)>,
    vocab: &mut Vec<String>,
    size: usize,
) -> Vec<(String, String)> {
    let mut known: HashMap<String, u32> = vocab.iter().cloned().zip(0..).collect();
    let mut table = Table::new(words);
    let mut merges = Vec::new();
    while vocab.len() < size {
        let Some(pair) = table.most_frequent() else {
            break;
        };
        let (left, right) = (&vocab[pair.0 as usize], &vocab[pair.1 as usize]);
        let whole = format!("{left}{right}");
        merges.push((left.clone(), right.clone()));
        let id = *known.entry(whole).or_insert_with_key(|whole| {
            vocab.push(whole.clone());
            vocab.len() as u32 - 1
        });
        table.merge(pair, id);
    }
    merges
}

/// The words as tokens, and the count of every pair of neighbours.
struct Table {
    words: Vec<(Vec<u32>, u64)>,
    counts: HashMap<Pair, u64>,
    /// Words in which a pair occurs, or did.
    places: HashMap<Pair, BTreeSet<usize>>,
    /// An entry for every count that a pair has, and old ones. The order is total, so that what comes first does not
    /// depend on when it was put in.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl Table {
    fn new(words: Vec<(Vec<u32>, u64)>) -> Self {
        let mut counts = HashMap::new();
        let mut places: HashMap<Pair, BTreeSet<usize>> = HashMap::new();
        for (place, (word, count)) in words.iter().enumerate() {
            for pair in pairs(word) {
                *counts.entry(pair).or_default() += count;
                places.entry(pair).or_default().insert(place);
            }
        }
        let queue = counts
            .iter()
            .map(|(pair, n)| (*n, Reverse(*pair)))
            .collect();
        Self {
            words,
            counts,
            places,
            queue,
        }
    }

    /// The pair to merge next, if one occurs at least twice.
    fn most_frequent(&mut self) -> Option<Pair> {
        loop {
            let (count, Reverse(pair)) = self.queue.pop()?;
            let now = self.counts.get(&pair).copied().unwrap_or(0);
            if now < 2 {
                continue;
            }
            if now == count {
                return Some(pair);
            }
            // An old entry. A count that grew has a newer entry, which came before this one.
            if now < count {
                self.queue.push((now, Reverse(pair)));
            }
        }
    }

    /// Replaces the pair by one token in every word.
    fn merge(&mut self, pair: Pair, id: u32) {
        let mut grown = BTreeSet::new();
        for place in self.places.remove(&pair).unwrap_or_default() {
            let (word, count) = &mut self.words[place];
            for old in pairs(word) {
                *self.counts.get_mut(&old).expect("every pair is counted") -= *count;
            }
            replace(word, pair, id);
            for new in pairs(word) {
                *self.counts.entry(new).or_default() += *count;
                if new.0 == id || new.1 == id {
                    self.places.entry(new).or_default().insert(place);
                    grown.insert(new);
                }
            }
        }
        for pair in grown {
            self.queue.push((self.counts[&pair], Reverse(pair)));
        }
    }
}

/// Neighbours in a word.
fn pairs(word: &[u32]) -> impl Iterator<Item = Pair> {
    word.windows(2).map(|pair| (pair[0], pair[1]))
}

/// Replaces a pair from left to right.
fn replace(word: &mut Vec<u32>, pair: Pair, id: u32) {
    let (mut read, mut write) = (0, 0);
    while read < word.len() {
        let both = word[read] == pair.0 && word.get(read + 1) == Some(&pair.1);
        word[write] = if both { id } else { word[read] };
        read += 1 + usize::from(both);
        write += 1;
    }
    word.truncate(write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: all pairs counted anew before every merge.
    fn naive(
        mut words: Vec<(Vec<u32>, u64)>,
        vocab: &mut Vec<String>,
        size: usize,
    ) -> Vec<(String, String)> {
        let mut merges = Vec::new();
        while vocab.len() < size {
            let mut counts: BTreeMap<Pair, u64> = BTreeMap::new();
            for (word, count) in &words {
                for at in 1..word.len() {
                    *counts.entry((word[at - 1], word[at])).or_default() += count;
                }
            }
            let most = counts.values().max().copied().unwrap_or(0);
            // The map is in order, so the first of the highest count is the lowest pair.
            let Some(pair) = counts
                .iter()
                .find(|(_, n)| **n == most && most > 1)
                .map(|(pair, _)| *pair)
            else {
                break;
            };
            let (left, right) = (
                vocab[pair.0 as usize].clone(),
                vocab[pair.1 as usize].clone(),
            );
            let whole = left.clone() + &right;
            let id = vocab
                .iter()
                .position(|token| *token == whole)
                .unwrap_or_else(|| {
                    vocab.push(whole);
                    vocab.len() - 1
                });
            merges.push((left, right));
            for (word, _) in &mut words {
                let mut rest = word.as_slice();
                let mut new = Vec::new();
                while let Some((first, after)) = rest.split_first() {
                    if (*first, after.first().copied()) == (pair.0, Some(pair.1)) {
                        new.push(id as u32);
                        rest = &after[1..];
                    } else {
                        new.push(*first);
                        rest = after;
                    }
                }
                *word = new;
            }
        }
        merges
    }

    fn letters() -> Vec<String> {
        ('a'..='d').map(String::from).collect()
    }

    /// The example of Sennrich et al., listing 1: low, lower, newest, widest.
    #[test]
    fn the_papers_example() {
        let vocab: Vec<String> = "deilnorstw".chars().map(String::from).collect();
        let word = |text: &str, count| {
            let id = |c: char| vocab.iter().position(|x| *x == c.to_string()).unwrap() as u32;
            (text.chars().map(id).collect::<Vec<_>>(), count)
        };
        let words = vec![
            word("low", 5),
            word("lower", 2),
            word("newest", 6),
            word("widest", 3),
        ];
        let mut grown = vocab.clone();
        let found = merges(words, &mut grown, vocab.len() + 5);
        // es 9 (before st 9), est 9, lo 7 (before ow 7), low 7; then ew, ne and w-est have 6 each, and e is the lowest.
        assert_eq!(grown[10..], ["es", "est", "lo", "low", "ew"], "{found:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn merges_follow_the_definition(
            words in proptest::collection::vec((proptest::collection::vec(0_u32..4, 0..14), 1_u64..5), 0..20),
            size in 4_usize..40,
        ) {
            let (mut fast, mut slow) = (letters(), letters());
            let found = merges(words.clone(), &mut fast, size);
            prop_assert_eq!(found, naive(words, &mut slow, size));
            prop_assert_eq!(fast, slow);
        }
    }

    #[test]
    fn words_are_counted_whatever_the_bytes() {
        let mut words = Words::default();
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
