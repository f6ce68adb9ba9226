//! Small runs and what is left of them.

use crate::support::{Folder, objects};
use foretoken::checkpoint::read_state;
use foretoken::data::{Tokenizer, Tokens, open_tokens};
use foretoken::model::{HeadKind, JointLoss, Model, Preset};
use foretoken::train::{
    Event, Kind, Options, Origin, Plan, Regime, Run, Saving, Schedule, Settings, Shape, TextFile,
    Trainer,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;

pub const STEPS: u64 = 24;

/// Files of a run's directory when nothing is under way.
pub const FILES: [&str; 6] = [
    "config.json",
    "metrics.jsonl",
    "model.safetensors",
    "tokenizer.json",
    "train.lock",
    "train_state.safetensors",
];

/// Each kind of heads is trained by another plan.
pub fn options(kind: HeadKind) -> Options {
    let (regime, lambda_end) = match kind {
        HeadKind::Recursive => (Regime::Curriculum, Some(0.2)),
        HeadKind::Sequential => (Regime::Detached, None),
        HeadKind::Parallel => (Regime::Joint, None),
        HeadKind::Medusa => (Regime::Reverse, Some(1.1)),
    };
    Options {
        steps: STEPS,
        batch: 2,
        accumulate: 2,
        context: 12,
        seed: 9,
        schedule: Schedule {
            peak: 5e-3,
            warmup: 3,
            steps: STEPS,
            floor: 0.1,
            shape: Shape::Wsd,
        },
        joint: JointLoss {
            lambda: 0.7,
            beta: 0.3,
        },
        plan: Plan {
            regime,
            lambda_end,
            freeze_trunk: false,
        },
        eval_every: 7,
        log_every: 1,
    }
}

/// Recursive and Medusa heads are trained by Muon, others by AdamW, so that both have a state to lose.
fn trainer(kind: HeadKind, vocab: usize) -> Trainer {
    let mut config = Preset::Tiny.config(vocab, kind, 2);
    (config.hidden_size, config.intermediate_size) = (16, 32);
    (config.num_hidden_layers, config.head_dim) = (1, 8);
    (config.num_attention_heads, config.num_key_value_heads) = (2, 1);
    config.set_head_width(8);
    let optimiser = match kind {
        HeadKind::Recursive | HeadKind::Medusa => Kind::Muon,
        _ => Kind::AdamW,
    };
    let model = Model::new(config, 5).expect("sound sizes");
    Trainer::with(model, Settings::of(optimiser))
}

/// Makes the directory `name` of a run on `text.txt` that has done no step.
pub fn begin(folder: &Folder, name: &str, kind: HeadKind) {
    begin_with(folder, name, kind, &options(kind));
}

/// The same with other options.
pub fn begin_with(folder: &Folder, name: &str, kind: HeadKind, options: &Options) {
    let data = TextFile::read(&[folder.path("text.txt")]).expect("a text");
    let origin = Origin {
        data,
        ..Origin::default()
    };
    begin_on(folder, name, kind, (options, &Tokenizer::bytes()), origin);
}

/// The same with other texts.
pub fn begin_on(
    folder: &Folder,
    name: &str,
    kind: HeadKind,
    plan: (&Options, &Tokenizer),
    origin: Origin,
) {
    let path = folder.path(name);
    let trainer = trainer(kind, plan.1.vocab_size());
    let run = Run::create(&path, &trainer, plan, origin, Saving::default(), false);
    drop(run.expect("a new directory"));
}

/// The hash of the weights after the same run in this process, with no directory.
pub fn undisturbed(folder: &Folder, kind: HeadKind) -> String {
    let tokenizer = Tokenizer::bytes();
    let tokens = open_tokens(&[folder.path("text.txt")], &tokenizer, None).expect("a text");
    undisturbed_on(kind, (&options(kind), &tokenizer), &tokens)
}

/// The same with other options and texts.
pub fn undisturbed_on(
    kind: HeadKind,
    (options, tokenizer): (&Options, &Tokenizer),
    tokens: &Tokens,
) -> String {
    let (train, valid) = tokens.split();
    let valid = valid.first(usize::MAX).expect("tokens");
    let mut sha = String::new();
    let mut watch = |event: &Event| {
        if let Event::Done { sha256, .. } = event {
            sha = sha256.clone();
        }
    };
    let mut trainer = trainer(kind, tokenizer.vocab_size());
    let run = trainer.run(options, (train, &valid), tokenizer, None, &mut watch);
    run.expect("a finite run");
    sha
}

/// Goes on in this process until this step is done, and stops there with a checkpoint.
pub fn until(folder: &Folder, name: &str, step: u64) {
    let saving = Saving::default();
    let stop = saving.stop.clone();
    let (run, mut trainer, tokenizer) = Run::open(&folder.path(name), saving).expect("a run");
    let origin = run.record().origin.clone();
    let paths: Vec<PathBuf> = origin.data.into_iter().map(|file| file.path).collect();
    let tokens = open_tokens(&paths, &tokenizer, origin.separator.as_deref()).expect("tokens");
    let (train, valid) = tokens.split();
    let valid = valid.first(origin.valid_tokens.unwrap_or(usize::MAX));
    let valid = valid.expect("tokens");
    let mut watch = |event: &Event| match event {
        Event::Step { step: done, .. } if *done == step => stop.store(2, Ordering::Relaxed),
        _ => {}
    };
    let (data, options) = ((train, &*valid), run.record().options.clone());
    let ran = trainer.run(&options, data, &tokenizer, Some(&run), &mut watch);
    ran.expect("a finite run");
    assert_eq!(trainer.steps(), step);
}

/// What the last checkpoint in a directory recorded. Nothing is locked and nothing removed.
pub fn record(dir: &Path) -> Value {
    let (text, _) = read_state(&dir.join("train_state.safetensors")).expect("a state");
    serde_json::from_str(&text).expect("JSON")
}

/// The step of the last checkpoint.
pub fn step(dir: &Path) -> u64 {
    record(dir)["step"].as_u64().expect("a step")
}

/// Goes on with the real program and kills it as soon as it says that this step is done. The run has to be much longer.
pub fn kill_at(folder: &Folder, words: &str, step: u64) {
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
    assert_eq!(
        status.code(),
        None,
        "{words} had ended before it was killed"
    );
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

/// The lines of the metrics without what depends on the clock and on the place.
fn events(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("metrics.jsonl")).expect("a file");
    let mut events = objects(&text);
    for event in &mut events {
        let fields = event.as_object_mut().expect("an object");
        for key in ["tokens_per_s", "seconds", "peak_rss_mb", "dir"] {
            fields.remove(key);
        }
    }
    events
}

/// Asserts that two finished runs left the same, to the byte where no clock is in it.
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
