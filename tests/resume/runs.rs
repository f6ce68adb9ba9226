//! Small runs and their directories.

use crate::support::{Folder, objects};
use foretoken::checkpoint::read_state;
use foretoken::data::{Tokenizer, Tokens, open_tokens};
use foretoken::model::{HeadKind, Model, Preset};
use foretoken::train::{
    Event, Observer, Optimiser, Origin, Regime, Run, TextFile, TrainConfig, Trainer,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

pub const STEPS: u64 = 24;

/// Files of a run's directory while nothing is being written.
pub const FILES: [&str; 6] = [
    "config.json",
    "metrics.jsonl",
    "model.safetensors",
    "tokenizer.json",
    "train.lock",
    "train_state.safetensors",
];

/// Each kind of heads is trained in a different way. Recursive and Medusa heads use Muon, the others AdamW, so that
/// both have a state to lose.
pub fn config(kind: HeadKind) -> TrainConfig {
    let mut config = TrainConfig::default();
    (config.steps, config.batch, config.accumulate) = (STEPS, 2, 2);
    (config.context, config.seed) = (12, 9);
    (config.peak_lr, config.warmup) = (5e-3, Some(3));
    (config.lambda, config.beta) = (0.7, 0.3);
    (config.eval_every, config.log_every) = (7, 1);
    config.valid_tokens = Some(usize::MAX);
    (config.regime, config.lambda_end, config.optimiser) = match kind {
        HeadKind::Recursive => (Regime::Curriculum, Some(0.2), Optimiser::MUON),
        HeadKind::Sequential => (Regime::Detached, None, Optimiser::ADAMW),
        HeadKind::Parallel => (Regime::Joint, None, Optimiser::ADAMW),
        _ => (Regime::Reverse, Some(1.1), Optimiser::MUON),
    };
    config
}

fn trainer(kind: HeadKind, vocab: usize, config: &TrainConfig) -> Trainer {
    let mut model = Preset::Tiny.config(vocab, kind, 2);
    (model.hidden_size, model.intermediate_size) = (16, 32);
    (model.num_hidden_layers, model.head_dim) = (1, 8);
    (model.num_attention_heads, model.num_key_value_heads) = (2, 1);
    model.set_head_width(8);
    let model = Model::new(model, 5).expect("valid sizes");
    Trainer::new(model, config.clone()).expect("a valid configuration")
}

/// Watches a run, and stops it after a step.
pub struct StopAfter(pub u64, bool);

impl StopAfter {
    pub fn step(step: u64) -> Self {
        Self(step, false)
    }
}

impl Observer for StopAfter {
    fn event(&mut self, _: &Event) {}

    fn stepped(&mut self, steps: u64) {
        self.1 |= steps == self.0;
    }

    fn stop(&mut self) -> bool {
        self.1
    }
}

/// Makes the directory `name` of a run on `text.txt` that has done no step.
pub fn begin(folder: &Folder, name: &str, kind: HeadKind) {
    begin_with(folder, name, kind, &config(kind));
}

/// The same with a different configuration.
pub fn begin_with(folder: &Folder, name: &str, kind: HeadKind, config: &TrainConfig) {
    let data = TextFile::read(&[folder.path("text.txt")]).expect("a text");
    let origin = Origin {
        data,
        ..Origin::default()
    };
    begin_on(folder, name, kind, config, &Tokenizer::bytes(), origin);
}

/// The same with other texts.
pub fn begin_on(
    folder: &Folder,
    name: &str,
    kind: HeadKind,
    config: &TrainConfig,
    tokenizer: &Tokenizer,
    origin: Origin,
) {
    let trainer = trainer(kind, tokenizer.vocab_size(), config);
    let run = Run::create(&folder.path(name), &trainer, tokenizer, origin, false);
    drop(run.expect("a new directory"));
}

/// SHA-256 of the weights after the same run in this process, without a directory.
pub fn uninterrupted(folder: &Folder, kind: HeadKind) -> String {
    let tokenizer = Tokenizer::bytes();
    let tokens = open_tokens(&[folder.path("text.txt")], &tokenizer, None).expect("a text");
    uninterrupted_on(kind, &config(kind), &tokenizer, &tokens)
}

/// The same with a different configuration and different texts.
pub fn uninterrupted_on(
    kind: HeadKind,
    config: &TrainConfig,
    tokenizer: &Tokenizer,
    tokens: &Tokens,
) -> String {
    let (train, valid) = tokens.split();
    let mut sha = String::new();
    let mut watch = |event: &Event| {
        if let Event::Done { sha256, .. } = event {
            sha = sha256.clone();
        }
    };
    let mut trainer = trainer(kind, tokenizer.vocab_size(), config);
    let run = trainer.run(train, valid, tokenizer, None, &mut watch);
    run.expect("a finite run");
    sha
}

/// Resumes in this process until this step is done, and stops there with a checkpoint.
pub fn until(folder: &Folder, name: &str, step: u64) {
    let (mut run, mut trainer, tokenizer) = Run::open(&folder.path(name)).expect("a run");
    let origin = run.origin().clone();
    let paths: Vec<PathBuf> = origin.data.into_iter().map(|file| file.path).collect();
    let tokens = open_tokens(&paths, &tokenizer, origin.separator.as_deref()).expect("tokens");
    let (train, valid) = tokens.split();
    let mut stop = StopAfter::step(step);
    let ran = trainer.run(train, valid, &tokenizer, Some(&mut run), &mut stop);
    ran.expect("a finite run");
    assert_eq!(trainer.steps(), step);
}

/// The record of the last checkpoint in a directory. Nothing is locked or removed.
pub fn record(dir: &Path) -> Value {
    let (text, _) = read_state(&dir.join("train_state.safetensors")).expect("a state");
    serde_json::from_str(&text).expect("JSON")
}

/// The step of the last checkpoint.
pub fn step(dir: &Path) -> u64 {
    record(dir)["step"].as_u64().expect("a step")
}

/// Resumes with the real program and kills it as soon as it reports this step. The run must be endless.
pub fn kill_at(folder: &Folder, words: &str, step: u64) {
    let killed = try_kill_at(folder, words, step);
    assert!(killed, "{words} had ended before it was killed");
}

/// The same for a run that may end before the kill arrives. Returns whether it was killed.
pub fn try_kill_at(folder: &Folder, words: &str, step: u64) -> bool {
    let mut command = folder.command(&format!("{words} --json --log-every 1 --threads 1"));
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the binary");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let reached = |line: std::io::Result<String>| {
        let event = objects(&line.expect("text")).remove(0);
        event["event"] == "step" && event["step"].as_u64() >= Some(step)
    };
    assert!(lines.any(reached), "{words} ended before step {step}");
    child.kill().expect("a child");
    let status = child.wait().expect("a child");
    assert!(matches!(status.code(), None | Some(0)), "{words}: {status}");
    status.code().is_none()
}

/// Copies a directory of files.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a file");
    }
}

/// A directory's files by name.
pub fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("text");
        (name, fs::read(entry.path()).expect("a file"))
    };
    fs::read_dir(dir).expect("a directory").map(read).collect()
}

/// The lines of the metrics without the fields that depend on the clock and the path.
fn events(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("metrics.jsonl")).expect("a file");
    let clocked = [
        "tokens_per_s",
        "training_seconds",
        "seconds",
        "peak_rss_mb",
        "dir",
    ];
    let mut events = objects(&text);
    for event in &mut events {
        let fields = event.as_object_mut().expect("an object");
        for key in clocked {
            fields.remove(key);
        }
    }
    events
}

/// Asserts that two finished runs left the same files, to the byte if no clock is in them.
#[track_caller]
pub fn same(what: &str, got: &Path, expected: &Path) {
    let (mut a, mut b) = (files(got), files(expected));
    let names: Vec<PathBuf> = a.keys().map(PathBuf::from).collect();
    assert_eq!(names, FILES.map(PathBuf::from), "{what}");
    for files in [&mut a, &mut b] {
        files.remove("metrics.jsonl");
    }
    for (name, bytes) in a {
        assert!(bytes == b[&name], "{what}: {name} differs");
    }
    assert_eq!(events(got), events(expected), "{what}");
}
