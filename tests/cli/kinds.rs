//! Files of another kind than their readers expect: every reader names the kind and what to do.

use crate::support::{Folder, assert_refused, with_arg};
use std::fs;
use std::process::Stdio;

/// Files that a failed download or a wrong path leaves, and what they are called.
fn wrong() -> Vec<(Vec<u8>, &'static str, &'static str)> {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258\
                   daaa5e2ca24d17e2393\nsize 12345\n";
    let page = "<!doctype html>\n<html><body>Not Found</body></html>\n";
    let text = "a line of text\n".repeat(30);
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let archive = |start: &[u8]| [start, text.as_bytes()].concat();
    vec![
        (
            pointer.repeat(3).into(),
            "a Git LFS pointer",
            "git lfs pull",
        ),
        (page.repeat(9).into(), "an HTML page", "download"),
        (
            archive(b"PK\x03\x04\x14\0\0\0\x08\0"),
            "a zip archive",
            "unpack",
        ),
        (
            archive(b"\x1f\x8b\x08\0\0\0\0\0\0\x03"),
            "a gzip file",
            "unpack",
        ),
        (
            [b"\xff\xfe", &utf16[..]].concat(),
            "a text in UTF-16",
            "UTF-8",
        ),
        (utf16, "a text in UTF-16", "UTF-8"),
    ]
}

#[test]
fn a_wrong_kind_in_place_of_a_models_file_is_named() {
    let folder = Folder::with_model();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let path = folder.path("model").join(file);
        let whole = fs::read(&path).expect("a file");
        for (bytes, found, remedy) in wrong() {
            fs::write(&path, bytes).expect("a file");
            folder.refuses("inspect model", 1, &[file, "expected", found, remedy]);
        }
        fs::write(&path, whole).expect("a file");
    }
    folder.succeeds("inspect model");
}

#[test]
fn a_wrong_kind_in_place_of_another_file_is_named() {
    let folder = Folder::with_model();
    for (bytes, found, remedy) in wrong() {
        fs::write(folder.path("wrong"), bytes).expect("a file");
        for words in [
            "train --data text.txt --context 16 --out run --tokenizer wrong",
            "tokenizer show wrong",
            "tokenizer encode --data text.txt --tokenizer wrong --out t.tok",
            "plot wrong --out curves.svg",
            "generate model --prompt-file wrong",
        ] {
            folder.refuses(words, 1, &["wrong", "expected", found, remedy]);
        }
    }
}

#[test]
fn data_of_a_wrong_kind_are_refused_unless_they_are_forced() {
    let folder = Folder::with_model();
    let train = "train --context 16 --batch 1 --steps 1 --heads 0 --threads 1 --out run --data";
    for (bytes, found, remedy) in wrong() {
        let name = found.replace(' ', "-");
        fs::write(folder.path(&name), bytes).expect("a file");
        let names = [&*name, "expected a plain text", found, remedy, "--as-text"];
        let encode = format!("tokenizer encode --data {name} --out {name}.tok");
        let learn = format!("tokenizer train --vocab 258 --data {name} --out {name}.json");
        let eval = format!("eval model --data {name}");
        for words in [&encode, &learn, &eval, &format!("{train} {name}")] {
            folder.refuses(words, 1, &names);
        }
        let valid = format!("{train} text.txt --valid {name}");
        folder.refuses(&valid, 1, &names);
        let learned = format!("{train} text.txt {name} --tokenizer bpe:260");
        folder.refuses(&learned, 1, &names);
        for words in [encode, learn, eval] {
            folder.succeeds(&format!("{words} --as-text"));
            let written = [format!("{name}.tok"), format!("{name}.json")];
            written
                .iter()
                .for_each(|file| drop(fs::remove_file(folder.path(file))));
        }
    }
    // Standard input may be any bytes, and so may the data of a run that is resumed: its content is the run's.
    let mut command = folder.command("generate model --max-tokens 1 --prompt-file -");
    fs::write(folder.path("prompt"), b"\x1f\x8b\x08\0").expect("a file");
    folder.refuses(
        "generate model --prompt-file prompt",
        1,
        &["prompt", "a gzip file"],
    );
    let prompt = fs::File::open(folder.path("prompt")).expect("a file");
    assert!(
        command
            .stdin(prompt)
            .stdout(Stdio::null())
            .status()
            .expect("the binary")
            .success()
    );
    folder.succeeds(&format!("{train} a-zip-archive --as-text"));
    folder.succeeds("train --resume run --steps 2 --extend");
}

/// The texts of a run, checked out again without their content.
#[test]
fn a_resumed_run_names_the_kind_of_a_text_that_is_a_text_no_more() {
    let folder = Folder::with_text();
    folder.succeeds("train --context 16 --batch 1 --steps 1 --heads 0 --out run --data text.txt");
    for (bytes, found, remedy) in wrong() {
        fs::write(folder.path("text.txt"), bytes).expect("a file");
        folder.refuses("train --resume run", 1, &["text.txt", found, remedy]);
    }
    fs::write(folder.path("text.txt"), "another text").expect("a file");
    folder.refuses("train --resume run", 2, &["--data", "12 bytes"]);
}

/// A pipe can be read only once, so its first bytes must not be lost.
#[cfg(target_os = "linux")]
#[test]
fn a_pipe_is_checked_and_read_from_its_first_byte() {
    let folder = Folder::with_text();
    folder.succeeds("tokenizer encode --data text.txt --out file.tok");
    let encode = |file: &str, out: &str| {
        let mut command = folder.command("tokenizer encode --data /dev/stdin --out");
        command = with_arg(command, out);
        let cat = std::process::Command::new("cat")
            .arg(folder.path(file))
            .stdout(Stdio::piped())
            .spawn();
        let mut cat = cat.expect("a tool of the system");
        command.stdin(cat.stdout.take().expect("a pipe"));
        let output = command.output().expect("the binary");
        cat.wait().expect("a child");
        output
    };
    assert!(encode("text.txt", "pipe.tok").status.success());
    let read = |name: &str| fs::read(folder.path(name)).expect("a file");
    assert!(read("file.tok") == read("pipe.tok"));
    fs::write(folder.path("page"), "<html>").expect("a file");
    let output = encode("page", "page.tok");
    assert_refused("a page", &output, 1, &["/dev/stdin", "an HTML page"]);
}
