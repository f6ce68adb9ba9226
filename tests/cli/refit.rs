//! Heads removed from a trained model, and new ones trained on it: `export` and `train --init`.

use crate::support::{Folder, assert_refused, objects};
use foretoken::checkpoint::ModelDir;
use foretoken::model::{HeadKind, Model, layout};
use std::process::Stdio;
use std::time::Duration;

const TRAIN: &str = "train --data text.txt --steps 3 --batch 2 --context 12 --threads 1";

fn load(folder: &Folder, name: &str) -> Model {
    ModelDir::load(&folder.path(name)).expect("a model").0
}

/// The trunk's tensors by name, as bits.
fn trunk(model: &Model) -> Vec<(String, Vec<u32>)> {
    let trunk = model
        .params()
        .iter()
        .filter(|(name, _)| !layout::is_head(name));
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect();
    trunk
        .map(|(name, t)| (name.to_owned(), bits(t.data())))
        .collect()
}

#[test]
fn an_exported_trunk_writes_what_the_model_writes() {
    let folder = Folder::with_model();
    folder.succeeds("export model --out bare --without-heads");
    folder.succeeds("export model --out one --heads 1");
    folder.succeeds("export model --out all");
    let depths = ["bare", "one", "all"].map(|name| load(&folder, name).config().mtp_depth);
    assert_eq!(depths, [0, 1, 3]);
    let model = load(&folder, "model");
    for name in ["bare", "one", "all"] {
        assert_eq!(trunk(&load(&folder, name)), trunk(&model), "{name}");
        let generate = |dir: &str, way: &str| {
            let words =
                format!("generate {dir} --prompt once --max-tokens 30 --json --decode {way}");
            objects(&folder.succeeds(&words)).remove(0)["tokens"].clone()
        };
        assert_eq!(generate(name, "plain"), generate("model", "plain"));
        assert_eq!(generate(name, "speculative"), generate("model", "plain"));
    }
    let bare = objects(&folder.succeeds("inspect bare --json")).remove(0);
    assert_eq!(
        (&bare["head_parameters"], &bare["shared_parameters"]),
        (&0.into(), &0.into())
    );
    folder.refuses("export model --out one", 2, &["one exists", "--force"]);
    folder.refuses("export nowhere --out two", 1, &["nowhere", "config.json"]);
    folder.succeeds("export model --out one --force");
    assert_eq!(load(&folder, "one").config().mtp_depth, 3);
}

#[test]
fn heads_of_every_kind_are_trained_on_a_frozen_trunk() {
    let folder = Folder::with_model();
    folder.succeeds("export model --out bare --without-heads");
    let before = trunk(&load(&folder, "bare"));
    for kind in HeadKind::ALL {
        let name = kind.name();
        let flags = format!("--head-kind {name} --heads 2 --head-width 8 --freeze-trunk");
        folder.succeeds(&format!("{TRAIN} --init bare --out {name} {flags}"));
        let model = load(&folder, name);
        assert_eq!(trunk(&model), before, "{name}");
        assert_eq!(
            (model.config().mtp_kind, model.config().mtp_depth),
            (kind, 2)
        );
    }
    let own = format!("{TRAIN} --init bare --tokenizer bytes --out own");
    folder.refuses(&own, 2, &["--tokenizer", "--init"]);
    // Without --freeze-trunk the trunk learns too, and without flags for heads the model's own are trained further.
    folder.succeeds(&format!("{TRAIN} --init model --out more"));
    let (more, model) = (load(&folder, "more"), load(&folder, "model"));
    assert_ne!(trunk(&more), trunk(&model));
    assert_eq!(
        more.config().mtp_hidden_size,
        model.config().mtp_hidden_size
    );
    assert_eq!(more.config().mtp_depth, 3);
}

#[test]
fn every_regime_runs_and_reports_the_active_heads() {
    let folder = Folder::with_text();
    let run = |flags: &str| -> Vec<usize> {
        let words = format!("{TRAIN} --heads 2 --log-every 1 --json --force --out run {flags}");
        let events = objects(&folder.succeeds(&words)).into_iter();
        let steps = events.filter(|e| e["event"] == "step");
        steps
            .map(|e| {
                let losses = e["loss_heads"].as_array().expect("losses");
                assert_eq!(losses.len(), 3);
                losses.iter().filter(|loss| loss.is_number()).count()
            })
            .collect()
    };
    assert_eq!(run("--regime joint --lambda 1:0"), [3, 3, 3]);
    assert_eq!(run("--regime detached"), [3, 3, 3]);
    assert_eq!(run("--regime curriculum"), [1, 2, 3]);
    assert_eq!(run("--regime reverse"), [3, 2, 1]);
}

#[test]
fn a_run_that_trains_is_not_replaced_by_an_export() {
    let folder = Folder::with_model();
    let train =
        "train --data text.txt --context 16 --batch 1 --steps 1000000 --threads 1 --out run";
    let mut training = folder.command(train).stderr(Stdio::null()).spawn().unwrap();
    // The directory appears with all its files, and the lock is held by then.
    while !folder.path("run").exists() {
        assert!(training.try_wait().unwrap().is_none(), "training ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    let export = "export model --out run --force";
    let output = folder.command(export).output().unwrap();
    assert_refused(export, &output, 2, &["run", "another process is training"]);
    assert!(folder.path("run/train_state.safetensors").exists());
    assert!(training.try_wait().unwrap().is_none(), "training ended");
    training.kill().unwrap();
    training.wait().unwrap();
    folder.succeeds(export);
    assert!(!folder.path("run/train_state.safetensors").exists());
}
