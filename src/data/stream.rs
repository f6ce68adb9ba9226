//! Text from tokens as they are generated: valid UTF-8 from bytes that arrive in pieces, cut at stop strings.

/// Turns the bytes of tokens into text. It returns text as soon as no later token can change it: the beginning of a
/// character, or of a stop string, is held back.
///
/// ```
/// # use foretoken::data::TextStream;
/// let mut stream = TextStream::new(["END"]);
/// assert_eq!(stream.push("caf\u{e9}".as_bytes().split_at(4).0), "caf");
/// assert_eq!(stream.push(b"\xa9 E"), "\u{e9} ");
/// assert_eq!(stream.push(b"NDLESS"), "");
/// assert_eq!(stream.stopped(), Some("END"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    /// The beginning of a character, at most three bytes.
    bytes: Vec<u8>,
    /// Text that may be the beginning of a stop string.
    text: String,
    stops: Vec<String>,
    /// Index of the stop string that ended the text.
    stopped: Option<usize>,
}

impl TextStream {
    /// A stream that ends before the first of these stop strings. Empty ones are ignored.
    pub fn new<S: Into<String>>(stops: impl IntoIterator<Item = S>) -> Self {
        let stops = stops.into_iter().map(Into::into);
        Self {
            stops: stops.filter(|stop: &String| !stop.is_empty()).collect(),
            ..Self::default()
        }
    }

    /// Appends the bytes of a token; returns the text that is certain now. Bytes that are not UTF-8 become U+FFFD, as
    /// in [`String::from_utf8_lossy`].
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.bytes.extend_from_slice(bytes);
        let complete = match self.bytes.utf8_chunks().last() {
            Some(last) if is_incomplete(last.invalid()) => self.bytes.len() - last.invalid().len(),
            _ => self.bytes.len(),
        };
        self.advance(complete)
    }

    /// Ends the text; returns what was held back.
    pub fn finish(&mut self) -> String {
        let out = self.advance(self.bytes.len());
        if self.stopped.is_some() {
            return out;
        }
        out + &std::mem::take(&mut self.text)
    }

    /// The stop string that ended the text. Nothing is returned after it.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.map(|i| &*self.stops[i])
    }

    /// Bytes of text that are held back because they may be the beginning of a stop string.
    pub fn held(&self) -> usize {
        self.text.len()
    }

    /// Decodes the first `n` bytes; returns the text that cannot be part of a stop string.
    fn advance(&mut self, n: usize) -> String {
        let rest = self.bytes.split_off(n);
        let bytes = std::mem::replace(&mut self.bytes, rest);
        if self.stopped.is_some() {
            return String::new();
        }
        self.text += &String::from_utf8_lossy(&bytes);
        // The first to be complete, whatever the pieces in which the text arrived.
        let found = |(i, stop): (usize, &String)| {
            let start = self.text.find(stop)?;
            Some((start + stop.len(), start, i))
        };
        let first = self.stops.iter().enumerate().filter_map(found).min();
        let certain = match first {
            Some((_, start, _)) => start,
            None => self.text.len() - self.doubtful(),
        };
        let held = self.text.split_off(certain);
        let out = std::mem::replace(&mut self.text, held);
        if let Some((_, _, i)) = first {
            self.stopped = Some(i);
            self.text.clear();
        }
        out
    }

    /// Length of the longest end of the text with which a stop string begins.
    fn doubtful(&self) -> usize {
        let begins = |n: &usize| {
            let end = self.text.get(self.text.len() - n..);
            end.is_some_and(|end| self.stops.iter().any(|stop| stop.starts_with(end)))
        };
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let max = longest.saturating_sub(1).min(self.text.len());
        (1..=max).rev().find(begins).unwrap_or(0)
    }
}

/// Whether more bytes may complete a character that begins with these.
fn is_incomplete(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_give_the_text_of_the_whole() {
        let texts: [&[u8]; 7] = [
            "plain, then é, €, 🦀 and e\u{301}".as_bytes(),
            b"",
            b"\xff\xfe broken \xc3( \xe2\x82 \xf0\x9f\xa6",
            b"\xe2\x82",
            b"\xf0\x9f\xf0\x9f\xa6\x80",
            b"\xc3",
            b"\xed\xa0\x80 a surrogate",
        ];
        for text in texts {
            for size in 1..=text.len().max(1) {
                let mut stream = TextStream::default();
                let mut out: String = text.chunks(size).map(|part| stream.push(part)).collect();
                assert!(stream.bytes.len() <= 3);
                out += &stream.finish();
                assert_eq!(out, String::from_utf8_lossy(text), "pieces of {size}");
            }
        }
    }

    #[test]
    fn a_character_appears_when_it_is_whole() {
        let mut stream = TextStream::default();
        assert_eq!(stream.push(b"a\xe2"), "a");
        assert_eq!(stream.push(b"\x82"), "");
        assert_eq!(stream.push(b"\xacb"), "€b");
    }

    /// The text of a stream that gets `size` bytes at a time, and the stop string that ended it.
    fn stream(text: &str, stops: &[&str], size: usize) -> (String, Option<String>) {
        let mut stream = TextStream::new(stops.iter().copied());
        let mut out = String::new();
        for bytes in text.as_bytes().chunks(size) {
            out += &stream.push(bytes);
            assert!(text.starts_with(&out), "nothing is taken back");
        }
        out += &stream.finish();
        assert_eq!(stream.held(), 0);
        (out, stream.stopped().map(str::to_owned))
    }

    #[test]
    fn a_text_ends_before_the_first_stop_string_whatever_the_pieces() {
        for size in 1..=9 {
            let check = |text, stops: &[&str], expected: &str, stop: Option<&str>| {
                let (out, stopped) = stream(text, stops, size);
                assert_eq!((&*out, stopped.as_deref()), (expected, stop));
            };
            check("one two three", &["two"], "one ", Some("two"));
            check("aabaabaac", &["aabaac"], "aab", Some("aabaac"));
            check("é€é€", &["€é"], "é", Some("€é"));
            check("ends in tw", &["two"], "ends in tw", None);
            check("nothing", &["", "x"], "nothing", None);
            check("stop", &["stop"], "", Some("stop"));
            // The first to be complete ends the text.
            check("abcd", &["bcd", "c"], "ab", Some("c"));
            check("abcd", &["c", "bc"], "a", Some("bc"));
        }
    }

    #[test]
    fn what_is_held_back_is_counted() {
        let mut stream = TextStream::new(["!!"]);
        assert_eq!((stream.push(b"a!"), stream.held()), ("a".to_owned(), 1));
        assert_eq!((stream.push(b"?"), stream.held()), ("!?".to_owned(), 0));
    }
}
