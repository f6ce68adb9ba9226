//! Runs that stop inside an evaluation: it is abandoned, and the resumed run makes it first.

use crate::runs::{STEPS, begin, copy, record, same, until};
use crate::support::{Folder, objects};
use foretoken::data::{corpus, open_tokens};
use foretoken::model::HeadKind;
use foretoken::train::{Ending, Event, Observer, Run};
use std::fs;

/// Stops a run after this many calls of `stop`.
struct Patience(u64);

impl Observer for Patience {
    fn event(&mut self, _: &Event) {}

    fn stop(&mut self) -> bool {
        let over = self.0 == 0;
        self.0 = self.0.saturating_sub(1);
        over
    }
}

/// Resumes in this process until patience ends. Returns how it ended, and whether an evaluation is pending.
fn resume(folder: &Folder, name: &str, patience: u64) -> (Ending, bool) {
    let path = folder.path(name);
    let (mut run, mut trainer, tokenizer) = Run::open(&path).expect("a run");
    run.resume(&trainer).expect("a directory");
    let tokens = open_tokens(&[folder.path("text.txt")], &tokenizer, None).expect("a text");
    let (train, valid) = tokens.split();
    let valid = valid.first(usize::MAX).expect("tokens");
    let mut patience = Patience(patience);
    let ending = trainer.run(train, valid, &tokenizer, Some(&mut run), &mut patience);
    let pending = record(&path)["pending_eval"].as_bool().expect("a flag");
    (ending.expect("a finite run"), pending)
}

/// An evaluation comes after steps 7, 14, 21 and 24. It calls `stop` before each of its windows, fewer than 19, and a
/// step calls it once more.
#[test]
fn an_abandoned_evaluation_is_made_when_the_run_is_resumed() {
    let folder = Folder::with_text();
    begin(&folder, "run", HeadKind::Recursive);
    copy(&folder.path("run"), &folder.path("whole"));
    folder.succeeds("train --resume whole");
    let end = |name: &str| same(name, &folder.path(name), &folder.path("whole"));

    assert_eq!(resume(&folder, "run", 10), (Ending::Stopped(7), true));
    copy(&folder.path("run"), &folder.path("twice"));
    copy(&folder.path("run"), &folder.path("killed"));
    folder.succeeds("train --resume run");
    end("run");

    // Stopped inside the same evaluation again, before its first window and after some; then behind it.
    for patience in [0, 5] {
        let ending = resume(&folder, "twice", patience);
        assert_eq!(ending, (Ending::Stopped(7), true));
    }
    let (ending, pending) = resume(&folder, "twice", 20);
    let behind = matches!(ending, Ending::Stopped(8..14));
    assert!(behind && !pending, "{ending:?}");
    folder.succeeds("train --resume twice");
    end("twice");

    // Killed after the evaluation was made and before a checkpoint said so: it is not reported twice.
    let metrics = fs::read_to_string(folder.path("whole/metrics.jsonl")).expect("a file");
    let made = metrics.find("\"eval\"").expect("an evaluation");
    let made = made + metrics[made..].find('\n').expect("a line") + 1;
    let file = folder.path("killed/metrics.jsonl");
    fs::write(file, &metrics[..made]).expect("a file");
    folder.succeeds("train --resume killed");
    end("killed");

    // The last one, after which nothing but the end is left.
    begin(&folder, "last", HeadKind::Recursive);
    until(&folder, "last", STEPS - 1);
    assert_eq!(resume(&folder, "last", 3), (Ending::Stopped(STEPS), true));
    assert_eq!(resume(&folder, "last", 100), (Ending::Done, false));
    end("last");
}

#[test]
fn a_run_that_is_stopped_again_and_again_ends_like_an_uninterrupted_one() {
    let folder = Folder::with_text();
    begin(&folder, "whole", HeadKind::Sequential);
    let start = folder.path("start");
    copy(&folder.path("whole"), &start);
    folder.succeeds("train --resume whole");
    let mut abandoned = 0;
    // An evaluation has to fit into a session, or it is never made.
    for patience in [19, 20, 23, 29] {
        let name = format!("run-{patience}");
        copy(&start, &folder.path(&name));
        loop {
            let (ending, pending) = resume(&folder, &name, patience);
            abandoned += u64::from(pending);
            if ending == Ending::Done {
                break;
            }
        }
        same(&name, &folder.path(&name), &folder.path("whole"));
    }
    assert!(abandoned >= 4, "{abandoned} evaluations were abandoned");
}

/// The real program, with an evaluation that takes minutes.
#[cfg(unix)]
#[test]
fn a_signal_does_not_wait_for_an_evaluation() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};
    let folder = Folder::with_text();
    fs::write(folder.path("long.txt"), corpus::stories(8, 4_000_000)).expect("a text");
    let words = "train --data text.txt --valid long.txt --heads 1 --batch 1 --context 16 --steps 3 --eval-every 1 \
                 --log-every 1 --valid-tokens all --json --threads 1 --out run";
    let mut command = folder.command(words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut printed = String::new();
    lines.read_line(&mut printed).expect("a step");
    let mut kill = Command::new("kill");
    kill.args(["-INT", &child.id().to_string()]);
    assert!(kill.status().expect("a tool of the system").success());
    lines.read_to_string(&mut printed).expect("text");
    let output = child.wait_with_output().expect("a child");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{errors}");
    let said: Vec<&str> = errors.lines().collect();
    assert_eq!(said.len(), 2, "{errors}");
    assert!(said[0].starts_with("stopping after this step"), "{errors}");
    assert!(said[1].starts_with("stopped after step 1,"), "{errors}");
    let events = objects(&printed);
    assert_eq!(events.len(), 1, "an evaluation was waited for: {printed}");
    let record = record(&folder.path("run"));
    assert_eq!(
        (&record["step"], &record["pending_eval"]),
        (&1.into(), &true.into())
    );
}
