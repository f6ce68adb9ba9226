//! Directories and disks that take no checkpoint: one clear sentence, and the last good checkpoint stays.

use crate::runs::{begin, copy, files, same, until};
use crate::support::{Folder, assert_refused};
use foretoken::model::HeadKind;
use std::fs;
use std::process::{Command, Stdio};

const TRAIN: &str =
    "train --data text.txt --heads 1 --batch 1 --context 16 --steps 2 --threads 1 --out";

#[test]
fn a_place_where_no_directory_can_be_made_is_one_clear_error() {
    let folder = Folder::with_text();
    fs::write(folder.path("file"), "kept").expect("a file");
    folder.refuses(&format!("{TRAIN} file/run"), 1, &["file/run"]);
    folder.refuses(&format!("{TRAIN} file"), 2, &["file", "--force"]);
    let long = "x".repeat(300);
    folder.refuses(&format!("{TRAIN} {long}"), 1, &[&long]);
    // No user can create a directory there, not even the superuser.
    if cfg!(target_os = "linux") {
        folder.refuses(&format!("{TRAIN} /proc/run"), 1, &["/proc/run"]);
    }
}

/// Nothing can be made in a directory whose path is as long as the system allows, but files with short names are
/// opened. Unlike permissions, this applies to every user.
#[cfg(target_os = "linux")]
#[test]
fn a_directory_that_takes_no_new_file_keeps_its_checkpoint() {
    let folder = Folder::with_text();
    begin(&folder, "run", HeadKind::Recursive);
    until(&folder, "run", 5);
    copy(&folder.path("run"), &folder.path("whole"));
    folder.succeeds("train --resume whole");
    let before = files(&folder.path("run"));

    // PATH_MAX is 4096 with the zero at the end. The state has a path of 4095 bytes, its temporary a longer one.
    let state = "/train_state.safetensors";
    let (mut deep, end) = (folder.path("deep"), 4095 - state.len());
    while deep.as_os_str().len() + 202 < end {
        deep.push("d".repeat(200));
    }
    deep.push("d".repeat(end - deep.as_os_str().len() - 1));
    assert_eq!(deep.as_os_str().len(), end);
    let parent = deep.parent().expect("a parent");
    fs::create_dir_all(parent).expect("a long path");
    fs::rename(folder.path("run"), &deep).expect("a long path");
    let mut command = folder.command("train --threads 1 --resume");
    let output = command.arg(&deep).output().expect("the binary");
    assert_refused("a long path", &output, 1, &["model.safetensors"]);
    assert!(files(&deep) == before, "a file changed");
    fs::rename(&deep, folder.path("run")).expect("a directory");
    folder.succeeds("train --resume run");
    same("moved back", &folder.path("run"), &folder.path("whole"));
}

#[cfg(unix)]
#[test]
fn a_directory_without_permission_to_write_keeps_its_checkpoint() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::with_text();
    begin(&folder, "run", HeadKind::Recursive);
    until(&folder, "run", 5);
    let before = files(&folder.path("run"));
    let allow = |mode| {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(folder.path("run"), permissions).expect("a directory");
    };
    allow(0o555);
    match fs::write(folder.path("run/probe"), "") {
        // Permissions do not restrict the superuser.
        Ok(()) => println!("skipped: permissions do not bind this user"),
        Err(_) => {
            folder.refuses("train --resume run", 1, &["model.safetensors"]);
            assert!(files(&folder.path("run")) == before, "a file changed");
        }
    }
    allow(0o755);
    let _ = fs::remove_file(folder.path("run/probe"));
    folder.succeeds("train --resume run");
}

/// The program under a limit on the size of files, which is what a full disk looks like to it.
#[cfg(target_os = "linux")]
fn on_a_full_disk(folder: &Folder, bytes: usize, words: &str) -> std::process::Output {
    // Shells count blocks of 512 or of 1024 bytes.
    let script = format!("ulimit -f {}; exec \"$0\" {words}", bytes / 1024);
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_foretoken")]);
    command.current_dir(folder.path(""));
    command.stdout(Stdio::null()).output().expect("a shell")
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_that_does_not_fit_on_the_disk_leaves_nothing() {
    let folder = Folder::with_text();
    let before = folder.contents();
    let output = on_a_full_disk(&folder, 20 * 1024, &format!("{TRAIN} run"));
    assert_refused("a full disk", &output, 1, &["write", "run"]);
    assert!(folder.contents() == before, "something was left");
    // What was to be replaced is still there.
    begin(&folder, "run", HeadKind::Recursive);
    let before = folder.contents();
    let output = on_a_full_disk(&folder, 20 * 1024, &format!("{TRAIN} run --force"));
    assert_refused("a full disk", &output, 1, &["write", "run"]);
    assert!(folder.contents() == before, "something was left");
}

#[cfg(target_os = "linux")]
#[test]
fn metrics_that_do_not_fit_on_the_disk_are_an_error() {
    let folder = Folder::with_text();
    begin(&folder, "run", HeadKind::Recursive);
    until(&folder, "run", 5);
    // Metrics much larger than the state, so that a limit lets the weights through and not another event.
    let limit = 2 * files(&folder.path("run"))["train_state.safetensors"].len();
    let line = "{\"event\":\"step\",\"step\":1}\n";
    let long = line.repeat(limit / line.len() + 2000);
    fs::write(folder.path("run/metrics.jsonl"), long).expect("a file");
    copy(&folder.path("run"), &folder.path("whole"));
    folder.succeeds("train --resume whole");
    let before = files(&folder.path("run"));
    let output = on_a_full_disk(&folder, limit + 2048, "train --resume run");
    assert_refused("a full disk", &output, 1, &["write", "metrics.jsonl"]);
    assert!(files(&folder.path("run")) == before, "a file changed");
    folder.succeeds("train --resume run");
    same("metrics", &folder.path("run"), &folder.path("whole"));
}
