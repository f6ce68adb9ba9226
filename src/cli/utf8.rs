//! Valid UTF-8 from bytes that arrive in pieces: a token may end inside a character.

/// Bytes on their way to text. Whatever the pieces, the text is that of [`String::from_utf8_lossy`] on the whole.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    /// The beginning of a character whose end has not come yet, at most three bytes.
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// The text that is certain after these bytes.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let certain = match self.pending.utf8_chunks().last() {
            // Bytes that a later one may complete are at the very end, and `from_utf8` says so.
            Some(last) if incomplete(last.invalid()) => self.pending.len() - last.invalid().len(),
            _ => self.pending.len(),
        };
        let rest = self.pending.split_off(certain);
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending = rest;
        text
    }

    /// What is left at the end: a replacement character for one that never ended.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// Whether these bytes begin a character that more bytes may complete.
fn incomplete(bytes: &[u8]) -> bool {
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
                let mut stream = Utf8Stream::default();
                let mut out: String = text.chunks(size).map(|part| stream.push(part)).collect();
                assert!(stream.pending.len() <= 3);
                out += &stream.finish();
                assert_eq!(out, String::from_utf8_lossy(text), "pieces of {size}");
            }
        }
    }

    #[test]
    fn a_character_appears_when_it_is_whole() {
        let mut stream = Utf8Stream::default();
        assert_eq!(stream.push(b"a\xe2"), "a");
        assert_eq!(stream.push(b"\x82"), "");
        assert_eq!(stream.push(b"\xacb"), "€b");
    }
}
