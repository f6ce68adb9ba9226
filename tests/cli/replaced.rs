//! Outputs: an input of the same command is never lost, and `--force` replaces only what the program itself wrote.

use crate::support::Folder;
use std::fs;

/// A small run.
const TRAIN: &str = "train --context 16 --batch 1 --steps 1 --heads 0 --threads 1";

/// The messages of a command that succeeds.
fn messages(folder: &Folder, words: &str) -> String {
    let output = folder.command(words).output().expect("the binary");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{words}: {errors}");
    errors
}

#[test]
fn a_file_that_is_an_input_is_not_replaced() {
    let folder = Folder::with_text();
    folder.succeeds("tokenizer train --data text.txt --vocab 260 --out v.json");
    fs::create_dir(folder.path("dir")).expect("a directory");
    fs::copy(folder.path("text.txt"), folder.path("b.txt")).expect("a file");
    fs::hard_link(folder.path("text.txt"), folder.path("hard.txt")).expect("a link");
    fs::hard_link(folder.path("v.json"), folder.path("hard.json")).expect("a link");
    let mut outs = vec!["text.txt", "./text.txt", "dir/../text.txt", "hard.txt"];
    if cfg!(unix) {
        #[cfg(unix)]
        std::os::unix::fs::symlink("text.txt", folder.path("link.txt")).expect("a link");
        outs.push("link.txt");
    }
    for force in ["", " --force"] {
        for out in &outs {
            for words in ["tokenizer encode", "tokenizer train --vocab 260"] {
                let names = ["it is --data text.txt", "the same command reads", out];
                let words = format!("{words}{force} --out {out} --data b.txt text.txt");
                folder.refuses(&words, 2, &names);
            }
        }
        for out in ["v.json", "hard.json"] {
            let words =
                format!("tokenizer encode --data text.txt --tokenizer v.json --out {out}{force}");
            folder.refuses(&words, 2, &[out, "it is --tokenizer v.json"]);
        }
    }
}

#[test]
fn a_directory_that_holds_an_input_is_not_replaced() {
    let folder = Folder::with_model();
    folder.succeeds(&format!("{TRAIN} --data text.txt --out run"));
    fs::hard_link(folder.path("text.txt"), folder.path("run/metrics.jsonl.1")).expect("a link");
    fs::copy(folder.path("text.txt"), folder.path("run/book.txt")).expect("a file");
    folder.succeeds("tokenizer train --data text.txt --vocab 260 --out v.json");
    for force in ["", " --force"] {
        for (flags, input) in [
            ("--data run/book.txt", "contains --data run/book.txt"),
            (
                "--data model/../run/book.txt",
                "contains --data model/../run/book.txt",
            ),
            ("--data text.txt", "contains --data text.txt"),
            (
                "--data v.json --valid run/book.txt",
                "contains --valid run/book.txt",
            ),
            (
                "--data v.json --tokenizer run/tokenizer.json",
                "contains --tokenizer",
            ),
            ("--data v.json --init run", "is --init run"),
        ] {
            let words = format!("{TRAIN} {flags} --out run{force}");
            folder.refuses(&words, 2, &["run exists", "it ", input]);
        }
        for out in ["model", "./model/", "run/../model"] {
            let words = format!("export model --out {out}{force}");
            folder.refuses(&words, 2, &["model", "it is the model model"]);
        }
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("model", folder.path("link")).expect("a link");
        folder.refuses(
            "export link --out model --force",
            2,
            &["it is the model link"],
        );
        folder.refuses(
            "export model --out link --force",
            2,
            &["it is the model model"],
        );
        // A file of a model lies in the directory.
        fs::remove_file(folder.path("run/book.txt")).expect("a file");
        fs::remove_file(folder.path("run/metrics.jsonl.1")).expect("a file");
        let weights = folder.path("model/model.safetensors");
        fs::remove_file(folder.path("run/model.safetensors")).expect("a file");
        fs::rename(&weights, folder.path("run/model.safetensors")).expect("a file");
        std::os::unix::fs::symlink("../run/model.safetensors", &weights).expect("a link");
        folder.refuses(
            "export model --out run --force",
            2,
            &["run", "a file of the model model"],
        );
    }
}

#[test]
fn a_picture_replaces_pictures_only() {
    let folder = Folder::with_text();
    folder.succeeds(&format!("{TRAIN} --data text.txt --out run"));
    fs::copy(folder.path("run/metrics.jsonl"), folder.path("m.svg")).expect("a file");
    folder.refuses(
        "plot m.svg --out m.svg",
        2,
        &["m.svg", "it is the metrics m.svg"],
    );
    folder.refuses(
        "plot run --out m.svg",
        2,
        &["m.svg", "expected a picture that this program wrote"],
    );
    assert_eq!(messages(&folder, "plot run --out new.svg"), "");
    let again = messages(&folder, "plot run --out new.svg --log");
    assert!(
        again.starts_with("replaced new.svg: a picture of "),
        "{again}"
    );
}

#[test]
fn force_replaces_what_the_program_wrote_and_says_what() {
    let folder = Folder::with_text();
    let (encode, learn) = (
        "tokenizer encode --data text.txt --out t.tok",
        "tokenizer train --data text.txt --vocab 260 --out v.json",
    );
    let train = format!("{TRAIN} --data text.txt --out run");
    for (words, out, kind) in [
        (encode, "t.tok", "a token file of "),
        (learn, "v.json", "a vocabulary of "),
        (
            &train,
            "run",
            "config.json, metrics.jsonl, model.safetensors, tokenizer.json, train.lock, train_state",
        ),
    ] {
        assert_eq!(messages(&folder, words), "", "{words}");
        folder.refuses(words, 2, &[out, "exists", "--force"]);
        let said = messages(&folder, &format!("{words} --force"));
        assert!(
            said.starts_with(&format!("replaced {out}: {kind}")),
            "{said}"
        );
    }
    let exported = messages(&folder, "export run --out other");
    assert!(!exported.contains("replaced"), "{exported}");
    let exported = messages(&folder, "export run --out other --force");
    assert!(
        exported.starts_with("replaced other: config.json, "),
        "{exported}"
    );

    // Anything else is kept: a letter, what another program wrote, and the wrong kind.
    fs::write(folder.path("letter"), "Dear").expect("a file");
    let theirs = fs::read_to_string(folder.path("v.json")).expect("text");
    let theirs = theirs.replace("\"unk_token\": null", "\"unk_token\": \"<unk>\"");
    fs::write(folder.path("theirs.json"), theirs).expect("a file");
    for (words, out, kind) in [
        (encode, "letter", "token file"),
        (encode, "v.json", "token file"),
        (encode, "run", "token file"),
        (learn, "letter", "vocabulary"),
        (learn, "theirs.json", "vocabulary"),
        (learn, "t.tok", "vocabulary"),
    ] {
        let (words, _) = words.rsplit_once(' ').expect("an output");
        let expected = format!("expected a {kind} that this program wrote");
        let names = [
            out,
            "cannot be replaced",
            &expected,
            "--force does not change that",
        ];
        folder.refuses(&format!("{words} {out} --force"), 2, &names);
    }
    fs::write(folder.path("run/book.txt"), "a book").expect("a file");
    let names = ["run", "`book.txt`, which is no file of a model"];
    folder.refuses(&format!("{train} --force"), 2, &names);
    folder.refuses("export other --out run --force", 2, &names);
}
