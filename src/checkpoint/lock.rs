//! The lock of a directory: one process at a time trains into it, and nobody replaces it meanwhile.
//!
//! `train.lock` is an empty file on which a process holds an advisory lock. The system releases it when the process ends
//! in whatever way. The file itself stays, because removing it would let two processes hold locks on two files of one
//! name.
//!
//! A directory may be replaced between the opening of its file and the lock on it. The lock is then one on a file that no
//! path names any more, and says nothing about the directory that stands there now. So the locked file is compared with
//! what the path names (device and inode), and the lock is taken anew where they differ.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::{Error, Result};

/// Name of the file.
pub(super) const LOCK: &str = "train.lock";

/// A lock that is held as long as the value lives, also when the directory moves.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that another thread is starting has it open too, until it becomes
        // another program. That unlocking fails changes nothing, because the system does it when the process ends.
        let _ = self.0.unlock();
    }
}

/// Takes the lock of a directory that exists.
///
/// # Errors
/// [`Error::Usage`] where another process holds it, [`Error::Io`] where the system gives no lock.
pub(super) fn lock(dir: &Path) -> Result<Lock> {
    lock_when(dir, &mut || {})
}

/// [`lock()`] with something that happens after each opening of the file.
fn lock_when(dir: &Path, opened: &mut dyn FnMut()) -> Result<Lock> {
    let path = dir.join(LOCK);
    loop {
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        opened();
        match file.try_lock() {
            Ok(()) if is_at(&file, &path)? => return Ok(Lock(file)),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(busy(dir));
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
    }
}

/// The error about a directory whose lock another process holds.
pub(super) fn busy(dir: &Path) -> Error {
    let sentence = "another process is training into this directory";
    Error::Usage(format!("{}: {sentence}", dir.display()))
}

/// Takes the lock of a directory that is to be replaced, if it is one that somebody may train into.
///
/// # Errors
/// As [`lock()`].
pub(super) fn lock_old(dir: &Path) -> Result<Option<Lock>> {
    // No file is made where there was none: a replacement that fails leaves the old directory as it was.
    match dir.join(LOCK).is_file() {
        true => lock(dir).map(Some),
        false => Ok(None),
    }
}

/// Whether the path names this open file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let ours = file.metadata().map_err(Error::io("read", path))?;
    match std::fs::metadata(path) {
        Ok(now) => Ok((now.dev(), now.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Elsewhere a directory with an open file in it can be neither moved nor removed.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_lock_is_held_once_and_freed_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap();
        let message = lock(folder.path()).unwrap_err().to_string();
        assert!(message.contains("another process"), "{message}");
        assert!(lock_old(folder.path()).is_err());
        // Whoever shares the open file, as a child does that is being started, does not keep the lock.
        let shared = first.0.try_clone().unwrap();
        drop(first);
        lock(folder.path()).unwrap();
        assert!(lock_old(folder.path()).unwrap().is_some());
        drop(shared);
    }

    #[test]
    fn a_directory_that_nobody_trains_into_gets_no_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(lock_old(folder.path()).unwrap().is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// A directory `run`, and a place for it to go.
    #[cfg(unix)]
    fn with_run() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let (run, aside) = (root.path().join("run"), root.path().join("aside"));
        fs::create_dir(&run).unwrap();
        (root, run, aside)
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_replaced_before_the_lock_is_locked_anew() {
        let (_root, run, aside) = with_run();
        let mut times = 0;
        let held = lock_when(&run, &mut || {
            times += 1;
            if times == 1 {
                fs::rename(&run, &aside).unwrap();
                fs::create_dir(&run).unwrap();
            }
        });
        let held = held.unwrap();
        assert_eq!(times, 2);
        assert!(is_at(&held.0, &run.join(LOCK)).unwrap());
        assert!(lock(&run).is_err());
        // Nothing is held on the directory that went away.
        lock(&aside).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn whoever_has_locked_the_new_directory_keeps_it() {
        let (_root, run, aside) = with_run();
        let mut theirs = None;
        let ours = lock_when(&run, &mut || {
            if theirs.is_none() {
                fs::rename(&run, &aside).unwrap();
                fs::create_dir(&run).unwrap();
                theirs = Some(lock(&run).unwrap());
            }
        });
        assert!(ours.unwrap_err().to_string().contains("another process"));
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_goes_with_its_directory() {
        let (_root, run, aside) = with_run();
        let _held = lock(&run).unwrap();
        fs::rename(&run, &aside).unwrap();
        assert!(lock(&aside).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_that_is_gone_is_an_error() {
        let (_root, run, aside) = with_run();
        let gone = lock_when(&run, &mut || fs::rename(&run, &aside).unwrap());
        assert!(matches!(gone, Err(Error::Io { .. })), "{gone:?}");
    }
}
