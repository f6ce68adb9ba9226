//! Vocabularies, token files and pictures, through the program.

use crate::support::{Folder, assert_keys, edit_json, objects};
use foretoken::checkpoint::ModelDir;
use foretoken::data::{Tokenizer, corpus};
use serde_json::{Value, json};
use std::fs;

/// A run that takes a second or less.
const TRAIN: &str = "train --batch 2 --context 16 --steps 3";

#[test]
fn a_text_and_its_token_file_train_the_same_weights() {
    let folder = Folder::with_text();
    fs::write(folder.path("more.txt"), "one|two|three\n".repeat(40)).expect("a file");
    folder
        .succeeds("tokenizer train --data text.txt more.txt --vocab 300 --out v.json --split-on |");
    let data = "--data text.txt more.txt --split-on |";
    for (name, vocabulary) in [("a", "bytes"), ("b", "v.json")] {
        let encode =
            format!("tokenizer encode --tokenizer {vocabulary} {data} --out {name}.tok --json");
        let report = objects(&folder.succeeds(&encode)).remove(0);
        assert_keys(&report, "out tokens vocab_size");
        let size = fs::metadata(folder.path(&format!("{name}.tok")))
            .expect("a file")
            .len();
        assert_eq!(json!((size - 64) / 2), report["tokens"]);
        let text = format!("{TRAIN} --tokenizer {vocabulary} {data} --out {name}-text --json");
        let file =
            format!("{TRAIN} --tokenizer {vocabulary} --data {name}.tok --out {name}-file --json");
        let last = |words: &str| objects(&folder.succeeds(words)).pop().expect("an event");
        assert_eq!(last(&text)["sha256"], last(&file)["sha256"], "{vocabulary}");
    }
    // A vocabulary learned by `train` is the same.
    folder.succeeds(&format!("{TRAIN} --tokenizer bpe:300 {data} --out c"));
    let read = |name: &str| fs::read(folder.path(name)).expect("a file");
    assert!(read("c/tokenizer.json") == read("v.json"));
    assert!(read("c/model.safetensors") == read("b-text/model.safetensors"));
    assert!(read("a-text/model.safetensors") != read("b-text/model.safetensors"));
    // The trained model can be used, and the number of validation tokens can be limited.
    let report =
        objects(&folder.succeeds("generate c --prompt One --max-tokens 5 --json")).remove(0);
    assert_keys(&report, "text tokens");
    let eval = objects(&folder.succeeds("eval b-file --data b.tok --json")).remove(0);
    let whole = objects(&folder.succeeds("tokenizer encode --tokenizer v.json --data text.txt more.txt --split-on | --out d.tok --json")).remove(0);
    assert_eq!(
        eval["tokens"].as_u64().map(|n| n + 1),
        whole["tokens"].as_u64()
    );
    let words = format!("{TRAIN} --data a.tok --out e --valid-tokens 9 --json");
    let events = objects(&folder.succeeds(&words));
    let eval = events
        .iter()
        .find(|event| event["event"] == "eval")
        .expect("an evaluation");
    // One window.
    assert_eq!(eval["tokens"], 16);
}

#[test]
fn vocabularies_that_cannot_be_used_are_refused() {
    let folder = Folder::with_model();
    let train = "train --data text.txt --out run --context 16 --tokenizer";
    for (words, names) in [
        (format!("{train} bpe:256"), ["257", "bpe:256"]),
        (format!("{train} bpe:x"), ["bpe:N", "bpe:x"]),
        (format!("{train} bytes --split-on="), ["separator", "none"]),
        (
            format!("{train} bytes --valid-tokens 0"),
            ["--valid-tokens", "0"],
        ),
        (
            "tokenizer train --data text.txt --vocab 3 --out v.json".to_owned(),
            ["--vocab", "3"],
        ),
        (
            "tokenizer train --data text.txt --vocab 300 --out text.txt".to_owned(),
            ["text.txt", "--force"],
        ),
        (
            "tokenizer encode --data text.txt --out text.txt".to_owned(),
            ["text.txt", "--force"],
        ),
        (
            "tokenizer encode --data text.txt --out t.tok --tokenizer bpe:300".to_owned(),
            ["bpe:300", "train"],
        ),
        ("tokenizer show bpe:300".to_owned(), ["bpe:300", "train"]),
    ] {
        folder.refuses(&words, 2, &names);
    }
    for (words, names) in [
        (format!("{train} missing.json"), ["missing.json", "read"]),
        (format!("{train} text.txt"), ["text.txt", "JSON"]),
        (
            format!("{train} model/config.json"),
            ["config.json", "tokenizer"],
        ),
        (
            "tokenizer encode --data missing --out t.tok".to_owned(),
            ["missing", "read"],
        ),
        (
            "tokenizer encode --data text.txt --out no/t.tok".to_owned(),
            ["no/t.tok", "No such file"],
        ),
        (
            "tokenizer train --data missing --vocab 300 --out v.json".to_owned(),
            ["missing", "read"],
        ),
        ("tokenizer show missing".to_owned(), ["missing", "read"]),
    ] {
        folder.refuses(&words, 1, &names);
    }
    // The library panics on an empty chunk. That is reported as an error and not as a panic.
    let mut file: Value = serde_json::from_str(&Tokenizer::bytes().to_json()).expect("JSON");
    file["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0});
    fs::write(folder.path("zero.json"), file.to_string()).expect("a file");
    folder.refuses(&format!("{train} zero.json"), 1, &["zero.json", "encode"]);
    // A token file is no text, and is bound to its tokenizer.
    folder.succeeds("tokenizer encode --data text.txt --out t.tok");
    folder.refuses(
        &format!("{train} bytes --data t.tok --split-on x"),
        2,
        &["t.tok", "alone"],
    );
    folder.refuses(
        "train --out run --data t.tok text.txt",
        2,
        &["t.tok", "alone"],
    );
    folder.refuses(
        "train --out run --data t.tok --tokenizer bpe:300",
        1,
        &["t.tok", "token file"],
    );
    let whole = fs::read(folder.path("t.tok")).expect("a file");
    fs::write(folder.path("t.tok"), &whole[..whole.len() - 1]).expect("a file");
    folder.refuses("train --out run --data t.tok", 1, &["t.tok", "truncated"]);
}

#[test]
fn a_directory_whose_tokenizer_has_more_tokens_than_the_model_is_refused() {
    let folder = Folder::with_model();
    let text = fs::read(folder.path("text.txt")).expect("a file");
    let tokenizer = Tokenizer::learn([Ok(text)], 290).expect("a vocabulary");
    fs::write(folder.path("model/tokenizer.json"), tokenizer.to_json()).expect("a file");
    // As other programs write it: without the tokenizer's SHA-256.
    edit_json(&folder.path("model/config.json"), |config| {
        let fields = config.as_object_mut().expect("an object");
        assert!(fields.remove("foretoken_tokenizer_sha256").is_some());
    });
    folder.refuses("inspect model", 1, &["257", "290", "tokenizer.json"]);
    // A vocabulary smaller than the model's leaves rows that no token uses.
    let mut small: Value = serde_json::from_str(&Tokenizer::bytes().to_json()).expect("JSON");
    small["added_tokens"] = json!([]);
    fs::write(folder.path("model/tokenizer.json"), small.to_string()).expect("a file");
    let (model, tokenizer) = ModelDir::load(&folder.path("model")).expect("a model");
    assert_eq!(
        (model.config().vocab_size, tokenizer.vocab_size()),
        (257, 256)
    );
    assert_eq!(tokenizer.end_of_text(), None);
    folder.succeeds("generate model --prompt a --max-tokens 5");
    let train = "train --init model --data text.txt --context 16 --batch 1 --steps 1 --out";
    folder.succeeds(&format!("{train} same"));
    folder.succeeds(&format!("{train} fewer --heads 2"));
    for (name, heads) in [("same", 3), ("fewer", 2)] {
        let (model, _) = ModelDir::load(&folder.path(name)).expect("a model");
        let config = model.config();
        assert_eq!((config.vocab_size, config.mtp_depth), (257, heads));
    }
}

/// Vocabularies that have room in the model and are not its own: one of as many tokens, and a smaller one.
#[test]
fn another_tokenizer_than_the_models_is_refused_by_whoever_reads_the_model() {
    let folder = Folder::with_text();
    let learn = |text: String, size: usize| {
        let tokenizer = Tokenizer::learn([Ok(text.into_bytes())], size).expect("a vocabulary");
        assert_eq!(tokenizer.vocab_size(), size);
        tokenizer
    };
    let own = learn(corpus::stories(3, 2000), 280);
    fs::write(folder.path("own.json"), own.to_json()).expect("a file");
    let train = "train --data text.txt --context 16 --batch 1 --steps 1";
    folder.succeeds(&format!("{train} --tokenizer own.json --out start"));
    // Every command that creates a directory from another keeps the hash.
    folder.succeeds(&format!("{train} --init start --out model"));
    folder.succeeds("train --resume model --steps 2 --extend");
    folder.succeeds("export model --without-heads --out trunk");
    let sha256 = objects(&folder.succeeds("tokenizer show own.json --json"))[0]["sha256"].clone();
    for name in ["start", "model", "trunk"] {
        let config = fs::read(folder.path(name).join("config.json")).expect("a file");
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        assert_eq!(config["foretoken_tokenizer_sha256"], sha256, "{name}");
    }
    for other in [
        learn(corpus::stories(4, 900), 280),
        learn(corpus::stories(3, 2000), 270),
        Tokenizer::bytes(),
    ] {
        assert_ne!(other, own);
        fs::write(folder.path("model/tokenizer.json"), other.to_json()).expect("a file");
        let names = [
            "model/tokenizer.json",
            &other.sha256_hex(),
            &own.sha256_hex(),
        ];
        for words in [
            "eval model --data text.txt",
            "generate model --prompt a --max-tokens 2",
            "speed model --prompt a --repeats 1 --max-tokens 2",
            "inspect model",
            "export model --out other",
            "train --resume model --steps 3 --extend",
            &format!("{train} --init model --out other"),
        ] {
            folder.refuses(words, 1, &names);
        }
    }
    fs::write(folder.path("model/tokenizer.json"), own.to_json()).expect("a file");
    folder.succeeds("eval model --data text.txt");
    // A value that is no text is no hash, and a wrong hash is shown in one line.
    for (value, names) in [
        (json!(7), ["config.json", "line"]),
        (json!("\u{1b}[2J\n"), ["tokenizer.json", "\\n"]),
    ] {
        edit_json(&folder.path("model/config.json"), |config| {
            config["foretoken_tokenizer_sha256"] = value;
        });
        folder.refuses("inspect model", 1, &names);
    }
}

#[test]
fn a_vocabulary_is_shown() {
    let folder = Folder::with_text();
    let shown = objects(&folder.succeeds("tokenizer show bytes --text a --json")).remove(0);
    assert_keys(&shown, "vocab_size end_of_text sha256 tokens spellings");
    assert_eq!(
        (&shown["vocab_size"], &shown["end_of_text"]),
        (&json!(257), &json!(256))
    );
    assert_eq!(
        (&shown["tokens"], &shown["spellings"]),
        (&json!([97]), &json!(["a"]))
    );
    let text = folder.succeeds("tokenizer show bytes --text a");
    assert!(
        text.contains("257 tokens") && text.contains("97 a"),
        "{text}"
    );
}

#[test]
fn runs_are_drawn_as_pictures() {
    let folder = Folder::with_text();
    for run in ["one", "two"] {
        folder.succeeds(&format!(
            "{TRAIN} --data text.txt --log-every 1 --eval-every 2 --out {run}"
        ));
    }
    let names =
        |text: &str| ["one", "two/metrics.jsonl"].map(|name| text.contains(&format!("\n{name}\n")));
    let svg = |words: &str| {
        assert_eq!(folder.succeeds(words), "drawn.svg\n");
        let svg = fs::read_to_string(folder.path("drawn.svg")).expect("a picture");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        svg
    };
    let both = svg("plot one two/metrics.jsonl --out drawn.svg");
    assert_eq!(names(&both), [true, true]);
    for title in [
        "loss",
        "accuracy",
        "learning rate",
        "tokens per second",
        "main head",
        "head 3",
    ] {
        assert!(both.contains(title), "{title}");
    }
    let one = svg("plot one --out drawn.svg");
    assert_eq!(names(&one), [true, false]);
    // Four heads with the same two validation points in the charts of loss and accuracy, and no other dots.
    assert_eq!(one.matches("<circle").count(), 4 * 2 * 2);
    assert_ne!(svg("plot one --log --out drawn.svg"), one);
}

#[test]
fn runs_that_cannot_be_drawn_are_refused() {
    let folder = Folder::with_model();
    folder.refuses(
        "plot model --out a.svg",
        1,
        &["metrics.jsonl", "found none"],
    );
    folder.refuses("plot missing --out a.svg", 1, &["missing", "read"]);
    for name in ["a.jpg", "a.png", "svg", ".svg", "a"] {
        let words = format!("plot model --out {name}");
        folder.refuses(&words, 2, &["--out", name, ".svg"]);
    }
    let many = "model ".repeat(8);
    folder.refuses(&format!("plot {many} --out a.svg"), 2, &["at most 7", "8"]);
    folder.refuses("plot --out a.svg", 2, &["<DIR>", "required"]);
    folder.refuses("plot model", 2, &["--out", "required"]);
    let step = "{\"event\":\"step\",\"step\":1,\"loss\":1,\"loss_heads\":[1],\"lr\":1,\"tokens_per_s\":1}\n";
    let metrics = folder.path("model/metrics.jsonl");
    fs::write(&metrics, [step, "{\"event\":\"st\n", step].concat()).expect("a file");
    folder.refuses("plot model --out a.svg", 1, &["metrics.jsonl", "line 2"]);
    // Cut off in the middle of the last line, as by a kill.
    fs::write(&metrics, [step, &step[..30]].concat()).expect("a file");
    folder.refuses("plot model --out no/a.svg", 1, &["no/a.svg"]);
    folder.succeeds("plot model --out a.SVG");
}
