//! What a listener hears of a sequence: text from tokens, cut at a stop string, coloured by who proposed it.

use super::utf8::Utf8Stream;
use std::collections::VecDeque;

/// Text on its way out. Nothing is said that a stop string could still take back.
#[derive(Clone, Debug)]
pub struct Voice {
    bytes: Utf8Stream,
    stops: Vec<String>,
    colours: bool,
    /// Text that may be the beginning of a stop string, in pieces.
    held: VecDeque<Piece>,
    /// The text of the held pieces that are not rejected.
    pending: String,
    stopped: bool,
}

/// Text of one origin.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    text: String,
    origin: Origin,
}

/// Who proposed a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The trunk at depth 0, else a head.
    Depth(usize),
    /// A head, in vain.
    Rejected,
}

impl Voice {
    /// With these stop strings; empty ones stop nothing.
    pub fn new(stops: &[String], colours: bool) -> Self {
        Self {
            bytes: Utf8Stream::default(),
            stops: stops.iter().filter(|s| !s.is_empty()).cloned().collect(),
            colours,
            held: VecDeque::new(),
            pending: String::new(),
            stopped: false,
        }
    }

    /// Takes the bytes of a token of some depth; returns what can be said now.
    pub fn token(&mut self, bytes: &[u8], depth: usize) -> String {
        let text = self.bytes.push(bytes);
        self.say(text, depth)
    }

    /// Takes the text of rejected drafts; returns what can be said now.
    pub fn rejected(&mut self, bytes: &[u8]) -> String {
        if !self.colours {
            return String::new();
        }
        let text = String::from_utf8_lossy(bytes);
        let visible = |c: char| match c {
            '\n' => '⏎',
            c if c.is_control() => '·',
            c => c,
        };
        self.held.push_back(Piece {
            text: text.chars().map(visible).collect(),
            origin: Origin::Rejected,
        });
        self.release(0)
    }

    /// Whether a stop string has come.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Ends the text; returns what is left of it.
    pub fn finish(&mut self) -> String {
        let text = std::mem::take(&mut self.bytes).finish();
        let mut out = self.say(text, 0);
        if !self.stopped {
            out += &self.release(self.pending.len());
        }
        out
    }

    fn say(&mut self, text: String, depth: usize) -> String {
        if self.stopped || text.is_empty() {
            return String::new();
        }
        self.pending += &text;
        let origin = Origin::Depth(depth);
        self.held.push_back(Piece { text, origin });
        let first = { self.stops.iter() }.filter_map(|stop| self.pending.find(stop.as_str()));
        let certain = match first.min() {
            Some(at) => {
                self.stopped = true;
                at
            }
            None => self.pending.len() - self.doubtful(),
        };
        self.release(certain)
    }

    /// Length of the longest end of the pending text with which a stop string begins.
    fn doubtful(&self) -> usize {
        let begins = |n: &usize| {
            let end = self.pending.get(self.pending.len() - n..);
            end.is_some_and(|end| self.stops.iter().any(|stop| stop.starts_with(end)))
        };
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let most = longest.saturating_sub(1).min(self.pending.len());
        (1..=most).rev().find(begins).unwrap_or(0)
    }

    /// Says the next `n` bytes of pending text, and rejected drafts as far as they come before the text that is left.
    fn release(&mut self, mut n: usize) -> String {
        self.pending.drain(..n);
        let mut out = String::new();
        while let Some(piece) = self.held.front_mut() {
            let rest = match piece.origin {
                Origin::Rejected => String::new(),
                Origin::Depth(_) if n == 0 => break,
                Origin::Depth(_) => {
                    let here = n.min(piece.text.len());
                    n -= here;
                    piece.text.split_off(here)
                }
            };
            self.pattern(&mut out);
            match self.held.front_mut() {
                Some(piece) if !rest.is_empty() => piece.text = rest,
                _ => drop(self.held.pop_front()),
            }
        }
        out
    }

    /// Appends the first piece.
    fn pattern(&self, out: &mut String) {
        let piece = &self.held[0];
        match colour(piece.origin).filter(|_| self.colours) {
            None => *out += &piece.text,
            // A colour ends with its line, so that a terminal does not fill the rest of it.
            Some(colour) => {
                for (i, line) in piece.text.split('\n').enumerate() {
                    let newline = if i > 0 { "\n" } else { "" };
                    *out += newline;
                    if !line.is_empty() {
                        *out += &format!("\x1b[{colour}m{line}\x1b[0m");
                    }
                }
            }
        }
    }
}

/// The terminal's code for a colour; none for the trunk's own tokens.
fn colour(origin: Origin) -> Option<&'static str> {
    /// Green, cyan, blue, magenta, yellow, then their bright forms.
    const DEPTHS: [&str; 8] = ["32", "36", "94", "35", "33", "92", "96", "95"];
    match origin {
        Origin::Depth(0) => None,
        Origin::Depth(k) => Some(DEPTHS[(k - 1) % DEPTHS.len()]),
        // Red and struck out.
        Origin::Rejected => Some("31;9"),
    }
}

/// One line that explains the colours of a model with so many depths.
pub fn legend(depths: usize) -> String {
    let pattern = |origin, text: &str| match colour(origin) {
        None => text.to_owned(),
        Some(colour) => format!("\x1b[{colour}m{text}\x1b[0m"),
    };
    let mut words = vec!["trunk".to_owned()];
    for k in 1..=depths {
        words.push(pattern(Origin::Depth(k), &format!("depth {k}")));
    }
    words.push(pattern(Origin::Rejected, "rejected"));
    words.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(text: &str, stops: &[&str], size: usize) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut voice = Voice::new(&stops, false);
        let mut out = String::new();
        for bytes in text.as_bytes().chunks(size) {
            out += &voice.token(bytes, 0);
            assert!(text.starts_with(&out), "nothing is taken back");
            if voice.stopped() {
                break;
            }
        }
        out += &voice.finish();
        (out, voice.stopped())
    }

    #[test]
    fn a_text_ends_before_the_first_stop_string_whatever_the_pieces() {
        for size in 1..=9 {
            let hear = |text, stops: &[&str]| hear(text, stops, size);
            assert_eq!(hear("one two three", &["two"]), ("one ".to_owned(), true));
            assert_eq!(hear("aabaabaac", &["aabaac"]), ("aab".to_owned(), true));
            assert_eq!(hear("é€é€", &["€é"]), ("é".to_owned(), true));
            assert_eq!(
                hear("ends in tw", &["two"]),
                ("ends in tw".to_owned(), false)
            );
            assert_eq!(hear("nothing", &["", "x"]), ("nothing".to_owned(), false));
            assert_eq!(hear("stop", &["stop"]), (String::new(), true));
        }
        // The first to be complete ends the text.
        assert_eq!(hear("abcd", &["bcd", "c"], 1), ("ab".to_owned(), true));
    }

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
    fn rejected_drafts_are_silent_without_colours() {
        let mut voice = Voice::new(&[], false);
        assert_eq!(voice.rejected(b"x") + &voice.token(b"y", 3), "y");
    }
}
