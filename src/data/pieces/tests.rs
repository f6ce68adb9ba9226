use super::*;
use crate::data::Tokenizer;
use proptest::prelude::*;
use std::sync::LazyLock;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
};

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
fn a_long_text_is_cut_where_a_line_ends() {
    let line = [&b"x".repeat(999)[..], b"\n"].concat();
    let text = line.repeat(3000);
    let found = pieces(&text, b"");
    // The first line feed is number 262,999; from there to the next one but 262 there are 263,000 bytes.
    assert_eq!(found[0].text.len(), 262_999);
    let middle = &found[1..found.len() - 1];
    assert!(middle.iter().all(|p| p.text.len() == 263_000));
    assert!(whole(&found, b"") == text);
    let drops: Vec<Piece> = Pieces::new(Drops(&text), b"").map(Result::unwrap).collect();
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
            let found = pieces(text.as_bytes(), b"");
            assert_eq!(found[0].text.len(), expected, "{at} {stop:?}");
            assert!(whole(&found, b"") == text.as_bytes());
        }
        // The stop ends three bytes after its place, which may be the last that a piece can have.
        let text = ["x".repeat(at - 3), "x".repeat(MOST)].join("\u{4e2d}\u{3002}");
        let drops = Pieces::new(Drops(text.as_bytes()), b"").map(Result::unwrap);
        let found: Vec<Piece> = drops.collect();
        assert_eq!(found[0].text.len(), expected, "{at}");
    }
}

/// The patterns of four vocabularies. The first is the library's own; the others stand in the `tokenizer.json` of
/// Meta-Llama-3-8B and Qwen2-7B, and in tiktoken's `openai_public.py` (o200k_base).
static CUTTERS: LazyLock<Vec<(&str, PreTokenizerWrapper)>> = LazyLock::new(|| {
    let split = |pattern: &str| {
        let pattern = SplitPattern::Regex(pattern.to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
        PreTokenizerWrapper::Split(split.expect("a pattern"))
    };
    let llama = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let o200k = concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    );
    vec![
        (
            "GPT-2",
            PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
        ),
        ("Llama 3", split(llama)),
        ("Qwen", split(&llama.replace("{1,3}", ""))),
        ("GPT-4o", split(o200k)),
    ]
});

/// The words of a text.
fn words(cutter: &PreTokenizerWrapper, text: &str) -> Vec<String> {
    let mut cut = PreTokenizedString::from(text);
    cutter.pre_tokenize(&mut cut).expect("words");
    let words = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
    words
        .into_iter()
        .map(|(word, ..)| word.to_owned())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..Default::default() })]

    /// Every place where a text may be cut leaves its words as they are.
    #[test]
    fn a_cut_where_a_word_ends_changes_no_word(
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "a", "Z", "'s", "'", "5", "123", ".", "/", ",", "-", " ", "  ", "\t", "\n", "\r\n", "\r", "\u{e9}",
                "e\u{301}", "\u{301}", "\u{a0}", "\u{2028}", "\u{3000}", "\u{200b}", "\u{4e2d}", "\u{3042}",
                "\u{30fc}", "\u{ac00}", "\u{3007}", "\u{3001}", "\u{3002}", "\u{ff01}", "\u{ff1f}", "\u{1f600}",
            ]),
            0..24,
        ),
    ) {
        let text = parts.concat();
        for (name, cutter) in CUTTERS.iter() {
            let all = words(cutter, &text);
            for place in 0..text.len() {
                if word_ends(text.as_bytes(), place) {
                    let (left, right) = text.split_at(place);
                    let parts = [words(cutter, left), words(cutter, right)].concat();
                    prop_assert_eq!(&parts, &all, "{} at {} of {:?}", name, place, text);
                }
            }
        }
    }
}

#[test]
fn long_texts_of_every_kind_keep_their_words() {
    for line in [
        "Once, upon a time.\n",
        "Once, upon a time 7\r\nthere was.\r\n\r\n",
        "\u{4e2d}\u{6587}\u{3002}\u{6ca1}\u{6709}\u{7a7a}\u{683c}",
        "\u{4e2d}\u{6587}\u{3002}\u{6ca1}\u{6709}\u{6362}\u{884c}\u{3002}\r\n",
        "one line without end, ",
    ] {
        let text = line.repeat(2 * LEAST / line.len());
        let found = pieces(text.as_bytes(), b"");
        assert!(
            found.len() > 1 && found[0].text.len() < LEAST + 100,
            "{line}"
        );
        for (name, cutter) in CUTTERS.iter() {
            let piece = |piece: &Piece| words(cutter, std::str::from_utf8(&piece.text).unwrap());
            let parts: Vec<String> = found.iter().flat_map(piece).collect();
            assert!(parts == words(cutter, &text), "{name}: {line}");
        }
    }
}

/// What the head of the file admits: here a cut does change words.
#[test]
fn a_word_longer_than_a_piece_becomes_several() {
    let text = "x".repeat(MOST + 1);
    let lengths: Vec<usize> = pieces(text.as_bytes(), b"")
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

#[test]
fn a_public_vocabulary_gives_the_tokens_of_the_whole_text() {
    let Some(folder) = std::env::var_os("FORETOKEN_DATA").map(std::path::PathBuf::from) else {
        println!("skipped: FORETOKEN_DATA names no folder with a tokenizer and texts");
        return;
    };
    let tokenizer = Tokenizer::load(&folder.join("tokenizers/smollm2/tokenizer.json")).unwrap();
    for name in ["python-stdlib.valid.txt", "tinyshakespeare.txt"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        // As it is, with the other line ends, and as one line.
        for text in [
            text.clone(),
            text.replace('\n', "\r\n"),
            text.replace('\n', " "),
        ] {
            assert!(pieces(text.as_bytes(), b"").len() > 2);
            let whole = tokenizer.encode_piece(text.as_bytes()).unwrap();
            assert!(
                tokenizer.encode(text.as_bytes()).unwrap() == whole,
                "{name}"
            );
        }
    }
}
