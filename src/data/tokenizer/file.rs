//! `tokenizer.json`, the public format of the Hugging Face `tokenizers` library.
//!
//! With it, other programs can use a model without knowing this crate. The format knows bytes only through the GPT-2
//! map: each byte is written as one visible character, and a word is a string of these. A byte vocabulary is then a
//! byte-pair model with 256 characters and no merges.

use std::fmt::Display;
use std::path::Path;

use serde_json::{Value, json};

use super::END_OF_TEXT_ID;
use crate::files::read_bounded;
use crate::{Error, Result};

/// Longest file that is read. Public ones have some tens of megabytes at most.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// How the file spells the token that ends a text.
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";

/// Nothing, or what is wrong with a file.
type Checked = std::result::Result<(), String>;

/// The text of a file, not checked in any way.
pub(super) fn read(path: &Path) -> Result<String> {
    String::from_utf8(read_bounded(path, MAX_FILE_BYTES)?).map_err(|reason| {
        let place = reason.utf8_error().valid_up_to();
        let reason = format!("expected JSON, found byte {place} outside UTF-8");
        Error::file(path, reason)
    })
}

/// The file of the byte vocabulary.
pub(super) fn bytes_json() -> String {
    let vocab: Vec<String> = byte_characters().iter().map(char::to_string).collect();
    json_of(&vocab, &[], false)
}

/// The file of a byte-level vocabulary: token `id` is spelt `vocab[id]`, merges come first to last.
///
/// The end of text is the token of that spelling, or the first id after the vocabulary. With `words`, merges stay
/// inside words as GPT-2 splits them. The text is formatted by hand, so that its order never depends on how
/// `serde_json` was built.
pub(super) fn json_of(vocab: &[String], merges: &[(String, String)], words: bool) -> String {
    let end = vocab.iter().position(|token| token == END_OF_TEXT);
    let end = end.unwrap_or(vocab.len());
    let list = |entries: Vec<String>| entries.join(",\n");
    let entry = |(id, token): (usize, &String)| format!("      {}: {id}", json!(token));
    let vocab = list(vocab.iter().enumerate().map(entry).collect());
    let merge = |(left, right): &(String, String)| format!("      {}", json!([left, right]));
    let merges = match merges {
        [] => "[]".to_owned(),
        _ => format!("[\n{}\n    ]", list(merges.iter().map(merge).collect())),
    };
    format!(
        r#"{{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [
    {{
      "id": {end},
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
    "use_regex": {words}
  }},
  "post_processor": null,
  "decoder": {{
    "type": "ByteLevel",
    "add_prefix_space": false,
    "trim_offsets": true,
    "use_regex": {words}
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
    "merges": {merges}
  }}
}}
"#
    )
}

/// Checks whether a file describes the byte vocabulary; the error names the first field that differs.
///
/// Fields that cannot change how these 256 characters are encoded are ignored, such as `dropout` (there are no merges
/// to drop) and `use_regex` (word ends matter to merges only).
pub(super) fn check_bytes(file: &Value) -> Checked {
    let null_or = |value: Value| [Value::Null, value];
    expect(file, "version", &[json!("1.0")])?;
    for field in ["truncation", "padding", "normalizer"] {
        expect(file, field, &[Value::Null])?;
    }
    expect(file, "pre_tokenizer.type", &[json!("ByteLevel")])?;
    expect(file, "pre_tokenizer.add_prefix_space", &[json!(false)])?;
    // A ByteLevel post-processor moves reported offsets and leaves the tokens alone.
    expect(file, "post_processor.type", &null_or(json!("ByteLevel")))?;
    expect(file, "decoder.type", &[json!("ByteLevel")])?;
    expect(file, "model.type", &[json!("BPE")])?;
    for field in ["continuing_subword_prefix", "end_of_word_suffix"] {
        expect(file, &format!("model.{field}"), &null_or(json!("")))?;
    }

    let vocab = found(file, "model.vocab").as_object();
    let entries = vocab.map_or(0, serde_json::Map::len);
    if entries != 256 {
        return differs("model.vocab", "256 entries", entries);
    }
    for (byte, character) in byte_characters().iter().enumerate() {
        let id = vocab.and_then(|vocab| vocab.get(&character.to_string()));
        if id.and_then(Value::as_u64) != Some(byte as u64) {
            let id = shown(id.unwrap_or(&Value::Null));
            return differs(&format!("model.vocab.{character}"), byte, id);
        }
    }
    expect(file, "model.merges", &[json!([])])?;

    let added = found(file, "added_tokens").as_array().map_or(0, Vec::len);
    if added != 1 {
        return differs("added_tokens", "1 entry", added);
    }
    expect(file, "added_tokens.0.id", &[json!(END_OF_TEXT_ID)])?;
    expect(file, "added_tokens.0.content", &[json!(END_OF_TEXT)])?;
    expect(file, "added_tokens.0.special", &[json!(true)])?;
    for flag in ["single_word", "lstrip", "rstrip"] {
        let field = format!("added_tokens.0.{flag}");
        expect(file, &field, &null_or(json!(false)))?;
    }
    Ok(())
}

/// The character that stands for each byte, after `bytes_to_unicode` in OpenAI's GPT-2 `encoder.py`.
///
/// A byte that is a visible Latin-1 character stands for itself. The others take the code points from 256
/// on, in ascending order.
pub(super) fn byte_characters() -> [char; 256] {
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

/// Checks one field against the values it may have; an absent field is null.
fn expect(file: &Value, field: &str, allowed: &[Value]) -> Checked {
    let value = found(file, field);
    if allowed.contains(value) {
        return Ok(());
    }
    let allowed: Vec<String> = allowed.iter().map(shown).collect();
    differs(field, allowed.join(" or "), shown(value))
}

fn differs(field: &str, expected: impl Display, found: impl Display) -> Checked {
    Err(format!(
        "field `{field}`: expected {expected}, found {found}"
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
mod tests;
