//! A text in pieces: read bit by bit, however long it is, and cut where it does not matter.
//!
//! A tokenizer needs memory in proportion to the text that it is given, so that a long text goes through in pieces.
//! Where they end is a function of the text alone:
//!
//! ```text
//! a separator ends a piece and belongs to none
//! else the first place, at least 256 KiB after the start, where a word ends (see below)
//! else, where there is none within 1 MiB, the last start of a character at or before 1 MiB
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
//! The patterns by which GPT-2, Llama 3, Qwen and GPT-4o cut words always end one there, and they never look back. So
//! the tokens are those of the whole text, whichever line ends it has, and whether it has spaces or not. (After a line
//! feed it would not be so: GPT-2 takes the last white space before a word by itself, but not the last before the end
//! of the text. Nor after a full stop: the others take it and the letters behind it as one word.)
//!
//! It is not so in two cases. A text without such a place for 768 KiB, as of digits or letters without a space, is cut
//! within a word. And a vocabulary that looks further than words takes each piece for a text of its own: one that puts
//! a space before every text puts one before every piece.

use std::io::{self, Read};

/// Bytes of a piece before its end is looked for.
const LEAST: usize = 256 << 10;
/// Bytes of a piece at most.
const MOST: usize = 1 << 20;
/// Bytes after the longest piece that may decide where it ends: a character.
const AHEAD: usize = 4;

/// One piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it starts in the text, in bytes.
    pub(super) start: u64,
    /// Its bytes; none between two separators.
    pub(super) text: Vec<u8>,
    /// Whether a separator ends it.
    pub(super) separated: bool,
}

/// The pieces of a source, in order. After an error there are no more.
#[derive(Debug)]
pub(super) struct Pieces<'a, R> {
    source: R,
    /// Empty for none.
    separator: &'a [u8],
    buffer: Vec<u8>,
    /// Where the next piece starts in the buffer.
    at: usize,
    /// The same place in the text.
    start: u64,
    /// Whether the source has no more.
    ended: bool,
    /// Whether no piece is left.
    done: bool,
}

impl<'a, R: Read> Pieces<'a, R> {
    /// Pieces that end at `separator`, unless it is empty, and where the rules say.
    pub(super) fn new(source: R, separator: &'a [u8]) -> Self {
        Self {
            source,
            separator,
            buffer: Vec::new(),
            at: 0,
            start: 0,
            ended: false,
            done: false,
        }
    }

    /// Reads until the longest piece and what decides its end fit in the buffer.
    fn fill(&mut self) -> io::Result<()> {
        let wanted = MOST + self.separator.len().max(AHEAD) + 1;
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

    /// The length of the next piece, and whether a separator comes then.
    fn cut(&self) -> (usize, bool) {
        let rest = &self.buffer[self.at..];
        let window = &rest[..rest.len().min(MOST + self.separator.len())];
        let separator = match self.separator {
            [] => None,
            text => window.windows(text.len()).position(|w| w == text),
        };
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

/// Whether a word ends at a place within a text, as the head of this file says.
fn word_ends(text: &[u8], place: usize) -> bool {
    // Most places are ruled out by their next byte: the characters of the last row all begin with one of these two.
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

/// The character that ends at a place; none where no valid one does.
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

/// A letter of Han (without later extensions), kana or Hangul. Marks and numbers are none.
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

impl<R: Read> Iterator for Pieces<'_, R> {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if let Err(error) = self.fill() {
            self.done = true;
            return Some(Err(error));
        }
        let (length, separated) = self.cut();
        if length == 0 && !separated {
            self.done = true;
            return None;
        }
        let piece = Piece {
            start: self.start,
            text: self.buffer[self.at..self.at + length].to_vec(),
            separated,
        };
        let taken = length + if separated { self.separator.len() } else { 0 };
        self.at += taken;
        self.start += taken as u64;
        Some(Ok(piece))
    }
}

#[cfg(test)]
mod tests;
