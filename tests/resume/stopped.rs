//! Signals, a second process, a disk that is full, another machine.

use crate::runs::{STEPS, begin, begin_with, config, copy, files, same, until};
use crate::support::{Folder, assert_refused, objects, with_arg};
use foretoken::checkpoint::RunDir;
use foretoken::model::HeadKind;
use foretoken::simd::Isa;
use std::fs;
use std::process::{Command, Output, Stdio};

#[test]
fn a_second_process_is_refused_while_the_first_lives() {
    let folder = Folder::with_text();
    begin(&folder, "run", HeadKind::Parallel);
    let held = RunDir::open(&folder.path("run")).expect("a run");
    let names = ["run", "another process is training"];
    folder.refuses("train --resume run", 2, &names);
    let replace = "train --data text.txt --context 16 --steps 1 --batch 1 --out run --force";
    folder.refuses(replace, 2, &names);
    drop(held);
    folder.succeeds("train --resume run");
    folder.succeeds(replace);
}

/// A directory's name that a shell would take apart.
#[cfg(unix)]
const NAME: &str = "it's a run";

/// A long run that a signal ends, and what it printed.
#[cfg(unix)]
fn signalled(folder: &Folder, signal: &str) -> Output {
    use std::io::{BufRead, BufReader, Read};
    let words = "train --json --log-every 1 --threads 1 --resume";
    let mut command = with_arg(folder.command(words), NAME);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut printed = String::new();
    lines.read_line(&mut printed).expect("a step");
    let mut kill = Command::new("kill");
    kill.args([format!("-{signal}"), child.id().to_string()]);
    assert!(kill.status().expect("a tool of the system").success());
    lines.read_to_string(&mut printed).expect("text");
    let last = objects(&printed).pop().expect("an event");
    assert_ne!(last["event"], "done");
    child.wait_with_output().expect("a child")
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_run_with_a_checkpoint() {
    let folder = Folder::with_text();
    // SIGXCPU is 24 but on systems for MIPS.
    for (signal, code) in [
        ("INT", 130),
        ("TERM", 143),
        ("HUP", 129),
        ("XCPU", 128 + 24),
    ] {
        // Enough steps that only the signal ends it.
        let mut long = config(HeadKind::Recursive);
        (long.steps, long.eval_every) = (1_000_000, 1_000_000);
        begin_with(&folder, NAME, HeadKind::Recursive, &long);
        copy(&folder.path(NAME), &folder.path("twin"));
        let output = signalled(&folder, signal);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{errors}");
        let hint = "; go on with: foretoken train --resume 'it'\\''s a run'\n";
        assert!(errors.ends_with(hint), "{errors}");
        // The first answer comes at once, the second when the step is done.
        let (first, second) = errors.split_once('\n').expect("two lines");
        assert!(first.starts_with("stopping after this step"), "{errors}");
        assert_eq!(second.lines().count(), 1, "{errors}");
        let words = second.strip_prefix("stopped after step ");
        let step = words.and_then(|rest| rest.split(',').next()?.parse().ok());
        until(&folder, "twin", step.expect("a step"));
        let (stopped, twin) = (files(&folder.path(NAME)), files(&folder.path("twin")));
        for file in ["train_state.safetensors", "model.safetensors"] {
            assert!(stopped[file] == twin[file], "{file} differs");
        }
        for name in [NAME, "twin"] {
            fs::remove_dir_all(folder.path(name)).expect("a directory");
        }
    }
}

#[test]
fn a_run_resumes_on_another_machine_with_moved_texts() {
    let folder = Folder::with_text();
    begin(&folder, "whole", HeadKind::Recursive);
    copy(&folder.path("whole"), &folder.path("moved"));
    fs::rename(folder.path("text.txt"), folder.path("other.txt")).expect("a file");
    folder.succeeds("train --resume whole --data other.txt");
    folder.refuses("train --resume moved", 2, &["text.txt", "--data"]);
    let isas = Isa::all();
    for (i, isa) in isas.iter().enumerate() {
        let step = STEPS * (i as u64 + 1) / (isas.len() as u64 + 1);
        fs::copy(folder.path("other.txt"), folder.path("text.txt")).expect("a file");
        until(&folder, "moved", step);
        fs::remove_file(folder.path("text.txt")).expect("a file");
        // Each instruction set continues from a different step.
        copy(&folder.path("moved"), &folder.path("copy"));
        let resume = format!("train --resume copy --data other.txt --threads {}", i + 1);
        let mut command = folder.command(&resume);
        command.env("FORETOKEN_ISA", isa.name());
        let output = command.output().expect("the binary");
        assert!(output.status.success(), "{output:?}");
        same(isa.name(), &folder.path("copy"), &folder.path("whole"));
        fs::remove_dir_all(folder.path("copy")).expect("a directory");
    }
}

/// A file may not grow beyond a limit, which is what a full disk looks like to the program.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_the_checkpoint_before_stays() {
    let folder = Folder::with_text();
    begin(&folder, "run", HeadKind::Recursive);
    until(&folder, "run", 5);
    copy(&folder.path("run"), &folder.path("whole"));
    folder.succeeds("train --resume whole");
    let before = files(&folder.path("run"));
    let (state, model) = ("train_state.safetensors", "model.safetensors");
    let (whole, part) = (before[state].len(), before[model].len());
    assert!(part < whole * 2 / 5, "the limits below separate them");
    // Shells count blocks of 512 or of 1024 bytes. One limit stops the state alone, the other the model too.
    for (blocks, file) in [(whole * 4 / 5 / 1024, state), (part / 2 / 1024, model)] {
        let mut command = Command::new("sh");
        let script = format!("ulimit -f {blocks}; exec \"$0\" train --resume run");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_foretoken")]);
        command.current_dir(folder.path(""));
        let output = command.stdout(Stdio::null()).output().expect("a shell");
        assert_refused(&script, &output, 1, &["write", file]);
        let after = files(&folder.path("run"));
        assert!(after.keys().eq(before.keys()), "{:?}", after.keys());
        for file in [state, model] {
            assert!(after[file] == before[file], "{file} changed");
        }
    }
    folder.succeeds("train --resume run");
    same(
        "after the disk was full",
        &folder.path("run"),
        &folder.path("whole"),
    );
}

/// While texts are read there is nothing to save, so a signal need not wait.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_while_texts_are_read_ends_the_program_at_once() {
    use std::os::unix::process::ExitStatusExt;
    let folder = Folder::with_text();
    begin(&folder, "run", HeadKind::Recursive);
    let before = files(&folder.path("run"));
    // A hole of many gigabytes takes no room, and takes long to read.
    let hole = fs::File::create(folder.path("hole.txt")).expect("a file");
    hole.set_len(1 << 35).expect("a hole");
    let mut command = folder.command("train --resume run --data hole.txt");
    command.stderr(Stdio::null());
    let mut child = command.spawn().expect("the binary");
    let open = format!("/proc/{}/fd", child.id());
    let reads = |entry: std::io::Result<fs::DirEntry>| {
        let target = entry.and_then(|entry| fs::read_link(entry.path()));
        target.is_ok_and(|path| path.ends_with("hole.txt"))
    };
    while !fs::read_dir(&open).is_ok_and(|mut entries| entries.any(reads)) {
        let ended = child.try_wait().expect("a child");
        assert!(ended.is_none(), "ended before it read the text: {ended:?}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let mut kill = Command::new("kill");
    kill.args(["-TERM", &child.id().to_string()]);
    assert!(kill.status().expect("a tool of the system").success());
    let status = child.wait().expect("a child");
    assert_eq!(status.signal(), Some(15), "{status}");
    assert!(files(&folder.path("run")) == before, "a file changed");
}
