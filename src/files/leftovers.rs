//! The temporaries of killed writers: found by name, and removed if no writer is left.
//!
//! A writer's temporary is called `.{name}.{pid}-{count}.tmp`. It is a leftover if no process has that number, or this
//! process has it, and if no lock is held on it: a writer locks its temporary, because the number of a process in
//! another container means nothing here. If the system does not list its processes (`/proc`), only leftovers with this
//! process's own number are removed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;

/// The number of the process in a temporary's name, if `file` is a temporary of `name`.
pub(crate) fn writer(file: &OsStr, name: &OsStr) -> Option<u64> {
    let rest = file.as_encoded_bytes().strip_prefix(b".")?;
    let rest = rest.strip_prefix(name.as_encoded_bytes())?;
    let number = rest.strip_prefix(b".")?.strip_suffix(b".tmp")?;
    let number = std::str::from_utf8(number).ok()?;
    let (pid, count) = number.split_once('-').unwrap_or((number, "0"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    // A number that no process can have is not one of ours.
    let pid = Some(pid).filter(|pid| digits(pid) && digits(count))?;
    count.parse::<u64>().ok().and(pid.parse().ok())
}

/// Removes the temporaries of `name` in `parent` whose writers are dead: files, or with `dirs` directories of files.
///
/// What cannot be read or removed stays: a new writer does not need its name.
pub(super) fn sweep(parent: &Path, name: &OsStr, dirs: bool) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        if let Some(writer) = writer(&entry.file_name(), name)
            && is_ours(&path, dirs)
            && is_dead(writer)
            // Held until it is removed, so that no other process takes it for free meanwhile.
            && let Some(_lock) = lock_if_free(&path)
        {
            remove(&path);
        }
    }
}

/// Removes a file or a directory, if it can be removed.
pub(super) fn remove(path: &Path) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
}

/// Links are left alone: neither a file nor a directory of ours is one. A directory of ours holds no directories.
fn is_ours(path: &Path, dirs: bool) -> bool {
    let is_file = |entry: fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    let files_only = |mut entries: fs::ReadDir| entries.all(|entry| entry.is_ok_and(is_file));
    fs::symlink_metadata(path).is_ok_and(|found| {
        if dirs {
            found.is_dir() && fs::read_dir(path).is_ok_and(files_only)
        } else {
            found.is_file()
        }
    })
}

/// The lock on a temporary, unless its writer has it.
fn lock_if_free(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    file.try_lock().ok().map(|()| file)
}

/// Whether no other process has this number, as far as the system lists them. This process's own temporaries are
/// locked.
fn is_dead(writer: u64) -> bool {
    writer == u64::from(std::process::id())
        || Path::new("/proc/self").exists() && !Path::new("/proc").join(writer.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::super::atomic::{Temporary, write, write_with};
    use super::*;
    use tempfile::tempdir;

    /// One more than the most that Linux lets a process number be: PID_MAX_LIMIT in `include/linux/threads.h`, 4 Mi.
    const UNUSED: u64 = (4 << 20) + 1;

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
        assert_eq!(of(".run.17-4.tmp", "run"), Some(17));
        assert_eq!(of(".run.4.17.tmp", "run.4"), Some(17));
        for other in [
            "run.17.tmp",
            ".run.17.old.tmp",
            ".run.4.17.tmp",
            ".run..tmp",
            ".run.x1.tmp",
            ".run.+1.tmp",
            ".run.17-.tmp",
            ".run.17-4-5.tmp",
            ".run.17-+4.tmp",
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
        let dead = format!(".f.{UNUSED}.tmp");
        let kept = [
            format!(".f.{}.tmp", std::os::unix::process::parent_id()),
            format!(".f.{UNUSED}.old.tmp"),
            format!(".g.{UNUSED}.tmp"),
            format!("f.{UNUSED}.tmp"),
        ];
        for name in kept.iter().chain([&dead]) {
            fs::write(at(name), b"half").unwrap();
        }
        let folder = at(&format!(".f.{}.tmp", UNUSED + 1));
        let link = at(&format!(".f.{}.tmp", UNUSED + 2));
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(at(&kept[0]), &link).unwrap();
        let mut expected = kept.to_vec();
        for path in [&folder, &link, &at("f")] {
            let name = path.file_name().unwrap().to_str().unwrap();
            expected.push(name.to_owned());
        }
        expected.sort();

        // It is being written, say in another container, where the number means another process.
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
        for number in UNUSED..UNUSED + 3 {
            fs::create_dir(half(number)).unwrap();
            fs::write(half(number).join("config.json"), b"{}").unwrap();
        }
        // No directory of ours has a directory in it.
        fs::create_dir(half(UNUSED + 1).join("letters")).unwrap();
        fs::write(root.path().join(".run.4194399.tmp"), b"a file").unwrap();
        let theirs = File::open(half(UNUSED + 2)).unwrap();
        theirs.lock().unwrap();
        let make = || drop(Temporary::dir(root.path(), OsStr::new("run")).unwrap());
        make();
        let exist = || [0, 1, 2].map(|i| half(UNUSED + i).exists());
        assert_eq!(exist(), [false, true, true]);
        drop(theirs);
        make();
        assert_eq!(exist(), [false, true, false]);
        assert!(root.path().join(".run.4194399.tmp").exists());
    }

    #[test]
    fn writers_hold_their_temporaries() {
        let root = tempdir().unwrap();
        let path = root.path().join("f");
        let temporary = || root.path().join(&names(root.path())[0]);
        write_with(&path, |_| {
            assert!(lock_if_free(&temporary()).is_none());
            // Another thread that writes the same path removes nothing of this one.
            let other = std::thread::scope(|scope| scope.spawn(|| write(&path, b"x")).join());
            other.unwrap().unwrap();
            assert!(temporary().exists());
            Ok(())
        })
        .unwrap();
        assert!(lock_if_free(&path).is_some());
        let dir = Temporary::dir(root.path(), OsStr::new("run")).unwrap();
        if cfg!(unix) {
            assert!(lock_if_free(dir.path()).is_none());
        }
    }
}
