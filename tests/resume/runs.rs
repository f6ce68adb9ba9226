//! Small runs and what is left of them.

use crate::support::{Folder, objects};
use foretoken::data::{Tokenizer, read_tokens, split};
use foretoken::model::{HeadKind, JointLoss, Model, Preset};
use foretoken::train::{
    Event, Kind, Options, Origin, Run, Saving, Schedule, Settings, Shape, TextFile, Trainer,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
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

pub fn options() -> Options {
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
        eval_every: 7,
        log_every: 1,
    }
}

/// Recursive heads are trained by Muon, others by AdamW, so that both have a state to lose.
fn trainer(kind: HeadKind) -> Trainer {
    let mut config = Preset::Tiny.config(257, kind, 2);
    (config.hidden_size, config.intermediate_size) = (16, 32);
    (config.num_hidden_layers, config.head_dim) = (1, 8);
    (config.num_attention_heads, config.num_key_value_heads) = (2, 1);
    config.set_head_width(8);
    let optimiser = match kind {
        HeadKind::Recursive => Kind::Muon,
        _ => Kind::AdamW,
    };
    let model = Model::new(config, 5).expect("sound sizes");
    Trainer::with(model, Settings::of(optimiser))
}

/// Makes the directory `name` of a run on `text.txt` that has done no step.
pub fn begin(folder: &Folder, name: &str, kind: HeadKind) {
    begin_with(folder, name, kind, &options());
}

/// The same with other options.
pub fn begin_with(folder: &Folder, name: &str, kind: HeadKind, options: &Options) {
    let data = TextFile::read(&[folder.path("text.txt")]).expect("a text");
    let origin = Origin {
        data,
        ..Origin::default()
    };
    let tokenizer = Tokenizer::bytes();
    let (path, plan) = (folder.path(name), (options, &tokenizer));
    let trainer = trainer(kind);
    let run = Run::create(&path, &trainer, plan, origin, Saving::default(), false);
    drop(run.expect("a new directory"));
}

/// The hash of the weights after the same run in this process, with no directory.
pub fn undisturbed(folder: &Folder, kind: HeadKind) -> String {
    let tokenizer = Tokenizer::bytes();
    let tokens = read_tokens(&[folder.path("text.txt")], &tokenizer).expect("a text");
    let (train, valid) = split(&tokens);
    let mut sha = String::new();
    let mut watch = |event: &Event| {
        if let Event::Done { sha256, .. } = event {
            sha = sha256.clone();
        }
    };
    let data = (train.into(), valid);
    let run = trainer(kind).run(&options(), data, &tokenizer, None, &mut watch);
    run.expect("a finite run");
    sha
}

/// Goes on in this process until this step is done, and stops there with a checkpoint.
pub fn until(folder: &Folder, name: &str, step: u64) {
    let saving = Saving::default();
    let stop = saving.stop.clone();
    let (run, mut trainer, tokenizer) = Run::open(&folder.path(name), saving).expect("a run");
    let tokens = read_tokens(&[folder.path("text.txt")], &tokenizer).expect("a text");
    let (train, valid) = split(&tokens);
    let mut watch = |event: &Event| match event {
        Event::Step { step: done, .. } if *done == step => stop.store(2, Ordering::Relaxed),
        _ => {}
    };
    let (data, options) = ((train.into(), valid), run.record().options.clone());
    let ran = trainer.run(&options, data, &tokenizer, Some(&run), &mut watch);
    ran.expect("a finite run");
    assert_eq!(trainer.steps(), step);
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
