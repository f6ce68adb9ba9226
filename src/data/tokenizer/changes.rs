//! What a vocabulary changes in a text before it is encoded.
//!
//! Such a text does not come back from its tokens. SentencePiece's spelling of a space is no change: its decoder undoes
//! it.

use serde_json::Value;
use tokenizers::Tokenizer;

use super::guard::short;

/// How texts are changed, in the order in which it happens; nothing if all come back.
///
/// `unknown` is the token of unknown text, if there is such text.
pub(super) fn changes(tokenizer: &Tokenizer, unknown: Option<&str>) -> Vec<String> {
    // The library's fields are private, but not in its file format.
    let normalizer = serde_json::to_value(tokenizer.get_normalizer()).unwrap_or_default();
    let cut = serde_json::to_value(tokenizer.get_pre_tokenizer()).unwrap_or_default();
    let normalizers = steps(&normalizer, "normalizers").into_iter();
    let mut found: Vec<String> = normalizers.flat_map(normalised).collect();
    found.extend(
        steps(&cut, "pretokenizers")
            .into_iter()
            .filter_map(left_out),
    );
    let mut added: Vec<_> = tokenizer.get_added_tokens_decoder().into_iter().collect();
    added.sort_by_key(|(id, _)| *id);
    for (_, token) in added {
        // Special tokens are not looked for in texts.
        if !token.special && (token.lstrip || token.rstrip) {
            let token = short(&token.content);
            found.push(format!("white space around `{token}` is dropped"));
        }
    }
    found.extend(unknown.map(|token| format!("unknown text becomes `{}`", short(token))));
    // A sequence may hold the same step twice.
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|what| seen.insert(what.clone()));
    found
}

/// A step, or those of a sequence.
fn steps<'a>(step: &'a Value, field: &str) -> Vec<&'a Value> {
    match step[field].as_array() {
        Some(list) => list.iter().flat_map(|step| steps(step, field)).collect(),
        None => vec![step],
    }
}

/// What a normalizer changes.
fn normalised(step: &Value) -> Vec<String> {
    let kind = step["type"].as_str().unwrap_or_default();
    let on = |field: &str| step[field] == true;
    let said = |what: &str| vec![what.to_owned()];
    match kind {
        "Lowercase" => said("lower case"),
        "NFC" | "NFD" | "NFKC" | "NFKD" => said(&format!("Unicode normalisation {kind}")),
        "Precompiled" => said("Unicode normalisation after SentencePiece"),
        "Nmt" => said("control characters and white space are normalised"),
        "StripAccents" => said("accents are dropped"),
        "Strip" if on("strip_left") || on("strip_right") => {
            said("white space at the ends is dropped")
        }
        "BertNormalizer" => {
            // Accents are stripped with the case unless the file says otherwise.
            let accents = step["strip_accents"].as_bool().unwrap_or(on("lowercase"));
            let parts = [
                (on("clean_text"), "control characters are dropped"),
                (
                    on("handle_chinese_chars"),
                    "spaces around Chinese characters",
                ),
                (accents, "accents are dropped"),
                (on("lowercase"), "lower case"),
            ];
            let parts = parts.into_iter().filter(|(on, _)| *on);
            parts.map(|(_, what)| what.to_owned()).collect()
        }
        "Replace" => {
            let (pattern, content) = (&step["pattern"], step["content"].as_str());
            let pattern = pattern["String"].as_str().or(pattern["Regex"].as_str());
            match (pattern.unwrap_or_default(), content.unwrap_or_default()) {
                (" ", "\u{2581}") => Vec::new(),
                (from, "") => said(&format!("`{}` is dropped", short(from))),
                (from, to) => said(&format!("`{}` becomes `{}`", short(from), short(to))),
            }
        }
        "Prepend" if step["prepend"] != "\u{2581}" => {
            let prepend = step["prepend"].as_str().unwrap_or_default();
            said(&format!("`{}` is put before a text", short(prepend)))
        }
        _ => Vec::new(),
    }
}

/// What a pre-tokenizer leaves out between words.
fn left_out(step: &Value) -> Option<String> {
    match step["type"].as_str()? {
        "Whitespace" | "WhitespaceSplit" | "BertPreTokenizer" => {
            Some("white space between words is dropped".to_owned())
        }
        "CharDelimiterSplit" | "Delimiter" => {
            let delimiter = short(step["delimiter"].as_str().unwrap_or_default());
            Some(format!("`{delimiter}` between words is dropped"))
        }
        _ if step["behavior"] == "Removed" => Some("what separates words is dropped".to_owned()),
        _ => None,
    }
}
