//! A text in chunks: read incrementally, however long it is, and cut where it does not change the tokens.
//!
//! A tokenizer needs memory in proportion to the text that it is given, so a long text is encoded in chunks.
//! Where they end is a function of the text alone:
//!
//! ```text
//! a separator ends a chunk and belongs to none
//! else the first place, at least 256 KiB after the start, where a word ends (see below)
//! else, if there is none within 1 MiB, the last start of a character at or before 1 MiB
//! ```
//!
//! A word ends between these two characters:
//!
//! | before | after |
//! |---|---|
//! | any but white space | a space |
//! | a letter or digit of ASCII; a Han, kana or Hangul letter | a line feed or carriage return |
//! | a Han, kana or Hangul letter | an ideographic comma or full stop, or the like |
//!
//! The patterns by which GPT-2, Llama 3, Qwen and GPT-4o split words always end one there, and they never look back. So
//! the tokens are those of the whole text, whatever its line ends, and with or without spaces. (This would not hold
//! after a line feed: GPT-2 splits off the last white space before a word, but not the last before the end of the text.
//! Nor after a full stop: the others take it and the letters behind it as one word.)
//!
//! There are two exceptions. A text without such a place for 768 KiB, such as digits or letters without a space, is cut
//! within a word. And a vocabulary that looks beyond words treats each chunk as a text of its own: if it puts a space
//! before every text, it puts one before every chunk.

use memchr::memmem;
use std::io::{self, Read};

/// Shortest chunk that is cut at the end of a word, in bytes.
const LEAST: usize = 256 << 10;
/// Longest chunk, in bytes.
const MOST: usize = 1 << 20;
/// Bytes after the longest chunk that may decide where it ends: a character.
const AHEAD: usize = 4;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Offset in the text, in bytes.
    pub(super) start: u64,
    /// The bytes; none between two separators.
    pub(super) text: Vec<u8>,
    /// Whether a separator ends it.
    pub(super) separated: bool,
}

/// The chunks of a source, in order. After an error there are no more.
#[derive(Debug)]
pub(super) struct Chunks<'a, R> {
    source: R,
    /// Empty if texts are not separated.
    separator: memmem::Finder<'a>,
    buffer: Vec<u8>,
    /// Offset of the next chunk in the buffer.
    at: usize,
    /// Offset of the next chunk in the text.
    start: u64,
    /// Whether the source has no more bytes.
    ended: bool,
}

impl<'a, R: Read> Chunks<'a, R> {
    /// Chunks that end at `separator`, unless it is empty, and by the rules above.
    pub(super) fn new(source: R, separator: &'a [u8]) -> Self {
        Self {
            source,
            separator: memmem::Finder::new(separator),
            buffer: Vec::new(),
            at: 0,
            start: 0,
            ended: false,
        }
    }

    fn separator_len(&self) -> usize {
        self.separator.needle().len()
    }

    /// Reads until the buffer holds the longest chunk and the bytes that decide its end.
    fn fill(&mut self) -> io::Result<()> {
        let wanted = MOST + self.separator_len().max(AHEAD) + 1;
        let have = self.buffer.len() - self.at;
        if have >= wanted || self.ended {
            return Ok(());
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        // Twice as much as needed, so that the rest of the buffer is moved once per megabyte.
        let room = (2 * wanted - have) as u64;
        let read = self
            .source
            .by_ref()
            .take(room)
            .read_to_end(&mut self.buffer)?;
        self.ended = (read as u64) < room;
        Ok(())
    }

    /// The length of the next chunk, and whether a separator follows.
    fn cut(&self) -> (usize, bool) {
        let rest = &self.buffer[self.at..];
        let window = &rest[..rest.len().min(MOST + self.separator_len())];
        let separator = self.separator.find(window);
        let separator = separator.filter(|_| self.separator_len() > 0);
        let end = separator.unwrap_or(rest.len());
        if end > LEAST {
            let text = &rest[..end];
            let place = (LEAST..end.min(MOST)).find(|place| word_ends(text, *place));
            if let Some(place) = place {
                return (place, false);
            }
        }
        if end <= MOST {
            return (end, separator.is_some());
        }
        let inside = |i: &usize| rest[*i] & 0b1100_0000 == 0b1000_0000;
        let back = (MOST - 3..=MOST).rev().find(|i| !inside(i));
        (back.unwrap_or(MOST), false)
    }
}

/// Whether a word ends at a place within a text, by the table above.
fn word_ends(text: &[u8], place: usize) -> bool {
    // Most places are ruled out by their next byte: the stops of the last row all begin with one of these two.
    let line = matches!(text[place], b'\n' | b'\r');
    if !line && !matches!(text[place], b' ' | 0xe3 | 0xef) {
        return false;
    }
    let Some(before) = character_before(text, place) else {
        return false;
    };
    match text[place] {
        b' ' => !before.is_whitespace(),
        _ if line => before.is_ascii_alphanumeric() || is_east_asian(before),
        _ => is_east_asian(before) && character_at(text, place).is_some_and(is_stop),
    }
}

/// The valid character that ends at a place.
fn character_before(text: &[u8], place: usize) -> Option<char> {
    let start =
        (place.saturating_sub(4)..place).rfind(|i| text[*i] & 0b1100_0000 != 0b1000_0000)?;
    let mut characters = std::str::from_utf8(&text[start..place]).ok()?.chars();
    characters.next()
}

/// The character that starts at a place.
fn character_at(text: &[u8], place: usize) -> Option<char> {
    let text = &text[place..text.len().min(place + 4)];
    text.utf8_chunks().next()?.valid().chars().next()
}

/// Whether this is a letter of Han (without later extensions), kana or Hangul. Marks and numbers are not.
fn is_east_asian(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}')
}

/// The ideographic comma and full stop, and full-width ! , : ; and ?
fn is_stop(c: char) -> bool {
    matches!(
        c,
        '\u{3001}' | '\u{3002}' | '\u{ff01}' | '\u{ff0c}' | '\u{ff1a}' | '\u{ff1b}' | '\u{ff1f}'
    )
}

impl<R: Read> Iterator for Chunks<'_, R> {
    type Item = io::Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.fill() {
            // Nothing is left.
            (self.ended, self.at) = (true, self.buffer.len());
            return Some(Err(error));
        }
        let (length, separated) = self.cut();
        if length == 0 && !separated {
            return None;
        }
        let chunk = Chunk {
            start: self.start,
            text: self.buffer[self.at..self.at + length].to_vec(),
            separated,
        };
        let taken = length + if separated { self.separator_len() } else { 0 };
        self.at += taken;
        self.start += taken as u64;
        Some(Ok(chunk))
    }
}

#[cfg(test)]
mod tests;

#[cfg(all(test, feature = "tokenizers"))]
mod vocabularies;
