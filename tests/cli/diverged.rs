//! Runs that diverge: what they report, and what they leave on the disk.

use crate::support::{Folder, objects};
use serde_json::Value;
use std::fs;

/// A run that takes a second or less.
const TRAIN: &str = "train --data text.txt --out run --batch 2 --context 16 --steps 3";

#[test]
fn a_run_that_diverges_names_the_step_and_leaves_a_good_model() {
    let folder = Folder::with_text();
    // Learning rates that overflow the weights at once, which the evaluation finds, or after another step.
    for (lr, every, steps) in [
        ("1e30", 1000, 20),
        ("1e30", 1, 20),
        ("3.4e38", 1000, 20),
        ("3.4e38", 1, 20),
        ("3.4e38", 1000, 1),
    ] {
        let train = TRAIN.replace(
            "--steps 3",
            &format!("--steps {steps} --force --json --log-every 1"),
        );
        let words = format!("{train} --lr {lr} --eval-every {every}");
        let output = folder.command(&words).output().expect("the binary");
        let errors = String::from_utf8_lossy(&output.stderr);
        let what = format!("{words}: {errors}");
        assert_eq!(output.status.code(), Some(1), "{what}");
        // All runs but the first say what they replace.
        let said = |line: &&str| !line.starts_with("replaced run: ");
        let errors: String = errors.split_inclusive('\n').filter(said).collect();
        assert!(
            errors.starts_with("error: step ") && errors.lines().count() == 1,
            "{what}"
        );
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(
            objects(&printed)
                .iter()
                .all(|event| event["event"] != "done"),
            "{what}"
        );
        // The message names the checkpoint that is on the disk.
        let state = folder.path("run/train_state.safetensors");
        let (record, _) = foretoken::checkpoint::read_state(&state).expect("a state");
        let record: Value = serde_json::from_str(&record).expect("JSON");
        let step = &record["step"];
        let left = format!("; the checkpoint of step {step} is kept in run\n");
        assert!(errors.ends_with(&left), "{what}");
        let metrics = fs::read_to_string(folder.path("run/metrics.jsonl")).expect("a file");
        assert_eq!(objects(&metrics), objects(&printed), "{what}");
        // The weights are those from before the run diverged: their loss is finite.
        let kept = objects(&folder.succeeds("eval run --data text.txt --json"));
        assert!(kept[0]["loss"].as_f64().expect("a number") < 8.0, "{what}");
        let names = fs::read_dir(folder.path("run"))
            .expect("a directory")
            .count();
        assert_eq!(names, 6, "{what}");
    }
}

/// A learning rate that takes a few steps to diverge, so that there is a checkpoint after the initial one.
#[test]
fn a_run_that_diverges_names_the_last_checkpoint() {
    let folder = Folder::with_text();
    let train = TRAIN.replace("--steps 3", "--steps 20 --save-every 1 --lr 1e12");
    let output = folder.command(&train).output().expect("the binary");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let state = folder.path("run/train_state.safetensors");
    let (record, _) = foretoken::checkpoint::read_state(&state).expect("a state");
    let record: Value = serde_json::from_str(&record).expect("JSON");
    let step = record["step"].as_u64().expect("a step");
    assert!(step > 0, "{errors}");
    let (failed, left) = (
        format!("error: step {}: ", step + 1),
        format!("; the checkpoint of step {step} is kept in run\n"),
    );
    assert!(
        errors.starts_with(&failed) && errors.ends_with(&left),
        "{errors}"
    );
}
