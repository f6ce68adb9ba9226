//! A file appears under its name whole, or not at all.
//!
//! The bytes are written under a temporary name in the same directory, `.{name}.{pid}-{count}.tmp`, and synced to the
//! disk. Then one rename, which is atomic, puts them in place. The process and the count make the name unique, so
//! several threads and processes may write one path at once; the last rename wins. A signal that a process can catch
//! leaves nothing (`live`). One that is killed leaves at most temporaries, which the next writer of the same path
//! removes (`leftovers` has the rule).

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::leftovers::{remove, sweep};
use super::live::{Steady, steady};
use crate::{Error, Result};

/// Writes a file so that its name holds either the old bytes or the new ones, also after a power cut.
/// A symbolic link at `path` is replaced, not followed.
///
/// # Errors
/// Returns [`Error::File`] if `path` has no file name and [`Error::Io`] if its directory is missing, it is a directory
/// itself, or writing fails. The old file is then whole and no temporary is left; only if the last step fails, which
/// makes the rename survive a power cut, is the new file in place.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| {
        file.write_all(bytes).map_err(Error::io("write", path))
    })
}

/// [`write()`] for a file that is too large for memory: `fill` writes it, and may seek in it.
///
/// # Errors
/// Returns the errors of [`write()`] and those of `fill`; the old file is then whole and no temporary is left.
pub(crate) fn write_with<R>(path: &Path, fill: impl FnOnce(&mut File) -> Result<R>) -> Result<R> {
    let Some((parent, name)) = split(path) else {
        return Err(Error::file(
            path,
            "expected a path that ends in a file's name",
        ));
    };
    let mut temporary = Temporary::file(&parent, name).map_err(Error::io("write", path))?;
    let file = temporary.opened.as_mut().expect("a new file is open");
    let filled = fill(file)?;
    file.sync_all().map_err(Error::io("write", path))?;
    temporary.rename(path).map_err(Error::io("replace", path))?;
    sync_dir(&parent)?;
    Ok(filled)
}

/// Directory and name of a path; `run` lies in `.`.
pub(crate) fn split(path: &Path) -> Option<(PathBuf, &OsStr)> {
    let name = path.file_name()?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    Some((parent.unwrap_or(Path::new(".")).to_owned(), name))
}

/// Waits until the disk has a directory's names, without which a power cut can undo a rename.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    // Other systems cannot open a directory as a file, and their journals keep renames.
    if cfg!(unix) {
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        lenient(synced).map_err(Error::io("sync", dir))?;
    }
    Ok(())
}

/// Some file systems, of networks or in user space, cannot sync a directory and say so. Then nothing can be done, and
/// the files in it are synced all the same.
fn lenient(synced: io::Result<()>) -> io::Result<()> {
    match synced {
        Err(error) if [ErrorKind::InvalidInput, ErrorKind::Unsupported].contains(&error.kind()) => {
            Ok(())
        }
        synced => synced,
    }
}

/// A file or directory under a temporary name, removed when dropped unless it was renamed.
///
/// Its writer holds an advisory lock on it, by which other writers of the path see that it is still being written.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
    /// The file, or where systems allow it the directory; keeps the lock.
    opened: Option<File>,
    has_moved: bool,
}

impl Temporary {
    /// A new file in `parent` from which `name` is to be made.
    pub(crate) fn file(parent: &Path, name: &OsStr) -> io::Result<Self> {
        Self::create(parent, name, false, |path| {
            // A new file only: through a link that was planted here, writing would reach another file.
            File::create_new(path).map(Some)
        })
    }

    /// A new directory in `parent` from which `name` is to be made.
    pub(crate) fn dir(parent: &Path, name: &OsStr) -> io::Result<Self> {
        Self::create(parent, name, true, |path| {
            fs::create_dir(path)?;
            Ok(File::open(path).ok().filter(|_| cfg!(unix)))
        })
    }

    fn create(
        parent: &Path,
        name: &OsStr,
        is_dir: bool,
        make: fn(&Path) -> io::Result<Option<File>>,
    ) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Between its creation and its lock, a temporary of this process must not look like a leftover to its other
        // threads.
        let mut live = steady();
        sweep(parent, name, is_dir);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(beside(name, &format!("-{count}.tmp")));
            match make(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => {
                    let opened = made?;
                    live.add(&path);
                    // Without locks, other writers still see that the process is alive.
                    let _ = opened.as_ref().map(File::try_lock);
                    let has_moved = false;
                    return Ok(Self {
                        path,
                        opened,
                        has_moved,
                    });
                }
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in its place.
    pub(crate) fn rename(self, to: &Path) -> io::Result<()> {
        // The list is free again before a temporary that could not be renamed is dropped.
        let renamed = {
            let mut live = steady();
            self.rename_in(&mut live, to)
        };
        renamed.map_err(|(_, error)| error)
    }

    /// [`Temporary::rename`] as one of several changes that a signal must not come between. If it fails, the temporary
    /// is returned: dropping it waits for `live`.
    pub(crate) fn rename_in(
        mut self,
        live: &mut Steady,
        to: &Path,
    ) -> std::result::Result<(), (Self, io::Error)> {
        match fs::rename(&self.path, to) {
            Ok(()) => {
                live.forget(&self.path);
                self.has_moved = true;
                Ok(())
            }
            Err(error) => Err((self, error)),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.has_moved {
            // The error that led here matters to the user; a second one does not.
            remove(&self.path);
            steady().forget(&self.path);
        }
    }
}

/// `.{name}.{pid}{end}`: hidden, and in the same directory and so in the same file system as `name`.
pub(crate) fn beside(name: &OsStr, end: &str) -> OsString {
    let mut out = OsString::from(".");
    out.push(name);
    out.push(format!(".{}{end}", std::process::id()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;

    /// All that lies in a directory, hidden names too, in order.
    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_that_cannot_be_synced_is_no_error_and_a_broken_disk_is_one() {
        // EINVAL, which fsync(2) has for what cannot be synced; ENOSYS is 38 and EIO 5 on Linux.
        let of = |number| lenient(Err(io::Error::from_raw_os_error(number)));
        assert!(of(22).is_ok() && of(5).is_err() && lenient(Ok(())).is_ok());
        assert_eq!(of(38).is_ok(), cfg!(target_os = "linux"));
    }

    #[test]
    fn a_file_is_written_and_replaced_without_leftovers() {
        let root = tempdir().unwrap();
        let path = root.path().join("f");
        for bytes in [&b"first and long"[..], b"second", b""] {
            write(&path, bytes).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
            assert_eq!(names(root.path()), ["f"]);
        }
    }

    #[test]
    fn a_file_that_cannot_be_filled_leaves_the_old_one() {
        let root = tempdir().unwrap();
        let path = root.path().join("f");
        write(&path, b"old").unwrap();
        let failed = write_with::<()>(&path, |file| {
            file.write_all(b"half").unwrap();
            Err(Error::file(&path, "no"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(root.path()), ["f"]);
        write_with(&path, |file| {
            file.write_all(b"new").map_err(Error::io("write", &path))
        })
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_and_no_temporary() {
        let root = tempdir().unwrap();
        // The rename fails: the target is a directory with something in it.
        let dir = root.path().join("dir");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("kept"), b"kept").unwrap();
        let message = write(&dir, b"new").unwrap_err().to_string();
        assert!(
            message.contains("replace") && message.contains("dir"),
            "{message}"
        );
        assert_eq!(fs::read(dir.join("kept")).unwrap(), b"kept");
        assert_eq!(names(root.path()), ["dir"]);
        // The temporary cannot be created: names end at 255 bytes, and its name is longer.
        let long = "x".repeat(254);
        fs::write(root.path().join(&long), b"old").unwrap();
        assert!(write(&root.path().join(&long), b"new").is_err());
        assert_eq!(fs::read(root.path().join(&long)).unwrap(), b"old");
        assert_eq!(names(root.path()), ["dir".to_owned(), long]);
        // The directory is missing, or is a file; or there is no name at all.
        let missing = root.path().join("no").join("f");
        assert!(matches!(write(&missing, b""), Err(Error::Io { path, .. }) if path == missing));
        assert!(write(&dir.join("kept").join("f"), b"").is_err());
        assert!(write(&dir.join(".."), b"").is_err() && write(Path::new(""), b"").is_err());
        assert_eq!(fs::read(dir.join("kept")).unwrap(), b"kept");
    }

    #[cfg(unix)]
    #[test]
    fn a_planted_link_is_not_followed_and_a_leftover_of_the_same_process_number_is_removed() {
        let root = tempdir().unwrap();
        let (victim, path) = (root.path().join("victim"), root.path().join("f"));
        fs::write(&victim, b"victim").unwrap();
        let at = |end: &str| root.path().join(beside(OsStr::new("f"), end));
        // The counts that the next writers of this process take, whatever other tests do meanwhile.
        let planted: Vec<_> = (0..2000)
            .map(|count| at(&format!("-{count}.tmp")))
            .collect();
        for link in &planted {
            std::os::unix::fs::symlink(&victim, link).unwrap();
        }
        for end in [".tmp", "-99999.tmp"] {
            fs::write(at(end), b"left by a killed process").unwrap();
        }
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read(&victim).unwrap(), b"victim");
        planted
            .iter()
            .for_each(|link| fs::remove_file(link).unwrap());
        assert_eq!(names(root.path()), ["f", "victim"]);
    }

    #[test]
    fn threads_that_write_one_path_do_not_disturb_each_other() {
        let root = tempdir().unwrap();
        let path = root.path().join("f");
        std::thread::scope(|scope| {
            for byte in 0..4u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        write(path, &[byte; 50_000]).unwrap();
                    }
                });
            }
        });
        let found = fs::read(&path).unwrap();
        assert!(found.len() == 50_000 && found.iter().all(|byte| *byte == found[0]));
        assert_eq!(names(root.path()), ["f"]);
    }

    #[test]
    fn a_reader_sees_only_whole_files() {
        let root = tempdir().unwrap();
        let path = root.path().join("f");
        let whole = [vec![1; 100_000], vec![2; 50_000]];
        write(&path, &whole[0]).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| (1..40).for_each(|i| write(&path, &whole[i % 2]).unwrap()));
            while !writer.is_finished() {
                assert!(whole.contains(&fs::read(&path).unwrap()));
            }
        });
    }
}
