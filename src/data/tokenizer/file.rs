//! `tokenizer.json`, the public format of the Hugging Face `tokenizers` library.
//!
//! With it, other programs can use a model without knowing this crate. The format knows bytes only through
//! the GPT-2 map: each byte is written as one visible character, and a word is a string of these. A byte
//! vocabulary is then a byte-pair model with 256 characters and no merges.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use super::END_OF_TEXT_ID;
use crate::{Error, Result};

/// Longest file that is read. Public ones have some tens of megabytes at most. A file without an end, such
/// as a device, must not fill the memory.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// How the file writes the token that ends a text.
const END_OF_TEXT: &str = "<|endoftext|>";

/// The JSON of a file, not yet checked in any way.
pub(super) fn read(path: &Path) -> Result<Value> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text))
        .map_err(Error::io("read", path))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        let reason = format!("expected at most {MAX_FILE_BYTES} bytes, found more");
        return Err(Error::file(path, reason));
    }
    serde_json::from_slice(&text)
        .map_err(|reason| Error::file(path, format!("expected JSON: {reason}")))
}

/// The file of the byte vocabulary. It is written by hand, so that its order never depends on how
/// `serde_json` was built.
pub(super) fn bytes_json() -> String {
    let vocab: Vec<String> = byte_characters()
        .iter()
        .enumerate()
        .map(|(byte, character)| format!("      {}: {byte}", json!(character.to_string())))
        .collect();
    let vocab = vocab.join(",\n");
    format!(
        r#"{{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [
    {{
      "id": {END_OF_TEXT_ID},
      "content": "{END_OF_TEXT}",
      "single_word": false,
      "lstrip": false,
      "rstrip": false,
      "normalized": false,
      "special": true
    }}
  ],
  "normalizer": null,
  "pre_tokenizer": {{
    "type": "ByteLevel",
    "add_prefix_space": false,
    "trim_offsets": true,
    "use_regex": false
  }},
  "post_processor": null,
  "decoder": {{
    "type": "ByteLevel",
    "add_prefix_space": false,
    "trim_offsets": true,
    "use_regex": false
  }},
  "model": {{
    "type": "BPE",
    "dropout": null,
    "unk_token": null,
    "continuing_subword_prefix": null,
    "end_of_word_suffix": null,
    "fuse_unk": false,
    "byte_fallback": false,
    "ignore_merges": false,
    "vocab": {{
{vocab}
    }},
    "merges": []
  }}
}}
"#
    )
}

/// Whether a file describes the byte vocabulary; if not, which field says otherwise.
///
/// Fields that cannot change how these 256 characters are encoded are not looked at. Such are `dropout`
/// (there are no merges to drop) and `use_regex` (where words end matters to merges only).
pub(super) fn check_bytes(file: &Value) -> std::result::Result<(), String> {
    let null = || Value::Null;
    expect(file, "version", &[json!("1.0")])?;
    expect(file, "truncation", &[null()])?;
    expect(file, "padding", &[null()])?;
    expect(file, "normalizer", &[null()])?;
    expect(file, "pre_tokenizer.type", &[json!("ByteLevel")])?;
    expect(file, "pre_tokenizer.add_prefix_space", &[json!(false)])?;
    // A ByteLevel post-processor moves reported offsets and leaves the tokens alone.
    expect(file, "post_processor.type", &[null(), json!("ByteLevel")])?;
    expect(file, "decoder.type", &[json!("ByteLevel")])?;
    expect(file, "model.type", &[json!("BPE")])?;
    expect(
        file,
        "model.continuing_subword_prefix",
        &[null(), json!("")],
    )?;
    expect(file, "model.end_of_word_suffix", &[null(), json!("")])?;

    let vocab = found(file, "model.vocab").as_object();
    let entries = vocab.map_or(0, serde_json::Map::len);
    if entries != 256 {
        return Err(format!(
            "field `model.vocab`: expected 256 entries, found {entries}"
        ));
    }
    for (byte, character) in byte_characters().iter().enumerate() {
        let id = vocab.and_then(|vocab| vocab.get(&character.to_string()));
        if id.and_then(Value::as_u64) != Some(byte as u64) {
            let id = shown(id.unwrap_or(&Value::Null));
            return Err(format!(
                "field `model.vocab.{character}`: expected {byte}, found {id}"
            ));
        }
    }
    expect(file, "model.merges", &[json!([])])?;

    let added = found(file, "added_tokens").as_array().map_or(0, Vec::len);
    if added != 1 {
        return Err(format!(
            "field `added_tokens`: expected 1 entry, found {added}"
        ));
    }
    expect(file, "added_tokens.0.id", &[json!(END_OF_TEXT_ID)])?;
    expect(file, "added_tokens.0.content", &[json!(END_OF_TEXT)])?;
    expect(file, "added_tokens.0.special", &[json!(true)])?;
    for flag in ["single_word", "lstrip", "rstrip"] {
        expect(
            file,
            &format!("added_tokens.0.{flag}"),
            &[null(), json!(false)],
        )?;
    }
    Ok(())
}

/// The character that stands for each byte, after `bytes_to_unicode` in OpenAI's GPT-2 `encoder.py`.
///
/// A byte that is a visible Latin-1 character stands for itself. The others take the code points from 256
/// on, in ascending order.
fn byte_characters() -> [char; 256] {
    let mut next = 256;
    std::array::from_fn(|byte| {
        let visible = matches!(byte as u8, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let code = if visible {
            byte as u32
        } else {
            next += 1;
            next - 1
        };
        // The codes lie below 512, far from the surrogates, which alone would fail.
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
    })
}

/// Checks one field against the values it may have; an absent field counts as null.
fn expect(file: &Value, field: &str, allowed: &[Value]) -> std::result::Result<(), String> {
    let value = found(file, field);
    if allowed.contains(value) {
        return Ok(());
    }
    let allowed: Vec<String> = allowed.iter().map(shown).collect();
    Err(format!(
        "field `{field}`: expected {}, found {}",
        allowed.join(" or "),
        shown(value)
    ))
}

/// The value at a path of keys and indices separated by dots.
fn found<'a>(file: &'a Value, field: &str) -> &'a Value {
    let pointer = format!("/{}", field.replace('.', "/"));
    file.pointer(&pointer).unwrap_or(&Value::Null)
}

/// A value in an error message, which must stay one short line whatever the file holds.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(entries) => format!("a list of {}", entries.len()),
        Value::Object(entries) => format!("an object of {}", entries.len()),
        Value::String(text) if text.chars().count() > 40 => "a long text".to_owned(),
        short => short.to_string(),
    }
}

#[cfg(test)]
mod tests {
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

    /// What is said about our own file after `edit` has changed it.
    fn reason_after(edit: impl FnOnce(&mut Value)) -> String {
        let mut file: Value = serde_json::from_str(&Tokenizer::bytes().to_json()).unwrap();
        edit(&mut file);
        match load_text(file.to_string().as_bytes()) {
            Err(Error::File { reason, .. }) => reason,
            other => panic!("expected Error::File, found {other:?}"),
        }
    }

    /// The public library is the independent source.
    #[test]
    fn the_public_library_reads_our_file_and_agrees() {
        let ours = Tokenizer::bytes();
        let theirs: tokenizers::Tokenizer = ours.to_json().parse().unwrap();
        assert_eq!(theirs.get_vocab_size(true), ours.vocab_size());
        assert_eq!(theirs.token_to_id(END_OF_TEXT), Some(ours.end_of_text()));

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
            let ids = ours.encode(text.as_bytes());
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
        assert_eq!(ended.get_ids(), [101, 110, 100, ours.end_of_text()]);
    }

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
    fn a_missing_file_is_an_io_error() {
        let directory = tempfile::tempdir().unwrap();
        for path in [
            directory.path().join("tokenizer.json"),
            directory.path().to_owned(),
        ] {
            let error = Tokenizer::load(&path).unwrap_err();
            assert!(matches!(error, Error::Io { .. }), "{error:?}");
        }
    }

    #[test]
    fn another_tokenizer_is_refused_by_field() {
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
                reason.len() < 200 && reason.lines().count() == 1,
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
            let file: std::result::Result<Value, _> = serde_json::from_slice(&text);
            if let Ok(file) = file {
                let _ = check_bytes(&file);
            }
        }
    }
}
