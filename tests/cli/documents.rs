//! Separators between documents, for texts used together with token files; and vocabularies that do not depend on
//! threads.

use crate::support::{Folder, objects};
use std::fs;

/// `text.txt`, `more.txt` with documents separated by `|`, and `more.tok` with its tokens.
fn with_documents() -> Folder {
    let folder = Folder::with_model();
    fs::write(folder.path("more.txt"), "one|two|three\n".repeat(40)).expect("a file");
    folder.succeeds("tokenizer encode --data more.txt --split-on | --out more.tok");
    folder
}

#[test]
fn an_evaluation_knows_documents_and_token_files() {
    let folder = with_documents();
    let eval = |flags: &str| {
        let words = format!("eval model --json --context 12 --data {flags}");
        objects(&folder.succeeds(&words)).remove(0)
    };
    let documents = eval("more.txt --split-on |");
    assert_eq!(documents, eval("more.tok"));
    // As many tokens, because a separator of one byte becomes one token; but different ones, and fewer bytes.
    let plain = eval("more.txt");
    assert_eq!(plain["tokens"], documents["tokens"]);
    assert_ne!(plain["loss"], documents["loss"]);
    let agreement = "--agreement --prompts 7 --prompt-tokens 9 --max-tokens 6";
    assert_eq!(
        eval(&format!("more.txt --split-on | {agreement}")),
        eval(&format!("more.tok {agreement}"))
    );
    let refused = "eval model --data more.tok --split-on |";
    folder.refuses(refused, 2, &["more.tok", "alone", "separator"]);
    folder.refuses("eval model --data more.txt --split-on=", 2, &["separator"]);
}

#[test]
fn a_separator_applies_to_texts_and_not_to_a_token_file() {
    let folder = with_documents();
    let train = |flags: &str, out: &str| {
        let words = format!(
            "train --batch 2 --context 16 --steps 3 --eval-every 3 --json --out {out} {flags}"
        );
        let mut events = objects(&folder.succeeds(&words));
        let done = events.pop().expect("an event");
        events.retain(|event| event["event"] == "eval");
        for event in &mut events {
            let fields = event.as_object_mut().expect("an object");
            fields.remove("training_seconds").expect("a time");
        }
        (events, done["sha256"].clone())
    };
    let texts = train("--data more.txt --valid text.txt --split-on |", "a");
    let file = train("--data more.tok --valid text.txt --split-on |", "b");
    assert_eq!(texts, file);
    // The other way round, the separator is in the training text.
    let texts = train("--data more.txt --valid more.txt --split-on |", "c");
    let file = train("--data more.txt --valid more.tok --split-on |", "d");
    assert_eq!(texts, file);
    // A resumed run uses the same separator.
    folder.succeeds("train --resume b --steps 5 --extend");
    let refused = "train --out e --context 16 --data more.tok --split-on |";
    folder.refuses(refused, 2, &["more.tok", "alone"]);
    let refused = format!("{refused} --valid more.tok");
    folder.refuses(&refused, 2, &["more.tok", "alone"]);
}

/// The library that finds the merges uses several threads, and hash tables whose order differs between processes.
#[test]
fn a_learned_vocabulary_is_a_function_of_the_text() {
    let folder = Folder::with_text();
    let learn = |threads: &str| {
        let mut command = folder.command("tokenizer train --data text.txt --vocab 700 --force");
        command.args(["--out", "v.json"]);
        command.env("RAYON_NUM_THREADS", threads);
        assert!(command.status().expect("the binary").success());
        fs::read(folder.path("v.json")).expect("a vocabulary")
    };
    let first = learn("1");
    for threads in ["1", "2", "3", "8"] {
        assert!(learn(threads) == first, "{threads} threads");
    }
}
