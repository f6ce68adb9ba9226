//! The built-in text: endless short stories in simple English, written by a small grammar.
//!
//! A demo needs a text that is free, needs no download and can be learned in minutes. The stories are made for
//! multi-token prediction. What a story introduces (a name, an animal, a red kite, a place) comes back in the next
//! sentences, and the last sentence repeats who did what with what. So long runs of bytes are certain given the
//! context, and the rest is open.
//!
//! This folder knows nothing about tokens or models.
//!
//! | file | holds |
//! |---|---|
//! | `stories.txt` | the plots, their sentences with alternatives, and the words that fill them |
//! | `grammar.rs` | its format, and the interpreter that writes one story |

mod grammar;

use super::draws::{Draws, Stream};

/// The seed of the text that `foretoken demo` trains on. Any other would do as well.
pub const DEMO_SEED: u64 = 1;

/// Stories, each one line of ASCII, with a blank line between two of them.
///
/// The text ends with the first story that reaches `bytes` bytes, and with a line end. It is a pure
/// function of the seed on every machine. A longer text begins with every shorter one of the same seed.
pub fn stories(seed: u64, bytes: usize) -> String {
    let mut draws = Draws::new(seed, Stream::Stories);
    let mut text = String::new();
    while text.len() < bytes {
        if !text.is_empty() {
            text.push('\n');
        }
        text += &grammar::story(&mut draws);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const SIZE: usize = 1_000_000;

    /// Counts sentences by their ends: a mark followed by a space, a quote or the end of the line, unless a lower-case
    /// letter continues the sentence (`"..?" he asked`).
    fn sentences(story: &str) -> usize {
        let bytes = story.as_bytes();
        (0..bytes.len())
            .filter(|&i| matches!(bytes[i], b'.' | b'!' | b'?'))
            .filter(|&i| {
                let after = story[i + 1..].trim_start_matches(['"', ' ']);
                after.is_empty() || !after.starts_with(|c: char| c.is_ascii_lowercase())
            })
            .count()
    }

    #[test]
    fn a_seed_gives_one_text_and_another_seed_another() {
        assert_eq!(stories(7, 10_000), stories(7, 10_000));
        assert_ne!(stories(7, 10_000), stories(8, 10_000));
    }

    #[test]
    fn a_longer_text_begins_with_the_shorter() {
        let long = stories(7, 20_000);
        for bytes in [0, 1, 2, 500, 501, 10_000] {
            let short = stories(7, bytes);
            assert!(long.starts_with(&short), "{bytes}");
            assert!(short.len() >= bytes, "{bytes}");
            // One story less would not have been enough.
            let without_last = short.trim_end().rfind("\n\n").map_or(0, |end| end + 1);
            assert!(bytes == 0 || without_last < bytes, "{bytes}");
        }
        assert_eq!(stories(7, 0), "");
    }

    #[test]
    fn the_text_is_clean_lines_of_ascii() {
        let text = stories(DEMO_SEED, SIZE);
        assert!(
            text.bytes()
                .all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte))
        );
        assert!(text.ends_with(".\n"));
        for story in text.trim_end().split("\n\n") {
            assert!(!story.contains('\n') && story == story.trim(), "{story}");
            assert!(
                !story.contains("  ") && !story.contains(['{', '}', '[', ']', '|']),
                "{story}"
            );
            assert!(
                story.starts_with(|first: char| first.is_ascii_uppercase()),
                "{story}"
            );
            assert_eq!(story.matches('"').count() % 2, 0, "{story}");
            assert!(
                (5..=12).contains(&sentences(story)),
                "{} in {story}",
                sentences(story)
            );
        }
    }

    #[test]
    fn a_sentence_begins_with_a_capital() {
        for story in stories(DEMO_SEED, SIZE).lines() {
            for (at, _) in story.match_indices(". ") {
                let next = story[at + 2..].trim_start_matches('"');
                assert!(
                    next.starts_with(|first: char| first.is_ascii_uppercase()),
                    "{story}"
                );
            }
        }
    }

    #[test]
    fn articles_agree_with_the_next_letter() {
        for story in stories(DEMO_SEED, SIZE).lines() {
            let words: Vec<&str> = story.split(' ').collect();
            for pair in words.windows(2) {
                let vowel = pair[1].starts_with(['a', 'e', 'i', 'o', 'u']);
                match pair[0].trim_start_matches('"') {
                    "a" | "A" => assert!(!vowel, "{pair:?} in {story}"),
                    "an" | "An" => assert!(vowel, "{pair:?} in {story}"),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn what_a_story_introduces_comes_back_in_its_last_sentence() {
        let text = stories(DEMO_SEED, SIZE);
        for story in text.trim_end().split("\n\n") {
            let (before, last) = story.trim_end_matches('.').rsplit_once(". ").unwrap();
            let before: HashSet<&str> = before.split([' ', ',', '.', '"', '!', '?']).collect();
            let stock = ["And", "and", "that", "how", "the", "from", "with", "had"];
            let again: HashSet<&str> = last
                .split([' ', ',', '\''])
                .filter(|word| word.len() >= 3 && !stock.contains(word) && before.contains(word))
                .collect();
            assert!(again.len() >= 4, "{again:?} in {story}");
            let names = grammar::names()
                .filter(|name| story.matches(name).count() >= 2)
                .count();
            assert!(names >= 1, "{story}");
        }
    }

    #[test]
    fn stories_do_not_repeat_each_other() {
        let text = stories(DEMO_SEED, SIZE);
        let all: Vec<&str> = text.trim_end().split("\n\n").collect();
        let different: HashSet<&str> = all.iter().copied().collect();
        assert_eq!(different.len(), all.len());
        // Every name takes part.
        for name in grammar::names() {
            assert!(text.contains(name), "{name}");
        }
    }
}
