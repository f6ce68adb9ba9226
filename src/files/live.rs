//! The temporaries of this process, so that a signal that ends it leaves none.
//!
//! The one who ends the process calls [`remove_temporaries`]. It waits until no temporary is just being made or put in
//! its place, removes those that are there, and lets no new one be made.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::leftovers::remove;

/// Longest wait for a temporary that is being made or renamed. A file system that hangs must not keep the process
/// alive.
const PATIENCE: Duration = Duration::from_secs(2);

static LIVE: Live = Live(Mutex::new(BTreeSet::new()));

/// The temporaries that exist.
struct Live(Mutex<BTreeSet<PathBuf>>);

/// As long as it lives, no temporary is removed because of a signal, and no other thread makes or renames one.
pub(crate) struct Steady(MutexGuard<'static, BTreeSet<PathBuf>>);

/// Waits for other threads that make or rename a temporary.
pub(crate) fn steady() -> Steady {
    Steady(LIVE.0.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Steady {
    /// Adds a temporary.
    pub(crate) fn add(&mut self, path: &Path) {
        self.0.insert(path.to_owned());
    }

    /// Takes a temporary off the list: it has its place, or is gone.
    pub(crate) fn forget(&mut self, path: &Path) {
        self.0.remove(path);
    }
}

/// Removes the temporaries of all threads, and keeps the threads from making new ones as long as the result lives. The
/// process must end right after it: writers fail from now on.
#[must_use = "new temporaries can be made when it is dropped"]
pub(crate) fn remove_temporaries() -> impl Sized {
    LIVE.clear(PATIENCE)
}

impl Live {
    /// Removes all, or none if the list is not free within this time.
    fn clear(&self, patience: Duration) -> Option<MutexGuard<'_, BTreeSet<PathBuf>>> {
        let began = Instant::now();
        let mut paths = loop {
            match self.0.try_lock() {
                Ok(paths) => break paths,
                Err(TryLockError::Poisoned(paths)) => break paths.into_inner(),
                Err(TryLockError::WouldBlock) if began.elapsed() > patience => return None,
                Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(1)),
            }
        };
        for path in std::mem::take(&mut *paths) {
            remove(&path);
        }
        Some(paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Temporary;
    use std::ffi::OsStr;
    use std::fs;

    fn is_live(path: &Path) -> bool {
        steady().0.contains(path)
    }

    #[test]
    fn a_temporary_is_on_the_list_until_it_has_its_place_or_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let name = OsStr::new("f");
        for make in [Temporary::file, Temporary::dir] {
            let moved = make(root.path(), name).unwrap();
            let dropped = make(root.path(), name).unwrap();
            let (a, b) = (moved.path().to_owned(), dropped.path().to_owned());
            assert!(is_live(&a) && is_live(&b));
            let place = root.path().join("place");
            moved.rename(&place).unwrap();
            drop(dropped);
            assert!(!is_live(&a) && !is_live(&b));
            remove(&place);
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn all_are_removed_at_the_end_and_no_new_one_is_made() {
        let root = tempfile::tempdir().unwrap();
        let (file, dir) = (root.path().join(".f.1.tmp"), root.path().join(".d.1.tmp"));
        fs::write(&file, "half").unwrap();
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("config.json"), "half").unwrap();
        let never = root.path().join(".never.1.tmp");
        let live = Live(Mutex::new(BTreeSet::from([file, dir, never])));
        // While one is being renamed, nothing is removed.
        let renaming = live.0.lock().unwrap();
        assert!(live.clear(Duration::ZERO).is_none());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
        drop(renaming);
        let end = live.clear(Duration::ZERO);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        assert!(live.0.try_lock().is_err());
        drop(end);
        assert!(live.0.try_lock().is_ok());
    }
}
