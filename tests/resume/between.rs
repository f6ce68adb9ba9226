//! Checkpoints in the middle of a run, each killed at a known step, and what a run remembers before the next one.

use crate::runs::{STEPS, begin, begin_with, copy, kill_at, options, record, same, step, until};
use crate::support::Folder;
use foretoken::model::HeadKind;
use foretoken::train::{Options, Run, Saving, TextFile};
use std::fs;

/// So many steps that a run killed in the middle is never at its end before the kill arrives.
const LONG: u64 = 400;

/// A run of [`LONG`] steps with an evaluation every so many.
fn begin_long(folder: &Folder, name: &str, eval_every: u64) {
    let mut long = Options {
        steps: LONG,
        eval_every,
        ..options(HeadKind::Parallel)
    };
    long.schedule.steps = LONG;
    begin_with(folder, name, HeadKind::Parallel, &long);
}

#[test]
fn a_killed_run_goes_on_from_between_its_ends() {
    let folder = Folder::with_text();
    begin_long(&folder, "run", 1000);
    copy(&folder.path("run"), &folder.path("whole"));
    folder.succeeds("train --resume whole --save-every 5 --threads 1");
    kill_at(&folder, "train --resume run --save-every 5", 12);
    let first = step(&folder.path("run"));
    assert!((10..LONG).contains(&first), "{first}");
    assert!(first.is_multiple_of(5), "{first}");
    // The run keeps what it was told, and forgets nothing when it is killed before it could make a checkpoint.
    kill_at(&folder, "train --resume run", first + 1);
    let again = step(&folder.path("run"));
    kill_at(&folder, "train --resume run", again + 13);
    let second = step(&folder.path("run"));
    assert!((again + 10..LONG).contains(&second), "{again} {second}");
    assert!(second.is_multiple_of(5), "{second}");
    folder.succeeds("train --resume run");
    same("killed", &folder.path("run"), &folder.path("whole"));
}

#[test]
fn checkpoints_are_made_when_they_are_asked_for() {
    let folder = Folder::with_text();
    // After each evaluation, where nothing is asked for.
    begin_long(&folder, "run", 7);
    kill_at(&folder, "train --resume run", 16);
    let first = step(&folder.path("run"));
    assert!((14..LONG).contains(&first), "{first}");
    assert!(first.is_multiple_of(7), "{first}");
    // In steps, and in other steps where a resumed run is told so.
    for every in [4, 9] {
        let from = step(&folder.path("run"));
        let resume = format!("train --resume run --save-every {every}");
        kill_at(&folder, &resume, from + 2 * every);
        let next = step(&folder.path("run"));
        assert!((from + 1..LONG).contains(&next), "{from} {next}");
        assert!(next.is_multiple_of(every), "{every}: {from} {next}");
        assert_eq!(record(&folder.path("run"))["intervals"]["every"], every);
    }
    // By the clock: here so often that every step has one.
    begin_long(&folder, "clock", 1000);
    kill_at(&folder, "train --resume clock --save-minutes 1e-9", 9);
    let first = step(&folder.path("clock"));
    assert!((8..LONG).contains(&first), "{first}");
    kill_at(&folder, "train --resume clock", first + 9);
    let second = step(&folder.path("clock"));
    assert!((first + 8..LONG).contains(&second), "{second}");
    for (flag, value) in [
        ("--save-every", "0"),
        ("--save-minutes", "0"),
        ("--save-minutes", "-1"),
        ("--save-minutes", "nan"),
        ("--save-minutes", "1e300"),
    ] {
        folder.refuses(&format!("train --resume run {flag}={value}"), 2, &[flag]);
    }
}

#[test]
fn a_kill_before_the_next_checkpoint_does_not_undo_an_extension() {
    let folder = Folder::with_text();
    begin(&folder, "run", HeadKind::Recursive);
    until(&folder, "run", 9);
    copy(&folder.path("run"), &folder.path("whole"));
    fs::rename(folder.path("text.txt"), folder.path("moved.txt")).expect("a file");
    let moved = TextFile::read(&[folder.path("moved.txt")]).expect("a text");
    let extend = "--steps 30 --extend --data moved.txt --save-every 3";
    folder.succeeds(&format!("train --resume whole {extend}"));

    // All that the program does before the first step, and no step.
    let mut saving = Saving::default();
    saving.intervals.every = Some(3);
    let (mut run, trainer, _) = Run::open(&folder.path("run"), saving).expect("a run");
    let mut longer = run.record().options.clone();
    (longer.steps, longer.schedule.steps) = (30, 30);
    run.set_texts(moved.clone(), Vec::new())
        .expect("the same text");
    run.go_on(longer, &trainer).expect("a directory");
    drop((run, trainer));
    assert_eq!(step(&folder.path("run")), 9);
    folder.succeeds("train --resume run");
    same("extended", &folder.path("run"), &folder.path("whole"));
}

#[test]
fn an_extension_outlives_the_program_that_was_asked_for_it() {
    let folder = Folder::with_text();
    begin(&folder, "run", HeadKind::Medusa);
    folder.succeeds("train --resume run");
    fs::rename(folder.path("text.txt"), folder.path("moved.txt")).expect("a file");
    // No checkpoint comes before the kill.
    let extend = "train --resume run --steps 1000000 --extend --data moved.txt --eval-every 1000000 \
                  --save-every 1000000";
    kill_at(&folder, extend, STEPS + 1);
    let record = record(&folder.path("run"));
    assert_eq!(record["step"], STEPS);
    assert_eq!(record["options"]["steps"], 1_000_000);
    assert_eq!(record["options"]["schedule"]["steps"], 1_000_000);
    assert_eq!(record["options"]["eval_every"], 1_000_000);
    assert_eq!(record["intervals"]["every"], 1_000_000);
    let path = record["origin"]["data"][0]["path"].as_str().expect("text");
    assert!(path.ends_with("moved.txt"), "{path}");
    // The text is found where it was last.
    kill_at(&folder, "train --resume run", STEPS + 2);
}
