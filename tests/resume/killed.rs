//! Kills at random moments, and every order in which a kill can leave the files.

use crate::runs::{STEPS, begin, copy, files, same, step, uninterrupted, until};
use crate::support::{Folder, objects};
use foretoken::model::HeadKind;
use safetensors::SafeTensors;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How often each run is killed.
fn kills() -> u32 {
    let Ok(text) = std::env::var("FORETOKEN_SOAK_KILLS") else {
        return 3;
    };
    text.parse().expect("FORETOKEN_SOAK_KILLS is a number")
}

/// Moments that differ from run to run of the loop, spread over a little more than `whole`.
struct Moments(u64);

impl Moments {
    fn next(&mut self, whole: Duration) -> Duration {
        // xorshift64 (Marsaglia 2003).
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        whole.mul_f64((self.0 % 1000) as f64 / 900.0)
    }
}

fn spawn(folder: &Folder, words: &str) -> Child {
    let mut command = folder.command(words);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the binary")
}

/// What kills met and left.
#[derive(Debug, Default)]
struct Kills {
    tries: u32,
    /// Kills of a program that was still running.
    met: u32,
    /// How many of these left the temporary of a checkpoint's file.
    temporary: u32,
    /// How many left no temporary, but a state newer than the model.
    newer: u32,
}

impl Kills {
    /// Counts what a kill left in a run's directory. Returns `running`, whether the program was still running.
    fn note(&mut self, dir: &Path, running: bool) -> bool {
        self.tries += 1;
        self.met += u32::from(running);
        if running && dir.exists() {
            match has_temporary(dir, &["train_state", "model"]) {
                true => self.temporary += 1,
                false => self.newer += u32::from(!model_is_of_state(dir)),
            }
        }
        running
    }

    /// Kills between the first byte of a checkpoint and its last.
    fn inside(&self) -> u32 {
        self.temporary + self.newer
    }

    /// Whether more kills are needed: there were fewer than `wanted`, or `met` is false. The moments are random, so a
    /// slow machine may need more of them, up to a limit.
    fn go_on(&self, wanted: u32, met: bool) -> bool {
        self.tries < wanted || !met && self.tries < wanted + 60
    }
}

/// Whether the temporary of one of these files lies in a directory.
fn has_temporary(dir: &Path, files: &[&str]) -> bool {
    // A file may disappear while the directory is read.
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let ours = |name: &str, file: &&str| name.starts_with(&format!(".{file}.safetensors."));
    names.any(|name| name.ends_with(".tmp") && files.iter().any(|file| ours(&name, file)))
}

/// Whether the model has the weights of the state.
fn model_is_of_state(dir: &Path) -> bool {
    let read = |file: &str| fs::read(dir.join(file)).expect("a file");
    let (state, model) = (read("train_state.safetensors"), read("model.safetensors"));
    let [state, model] = [&state, &model].map(|b| SafeTensors::deserialize(b).expect("tensors"));
    model.names().into_iter().all(|name| {
        let stored = state.tensor(&format!("weights/{name}")).expect("weights");
        stored.data() == model.tensor(name).expect("a tensor").data()
    })
}

/// Kills the program after `wait`. Returns whether it was still running.
fn kill_after(mut child: Child, wait: Duration) -> bool {
    std::thread::sleep(wait);
    let running = child.try_wait().expect("a child").is_none();
    child.kill().expect("a child");
    child.wait().expect("a child");
    running
}

fn sha256_of_done(printed: &str) -> String {
    let events = objects(printed);
    let done = events.last().expect("an event");
    assert_eq!(done["event"], "done");
    done["sha256"].as_str().expect("text").to_owned()
}

#[test]
fn runs_killed_at_random_moments_end_like_the_uninterrupted() {
    let mut inside = 0;
    for (i, kind) in HeadKind::ALL.into_iter().enumerate() {
        let folder = Folder::with_text();
        begin(&folder, "start", kind);
        let fresh = |name: &str| copy(&folder.path("start"), &folder.path(name));
        fresh("whole");
        let start = Instant::now();
        let printed = folder.succeeds("train --resume whole --json --save-every 1 --threads 1");
        let whole = start.elapsed();
        let expected = uninterrupted(&folder, kind);
        assert_eq!(sha256_of_done(&printed), expected, "{kind:?}");

        let mut moments = Moments(0x9e37_79b9 + i as u64);
        let resume = "train --resume killed --save-every 1 --threads 1";
        let compare = || {
            let what = format!("{kind:?}");
            same(&what, &folder.path("killed"), &folder.path("whole"));
        };
        fresh("killed");
        let (mut met, mut between) = (Kills::default(), 0);
        while met.go_on(kills(), met.met > 0 && between > 0) {
            if (1..STEPS).contains(&step(&folder.path("killed"))) {
                between += 1;
            }
            // Half of the whole at most, so that most runs are killed more than once.
            let running = kill_after(spawn(&folder, resume), moments.next(whole / 2));
            if !met.note(&folder.path("killed"), running) {
                // It finished before the kill, so a new run has to be killed.
                compare();
                fs::remove_dir_all(folder.path("killed")).expect("a directory");
                fresh("killed");
            }
        }
        println!("{kind:?}: {met:?}, {between} resumes began between its ends");
        inside += met.inside();
        assert!(met.met > 0, "{kind:?}: no kill met a running program");
        assert!(between > 0, "{kind:?}: no resume began after step 0");
        folder.succeeds(resume);
        compare();
    }
    // A few kills need not meet a write; the test below has some that do.
    let soak = std::env::var_os("FORETOKEN_SOAK_KILLS").is_some();
    assert!(!soak || inside > 0, "no kill fell inside a checkpoint");
}

/// Kills that wait until the temporary of a state is there.
#[test]
fn runs_killed_while_a_checkpoint_is_written_end_like_the_uninterrupted() {
    let folder = Folder::with_text();
    begin(&folder, "start", HeadKind::Sequential);
    let fresh = |name: &str| copy(&folder.path("start"), &folder.path(name));
    let resume = |name: &str| format!("train --resume {name} --save-every 1 --threads 1");
    fresh("whole");
    let start = Instant::now();
    folder.succeeds(&resume("whole"));
    let whole = start.elapsed();
    let mut moments = Moments(815);
    let dir = folder.path("killed");
    let compare = || same("killed inside a write", &dir, &folder.path("whole"));
    fresh("killed");
    let mut met = Kills::default();
    while met.go_on(kills(), met.inside() > 0) {
        let mut child = spawn(&folder, &resume("killed"));
        // Otherwise the kill would always meet the first checkpoint, and the run would make no progress.
        std::thread::sleep(moments.next(whole / 2));
        let ended = |child: &mut Child| child.try_wait().expect("a child").is_some();
        while !has_temporary(&dir, &["train_state"]) && !ended(&mut child) {}
        if !met.note(&dir, kill_after(child, Duration::ZERO)) {
            compare();
            fs::remove_dir_all(&dir).expect("a directory");
            fresh("killed");
        }
    }
    println!("{met:?}");
    assert!(met.inside() > 0, "no kill fell inside a checkpoint");
    folder.succeeds(&resume("killed"));
    compare();
}

#[test]
fn kills_while_a_finished_run_is_being_written_do_no_harm() {
    // The same for a run that has one step left, so that most kills fall into writing and reading.
    let folder = Folder::with_text();
    let kind = HeadKind::Recursive;
    begin(&folder, "whole", kind);
    until(&folder, "whole", STEPS - 1);
    let start = Instant::now();
    copy(&folder.path("whole"), &folder.path("killed-0"));
    folder.succeeds("train --resume whole --threads 1");
    let whole = start.elapsed();
    let mut moments = Moments(77);
    let before = files(&folder.path("killed-0"));
    let mut met = Kills::default();
    while met.go_on(2 * kills(), met.met > 0) {
        let name = format!("killed-{}", met.tries);
        if met.tries > 0 {
            fs::create_dir(folder.path(&name)).expect("a new directory");
            for (file, bytes) in &before {
                fs::write(folder.path(&name).join(file), bytes).expect("a file");
            }
        }
        let resume = format!("train --resume {name} --threads 1");
        let running = kill_after(spawn(&folder, &resume), moments.next(whole));
        met.note(&folder.path(&name), running);
        // Whatever was left, the weights in it are a whole model.
        folder.succeeds(&format!("inspect {name}"));
        folder.succeeds(&resume);
        same(&name, &folder.path(&name), &folder.path("whole"));
        fs::remove_dir_all(folder.path(&name)).expect("a directory");
    }
    println!("{met:?}");
    assert!(met.met > 0, "no kill met a running program");
}

#[test]
fn a_run_killed_at_its_start_is_whole_or_not_there() {
    let folder = Folder::with_text();
    let train = "train --data text.txt --heads 1 --batch 1 --context 16 --steps 3 --save-every 1 --threads 1 --out";
    let start = Instant::now();
    folder.succeeds(&format!("{train} whole"));
    let whole = start.elapsed();
    let mut moments = Moments(4711);
    let mut met = Kills::default();
    while met.go_on(kills(), met.met > 0) {
        let running = kill_after(spawn(&folder, &format!("{train} run")), moments.next(whole));
        met.note(&folder.path("run"), running);
        match folder.path("run").exists() {
            true => folder.succeeds("train --resume run"),
            false => folder.succeeds(&format!("{train} run")),
        };
        for file in ["model.safetensors", "config.json", "tokenizer.json"] {
            let read = |run: &str| fs::read(folder.path(run).join(file)).expect("a file");
            assert!(read("run") == read("whole"), "{file} differs");
        }
        fs::remove_dir_all(folder.path("run")).expect("a directory");
    }
    println!("{met:?}");
    assert!(met.met > 0, "no kill met a running program");
}

/// Every order in which a kill can leave the files, put together by hand from runs that stopped at three steps.
#[test]
fn every_half_made_checkpoint_is_gone_on_from() {
    let folder = Folder::with_text();
    begin(&folder, "at-0", HeadKind::Recursive);
    for step in [5, 14] {
        let earlier = if step == 5 { "at-0" } else { "at-5" };
        let name = format!("at-{step}");
        copy(&folder.path(earlier), &folder.path(&name));
        until(&folder, &name, step);
    }
    copy(&folder.path("at-14"), &folder.path("whole"));
    folder.succeeds("train --resume whole");
    let final_events = fs::read(folder.path("whole/metrics.jsonl")).expect("a file");

    let case = |state: &str, model: &str, spoil: &dyn Fn(&Path)| {
        let dir = folder.path("case");
        copy(&folder.path(state), &dir);
        let weights = folder.path(model).join("model.safetensors");
        fs::copy(weights, dir.join("model.safetensors")).expect("a file");
        spoil(&dir);
        folder.succeeds("train --resume case");
        same(
            &format!("state {state}, model {model}"),
            &dir,
            &folder.path("whole"),
        );
        fs::remove_dir_all(dir).expect("a directory");
    };
    let nothing: &dyn Fn(&Path) = &|_| {};
    for state in ["at-0", "at-5", "at-14", "whole"] {
        for model in ["at-0", "at-5", "at-14", "whole"] {
            case(state, model, nothing);
        }
    }
    // The model lost or spoilt altogether; nothing is read from it.
    case("at-5", "at-5", &|dir| {
        fs::remove_file(dir.join("model.safetensors")).expect("a file");
    });
    case("at-5", "at-5", &|dir| {
        fs::write(dir.join("model.safetensors"), "x").expect("a file");
    });
    // Metrics beyond the checkpoint, half a line, or the lock's file missing.
    let text = String::from_utf8(final_events).expect("text");
    for cut in [
        text.len(),
        text.len() - 1,
        text.len() / 2,
        text.len() / 2 + 40,
    ] {
        case("at-5", "at-5", &|dir| {
            fs::write(dir.join("metrics.jsonl"), &text[..cut]).expect("a file");
            fs::remove_file(dir.join("train.lock")).expect("a file");
        });
    }
    // Temporaries of killed writers.
    case("at-14", "at-5", &|dir| {
        let state = fs::read(dir.join("train_state.safetensors")).expect("a file");
        let half = &state[..state.len() / 2];
        fs::write(dir.join(".train_state.safetensors.1.tmp"), half).expect("a file");
        fs::write(dir.join(".model.safetensors.99.tmp"), "").expect("a file");
    });
}
