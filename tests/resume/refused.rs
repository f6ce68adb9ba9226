//! Flags and texts that are not the run's, and damaged states: refused in one sentence, before anything is written.

use crate::runs::{begin, copy, same, until};
use crate::support::{Folder, assert_refused, edit_json};
use foretoken::checkpoint::{encode_state, read_state};
use foretoken::data::corpus;
use foretoken::model::HeadKind;
use serde_json::{Value, json};
use std::fs;

const RESUME: &str = "train --resume run";
const STATE: &str = "run/train_state.safetensors";

#[test]
fn other_texts_are_refused() {
    let folder = Folder::with_text();
    begin(&folder, "run", HeadKind::Recursive);
    let text = fs::read(folder.path("text.txt")).expect("a file");
    let length = text.len();
    let mut other = text.clone();
    other[length / 2] ^= 1;
    for (bytes, names) in [
        (
            &text[1..],
            [format!("{} bytes", length - 1), format!("{length} bytes")],
        ),
        (&[], ["text.txt".to_owned(), "0 bytes".to_owned()]),
        (&other, ["SHA-256".to_owned(), "text.txt".to_owned()]),
    ] {
        fs::write(folder.path("text.txt"), bytes).expect("a file");
        folder.refuses(RESUME, 2, &["--data", &names[0], &names[1]]);
    }
    fs::write(folder.path("text.txt"), &text).expect("a file");
    fs::write(folder.path("more.txt"), corpus::stories(5, 500)).expect("a file");
    let given = |flags: &str| format!("{RESUME} {flags}");
    let files = ["--data", "1 file", "found 2 files"];
    folder.refuses(&given("--data text.txt more.txt"), 2, &files);
    folder.refuses(&given("--data more.txt"), 2, &["--data", "more.txt"]);
    folder.refuses(&given("--data missing.txt"), 1, &["missing.txt"]);
    folder.refuses(
        &given("--valid more.txt"),
        2,
        &["--valid", "0 files", "found 1 file"],
    );
    fs::remove_file(folder.path("text.txt")).expect("a file");
    folder.refuses(RESUME, 2, &["text.txt", "--data"]);
}

/// A pipe or a device is refused: a resumed run could not read it again.
#[cfg(unix)]
#[test]
fn texts_that_are_no_regular_files_are_refused() {
    let folder = Folder::with_text();
    begin(&folder, "run", HeadKind::Recursive);
    // In another folder, because comparing the contents of this one would wait for the pipe.
    let outside = tempfile::tempdir().expect("a temporary folder");
    let pipe = outside.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("a tool of the system").success());
    let train = "train --batch 2 --context 16 --steps 2 --out new";
    for path in ["/dev/null", "/dev/zero", pipe.to_str().expect("text")] {
        let data = ["--data", path, "regular file"];
        folder.refuses(&format!("{train} --data {path}"), 2, &data);
        folder.refuses(&format!("{train} --data text.txt {path}"), 2, &data);
        let learns = format!("{train} --tokenizer bpe:300 --data {path}");
        folder.refuses(&learns, 2, &data);
        folder.refuses(&format!("{RESUME} --data {path}"), 2, &data);
        let valid = ["--valid", path, "regular file"];
        let words = format!("{train} --data text.txt --valid {path}");
        folder.refuses(&words, 2, &valid);
        folder.refuses(&format!("{RESUME} --valid {path}"), 2, &valid);
    }
    // A text that has become one.
    fs::remove_file(folder.path("text.txt")).expect("a file");
    std::os::unix::fs::symlink(&pipe, folder.path("text.txt")).expect("a link");
    let output = folder.command(RESUME).output().expect("the binary");
    let names = ["--data", "text.txt", "regular file"];
    assert_refused(RESUME, &output, 2, &names);
}

#[test]
fn flags_that_differ_from_the_runs_are_refused_with_both_values() {
    let folder = Folder::with_text();
    let start = "train --data text.txt --batch 2 --context 16 --steps 2 --head-kind parallel --beta 0.5 --out run";
    folder.succeeds(start);
    for (flag, given, stored) in [
        ("--heads", "2", "--heads 3"),
        ("--head-kind", "recursive", "--head-kind parallel"),
        ("--head-width", "64", "--head-width 32"),
        ("--preset", "small", "--preset tiny"),
        ("--batch", "3", "--batch 2"),
        ("--context", "17", "--context 16"),
        ("--seed", "2", "--seed 1"),
        ("--lr", "0.001", "--lr 0.003"),
        ("--warmup", "1", "--warmup 0"),
        ("--lambda", "0.5", "--lambda 0.3"),
        ("--beta", "0.6", "--beta 0.5"),
        ("--accumulate", "2", "--accumulate 1"),
        ("--schedule", "cosine", "--schedule wsd"),
        ("--optimiser", "adamw", "--optimiser muon"),
        ("--regime", "detached", "--regime joint"),
        ("--lambda", "0.3:0.1", "--lambda 0.3"),
        ("--tokenizer", "bpe:300", "--tokenizer bytes"),
        ("--split-on", "x", "without that flag"),
        ("--valid-tokens", "9", "without that flag"),
        ("--init", "other", "without that flag"),
    ] {
        let given = format!("{flag} {given}");
        folder.refuses(&format!("{RESUME} {given}"), 2, &[&given, stored, "run"]);
    }
    folder.refuses(
        &format!("{RESUME} --steps 1"),
        2,
        &["--steps 1", "--steps 2"],
    );
    // Seeds beyond 2^53, above which an f64 has no odd numbers.
    let seeded = start.replace("--out run", "--seed 9007199254740993 --out seeded");
    folder.succeeds(&seeded);
    for seed in ["9007199254740992", "9007199254740994"] {
        let given = format!("--seed {seed}");
        let names = [&given, "--seed 9007199254740993"];
        folder.refuses(&format!("train --resume seeded {given}"), 2, &names);
    }
    folder.succeeds("train --resume seeded --seed 9007199254740993");
    let longer = ["--steps 3", "--steps 2", "--extend"];
    folder.refuses(&format!("{RESUME} --steps 3"), 2, &longer);
    folder.refuses(
        &format!("{RESUME} --out other"),
        2,
        &["--out", "cannot be used"],
    );
    folder.refuses(
        &format!("{RESUME} --force"),
        2,
        &["--force", "cannot be used"],
    );
    folder.refuses(&format!("{start}2 --extend"), 2, &["--extend", "--resume"]);
    // Flags that agree with the run, in any notation, and flags that change no weight.
    let agrees = "--batch 2 --lr 3e-3 --beta 0.50 --heads 3 --context 16 --steps 2 --threads 1 --log-every 7 \
                  --eval-every 1 --save-every 1 --data text.txt";
    folder.succeeds(&format!("{RESUME} {agrees}"));
    let before = fs::read(folder.path("run/model.safetensors")).expect("a file");
    folder.succeeds(&format!("{RESUME} --steps 4 --extend"));
    assert!(before != fs::read(folder.path("run/model.safetensors")).expect("a file"));
    folder.refuses(
        &format!("{RESUME} --steps 3"),
        2,
        &["--steps 3", "--steps 4"],
    );
}

#[test]
fn a_directory_without_a_run_is_refused() {
    let folder = Folder::with_model();
    folder.refuses(
        "train --resume missing",
        1,
        &["missing", "train_state.safetensors"],
    );
    folder.refuses(
        "train --resume model",
        1,
        &["model", "train_state.safetensors"],
    );
    folder.refuses("train --resume text.txt", 1, &["text.txt"]);
}

/// Changes the record of the state, and seals it again.
fn edit(folder: &Folder, edit: impl FnOnce(&mut Value)) {
    let path = folder.path(STATE);
    let (text, mut file) = read_state(&path).expect("a state");
    let mut record = serde_json::from_str(&text).expect("JSON");
    edit(&mut record);
    let bytes = fs::read(&path).expect("a file");
    let length = u64::from_le_bytes(*bytes.first_chunk().expect("a length")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("JSON");
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    let mut tensors = Vec::new();
    for name in &names {
        let shape: Vec<usize> =
            serde_json::from_value(header[name]["shape"].clone()).expect("a shape");
        let data = file.take(name, &shape).expect("a tensor");
        tensors.push((name.as_str(), shape, data));
    }
    let parts: Vec<_> = tensors
        .iter()
        .map(|(n, s, d)| (*n, s.as_slice(), d.as_slice()))
        .collect();
    fs::write(
        &path,
        encode_state(&record.to_string(), &parts).expect("finite"),
    )
    .expect("a file");
}

#[test]
fn a_state_that_belongs_to_something_else_is_refused() {
    let folder = Folder::with_text();
    begin(&folder, "run", HeadKind::Recursive);
    until(&folder, "run", 2);
    copy(&folder.path("run"), &folder.path("whole"));
    let state = fs::read(folder.path(STATE)).expect("a file");
    let file = "train_state.safetensors";
    let huge = json!(1_u64 << 60);
    for (place, value, code, names) in [
        ("/arithmetic", json!(7), 1, ["arithmetic version 7", file]),
        ("/step", json!(25), 1, ["step 25 of 24", file]),
        ("/step", json!(-1), 1, ["record", file]),
        ("/config/batch", huge.clone(), 2, ["--batch", "16777216"]),
        ("/config/batch", json!(0), 2, ["batch", "0"]),
        ("/config/context", json!(0), 2, ["context", "0"]),
        (
            "/config/context",
            json!(5000),
            2,
            ["--context: expected at most the model's 2048", "5000"],
        ),
        ("/config/seed", json!("1"), 1, ["record", file]),
        ("/config/peak_lr", json!(null), 1, ["record", file]),
        (
            "/model/mtp_depth",
            json!(1),
            1,
            ["mtp_depth", "config.json"],
        ),
        (
            "/model/hidden_size",
            huge,
            1,
            ["hidden_size", "config.json"],
        ),
        (
            "/tokenizer_sha256",
            json!("00"),
            1,
            ["tokenizer.json", "SHA-256"],
        ),
        ("/origin", json!({}), 1, ["record", file]),
        ("/config/optimiser", json!(null), 1, ["record", file]),
        ("/config/regime", json!("other"), 1, ["record", file]),
        ("/config/more", json!(1), 1, ["record", file]),
    ] {
        edit(&folder, |record| {
            let (parent, field) = place.rsplit_once('/').expect("a path");
            record.pointer_mut(parent).expect("an object")[field] = value;
        });
        folder.refuses(RESUME, code, &names);
        fs::write(folder.path(STATE), &state).expect("a file");
    }
    for (file, field) in [("config.json", "mtp_depth"), ("config.json", "rope_theta")] {
        let path = folder.path("run").join(file);
        let whole = fs::read(&path).expect("a file");
        edit_json(&path, |json| json[field] = json!(4));
        folder.refuses(RESUME, 1, &[file, field, "found 4"]);
        fs::write(&path, &whole).expect("a file");
    }
    folder.succeeds(RESUME);
    folder.succeeds("train --resume whole");
    same("refused often", &folder.path("run"), &folder.path("whole"));
}

#[test]
fn a_damaged_state_is_one_clear_error() {
    let folder = Folder::with_text();
    begin(&folder, "run", HeadKind::Parallel);
    until(&folder, "run", 2);
    let whole = fs::read(folder.path(STATE)).expect("a file");
    let header = u64::from_le_bytes(*whole.first_chunk().expect("a length")) as usize;
    let refuses = |bytes: &[u8], reason: &str| {
        fs::write(folder.path(STATE), bytes).expect("a file");
        folder.refuses(RESUME, 1, &["train_state.safetensors", reason]);
    };
    for cut in [1, 9, 8 + header / 2, 8 + header, whole.len() - 1] {
        refuses(&whole[..cut], "truncated");
    }
    refuses(b"", "empty");
    refuses(&[&whole[..], b"x"].concat(), "too long");
    for at in [8 + header, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 16;
        refuses(&bytes, "damaged");
    }
    let model = fs::read(folder.path("run/model.safetensors")).expect("a file");
    refuses(&model, "no record of a run");
    fs::write(folder.path(STATE), &whole).expect("a file");
    folder.succeeds(RESUME);
}
