use super::*;

pub(super) fn chunks(text: &[u8], separator: &[u8]) -> Vec<Chunk> {
    Chunks::new(text, separator).map(Result::unwrap).collect()
}

/// A source that gives few bytes per read.
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

fn whole(chunks: &[Chunk], separator: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for chunk in chunks {
        assert_eq!(chunk.start, text.len() as u64);
        assert!(chunk.text.len() <= MOST);
        text.extend_from_slice(&chunk.text);
        text.extend_from_slice(if chunk.separated { separator } else { b"" });
    }
    text
}

#[test]
fn separators_end_chunks_and_belong_to_none() {
    let found = chunks(b"a<>bc<><>", b"<>");
    let texts: Vec<(&[u8], bool)> = found.iter().map(|p| (&p.text[..], p.separated)).collect();
    assert_eq!(texts, [(&b"a"[..], true), (b"bc", true), (b"", true)]);
    assert_eq!(chunks(b"", b"<>"), []);
    assert_eq!(chunks(b"a<", b"<>").len(), 1);
}

#[test]
fn a_long_text_is_cut_where_a_line_ends() {
    let line = [&b"x".repeat(999)[..], b"\n"].concat();
    let text = line.repeat(3000);
    let found = chunks(&text, b"");
    // The first line feed is number 262,999; from there to the next one but 262 there are 263,000 bytes.
    assert_eq!(found[0].text.len(), 262_999);
    let middle = &found[1..found.len() - 1];
    assert!(middle.iter().all(|p| p.text.len() == 263_000));
    assert!(whole(&found, b"") == text);
    let drops: Vec<Chunk> = Chunks::new(Drops(&text), b"").map(Result::unwrap).collect();
    assert!(drops == found);
}

#[test]
fn words_end_where_the_table_says() {
    let ends = |before: &str, after: &str| {
        let text = before.to_owned() + after;
        word_ends(text.as_bytes(), before.len())
    };
    for (before, after) in [
        ("x", " y"),
        (".", "  "),
        ("\u{e9}", " "),
        ("\u{3002}", " "),
        ("x", "\n"),
        ("7", "\r\n"),
        ("\u{4e2d}", "\n"),
        ("\u{3042}", "\u{3001}x"),
        ("\u{ac00}", "\u{ff1f}"),
    ] {
        assert!(ends(before, after), "{before:?} {after:?}");
    }
    for (before, after) in [
        ("", " "),
        (" ", " x"),
        ("\u{3000}", " "),
        ("\n", " "),
        // Llama 3 takes line feeds together with the punctuation before them.
        (".", "\n"),
        ("\u{3002}", "\n"),
        ("\r", "\n"),
        ("x", "y"),
        ("x", "\u{3002}"),
        ("\u{4e2d}", "\u{ff08}"),
        ("\u{3007}", "\u{3002}"),
        ("\u{4e2d}", "\u{4e2d}"),
    ] {
        assert!(!ends(before, after), "{before:?} {after:?}");
    }
    // Bytes that are no character: alone, too many, and a stop that is cut off.
    assert!(!word_ends(b"\xff ", 1) && !word_ends(b"x\x80\x80\x80\x80 ", 5));
    assert!(!word_ends(
        "\u{4e2d}\u{3002}".as_bytes().split_last().unwrap().1,
        3
    ));
}

#[test]
fn places_count_from_the_least_and_below_the_most() {
    for (at, expected) in [
        (LEAST - 1, MOST),
        (LEAST, LEAST),
        (MOST - 1, MOST - 1),
        (MOST, MOST),
    ] {
        for stop in [" ", "\n", "\r\n"] {
            let text = ["x".repeat(at), "x".repeat(MOST)].join(stop);
            let found = chunks(text.as_bytes(), b"");
            assert_eq!(found[0].text.len(), expected, "{at} {stop:?}");
            assert!(whole(&found, b"") == text.as_bytes());
        }
        // The stop ends three bytes after its place, which may be the last that a chunk can have.
        let text = ["x".repeat(at - 3), "x".repeat(MOST)].join("\u{4e2d}\u{3002}");
        let drops = Chunks::new(Drops(text.as_bytes()), b"").map(Result::unwrap);
        let found: Vec<Chunk> = drops.collect();
        assert_eq!(found[0].text.len(), expected, "{at}");
    }
}

/// The first exception above: here a cut does change words.
#[test]
fn a_word_longer_than_a_chunk_becomes_several() {
    let text = "x".repeat(MOST + 1);
    let lengths: Vec<usize> = chunks(text.as_bytes(), b"")
        .iter()
        .map(|p| p.text.len())
        .collect();
    assert_eq!(lengths, [MOST, 1]);
}

#[test]
fn without_a_place_to_cut_characters_stay_whole() {
    // Characters of two bytes, so that the limit falls between two of them or inside one.
    for (pad, expected) in [("", MOST), ("x", MOST - 1)] {
        let text = pad.to_owned() + &"\u{e9}".repeat(MOST);
        let found = chunks(text.as_bytes(), b"");
        assert_eq!(found[0].text.len(), expected, "{pad}");
        assert!(whole(&found, b"") == text.as_bytes());
    }
    // Bytes that are no text end exactly there.
    assert_eq!(chunks(&[0x80; MOST + 9], b"")[0].text.len(), MOST);
}

#[test]
fn a_separator_across_the_longest_chunk_is_found() {
    for before in [MOST - 3, MOST - 1, MOST, MOST + 1] {
        let text = [&b"x".repeat(before)[..], b"<sep>", &b"y".repeat(MOST)].concat();
        for found in [
            chunks(&text, b"<sep>"),
            Chunks::new(Drops(&text), b"<sep>")
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
fn many_short_documents_are_as_many_chunks() {
    let text = b"ab|".repeat(1_000_000);
    assert_eq!(Chunks::new(&text[..], b"|").count(), 1_000_000);
}

#[test]
fn a_source_that_fails_says_so_once() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("no"))
        }
    }
    let mut chunks = Chunks::new(Broken, b"");
    assert!(chunks.next().unwrap().is_err());
    assert!(chunks.next().is_none());
}
