//! What killed writers left: found by name, and removed when nobody can still be writing it.
//!
//! A writer's temporary is called `.{name}.{pid}.tmp`. It belongs to nobody where no process has that number, and no lock
//! is held on it: a writer locks its temporary, because a process in another container may have a number that means
//! nothing here. Where the system does not tell which processes there are (`/proc`), nothing is removed.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::path::Path;

/// The number of the process in a temporary's name, if `file` is one of `name`.
pub(super) fn writer(file: &OsStr, name: &OsStr) -> Option<u64> {
    let rest = file.as_encoded_bytes().strip_prefix(b".")?;
    let rest = rest.strip_prefix(name.as_encoded_bytes())?;
    let number = rest.strip_prefix(b".")?.strip_suffix(b".tmp")?;
    let digits = number.iter().all(u8::is_ascii_digit);
    // A number that no process can have is not one of ours.
    let number = std::str::from_utf8(number).ok().filter(|_| digits)?;
    number.parse().ok()
}

/// Removes the temporaries of `name` in `parent` whose writers are dead: files, or with `folders` directories of files.
///
/// What cannot be read or removed stays, since whoever writes now has no need of it.
pub(super) fn sweep(parent: &Path, name: &OsStr, folders: bool) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let Some(writer) = writer(&entry.file_name(), name) else {
            continue;
        };
        let path = entry.path();
        // Links are left alone: neither a file nor a directory of ours is one.
        let wanted = |found: &Metadata| match folders {
            true => found.is_dir() && holds_files_only(&path),
            false => found.is_file(),
        };
        if !fs::symlink_metadata(&path).is_ok_and(|found| wanted(&found)) || !is_dead(writer) {
            continue;
        }
        // Held until it is removed, so that nobody else takes it for free.
        let Some(_free) = free(&path) else { continue };
        let _ = match folders {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
    }
}

/// Takes the lock by which others see that a temporary is being written. Without it they still see the process.
pub(super) fn occupy(file: &File) {
    let _ = file.try_lock();
}

/// The same for a directory, as long as the value lives.
pub(super) fn occupy_dir(dir: &Path) -> Option<File> {
    // Elsewhere a directory cannot be opened as a file.
    let file = File::open(dir).ok().filter(|_| cfg!(unix))?;
    occupy(&file);
    Some(file)
}

/// The lock on a temporary, if nobody else has it.
fn free(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    file.try_lock().ok().map(|()| file)
}

/// Whether no process has this number, as far as the system tells.
fn is_dead(writer: u64) -> bool {
    Path::new("/proc/self").exists() && !Path::new("/proc").join(writer.to_string()).exists()
}

/// A directory of ours holds no directories.
fn holds_files_only(dir: &Path) -> bool {
    let is_file = |entry: fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    fs::read_dir(dir).is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(is_file)))
}

#[cfg(test)]
mod tests {
    use super::super::{create_dir, write};
    use super::*;
    use tempfile::tempdir;

    /// One more than the most that Linux lets a process number be: PID_MAX_LIMIT in `include/linux/threads.h`, 4 Mi.
    const NOBODY: u64 = (4 << 20) + 1;

    fn names(dir: &Path) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let entries = fs::read_dir(dir).unwrap().map(name);
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn temporaries_are_known_by_their_names() {
        let of = |file: &str, name: &str| writer(OsStr::new(file), OsStr::new(name));
        assert_eq!(of(".run.17.tmp", "run"), Some(17));
        assert_eq!(of(".run.4.17.tmp", "run.4"), Some(17));
        for other in [
            "run.17.tmp",
            ".run.17.old.tmp",
            ".run.4.17.tmp",
            ".run..tmp",
            ".run.x1.tmp",
            ".run.+1.tmp",
            ".run.17.tmp.kept",
            ".runs.17.tmp",
            ".letter.17.tmp",
            ".run.99999999999999999999999.tmp",
        ] {
            assert_eq!(of(other, "run"), None, "{other}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_writer_removes_what_the_dead_left_and_nothing_else() {
        let root = tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let dead = format!(".f.{NOBODY}.tmp");
        let kept = [
            format!(".f.{}.tmp", std::os::unix::process::parent_id()),
            format!(".f.{NOBODY}.old.tmp"),
            format!(".g.{NOBODY}.tmp"),
            format!("f.{NOBODY}.tmp"),
        ];
        for name in kept.iter().chain([&dead]) {
            fs::write(at(name), b"half").unwrap();
        }
        let folder = at(&format!(".f.{}.tmp", NOBODY + 1));
        let link = at(&format!(".f.{}.tmp", NOBODY + 2));
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(at(&kept[0]), &link).unwrap();
        let mut expected = kept.to_vec();
        for path in [&folder, &link, &at("f")] {
            let name = path.file_name().unwrap().to_str().unwrap();
            expected.push(name.to_owned());
        }
        expected.sort();

        // Somebody writes it: in another container, say, where the number means another process.
        let theirs = File::open(at(&dead)).unwrap();
        theirs.lock().unwrap();
        write(&at("f"), b"new").unwrap();
        assert!(at(&dead).exists());
        drop(theirs);
        write(&at("f"), b"newer").unwrap();
        assert_eq!(names(root.path()), expected);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_directory_half_made_by_the_dead_is_removed() {
        let root = tempdir().unwrap();
        let half = |number: u64| root.path().join(format!(".run.{number}.tmp"));
        for number in NOBODY..NOBODY + 3 {
            fs::create_dir(half(number)).unwrap();
            fs::write(half(number).join("config.json"), b"{}").unwrap();
        }
        // No directory of ours has a directory in it.
        fs::create_dir(half(NOBODY + 1).join("letters")).unwrap();
        fs::write(root.path().join(".run.4194399.tmp"), b"a file").unwrap();
        let theirs = occupy_dir(&half(NOBODY + 2)).unwrap();
        let run = root.path().join("run");
        let make = || create_dir(&run, &[("config.json", b"{}")], true).unwrap();
        make();
        let exist = || [0, 1, 2].map(|i| half(NOBODY + i).exists());
        assert_eq!(exist(), [false, true, true]);
        drop(theirs);
        make();
        assert_eq!(exist(), [false, true, false]);
        assert!(root.path().join(".run.4194399.tmp").exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn writers_hold_their_temporaries() {
        let root = tempdir().unwrap();
        let path = root.path().join("f");
        super::super::write_with(&path, |_| {
            let temporary = root.path().join(format!(".f.{}.tmp", std::process::id()));
            assert!(free(&temporary).is_none());
            Ok(())
        })
        .unwrap();
        assert!(free(&path).is_some());
    }
}
