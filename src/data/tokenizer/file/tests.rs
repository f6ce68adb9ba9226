use super::super::Tokenizer;
use super::*;
use proptest::prelude::*;
use std::fs;

fn load_text(text: &[u8]) -> Result<Tokenizer> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    fs::write(&path, text).unwrap();
    Tokenizer::load(&path)
}

/// Why our own file is not that of the byte vocabulary after `edit` has changed it.
fn reason_after(edit: impl FnOnce(&mut Value)) -> String {
    let mut file: Value = serde_json::from_str(&Tokenizer::bytes().to_json()).unwrap();
    edit(&mut file);
    check_bytes(&file).unwrap_err()
}

/// The public library is the independent source.
#[cfg(feature = "tokenizers")]
#[test]
fn the_public_library_reads_our_file_and_agrees() {
    let ours = Tokenizer::bytes();
    let theirs: tokenizers::Tokenizer = ours.to_json().parse().unwrap();
    assert_eq!(theirs.get_vocab_size(true), ours.vocab_size());
    assert_eq!(theirs.token_to_id(END_OF_TEXT), ours.end_of_text());

    let controls: String = (0..32).chain(127..160).filter_map(char::from_u32).collect();
    let everything_short: String = (0..0x800).filter_map(char::from_u32).collect();
    let texts = [
        "",
        " ",
        "Once upon a time, there was a fox.",
        "  two before, three after   ",
        "line\r\nline\n\n\n\ttab\t",
        "it's 1234.5 don't <|endoftext <|",
        "na\u{ef}ve \u{3b1}\u{3b2}\u{3b3} \u{4f60}\u{597d} \u{1f98a} e\u{301} \u{feff}\u{a0}\u{200b}",
        &controls,
        &everything_short,
    ];
    for text in texts {
        let ids = ours.encode(text.as_bytes()).unwrap();
        assert_eq!(
            theirs.encode(text, false).unwrap().get_ids(),
            ids,
            "{text:?}"
        );
        assert_eq!(
            theirs.encode(text, true).unwrap().get_ids(),
            ids,
            "{text:?}"
        );
        assert_eq!(theirs.decode(&ids, true).unwrap(), text, "{text:?}");
        assert_eq!(ours.decode(&ids), text.as_bytes(), "{text:?}");
    }
    let ended = theirs.encode(format!("end{END_OF_TEXT}"), false).unwrap();
    assert_eq!(
        ended.get_ids(),
        [101, 110, 100, ours.end_of_text().unwrap()]
    );
}

#[cfg(feature = "tokenizers")]
#[test]
fn a_file_comes_back_also_from_the_public_library() {
    let ours = Tokenizer::bytes();
    assert_eq!(load_text(ours.to_json().as_bytes()).unwrap(), ours);
    let theirs: tokenizers::Tokenizer = ours.to_json().parse().unwrap();
    assert_eq!(
        load_text(theirs.to_string(true).unwrap().as_bytes()).unwrap(),
        ours
    );
}

#[test]
fn a_missing_file_and_a_directory_are_named() {
    let directory = tempfile::tempdir().unwrap();
    for path in [
        directory.path().join("tokenizer.json"),
        directory.path().to_owned(),
    ] {
        let error = Tokenizer::load(&path).unwrap_err();
        let named = error.to_string().contains(&path.display().to_string());
        assert!(
            named && matches!(error, Error::Io { .. } | Error::File { .. }),
            "{error:?}"
        );
    }
}

#[test]
fn another_tokenizer_is_told_by_field() {
    let says = |reason: String, field: &str| {
        assert!(reason.starts_with(&format!("field `{field}`")), "{reason}");
    };
    says(reason_after(|file| file["version"] = json!(1.0)), "version");
    says(
        reason_after(|file| file["model"]["type"] = json!("WordPiece")),
        "model.type",
    );
    says(
        reason_after(|file| file["model"]["vocab"]["A"] = json!(66)),
        "model.vocab.A",
    );
    says(
        reason_after(|file| file["model"]["vocab"]["A"] = json!("65")),
        "model.vocab.A",
    );
    says(
        reason_after(|file| file["model"]["vocab"]["AB"] = json!(257)),
        "model.vocab",
    );
    says(
        reason_after(|file| file["model"]["merges"] = json!(["A B"])),
        "model.merges",
    );
    says(
        reason_after(|file| file["normalizer"] = json!({"type": "NFC"})),
        "normalizer",
    );
    says(
        reason_after(|file| file["padding"] = json!({"pad_id": 0})),
        "padding",
    );
    says(
        reason_after(|file| file["decoder"] = json!(null)),
        "decoder.type",
    );
    says(
        reason_after(|file| file["added_tokens"] = json!([])),
        "added_tokens",
    );
    says(
        reason_after(|file| file["added_tokens"][0]["id"] = json!(0)),
        "added_tokens.0.id",
    );
    says(
        reason_after(|file| file["pre_tokenizer"]["add_prefix_space"] = json!(true)),
        "pre_tokenizer.add_prefix_space",
    );
    says(
        reason_after(|file| {
            let vocab = file["model"]["vocab"].as_object_mut().unwrap();
            vocab.remove("A").unwrap();
            vocab.insert("\u{1f98a}".to_owned(), json!(65));
        }),
        "model.vocab.A",
    );
}

#[cfg(not(feature = "tokenizers"))]
#[test]
fn a_byte_pair_vocabulary_names_the_feature() {
    let mut file: Value = serde_json::from_str(&Tokenizer::bytes().to_json()).unwrap();
    file["model"]["merges"] = json!([["a", "b"]]);
    let message = load_text(file.to_string().as_bytes())
        .unwrap_err()
        .to_string();
    assert!(message.contains("feature `tokenizers`"), "{message}");
}

#[test]
fn hostile_files_are_refused_in_one_short_line() {
    let deep = "[".repeat(100_000);
    let long = json!({"version": "x\n".repeat(100_000)}).to_string();
    let texts = [
        "",
        "null",
        "[]",
        "{}",
        "\"\\ud800\"",
        "{\"version\": 1e999}",
        &deep,
        &long,
    ];
    for text in texts
        .iter()
        .map(|text| text.as_bytes())
        .chain([&b"\xff\xfe"[..]])
    {
        let Err(Error::File { reason, .. }) = load_text(text) else {
            panic!("expected Error::File for {} bytes", text.len());
        };
        assert!(
            reason.len() < 300 && reason.lines().count() == 1,
            "{reason}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_damaged_file_never_panics(place in 0_usize..8000, byte in any::<u8>(), cut in any::<bool>()) {
        let mut text = Tokenizer::bytes().to_json().into_bytes();
        let place = place % text.len();
        text[place] = byte;
        if cut {
            text.truncate(place);
        }
        let _ = load_text(&text);
    }
}
