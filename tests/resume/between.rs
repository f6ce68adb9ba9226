//! Checkpoints in the middle of a run, each killed at a known step, and what a run remembers before the next one.

use crate::runs::{
    STEPS, begin, begin_with, config, copy, kill_at, record, same, step, try_kill_at, until,
};
use crate::support::Folder;
use foretoken::model::HeadKind;
use foretoken::train::{Run, TextFile};
use std::fs;

/// Enough steps that a run to be killed in the middle seldom finishes before the kill arrives, and few enough to
/// compare it with an uninterrupted run.
const LONG: u64 = 400;

/// Enough steps that a run never finishes: they would take minutes.
const ENDLESS: u64 = 1_000_000;

/// A run of `steps` steps with an evaluation every `eval_every`.
fn begin_long(folder: &Folder, name: &str, steps: u64, eval_every: u64) {
    let mut long = config(HeadKind::Parallel);
    (long.steps, long.eval_every) = (steps, eval_every);
    begin_with(folder, name, HeadKind::Parallel, &long);
}

#[test]
fn a_killed_run_goes_on_from_between_its_ends() {
    let folder = Folder::with_text();
    begin_long(&folder, "start", LONG, 1000);
    copy(&folder.path("start"), &folder.path("whole"));
    folder.succeeds("train --resume whole --save-every 5 --threads 1");
    // On a busy machine a run may end before the kill arrives. Then it is started again.
    let killed = (0..20).any(|_| {
        copy(&folder.path("start"), &folder.path("run"));
        let killed = killed_three_times(&folder);
        folder.succeeds("train --resume run");
        same("killed", &folder.path("run"), &folder.path("whole"));
        fs::remove_dir_all(folder.path("run")).expect("a directory");
        killed
    });
    assert!(killed, "each run came to its end before it was killed");
}

/// Whether the run was killed three times, each time before its end.
fn killed_three_times(folder: &Folder) -> bool {
    let done = || step(&folder.path("run"));
    if !try_kill_at(folder, "train --resume run --save-every 5", 12) || done() == LONG {
        return false;
    }
    let first = done();
    assert!(first >= 10 && first.is_multiple_of(5), "{first}");
    // The run keeps its interval, even if it is killed before it could make a checkpoint.
    if LONG < first + 14 || !try_kill_at(folder, "train --resume run", first + 1) {
        return false;
    }
    let again = done();
    if LONG < again + 14 || !try_kill_at(folder, "train --resume run", again + 13) {
        return false;
    }
    let second = done();
    assert!(second >= again + 10, "{again} {second}");
    assert!(second.is_multiple_of(5), "{second}");
    second < LONG
}

#[test]
fn checkpoints_are_made_when_they_are_asked_for() {
    let folder = Folder::with_text();
    // By default, after each evaluation.
    begin_long(&folder, "run", ENDLESS, 7);
    kill_at(&folder, "train --resume run", 16);
    let first = step(&folder.path("run"));
    assert!((14..ENDLESS).contains(&first), "{first}");
    assert!(first.is_multiple_of(7), "{first}");
    // Every given number of steps; a resumed run may change it.
    for every in [4, 9] {
        let from = step(&folder.path("run"));
        let resume = format!("train --resume run --save-every {every}");
        kill_at(&folder, &resume, from + 2 * every);
        let next = step(&folder.path("run"));
        assert!((from + 1..ENDLESS).contains(&next), "{from} {next}");
        assert!(next.is_multiple_of(every), "{every}: {from} {next}");
        assert_eq!(record(&folder.path("run"))["config"]["save_every"], every);
    }
    // By time: here often enough that every step has one.
    begin_long(&folder, "clock", ENDLESS, 1000);
    kill_at(&folder, "train --resume clock --save-minutes 1e-9", 9);
    let first = step(&folder.path("clock"));
    assert!((8..ENDLESS).contains(&first), "{first}");
    kill_at(&folder, "train --resume clock", first + 9);
    let second = step(&folder.path("clock"));
    assert!((first + 8..ENDLESS).contains(&second), "{second}");
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
    let (mut run, mut trainer, _) = Run::open(&folder.path("run")).expect("a run");
    let mut longer = trainer.config().clone();
    longer.extend(30);
    longer.save_every = Some(3);
    trainer.set_config(longer).expect("a longer run");
    run.set_texts(moved.clone(), Vec::new())
        .expect("the same text");
    run.resume(&trainer).expect("a directory");
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
    assert_eq!(record["config"]["steps"], 1_000_000);
    assert_eq!(record["config"]["eval_every"], 1_000_000);
    assert_eq!(record["config"]["save_every"], 1_000_000);
    let path = record["origin"]["data"][0]["path"].as_str().expect("text");
    assert!(path.ends_with("moved.txt"), "{path}");
    // The text is found where it was last.
    kill_at(&folder, "train --resume run", STEPS + 2);
}
