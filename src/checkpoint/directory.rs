//! A directory appears with all its files, or not at all.
//!
//! It is built beside the target under the name `.{name}.{pid}.tmp`, synced, and renamed into place.
//! What stands in the way is replaced only on request, and only if it looks like a model's directory.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::atomic::{Temporary, beside, split, sync_dir, write_synced};
use super::leftovers::{occupy_dir, sweep};
use super::lock::{Lock, busy, lock_old};
use crate::{Error, Result};

/// The file by which a directory is known to be a model's.
const OURS: &str = "config.json";

/// Creates directory `dir` with all `files`, given as (name, content), so that it appears complete or not at
/// all. Missing parents are created.
///
/// An existing `dir` is refused, unless `force` is set: then it is replaced, with all that is in it.
/// Even then it must look like ours: a directory without subdirectories that is empty or holds a
/// `config.json`. The working directory and those above it are never replaced, nor is a directory that a process
/// trains into.
///
/// Replacing takes two renames, and a kill between them leaves no `dir`: the old directory then lies
/// beside it as `.{name}.{pid}.old.tmp`.
///
/// # Errors
/// [`Error::Usage`] where `dir` exists and is not to be replaced, has no name or is trained into; otherwise whatever
/// the disk refuses. `dir` is then as it was, and no temporary is left. Two errors come later, when the
/// new directory is in place: it cannot be synced, or the old one cannot be removed.
pub fn create_dir(dir: &Path, files: &[(&str, &[u8])], force: bool) -> Result<()> {
    create_dir_with(dir, files, force, |_| Ok(()))
}

/// [`create_dir`] with something done to the whole directory before it appears: given its temporary path, `before` may
/// refuse, or take hold of a file whose first moment under the right name must not belong to others.
pub(super) fn create_dir_with<T>(
    dir: &Path,
    files: &[(&str, &[u8])],
    force: bool,
    before: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let dir = &resolve(dir)?;
    let Some((parent, name)) = split(dir) else {
        return Err(nameless(dir));
    };
    let aside = match fs::symlink_metadata(dir) {
        Ok(_) if !force => {
            let dir = dir.display();
            let sentence =
                format!("{dir} exists: choose another directory, or replace it with --force");
            return Err(Error::Usage(sentence));
        }
        Ok(found) => {
            let here = std::env::current_dir().map_err(Error::io("read", Path::new(".")))?;
            check_replaceable(dir, &found, &here)?;
            Some(parent.join(beside(name, ".old.tmp")))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("read", dir)(error)),
    };
    // Held until the old directory is gone, so that nobody goes on with a run that is being replaced.
    let mut held = match &aside {
        Some(_) => lock_old(dir)?,
        None => None,
    };

    fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
    sweep(&parent, name, true);
    let temporary = Temporary::claim(parent.join(beside(name, ".tmp")))?;
    fs::create_dir(&temporary.path).map_err(Error::io("create", dir))?;
    let _occupied = occupy_dir(&temporary.path);
    for &(file, bytes) in files {
        let path = dir.join(file);
        if Path::new(file).file_name() != Some(OsStr::new(file)) {
            return Err(Error::file(
                &path,
                format!("expected a plain file name, found `{file}`"),
            ));
        }
        write_synced(&temporary.path.join(file), bytes).map_err(Error::io("write", &path))?;
    }
    sync_dir(&temporary.path)?;
    let prepared = before(&temporary.path)?;
    match &aside {
        None => fs::rename(&temporary.path, dir).map_err(Error::io("create", dir))?,
        Some(aside) => held = swap(&temporary.path, dir, aside, held)?,
    }
    temporary.moved();
    sync_dir(&parent)?;
    if let Some(aside) = &aside {
        fs::remove_dir_all(aside).map_err(Error::io("remove", aside))?;
    }
    drop(held);
    Ok(prepared)
}

/// A path that ends in a name and in nothing else: `run/` becomes `run`, and `a/..` what it stands for.
fn resolve(dir: &Path) -> Result<PathBuf> {
    if let Some(name) = dir.file_name() {
        return Ok(dir.with_file_name(name));
    }
    if dir.as_os_str().is_empty() {
        return Err(nameless(dir));
    }
    fs::canonicalize(dir).map_err(Error::io("read", dir))
}

fn nameless(dir: &Path) -> Error {
    Error::Usage(format!(
        "`{}`: expected a directory with a name",
        dir.display()
    ))
}

/// Refuses to replace what may be somebody's own: `--out /home --force` must delete nothing.
fn check_replaceable(dir: &Path, found: &Metadata, here: &Path) -> Result<()> {
    let refuse = |reason: &str| {
        let sentence = format!(
            "{} cannot be replaced, even with --force: {reason}",
            dir.display()
        );
        Err(Error::Usage(sentence))
    };
    if found.is_symlink() {
        return refuse("it is a symbolic link; name the directory that it points to");
    }
    if !found.is_dir() {
        return refuse("it is not a directory");
    }
    let real = |path: &Path| fs::canonicalize(path).map_err(Error::io("read", path));
    if real(here)?.starts_with(real(dir)?) {
        return refuse("the working directory is in it");
    }
    let (mut empty, mut ours) = (true, false);
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let entry = entry.map_err(Error::io("read", dir))?;
        let kind = entry
            .file_type()
            .map_err(Error::io("read", &entry.path()))?;
        if kind.is_dir() {
            return refuse("it holds a directory, and a model's directory holds only files");
        }
        empty = false;
        // A link does not count: a download cache is made of links.
        ours |= kind.is_file() && entry.file_name() == OURS;
    }
    if !empty && !ours {
        return refuse(
            "it is not empty and has no config.json of its own, so it is no model's directory",
        );
    }
    Ok(())
}

/// Puts directory `new` in the place of `dir`, which goes `aside`. If that fails, `dir` is put back. Gives the lock on the
/// old directory.
fn swap(new: &Path, dir: &Path, aside: &Path, held: Option<Lock>) -> Result<Option<Lock>> {
    // Not removed like other leftovers: after a kill between the two renames it is the only copy.
    if fs::symlink_metadata(aside).is_ok() {
        let reason =
            "left by a killed process; it may be the only copy of a model, so move or delete it";
        return Err(Error::file(aside, reason));
    }
    fs::rename(dir, aside).map_err(Error::io("move aside", dir))?;
    // A directory without a lock may have become a run since. Where it lies now, nobody can begin one any more.
    let lock = match held {
        Some(lock) => Ok(Some(lock)),
        None => lock_old(aside).map_err(|error| match error {
            Error::Usage(_) => busy(dir),
            other => other,
        }),
    };
    let replaced = lock.and_then(|lock| {
        fs::rename(new, dir).map_err(Error::io("replace", dir))?;
        Ok(lock)
    });
    replaced.map_err(|error| match fs::rename(aside, dir) {
        Ok(()) => error,
        Err(back) => {
            let old = aside.display();
            let reason =
                format!("cannot be replaced ({error}) nor put back ({back}); the old one is {old}");
            Error::file(dir, reason)
        }
    })
}

#[cfg(test)]
mod tests;
