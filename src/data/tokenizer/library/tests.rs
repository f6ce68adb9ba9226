use serde_json::json;

use super::super::Tokenizer;
use super::*;
use proptest::prelude::*;

/// A vocabulary of 280 tokens learned from a short text.
fn learned() -> Tokenizer {
    let text =
        "the cat sat on the mat, and the dog sat on the cat. 1234 na\u{ef}ve \u{4f60}\u{597d}\n";
    let chunks = (0..20).map(|_| Ok(text.as_bytes().to_vec()));
    Tokenizer::learn(chunks, 280).unwrap()
}

fn parsed(tokenizer: &Tokenizer) -> Value {
    serde_json::from_str(&tokenizer.to_json()).unwrap()
}

/// What is said about the learned file after `edit` has changed it.
fn after(edit: impl FnOnce(&mut Value)) -> Result<Arc<Library>, String> {
    let mut file = parsed(&learned());
    edit(&mut file);
    Library::new(file.to_string(), file)
}

/// A minimal file around a model.
fn file_of(model: Value, decoder: Value) -> Value {
    json!({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
           "decoder": decoder, "model": model})
}

#[test]
fn the_public_library_agrees_with_a_learned_file() {
    let ours = learned();
    let theirs: tokenizers::Tokenizer = ours.to_json().parse().unwrap();
    assert_eq!(theirs.get_vocab_size(true), ours.vocab_size());
    assert_eq!(theirs.token_to_id("<|endoftext|>"), Some(256));
    for text in [
        "the cat",
        " the  dogs\n\n",
        "na\u{ef}ve \u{1f98a} \u{4f60}",
        "",
        "12 it's",
    ] {
        let ids = ours.encode(text.as_bytes()).unwrap();
        assert_eq!(
            theirs.encode(text, false).unwrap().get_ids(),
            ids,
            "{text:?}"
        );
        assert_eq!(theirs.decode(&ids, true).unwrap(), text);
        assert_eq!(ours.decode(&ids), text.as_bytes());
    }
    assert!(
        ours.encode(b"the cat sat").unwrap().len() < 11,
        "nothing was merged"
    );
}

#[test]
fn learning_is_a_function_of_the_text() {
    let learned: Vec<String> = (0..4).map(|_| learned().to_json()).collect();
    assert!(learned.iter().all(|json| *json == learned[0]));
    // No pair left that occurs twice: the vocabulary stays smaller than requested.
    let small = Tokenizer::learn([Ok(b"abcdef".to_vec())], 1000).unwrap();
    assert_eq!(
        small.spelling(257).as_deref(),
        None,
        "a pair that occurs once"
    );
    let small = Tokenizer::learn([Ok(b"ab ab".to_vec())], 1000).unwrap();
    assert_eq!(
        (small.vocab_size(), small.spelling(257)),
        (258, Some("ab".to_owned()))
    );
    assert_eq!(Tokenizer::learn([], 257).unwrap().vocab_size(), 257);
    for size in [0, 256, Tokenizer::MAX_LEARNED + 1, usize::MAX] {
        let reason = Tokenizer::learn([], size).unwrap_err().to_string();
        assert!(
            reason.contains(&size.to_string()) && reason.contains("257"),
            "{reason}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes_come_back(text in proptest::collection::vec(any::<u8>(), 0..200), ascii in "[ a-z\n]{0,80}") {
        thread_local!(static LEARNED: Tokenizer = learned());
        LEARNED.with(|tokenizer| {
            for text in [&text[..], ascii.as_bytes(), &[ascii.as_bytes(), &text].concat()] {
                let ids = tokenizer.encode(text).unwrap();
                prop_assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size() && *id != 256));
                prop_assert_eq!(tokenizer.decode(&ids), text);
                // Token by token as well.
                let each: Vec<u8> = ids.iter().flat_map(|id| tokenizer.decode(&[*id])).collect();
                prop_assert_eq!(each, text);
            }
            Ok(())
        })?;
    }

    #[test]
    fn a_damaged_file_never_panics(place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        thread_local!(static JSON: String = learned().to_json());
        let mut text = JSON.with(|json| json.clone().into_bytes());
        let place = place.index(text.len());
        text[place] = byte;
        if cut {
            text.truncate(place);
        }
        let json = String::from_utf8(text).ok();
        if let Some(Err(reason)) = json.map(Tokenizer::from_json) {
            prop_assert!(reason.len() < 400 && reason.lines().count() == 1, "{}", reason);
        }
    }
}

#[test]
fn special_tokens_in_a_text_are_plain_text() {
    let tokenizer = learned();
    let ids = tokenizer.encode(b"the<|endoftext|>cat").unwrap();
    assert!(!ids.contains(&256) && tokenizer.decode(&ids) == b"the<|endoftext|>cat");
    assert_eq!(tokenizer.end_of_text(), Some(256));
    assert_eq!(tokenizer.decode(&[256, 97, 256, u32::MAX]), b"a");
}

#[test]
fn the_end_of_text_is_the_first_known_special_token() {
    let named = |names: &[(&str, bool)]| {
        let tokens: Vec<Value> = names
            .iter()
            .zip(280..)
            .map(|((name, special), id)| {
                json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                       "normalized": false, "special": special})
            })
            .collect();
        let library = after(|file| {
            file["added_tokens"] = json!(tokens);
            let vocab = file["model"]["vocab"].as_object_mut().unwrap();
            // A vocabulary of 280 tokens without holes, so that added ones start at 280.
            vocab.remove("<|endoftext|>");
            vocab.insert("[end]".to_owned(), json!(256));
        });
        let library = library.unwrap();
        (library.end_of_text, library.vocab_size())
    };
    assert_eq!(named(&[]), (None, 280));
    assert_eq!(named(&[("<s>", true), ("</s>", true)]), (Some(281), 282));
    assert_eq!(
        named(&[("</s>", true), ("<|endoftext|>", true)]),
        (Some(281), 282)
    );
    assert_eq!(named(&[("</s>", false), ("[SEP]", true)]), (Some(281), 282));
}

#[test]
fn fields_that_would_change_texts_are_not_applied() {
    let library = after(|file| {
        file["truncation"] =
            json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
        file["padding"] = json!({"strategy": {"Fixed": 1_000_000_000_000_000_u64}, "direction": "Right",
            "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"});
        file["model"]["dropout"] = json!(0.9);
    });
    let library = library.unwrap();
    let text = b"the cat sat on the mat";
    assert_eq!(
        library.encode(text, None).unwrap(),
        learned().encode(text).unwrap()
    );
}

#[test]
fn bytes_that_a_vocabulary_lacks_are_an_error_and_not_dropped() {
    let library = after(|file| {
        let vocab = file["model"]["vocab"].as_object_mut().unwrap();
        vocab.remove("\u{f0}");
        vocab.remove("\u{ff}");
    })
    .unwrap_or_else(|reason| panic!("{reason}"));
    assert_eq!(
        library.decode(&library.encode(b"\xfe the", None).unwrap()),
        b"\xfe the"
    );
    // The fox is f0 9f a6 8a.
    for (text, place, byte) in [
        (
            "the \u{1f98a}".as_bytes(),
            4,
            "byte 0xf0 of `\u{1f98a}` (U+1F98A)",
        ),
        (b"the\n\xff", 4, "0xff"),
    ] {
        let (found, reason) = library.encode(text, None).unwrap_err();
        assert_eq!(found, place);
        assert!(reason.contains(byte), "{reason}");
    }
}

/// The lengths of tokens are those of the text that was given, whatever the vocabulary makes of it.
#[test]
fn lengths_add_up_to_the_text() {
    let steps = json!({"type": "Sequence", "normalizers": [
        {"type": "NFKC"}, {"type": "Lowercase"}, {"type": "StripAccents"},
        {"type": "Replace", "pattern": {"Regex": " +"}, "content": " "}]});
    let normal = |steps: Value| {
        after(|file| file["normalizer"] = steps).unwrap_or_else(|reason| panic!("{reason}"))
    };
    let words = json!({"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"});
    let mut words = file_of(words, Value::Null);
    words["pre_tokenizer"] = json!({"type": "WhitespaceSplit"});
    let words = Library::new(words.to_string(), words).unwrap();
    for library in [normal(Value::Null), normal(steps), words] {
        for text in [
            "a",
            "  The  CAT \u{fb01}ne, na\u{ef}ve \u{1f98a}\u{1f98a} ",
            "\u{4f60}\u{597d}\n\n a",
            "e\u{301}e\u{301} \u{2126} a  ",
        ] {
            let mut lengths = vec![5];
            let tokens = library.encode(text.as_bytes(), Some(&mut lengths)).unwrap();
            assert_eq!(
                tokens,
                library.encode(text.as_bytes(), None).unwrap(),
                "{text}"
            );
            assert_eq!(lengths.len(), tokens.len() + 1);
            assert_eq!(
                lengths.iter().sum::<u32>() as usize,
                text.len() + 5,
                "{text}"
            );
        }
    }
}

#[test]
fn only_vocabularies_that_change_nothing_are_reversible() {
    let library =
        |edit: &dyn Fn(&mut Value)| after(edit).unwrap_or_else(|reason| panic!("{reason}"));
    assert!(library(&|_| ()).reversible && library(&|_| ()).changes.is_empty());
    let space = library(&|file| file["pre_tokenizer"]["add_prefix_space"] = json!(true));
    assert!(!space.reversible && space.changes.is_empty());
    let removed = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"String": "-"}, "behavior": "Removed", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]});
    let removed = library(&|file| file["pre_tokenizer"] = removed.clone());
    assert_eq!(removed.changes, ["what separates words is dropped"]);
    for (normalizer, expected) in [
        (json!({"type": "Lowercase"}), "lower case"),
        (json!({"type": "NFC"}), "Unicode normalisation NFC"),
        (
            json!({"type": "Prepend", "prepend": "x"}),
            "`x` is put before a text",
        ),
        (
            json!({"type": "BertNormalizer", "clean_text": false, "handle_chinese_chars": false,
                "strip_accents": null, "lowercase": true}),
            "accents are dropped; lower case",
        ),
    ] {
        let library = library(&|file| file["normalizer"] = normalizer.clone());
        assert_eq!(
            (library.changes.join("; ").as_str(), library.reversible),
            (expected, false)
        );
    }
}

#[test]
fn a_text_begins_after_the_end_of_text_or_a_bos_token() {
    let named = |name: &str| {
        let file = after(|file| file["added_tokens"][0]["content"] = json!(name));
        let library = file.unwrap_or_else(|reason| panic!("{reason}"));
        (
            library.end_of_text.is_some(),
            library.begin_of_text.is_some(),
        )
    };
    assert_eq!(named("<|endoftext|>"), (true, false));
    assert_eq!(named("<s>"), (false, true));
    assert_eq!(named("<other>"), (false, false));
    let end = learned().end_of_text();
    assert_eq!(
        (
            Tokenizer::bytes().begin_of_text(),
            learned().begin_of_text()
        ),
        (Some(256), end)
    );
}

#[test]
fn what_is_no_utf8_needs_a_vocabulary_with_all_bytes() {
    let words = json!({"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"});
    let file = file_of(words, Value::Null);
    let library = Library::new(file.to_string(), file).unwrap();
    let (place, reason) = library.encode(b"a\n\xff", None).unwrap_err();
    assert_eq!(place, 2);
    assert!(
        reason.contains("0xff") && reason.contains("UTF-8"),
        "{reason}"
    );
}

#[test]
fn sentence_pieces_have_bytes_of_their_own() {
    let vocab = [
        ("<unk>", 0.0),
        ("\u{2581}the", -1.0),
        ("\u{2581}", -2.0),
        ("<0xE2>", -3.0),
        ("<0x82>", -3.0),
        ("<0xAC>", -3.0),
        ("<0x0G>", -3.0),
        ("cat", -1.0),
    ];
    let mut file = file_of(
        json!({"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": true}),
        json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}),
    );
    file["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
    let library = Library::new(file.to_string(), file).unwrap();
    let ids = library.encode("the cat\u{20ac}".as_bytes(), None).unwrap();
    assert_eq!(ids, [1, 2, 7, 3, 4, 5]);
    assert_eq!(library.decode(&ids), " the cat\u{20ac}".as_bytes());
    assert_eq!(library.decode(&[3]), b"\xe2");
    assert_eq!(library.decode(&[6]), b"<0x0G>");
}

#[test]
fn other_decoders_are_the_librarys() {
    let vocab = json!({"[UNK]": 0, "un": 1, "##able": 2, "to": 3});
    let mut file = file_of(
        json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
               "max_input_chars_per_word": 100, "vocab": vocab}),
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
    );
    file["pre_tokenizer"] = json!({"type": "Whitespace"});
    let library = Library::new(file.to_string(), file).unwrap();
    let ids = library.encode(b"unable to", None).unwrap();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(library.decode(&[1, 2, 3, 99]), b"unable to");
}

#[test]
fn hostile_files_are_refused_with_a_reason() {
    let says = |result: Result<Arc<Library>, String>, words: &[&str]| {
        let reason = result.unwrap_err();
        assert!(
            words.iter().all(|word| reason.contains(word)),
            "{words:?} in {reason}"
        );
        assert!(
            reason.len() < 300 && reason.lines().count() == 1,
            "{reason}"
        );
    };
    says(
        after(|file| file["model"]["vocab"]["new"] = json!(4_000_000_000_u32)),
        &["`new`", "4000000000"],
    );
    says(
        after(|file| file["model"]["vocab"]["new"] = json!(65)),
        &["65", "another token"],
    );
    says(
        after(|file| file["model"]["vocab"]["new"] = json!(-1)),
        &["expected a tokenizer"],
    );
    says(
        after(|file| file["model"]["vocab"] = json!({})),
        &["expected a tokenizer"],
    );
    says(
        after(|file| file["model"]["type"] = json!("Oracle")),
        &["expected a tokenizer"],
    );
    says(
        after(|file| file["model"]["merges"] = json!([["q", "nowhere"]])),
        &["expected a tokenizer"],
    );
    says(
        after(|file| file["model"] = json!(null)),
        &["expected a tokenizer"],
    );
    says(
        after(|file| file["version"] = json!("2\n".repeat(9000))),
        &["version"],
    );
    // A chunk length of 0 makes the library panic.
    let zero = after(|file| file["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0}));
    says(zero, &["cannot encode", "breaks"]);
    let regex = json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false});
    says(
        after(|file| file["pre_tokenizer"] = regex),
        &["expected a tokenizer"],
    );
    says(
        after(|file| file["model"]["continuing_subword_prefix"] = json!("a long prefix \u{e9}")),
        &["expected a tokenizer"],
    );
}

#[test]
fn a_public_tokenizer_is_read_where_it_is_at_hand() {
    let Some(folder) = std::env::var_os("FORETOKEN_DATA") else {
        println!("skipped: FORETOKEN_DATA names no folder with tokenizers/smollm2/tokenizer.json");
        return;
    };
    let path = std::path::Path::new(&folder).join("tokenizers/smollm2/tokenizer.json");
    let ours = Tokenizer::load(&path).unwrap();
    let theirs = tokenizers::Tokenizer::from_file(&path).unwrap();
    // The model card: 49,152 tokens, the first of them the end of text.
    assert_eq!((ours.vocab_size(), ours.end_of_text()), (49_152, Some(0)));
    let text =
        std::fs::read_to_string(std::path::Path::new(&folder).join("tinystories.txt")).unwrap();
    let text = text.replace("<|endoftext|>", "");
    // Long enough for several chunks, which change nothing.
    assert!(text.len() > 1 << 20);
    let ids = ours.encode(text.as_bytes()).unwrap();
    assert!(ids == theirs.encode(text.as_str(), false).unwrap().get_ids());
    assert!(ours.decode(&ids) == text.as_bytes());
    // It was learned from text that had no byte 0xff, but bytes that are parts of characters.
    assert_eq!(
        ours.decode(&ours.encode(b"a\xc3 \x80b").unwrap()),
        b"a\xc3 \x80b"
    );
    let reason = ours.encode(b"a\xff").unwrap_err().to_string();
    assert!(
        reason.contains("at byte 1: byte 0xff is not UTF-8"),
        "{reason}"
    );
    assert!(!ours.encode(b"<|im_start|>").unwrap().contains(&1));
}
