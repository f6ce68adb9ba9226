//! The lock of a directory: one process at a time trains into it, and the directory is not replaced meanwhile.
//!
//! `train.lock` is an empty file on which a process holds an advisory lock. The system releases the lock when the
//! process ends in whatever way. The file itself stays, because removing it would let two processes hold locks on two
//! files of one name.
//!
//! A directory may be replaced between the opening of its file and the locking. The lock is then on a file that no path
//! names any more, and does not protect the directory that has the name now. So the locked file is compared with the
//! file at the path (device and inode), and the lock is taken again if they differ.
//!
//! Some file systems have no locks, or number a file anew whenever it is looked at. Training works there too, without
//! this protection; `Lock::is_held` is then false, and the program prints a warning.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use super::names::LOCK;
use crate::{Error, Result};

/// Most times that a lock is taken anew. No directory is replaced so often in a moment.
const ATTEMPTS: usize = 16;

/// A lock that is held as long as the value lives, also when the directory moves.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    /// False if the file system has no locks that can be relied on.
    pub(super) is_held: bool,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that another thread is starting has it open too, until it becomes
        // another program. An error changes nothing, because the system unlocks when the process ends.
        let _ = self.file.unlock();
    }
}

/// Takes the lock of a directory that exists.
///
/// # Errors
/// Returns [`Error::Busy`] if another process holds it and [`Error::Io`] if the file cannot be opened.
pub(super) fn lock(dir: &Path) -> Result<Lock> {
    lock_by(dir, &mut File::try_lock)
}

/// [`lock()`] with the call that locks the open file.
fn lock_by(
    dir: &Path,
    try_lock: &mut dyn FnMut(&File) -> std::result::Result<(), TryLockError>,
) -> Result<Lock> {
    let path = dir.join(LOCK);
    for attempt in 1.. {
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        let is_held = match try_lock(&file) {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => return Err(busy(dir)),
            // A signal came in between.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => continue,
            // Whatever the system calls it: ENOLCK, ENOSYS, EOPNOTSUPP and EINVAL are in use.
            Err(TryLockError::Error(_)) => false,
        };
        if is_at(&file, &path)? {
            return Ok(Lock { file, is_held });
        }
        if attempt == ATTEMPTS {
            let is_held = false;
            return Ok(Lock { file, is_held });
        }
    }
    unreachable!("the last attempt returns")
}

/// The error about a directory whose lock another process holds.
pub(super) fn busy(dir: &Path) -> Error {
    let path = dir.to_owned();
    Error::Busy { path }
}

/// Takes the lock of a directory that is to be replaced, if it was ever trained into.
///
/// # Errors
/// Returns the errors of [`lock()`].
pub(super) fn lock_old(dir: &Path) -> Result<Option<Lock>> {
    // A missing file is not created: a replacement that fails leaves the old directory as it was.
    let exists = dir.join(LOCK).is_file();
    exists.then(|| lock(dir)).transpose()
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
        // A child that is being started shares the open file. It does not keep the lock.
        let shared = first.file.try_clone().unwrap();
        drop(first);
        lock(folder.path()).unwrap();
        assert!(lock_old(folder.path()).unwrap().is_some());
        drop(shared);
    }

    #[test]
    fn a_file_system_without_locks_is_noticed_and_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let unsupported = || std::io::Error::from(std::io::ErrorKind::Unsupported);
        let mut none = |_: &File| Err(TryLockError::Error(unsupported()));
        let first = lock_by(folder.path(), &mut none).unwrap();
        let second = lock_by(folder.path(), &mut none).unwrap();
        assert!(!first.is_held && !second.is_held);
        assert!(lock(folder.path()).unwrap().is_held);
    }

    #[test]
    fn a_signal_between_is_no_missing_lock() {
        let folder = tempfile::tempdir().unwrap();
        let mut times = 0;
        let held = lock_by(folder.path(), &mut |file| {
            times += 1;
            let interrupted = || std::io::Error::from(ErrorKind::Interrupted);
            if times < 30 {
                Err(TryLockError::Error(interrupted()))
            } else {
                file.try_lock()
            }
        });
        assert!(held.unwrap().is_held);
        assert_eq!(times, 30);
    }

    /// As on a file system that numbers files anew all the time.
    #[cfg(unix)]
    #[test]
    fn a_file_that_is_never_the_one_at_its_path_ends_in_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let mut times = 0;
        let held = lock_by(folder.path(), &mut |file| {
            times += 1;
            fs::remove_file(folder.path().join(LOCK)).unwrap();
            file.try_lock()
        });
        assert!(!held.unwrap().is_held);
        assert_eq!(times, ATTEMPTS);
    }

    #[test]
    fn a_directory_that_was_never_trained_into_gets_no_file() {
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
        let held = lock_by(&run, &mut |file| {
            times += 1;
            if times == 1 {
                fs::rename(&run, &aside).unwrap();
                fs::create_dir(&run).unwrap();
            }
            file.try_lock()
        });
        let held = held.unwrap();
        assert_eq!(times, 2);
        assert!(is_at(&held.file, &run.join(LOCK)).unwrap());
        assert!(lock(&run).is_err());
        // Nothing is held on the directory that went away.
        lock(&aside).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn another_process_that_has_locked_the_new_directory_keeps_it() {
        let (_root, run, aside) = with_run();
        let mut theirs = None;
        let ours = lock_by(&run, &mut |file| {
            if theirs.is_none() {
                fs::rename(&run, &aside).unwrap();
                fs::create_dir(&run).unwrap();
                theirs = Some(lock(&run).unwrap());
            }
            file.try_lock()
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
        let gone = lock_by(&run, &mut |file| {
            fs::rename(&run, &aside).unwrap();
            file.try_lock()
        });
        assert!(matches!(gone, Err(Error::Io { .. })), "{gone:?}");
    }
}
