//! Texts on their way in and out: characters that a vocabulary lacks or changes, texts that look like flags, separators
//! that never occur, new documents, colours.

use crate::support::{Folder, objects, with_arg};
use foretoken::checkpoint::ModelDir;
use foretoken::data::Tokenizer;
use foretoken::infer::{GenerateOptions, NoDrafts, generate};
use serde_json::{Map, Value, json};
use std::fs;

/// A small run.
const TRAIN: &str = "train --batch 2 --context 16 --steps 2 --out run";

/// What a command that succeeds writes to standard output and standard error.
fn both(folder: &Folder, words: &str) -> (String, String) {
    let output = folder.command(words).output().expect("the binary");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let (out, errors) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{words}: {errors}");
    (out, errors)
}

/// A `tokenizer.json` around a model, without any other step.
fn write_model(folder: &Folder, name: &str, model: Value, normalizer: Value) {
    let file = json!({"version": "1.0", "added_tokens": [], "normalizer": normalizer, "pre_tokenizer": null,
        "post_processor": null, "decoder": {"type": "Fuse"}, "model": model});
    fs::write(folder.path(name), file.to_string()).expect("a file");
}

/// The byte vocabulary with a normalizer.
fn write_bytes(folder: &Folder, name: &str, normalizer: Value) {
    let mut file: Value = serde_json::from_str(&Tokenizer::bytes().to_json()).expect("JSON");
    file["normalizer"] = normalizer;
    fs::write(folder.path(name), file.to_string()).expect("a file");
}

/// A byte-pair model over the letters a to z, without a token for unknown text.
fn letters() -> Value {
    let vocab: Map<String, Value> = ('a'..='z')
        .map(String::from)
        .zip((0..).map(Value::from))
        .collect();
    json!({"type": "BPE", "vocab": vocab, "merges": []})
}

#[test]
fn a_character_without_a_token_is_an_error_and_not_dropped() {
    let folder = Folder::with_text();
    let text = "Hello, World 42!";
    let lower = json!({"type": "Lowercase"});
    let nfkc = json!({"type": "NFKC"});
    let strip = json!({"type": "Sequence", "normalizers": [
        {"type": "Lowercase"}, {"type": "Strip", "strip_left": true, "strip_right": true}]});
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    let pieces = json!({"type": "Unigram", "unk_id": null, "vocab": [["Hello", -1.0], ["lo", -2.0], [",", -1.0]]});
    let words = json!({"type": "WordLevel", "vocab": {"Hello": 0}, "unk_token": "[UNK]"});
    let mut fallback = letters();
    fallback["byte_fallback"] = json!(true);
    for (model, normalizer, text, names) in [
        (letters(), Value::Null, text, ["at byte 0:", "`H` (U+0048)"]),
        (letters(), nfkc, text, ["at byte 0:", "`H` (U+0048)"]),
        (
            letters(),
            lower.clone(),
            text,
            ["at byte 5:", "`,` (U+002C)"],
        ),
        (
            letters(),
            strip,
            "  Hello\n ok",
            ["at byte 7:", "`\\n` (U+000A)"],
        ),
        (
            letters(),
            spaces,
            "so \u{e9}",
            ["at byte 2:", "` ` (U+0020)"],
        ),
        (
            letters(),
            lower,
            "\u{c9}t\u{e9}",
            ["at byte 0:", "`\u{c9}` (U+00C9)"],
        ),
        (
            fallback,
            Value::Null,
            "caf\u{e9}",
            ["at byte 3:", "`\u{e9}` (U+00E9)"],
        ),
        (
            pieces,
            Value::Null,
            "Hello,\u{1f98a}",
            ["at byte 6:", "`\u{1f98a}` (U+1F98A)"],
        ),
        (
            words,
            Value::Null,
            "Hello, World",
            ["at byte 0:", "`Hello, World`"],
        ),
    ] {
        write_model(&folder, "v.json", model, normalizer);
        fs::write(folder.path("in.txt"), text).expect("a file");
        let show = with_arg(folder.command("tokenizer show v.json --text"), text);
        let encode =
            folder.command("tokenizer encode --tokenizer v.json --data in.txt --out t.tok");
        for (mut command, code, subject) in
            [(show, 2, "error: text "), (encode, 1, "error: in.txt: ")]
        {
            // A note about the normalizer may come first.
            let output = command.output().expect("the binary");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{text}: {errors}");
            for name in [names[0], names[1], subject] {
                assert!(errors.contains(name), "expected {name} in {errors}");
            }
            assert!(
                output.stdout.is_empty() && !folder.path("t.tok").exists(),
                "{text}"
            );
        }
    }
    // What is known is encoded as before.
    write_model(&folder, "v.json", letters(), Value::Null);
    let shown = folder.succeeds("tokenizer show v.json --text abc");
    assert!(shown.ends_with("0 a\n       1 b\n       2 c\n"), "{shown}");
}

#[test]
fn a_vocabulary_that_changes_texts_is_announced_once() {
    let folder = Folder::with_text();
    let steps = [
        json!({"type": "Lowercase"}),
        json!({"type": "NFKC"}),
        json!({"type": "Strip", "strip_left": true, "strip_right": false}),
    ];
    write_bytes(
        &folder,
        "v.json",
        json!({"type": "Sequence", "normalizers": steps}),
    );
    for words in [
        "tokenizer show v.json --text Abc",
        "tokenizer encode --tokenizer v.json --data text.txt --out t.tok",
        &format!("{TRAIN} --tokenizer v.json --data text.txt"),
        "train --resume run --steps 3 --extend",
        "eval run --data text.txt",
        "generate run --prompt Once --max-tokens 2",
        "speed run --prompt Once --max-tokens 2 --repeats 1",
    ] {
        let (_, errors) = both(&folder, words);
        let notes: Vec<&str> = errors
            .lines()
            .filter(|line| line.starts_with("note: "))
            .collect();
        let [note] = notes[..] else {
            panic!("{words}: {errors}")
        };
        let parts = ["lower case", "NFKC", "white space at the ends"];
        assert!(
            parts.iter().all(|part| note.contains(part)),
            "{words}: {note}"
        );
    }
    // An evaluation of the token file cannot know the text.
    let (_, errors) = both(&folder, "eval run --data t.tok");
    assert!(
        errors.contains("note: a token file does not hold the text"),
        "{errors}"
    );
    // Unknown text, and the byte vocabulary, which changes nothing.
    let words = json!({"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"});
    write_model(&folder, "w.json", words, Value::Null);
    let (_, errors) = both(&folder, "tokenizer show w.json");
    assert!(errors.contains("unknown text becomes `[UNK]`"), "{errors}");
    assert_eq!(both(&folder, "tokenizer show bytes --text a").1, "");
}

#[test]
fn bits_per_byte_are_over_the_bytes_of_the_text() {
    let folder = Folder::with_text();
    let text = fs::read(folder.path("text.txt")).expect("a file");
    let dropped = json!({"type": "Replace", "pattern": {"String": "the "}, "content": ""});
    write_bytes(&folder, "v.json", dropped);
    let events = objects(&folder.succeeds(&format!(
        "{TRAIN} --tokenizer v.json --data text.txt --valid-tokens all --json"
    )));
    let bytes_of = |report: &Value| {
        let [loss, tokens, bits] =
            ["loss", "tokens", "bits_per_byte"].map(|key| report[key].as_f64().expect("a number"));
        (loss * tokens / std::f64::consts::LN_2 / bits).round() as usize
    };
    let eval = objects(&folder.succeeds("eval run --data text.txt --json")).remove(0);
    // Every byte of the text but those of the first token, which is not predicted.
    assert!(
        eval["tokens"].as_u64().expect("a count") + 100 < text.len() as u64,
        "nothing was dropped"
    );
    assert_eq!(bytes_of(&eval), text.len() - 1);
    // The last tenth of the tokens stand for about as much of the text.
    let valid = events
        .iter()
        .find(|event| event["event"] == "eval")
        .expect("an evaluation");
    let (bytes, tokens) = (
        bytes_of(valid),
        valid["tokens"].as_u64().expect("a count") as usize,
    );
    assert!(
        bytes > tokens && bytes.abs_diff(text.len() / 10) < text.len() / 50,
        "{bytes} {tokens}"
    );
}

#[test]
fn a_text_that_looks_like_a_flag_is_a_text() {
    let folder = Folder::with_model();
    fs::write(
        folder.path("list.txt"),
        "- one\n---\n- two\n---\n".repeat(40),
    )
    .expect("a file");
    let run = |words: &str, text: &str, rest: &str| {
        let mut command = with_arg(folder.command(words), text);
        let output = command
            .args(rest.split_whitespace())
            .output()
            .expect("the binary");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    };
    let shown = run("tokenizer show bytes --text", "-1", "--json");
    assert_eq!(objects(&shown)[0]["tokens"], json!([45, 49]));
    for text in ["- item", "-1", "--json", "-"] {
        let report = objects(&run(
            "generate model --prompt",
            text,
            "--max-tokens 2 --json",
        ))
        .remove(0);
        assert_eq!(report["prompt_tokens"], text.len(), "{text}");
    }
    run("generate model --prompt a --max-tokens 2 --stop", "---", "");
    run(
        "speed model --max-tokens 2 --repeats 1 --prompt",
        "- item",
        "",
    );
    let encoded = run(
        "tokenizer encode --data list.txt --split-on",
        "---\n",
        "--out t.tok --json",
    );
    assert_eq!(objects(&encoded)[0]["tokens"], 40 * (6 + 1 + 6 + 1));
    run(
        "tokenizer train --data list.txt --vocab 260 --out v.json --split-on",
        "---",
        "",
    );
    run("eval model --data list.txt --split-on", "---", "");
    run(&format!("{TRAIN} --data list.txt --split-on"), "---", "");
    // A run that is resumed with its own separator is the same run.
    run(
        "train --resume run --steps 3 --extend --split-on",
        "---",
        "",
    );
}

#[test]
fn a_new_document_begins_after_the_end_of_text() {
    let folder = Folder::with_model();
    let (model, tokenizer) = ModelDir::load(&folder.path("model")).expect("a model");
    let end = tokenizer
        .end_of_text()
        .expect("the byte vocabulary has one");
    for (flags, text) in [("--begin", ""), ("--begin --prompt On", "On")] {
        let words = format!("generate model {flags} --max-tokens 9 --json");
        let report = objects(&folder.succeeds(&words)).remove(0);
        let prompt = [
            vec![end],
            tokenizer.encode(text.as_bytes()).expect("tokens"),
        ]
        .concat();
        let options = GenerateOptions {
            max_tokens: 9,
            stop: vec![end],
            ..GenerateOptions::default()
        };
        let expected = generate(&model, &prompt, &options, &mut NoDrafts).expect("tokens");
        assert_eq!(report["tokens"], json!(expected.tokens), "{flags}");
        assert_eq!(report["prompt_tokens"], prompt.len());
    }
    folder.succeeds("speed model --begin --max-tokens 2 --repeats 1");
    fs::write(folder.path("empty.txt"), "").expect("a file");
    let names = ["--prompt", "--begin"];
    folder.refuses("generate model --prompt-file empty.txt", 2, &names);
    folder.refuses("generate model", 2, &["--prompt", "required"]);
    // A vocabulary without such a token.
    let mut none: Value = serde_json::from_str(&Tokenizer::bytes().to_json()).expect("JSON");
    none["added_tokens"] = json!([]);
    fs::write(folder.path("none.json"), none.to_string()).expect("a file");
    folder.succeeds(&format!("{TRAIN} --data text.txt --tokenizer none.json"));
    folder.refuses(
        "generate run --begin",
        2,
        &["--begin", "end-of-text or BOS", "neither"],
    );
}

#[test]
fn colours_are_for_terminals_unless_asked_for() {
    let folder = Folder::with_model();
    let words = "generate model --prompt Once --max-tokens 30 --draft 3 --show-drafts";
    let coloured = |flags: &str, no_color: &str| {
        let mut command = folder.command(&format!("{words} {flags}"));
        let output = command
            .env("NO_COLOR", no_color)
            .output()
            .expect("the binary");
        assert!(output.status.success());
        let (out, errors) = (
            String::from_utf8(output.stdout),
            String::from_utf8(output.stderr),
        );
        let (out, errors) = (out.expect("text"), errors.expect("text"));
        assert_eq!(
            errors.contains("--color always"),
            !out.contains('\x1b'),
            "{errors}"
        );
        (out.contains('\x1b'), errors.contains('\x1b'))
    };
    // Here nothing is a terminal.
    for no_color in ["", "1"] {
        assert_eq!(coloured("", no_color), (false, false));
        assert_eq!(coloured("--color auto", no_color), (false, false));
        assert_eq!(coloured("--color never", no_color), (false, false));
        // A flag is more than a variable.
        assert_eq!(coloured("--color always", no_color), (true, true));
    }
    folder.refuses(
        "generate model --prompt a --color sometimes",
        2,
        &["--color", "always"],
    );
}

#[test]
fn a_flag_without_an_effect_is_reported() {
    let folder = Folder::with_model();
    folder.succeeds("tokenizer encode --data text.txt --out t.tok");
    for words in [
        "tokenizer train --data text.txt --vocab 260 --out v.json --split-on <none>",
        "tokenizer encode --data text.txt --out u.tok --split-on <none>",
        "eval model --data text.txt --split-on <none>",
        &format!("{TRAIN} --data text.txt --tokenizer bpe:260 --split-on <none>"),
    ] {
        let (_, errors) = both(&folder, words);
        let warnings: Vec<&str> = errors
            .lines()
            .filter(|line| line.starts_with("warning: "))
            .collect();
        let [warning] = warnings[..] else {
            panic!("{words}: {errors}")
        };
        assert!(
            ["--split-on", "<none>", "text.txt"]
                .iter()
                .all(|part| warning.contains(part)),
            "{warning}"
        );
    }
    // One that does occur, also where it only ends the text.
    fs::write(folder.path("one.txt"), "a text<none>").expect("a file");
    let (_, errors) = both(
        &folder,
        "tokenizer encode --data one.txt --out w.tok --split-on <none>",
    );
    assert_eq!(errors, "");
    let generate = "generate model --prompt a --max-tokens 2";
    folder.refuses(
        &format!("{generate} --stop-token 257"),
        2,
        &["--stop-token", "below 257", "found 257"],
    );
    folder.succeeds(&format!("{generate} --stop-token 256"));
    folder.command_refuses(
        with_arg(folder.command(&format!("{generate} --stop")), ""),
        2,
        &["--stop"],
    );
}
