//! Kills at random moments, and every order in which a kill can leave the files.

use crate::runs::{STEPS, begin, copy, files, same, step, undisturbed, until};
use crate::support::{Folder, objects};
use foretoken::model::HeadKind;
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

/// Kills the program after a while. Says whether it was still at work.
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
fn runs_killed_at_random_moments_end_like_the_undisturbed() {
    for (i, kind) in HeadKind::ALL.into_iter().enumerate() {
        let folder = Folder::with_text();
        begin(&folder, "start", kind);
        let fresh = |name: &str| copy(&folder.path("start"), &folder.path(name));
        fresh("whole");
        let start = Instant::now();
        let printed = folder.succeeds("train --resume whole --json --save-every 1 --threads 1");
        let whole = start.elapsed();
        let expected = undisturbed(&folder, kind);
        assert_eq!(sha256_of_done(&printed), expected, "{kind:?}");

        let mut moments = Moments(0x9e37_79b9 + i as u64);
        let resume = "train --resume killed --save-every 1 --threads 1";
        let compare = || {
            let what = format!("{kind:?}");
            same(&what, &folder.path("killed"), &folder.path("whole"));
        };
        fresh("killed");
        let (mut met, mut between, mut tries) = (0, 0, 0);
        // The moments are random, so a slow machine may need more of them; but not for ever.
        while tries < kills() || tries < 60 && (met == 0 || between == 0) {
            tries += 1;
            if (1..STEPS).contains(&step(&folder.path("killed"))) {
                between += 1;
            }
            // Half of the whole at most, so that most runs are killed more than once.
            match kill_after(spawn(&folder, resume), moments.next(whole / 2)) {
                true => met += 1,
                // It came to its end before. Another one has to be killed.
                false => {
                    compare();
                    fs::remove_dir_all(folder.path("killed")).expect("a directory");
                    fresh("killed");
                }
            }
        }
        println!(
            "{kind:?}: {met} of {tries} kills met a running program, {between} resumes began between its ends"
        );
        assert!(met > 0, "{kind:?}: no kill met a running program");
        assert!(between > 0, "{kind:?}: no resume began after step 0");
        folder.succeeds(resume);
        compare();
    }
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
    for i in 0..2 * kills() {
        let name = format!("killed-{i}");
        if i > 0 {
            fs::create_dir(folder.path(&name)).expect("a new directory");
            for (file, bytes) in &before {
                fs::write(folder.path(&name).join(file), bytes).expect("a file");
            }
        }
        let resume = format!("train --resume {name} --threads 1");
        kill_after(spawn(&folder, &resume), moments.next(whole));
        // Whatever was left, the weights in it are a whole model.
        folder.succeeds(&format!("inspect {name}"));
        folder.succeeds(&resume);
        same(&name, &folder.path(&name), &folder.path("whole"));
        fs::remove_dir_all(folder.path(&name)).expect("a directory");
    }
}

#[test]
fn a_run_killed_at_its_start_is_whole_or_not_there() {
    let folder = Folder::with_text();
    let train = "train --data text.txt --heads 1 --batch 1 --context 16 --steps 3 --save-every 1 --threads 1 --out";
    let start = Instant::now();
    folder.succeeds(&format!("{train} whole"));
    let whole = start.elapsed();
    let mut moments = Moments(4711);
    for _ in 0..kills() {
        kill_after(spawn(&folder, &format!("{train} run")), moments.next(whole));
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
