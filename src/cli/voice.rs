//! A continuation on a terminal: each token in the colour of the head that drafted it.

use crate::data::TextStream;
use clap::ColorChoice;
use std::collections::VecDeque;
use std::ffi::OsString;

/// A text stream in colours.
#[derive(Clone, Debug)]
pub struct Voice {
    stream: TextStream,
    colours: bool,
    /// The origins of the text that the stream holds back, and the rejected drafts among it.
    held: VecDeque<Piece>,
}

/// Part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// This many bytes of text that a head proposed, or the trunk (0).
    Text(usize, usize),
    /// What a head proposed, and it was rejected.
    Rejected(String),
}

impl Voice {
    /// With these stop strings; empty ones are ignored.
    pub fn new(stops: &[String], colours: bool) -> Self {
        Self {
            stream: TextStream::new(stops),
            colours,
            held: VecDeque::new(),
        }
    }

    /// Takes the bytes of a token that a head drafted; returns what can be printed now.
    pub fn token(&mut self, bytes: &[u8], head: usize) -> String {
        let before = self.stream.held();
        let text = self.stream.push(bytes);
        self.print(&text, before, head)
    }

    /// Takes the bytes of rejected drafts; returns what can be printed now.
    pub fn rejected(&mut self, bytes: &[u8]) -> String {
        if !self.colours {
            return String::new();
        }
        let visible = |c: char| match c {
            '\n' => '⏎',
            c if c.is_control() => '·',
            c => c,
        };
        let text = String::from_utf8_lossy(bytes);
        let text = text.chars().map(visible).collect();
        self.held.push_back(Piece::Rejected(text));
        self.release("")
    }

    /// Whether a stop string has come.
    pub fn stopped(&self) -> bool {
        self.stream.stopped().is_some()
    }

    /// Ends the text; returns the rest of it.
    pub fn finish(&mut self) -> String {
        let before = self.stream.held();
        let text = self.stream.finish();
        self.print(&text, before, 0)
    }

    /// Colours text that came out of the stream when it held `before` bytes and a token of `head` was pushed.
    fn print(&mut self, text: &str, before: usize, head: usize) -> String {
        let new = (text.len() + self.stream.held()).saturating_sub(before);
        self.held.push_back(Piece::Text(new, head));
        let out = self.release(text);
        if self.stopped() {
            self.held.clear();
        }
        out
    }

    /// Colours the next piece of text, and rejected drafts as far as they come before the text that is held back.
    fn release(&mut self, mut text: &str) -> String {
        let mut out = String::new();
        while let Some(piece) = self.held.front_mut() {
            match piece {
                Piece::Rejected(drafts) => out += &paint(drafts, Some(REJECTED)),
                Piece::Text(len, head) => {
                    let now;
                    (now, text) = text.split_at(text.len().min(*len));
                    *len -= now.len();
                    out += &paint(now, colour(*head).filter(|_| self.colours));
                    if *len > 0 {
                        break;
                    }
                }
            }
            self.held.pop_front();
        }
        out
    }
}

/// A colour ends with its line, so that a terminal does not fill the rest of the line.
fn paint(text: &str, colour: Option<&str>) -> String {
    let line = |line: &str| match colour {
        Some(colour) if !line.is_empty() => format!("\x1b[{colour}m{line}\x1b[0m"),
        _ => line.to_owned(),
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// The terminal's codes for heads: green, cyan, blue, magenta, yellow, then their bright forms.
const DEPTHS: [&str; 8] = ["32", "36", "94", "35", "33", "92", "96", "95"];

/// The terminal's code for rejected drafts: red and struck out.
const REJECTED: &str = "31;9";

/// The colour of a head; none for the trunk's own tokens (0).
fn colour(head: usize) -> Option<&'static str> {
    Some(DEPTHS[head.checked_sub(1)? % DEPTHS.len()])
}

/// One line that explains the colours of a model with this many heads.
pub fn legend(depths: usize, colours: bool) -> String {
    let paint = |text: &str, colour: Option<&str>| paint(text, colour.filter(|_| colours));
    let mut words = vec!["trunk".to_owned()];
    words.extend((1..=depths).map(|k| paint(&format!("depth {k}"), colour(k))));
    words.push(paint("rejected", Some(REJECTED)));
    words.join("  ")
}

/// Whether a stream gets colours, which may be a terminal.
pub fn coloured(choice: ColorChoice, terminal: bool) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => terminal && !refused(std::env::var_os("NO_COLOR")),
    }
}

/// Whether a value of NO_COLOR turns colours off: any does that is not empty (<https://no-color.org>).
fn refused(no_color: Option<OsString>) -> bool {
    no_color.is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_show_depth_and_rejection() {
        let mut voice = Voice::new(&["!!".to_owned()], true);
        let mut out = voice.token(b"a", 0);
        out += &voice.token(b"b\n", 1);
        out += &voice.rejected(b"x\ny");
        out += &voice.token(b"c", 0);
        assert_eq!(out, "a\x1b[32mb\x1b[0m\n\x1b[31;9mx⏎y\x1b[0mc");
        // What is held back keeps its place before rejected drafts that came later.
        assert_eq!(voice.token(b"!", 2), "");
        assert_eq!(voice.rejected(b"z"), "");
        let rest = voice.token(b"?", 0);
        assert_eq!(rest, "\x1b[36m!\x1b[0m\x1b[31;9mz\x1b[0m?");
        assert!(!voice.stopped());
        assert_eq!(
            (voice.token(b"!!", 1), voice.stopped()),
            (String::new(), true)
        );
    }

    #[test]
    fn colours_are_for_terminals_without_no_color() {
        for (value, off) in [
            (None, false),
            (Some(""), false),
            (Some("0"), true),
            (Some("1"), true),
        ] {
            assert_eq!(refused(value.map(OsString::from)), off, "{value:?}");
        }
        assert!(coloured(ColorChoice::Always, false));
        assert!(!coloured(ColorChoice::Never, true) && !coloured(ColorChoice::Auto, false));
        assert!(!legend(3, false).contains('\x1b') && legend(3, true).contains("\x1b[32m"));
    }

    #[test]
    fn rejected_drafts_are_silent_without_colours() {
        let mut voice = Voice::new(&[], false);
        assert_eq!(voice.rejected(b"x") + &voice.token(b"y", 3), "y");
    }
}
