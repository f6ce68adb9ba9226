//! A file appears under its name whole, or not at all; and the steps that `directory` shares.
//!
//! The bytes are written under a temporary name beside the target, `.{name}.{pid}.tmp`, and synced to the
//! disk. Then one rename, which the file system makes a single step, puts them in place. A process that is
//! killed leaves at most the temporary, which the next writer of that name removes (`leftovers` has the rule). Its
//! own temporary is removed too, so that one process must not write one path from two threads at once.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::leftovers::{occupy, sweep};
use crate::{Error, Result};

/// Writes a file so that its name holds either the old bytes or the new ones, also after a power cut.
/// A symbolic link at `path` is replaced, not followed.
///
/// # Errors
/// `path` names no file, its directory is missing, it is a directory, or the disk refuses. The old file is
/// then whole and no temporary is left; only if the very last step fails, which makes the rename survive
/// a power cut, is the new file in place.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| {
        file.write_all(bytes).map_err(Error::io("write", path))
    })
}

/// The same for a file that is too large for memory: `fill` writes it, and may move about in it.
///
/// # Errors
/// As [`write()`], and what `fill` returns; the old file is then whole and no temporary is left.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let Some((parent, name)) = split(path) else {
        return Err(Error::file(
            path,
            "expected a path that ends in a file's name",
        ));
    };
    sweep(&parent, name, false);
    let temporary = Temporary::claim(parent.join(beside(name, ".tmp")))?;
    let mut file = create_new(&temporary.path).map_err(Error::io("write", path))?;
    occupy(&file);
    fill(&mut file)?;
    file.sync_all().map_err(Error::io("write", path))?;
    fs::rename(&temporary.path, path).map_err(Error::io("replace", path))?;
    temporary.moved();
    sync_dir(&parent)
}

/// Directory and name of a path; `run` lies in `.`.
pub(super) fn split(path: &Path) -> Option<(PathBuf, &OsStr)> {
    let name = path.file_name()?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    Some((parent.unwrap_or(Path::new(".")).to_owned(), name))
}

/// `.{name}.{pid}{end}`: hidden, beside the target and so in the same file system, and this process's own.
pub(super) fn beside(name: &OsStr, end: &str) -> OsString {
    let mut out = OsString::from(".");
    out.push(name);
    out.push(format!(".{}{end}", std::process::id()));
    out
}

/// Writes a new file and waits until the disk has it.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A new file only: were the name a link that somebody planted, writing would go through it.
fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Waits until the disk has a directory's names, without which a power cut can undo a rename.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    // Elsewhere a directory cannot be opened as a file, and renames are the journal's business.
    if cfg!(unix) {
        let opened = File::open(dir);
        opened
            .and_then(|dir| dir.sync_all())
            .map_err(Error::io("sync", dir))?;
    }
    Ok(())
}

/// Something under a temporary name, removed when dropped unless it moved to its place.
pub(super) struct Temporary {
    pub(super) path: PathBuf,
    has_moved: bool,
}

impl Temporary {
    /// Takes the name, and removes what a killed process with the same number left under it.
    pub(super) fn claim(path: PathBuf) -> Result<Self> {
        remove(&path).map_err(Error::io("remove", &path))?;
        Ok(Self {
            path,
            has_moved: false,
        })
    }

    pub(super) fn moved(mut self) {
        self.has_moved = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.has_moved {
            // An error is already on its way to the user, who needs that one and not this.
            let _ = remove(&self.path);
        }
    }
}

/// Removes a file, a link (not what it points to) or a directory, if there is one.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
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
        let failed = write_with(&path, |file| {
            file.write_all(b"half").unwrap();
            Err(Error::Usage("no".to_owned()))
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
    fn a_planted_or_left_temporary_is_removed_and_not_followed() {
        let root = tempdir().unwrap();
        let (victim, path) = (root.path().join("victim"), root.path().join("f"));
        fs::write(&victim, b"victim").unwrap();
        let temporary = root.path().join(beside(OsStr::new("f"), ".tmp"));
        std::os::unix::fs::symlink(&victim, &temporary).unwrap();
        write(&path, b"new").unwrap();
        fs::write(&temporary, b"left by a killed process").unwrap();
        write(&path, b"newer").unwrap();
        fs::create_dir(&temporary).unwrap();
        fs::write(temporary.join("left"), b"").unwrap();
        write(&path, b"newest").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newest");
        assert_eq!(fs::read(&victim).unwrap(), b"victim");
        assert_eq!(names(root.path()), ["f", "victim"]);
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
