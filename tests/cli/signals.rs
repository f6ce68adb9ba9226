//! Signals outside a run with a checkpoint: the program ends as usual, and no temporary file is left.

use crate::support::Folder;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn kill(child: &Child, signal: &str) {
    let mut kill = Command::new("kill");
    kill.args([format!("-{signal}"), child.id().to_string()]);
    assert!(kill.status().expect("a tool of the system").success());
}

fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

/// Whether this process ignores SIGHUP, as `nohup` does for what it starts, and so do the programs that it starts.
fn ignores_hup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 != 0)
}

/// Names in the folder, hidden ones too.
fn names(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.path("")).expect("a directory");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<_> = entries
        .map(|e| name(e).into_string().expect("text"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_signal_while_a_file_is_written_leaves_nothing() {
    let folder = Folder::with_text();
    // A hole of some gigabytes takes no room, and takes long to encode.
    let hole = fs::File::create(folder.path("hole.txt")).expect("a file");
    hole.set_len(1 << 31).expect("a hole");
    let before = names(&folder);
    for (signal, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        if signal == "HUP" && ignores_hup() {
            continue;
        }
        let mut command = folder.command("tokenizer encode --data hole.txt --out t.tok");
        let mut child = command.spawn().expect("the binary");
        while names(&folder) == before {
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none(), "ended before it wrote: {ended:?}");
            pause();
        }
        kill(&child, signal);
        let status = child.wait().expect("a child");
        assert_eq!(status.signal(), Some(number), "{status}");
        assert_eq!(names(&folder), before, "{signal}");
    }
}

/// A run whose first step takes minutes, and little memory.
fn slow(folder: &Folder) -> Child {
    let train =
        "train --data text.txt --out run --accumulate 20000 --batch 1 --steps 2 --threads 1";
    let mut command = folder.command(train);
    let child = command.stderr(Stdio::piped()).spawn().expect("the binary");
    while !folder.path("run").exists() {
        pause();
    }
    child
}

#[test]
fn a_second_signal_of_the_user_ends_a_run_at_once() {
    if ignores_hup() {
        return;
    }
    let folder = Folder::with_text();
    let mut child = slow(&folder);
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe"));
    kill(&child, "HUP");
    let mut line = String::new();
    lines.read_line(&mut line).expect("text");
    assert!(line.starts_with("stopping after this step"), "{line}");
    // A closed terminal sends its signal twice. That ends nothing.
    kill(&child, "HUP");
    std::thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().expect("a child").is_none());
    kill(&child, "INT");
    let status = child.wait().expect("a child");
    assert_eq!(status.code(), Some(130), "{status}");
    lines.read_to_string(&mut line).expect("text");
    assert_eq!(line.lines().count(), 1, "{line}");
}

/// `nohup` ignores the signal of a closed terminal for the program that it starts.
#[cfg(target_os = "linux")]
#[test]
fn a_closed_terminal_does_not_end_what_nohup_started() {
    let folder = Folder::with_text();
    let mut command = Command::new("sh");
    let script = "trap '' HUP; exec \"$0\" train --data text.txt --out run --accumulate 20000 --batch 1 --threads 1";
    command.args(["-c", script, env!("CARGO_BIN_EXE_foretoken")]);
    command.current_dir(folder.path("")).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a shell");
    while !folder.path("run").exists() {
        pause();
    }
    std::thread::sleep(Duration::from_millis(300));
    kill(&child, "HUP");
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().expect("a child").is_none());
    // Other signals are answered.
    kill(&child, "TERM");
    let mut line = String::new();
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe"));
    lines.read_line(&mut line).expect("text");
    assert!(line.starts_with("stopping after this step"), "{line}");
    kill(&child, "TERM");
    assert_eq!(child.wait().expect("a child").code(), Some(143));
}
