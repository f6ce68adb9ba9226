//! The words of public vocabularies, before and after a cut.

use super::tests::chunks;
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
        let found = chunks(text.as_bytes(), b"");
        assert!(
            found.len() > 1 && found[0].text.len() < LEAST + 100,
            "{line}"
        );
        for (name, cutter) in CUTTERS.iter() {
            let chunk = |chunk: &Chunk| words(cutter, std::str::from_utf8(&chunk.text).unwrap());
            let parts: Vec<String> = found.iter().flat_map(chunk).collect();
            assert!(parts == words(cutter, &text), "{name}: {line}");
        }
    }
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
            assert!(chunks(text.as_bytes(), b"").len() > 2);
            let whole = tokenizer.encode_chunk(text.as_bytes(), None).unwrap();
            assert!(
                tokenizer.encode(text.as_bytes()).unwrap() == whole,
                "{name}"
            );
        }
    }
}
