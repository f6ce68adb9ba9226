//! A text in pieces: read bit by bit, however long it is, and cut where it does not matter.
//!
//! A tokenizer needs memory in proportion to the text that it is given, so that a long text goes through in pieces.
//! Where they end is a function of the text alone:
//!
//! ```text
//! a separator ends a piece and belongs to none
//! else the first place at least 256 KiB after the start that follows a line feed between two visible ASCII characters
//! else, where there is none within 1 MiB, the last start of a character at or before 1 MiB
//! ```
//!
//! The vocabularies of GPT-2, Llama 3, Qwen and their like always end a word there, so that the tokens are those of the
//! whole text. (After two line feeds they would not: GPT-2 takes the last white space before a word by itself, but not
//! the last before the end of the text.) A vocabulary that looks further takes each piece for a text of its own.

use std::io::{self, Read};

/// Bytes of a piece before its end is looked for.
const LEAST: usize = 256 << 10;
/// Bytes of a piece at most.
const MOST: usize = 1 << 20;

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

    /// Reads until the longest piece and a separator fit in the buffer.
    fn fill(&mut self) -> io::Result<()> {
        let wanted = MOST + self.separator.len() + 1;
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
            let visible = |i: usize| rest.get(i).is_some_and(u8::is_ascii_graphic);
            let line = |i: &usize| visible(i - 2) && rest[i - 1] == b'\n' && visible(*i);
            if let Some(line) = (LEAST..end.min(MOST)).find(line) {
                return (line, false);
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
mod tests {
    use super::*;

    fn pieces(text: &[u8], separator: &[u8]) -> Vec<Piece> {
        Pieces::new(text, separator).map(Result::unwrap).collect()
    }

    /// A source that gives few bytes at a time.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let n = into.len().min(self.0.len()).min(7919);
            let (now, rest) = self.0.split_at(n);
            into[..n].copy_from_slice(now);
            self.0 = rest;
            Ok(n)
        }
    }

    fn whole(pieces: &[Piece], separator: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        for piece in pieces {
            assert_eq!(piece.start, text.len() as u64);
            assert!(piece.text.len() <= MOST);
            text.extend_from_slice(&piece.text);
            text.extend_from_slice(if piece.separated { separator } else { b"" });
        }
        text
    }

    #[test]
    fn separators_end_pieces_and_belong_to_none() {
        let found = pieces(b"a<>bc<><>", b"<>");
        let texts: Vec<(&[u8], bool)> = found.iter().map(|p| (&p.text[..], p.separated)).collect();
        assert_eq!(texts, [(&b"a"[..], true), (b"bc", true), (b"", true)]);
        assert_eq!(pieces(b"", b"<>"), []);
        assert_eq!(pieces(b"a<", b"<>").len(), 1);
    }

    #[test]
    fn a_long_text_is_cut_at_line_feeds_before_visible_characters() {
        let line = [&b"x".repeat(999)[..], b"\n"].concat();
        let text = line.repeat(3000);
        let found = pieces(&text, b"");
        // The first multiple of 1000 that is at least 262,144.
        assert!(
            found[..found.len() - 1]
                .iter()
                .all(|p| p.text.len() == 263_000)
        );
        assert!(whole(&found, b"") == text);
        let drops: Vec<Piece> = Pieces::new(Drops(&text), b"").map(Result::unwrap).collect();
        assert!(drops == found);
        // White space on either side may belong to the line feed's word; so may what is not ASCII.
        for (before, next) in [
            ("x", " x"),
            ("x", "\n"),
            ("x", "\u{a0}"),
            ("x", "\u{e9}"),
            (" ", "x"),
            ("\n", "x"),
        ] {
            let text = ["x".repeat(LEAST).as_str(), before, "\n", next].concat();
            assert_eq!(pieces(text.as_bytes(), b"").len(), 1, "{before:?} {next:?}");
        }
    }

    #[test]
    fn without_a_place_to_cut_characters_stay_whole() {
        // Characters of two bytes, so that the limit falls between two of them or inside one.
        for (pad, expected) in [("", MOST), ("x", MOST - 1)] {
            let text = pad.to_owned() + &"\u{e9}".repeat(MOST);
            let found = pieces(text.as_bytes(), b"");
            assert_eq!(found[0].text.len(), expected, "{pad}");
            assert!(whole(&found, b"") == text.as_bytes());
        }
        // Bytes that are no text end exactly there.
        assert_eq!(pieces(&[0x80; MOST + 9], b"")[0].text.len(), MOST);
    }

    #[test]
    fn a_separator_across_the_longest_piece_is_found() {
        for before in [MOST - 3, MOST - 1, MOST, MOST + 1] {
            let text = [&b"x".repeat(before)[..], b"<sep>", &b"y".repeat(MOST)].concat();
            for found in [
                pieces(&text, b"<sep>"),
                Pieces::new(Drops(&text), b"<sep>")
                    .map(Result::unwrap)
                    .collect(),
            ] {
                assert_eq!(found.iter().filter(|p| p.separated).count(), 1, "{before}");
                assert!(whole(&found, b"<sep>") == text);
                let texts: Vec<u8> = found.into_iter().flat_map(|p| p.text).collect();
                assert!(!texts.contains(&b'<'), "{before}");
            }
        }
    }

    #[test]
    fn many_short_documents_are_as_many_pieces() {
        let text = b"ab|".repeat(1_000_000);
        assert_eq!(Pieces::new(&text[..], b"|").count(), 1_000_000);
    }

    #[test]
    fn a_source_that_fails_says_so_once() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("no"))
            }
        }
        let mut pieces = Pieces::new(Broken, b"");
        assert!(pieces.next().unwrap().is_err());
        assert!(pieces.next().is_none());
    }
}
