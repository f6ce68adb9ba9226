//! A directory appears with all its files, or not at all.
//!
//! It is built under a temporary name in the same parent directory, synced, and renamed into place. An existing
//! directory is replaced only on request, and only if this program wrote everything in it.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::encode::Safetensors;
use super::json;
use super::lock::{Lock, busy, lock_old};
use super::names::{CONFIG, is_ours};
use crate::files::{Temporary, beside, escape, split, steady, sync_dir};
use crate::{Error, Result};

/// The fields of `config.json` that only this program writes begin so.
const OURS: &str = "foretoken_";

/// What is written into a new file.
#[derive(Clone, Copy)]
pub(super) enum Contents<'a> {
    Bytes(&'a [u8]),
    Tensors(&'a Safetensors<'a>),
}

impl Contents<'_> {
    /// Writes a new file and waits until the disk has it.
    fn write(self, path: &Path) -> io::Result<()> {
        let mut file: File = OpenOptions::new().write(true).create_new(true).open(path)?;
        match self {
            Self::Bytes(bytes) => file.write_all(bytes)?,
            Self::Tensors(tensors) => tensors.write_to(&mut file)?,
        }
        file.sync_all()
    }
}

/// Creates directory `dir` with all `files`, given as (name, contents), so that it appears complete or not at all.
/// Missing parents are created. `before` is called with the temporary path of the complete directory before it appears:
/// it may refuse, or take hold of a file that must be held from the first moment that others can see it.
///
/// An existing `dir` is refused, unless `force` is set: then it is replaced with everything in it. Even then it must be
/// ours: a directory that is empty, or that holds nothing but files with the names that this program gives, and a
/// `config.json` with a field that only this program writes. The working directory and those above it are never
/// replaced, nor is a directory that a process trains into.
///
/// Replacing takes two renames. A signal that the program catches waits for both; a kill between them leaves no `dir`:
/// the old directory then stands next to it as `.{name}.{pid}.old.tmp`.
///
/// # Errors
/// Returns [`Error::Exists`] if `dir` exists and is not replaced, [`Error::Busy`] if a process trains into it,
/// [`Error::File`] if it has no name, and [`Error::Io`] for everything that the disk refuses. `dir` is then as it was,
/// and no temporary is left. Two errors come later, when the new directory is in place: it cannot be synced, or the old
/// one cannot be removed.
pub(super) fn create_dir<T>(
    dir: &Path,
    files: &[(&str, Contents<'_>)],
    force: bool,
    before: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let dir = &resolve(dir)?;
    let Some((parent, name)) = split(dir) else {
        return Err(nameless(dir));
    };
    let aside = match fs::symlink_metadata(dir) {
        Ok(_) if !force => {
            return Err(Error::Exists {
                path: dir.clone(),
                kept: None,
            });
        }
        Ok(found) => {
            let here = std::env::current_dir().map_err(Error::io("read", Path::new(".")))?;
            check_replaceable(dir, &found, &here)?;
            Some(parent.join(beside(name, ".old.tmp")))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("read", dir)(error)),
    };
    // Held until the old directory is gone, so that no run continues in a directory that is being replaced.
    let mut held = lock_old(dir)?;

    fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
    let temporary = Temporary::dir(&parent, name).map_err(Error::io("create", dir))?;
    for &(file, contents) in files {
        let path = dir.join(file);
        if Path::new(file).file_name() != Some(OsStr::new(file)) {
            let reason = format!("expected a plain file name, found `{file}`");
            return Err(Error::file(&path, reason));
        }
        contents
            .write(&temporary.path().join(file))
            .map_err(Error::io("write", &path))?;
    }
    sync_dir(temporary.path())?;
    let prepared = before(temporary.path())?;
    match &aside {
        None => temporary.rename(dir).map_err(Error::io("create", dir))?,
        Some(aside) => held = swap(temporary, dir, aside, held)?,
    }
    sync_dir(&parent)?;
    if let Some(aside) = &aside {
        fs::remove_dir_all(aside).map_err(Error::io("remove", aside))?;
        steady().forget(aside);
    }
    drop(held);
    Ok(prepared)
}

/// A path that ends in a name: `run/` becomes `run`, and `a/..` what it stands for.
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
    Error::file(dir, "expected a directory with a name")
}

/// Refuses to replace what may be the user's own: forcing a model into `/home` must delete nothing.
fn check_replaceable(dir: &Path, found: &Metadata, here: &Path) -> Result<()> {
    let refuse = |reason: &str| {
        Err(Error::Exists {
            path: dir.to_owned(),
            kept: Some(reason.to_owned()),
        })
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
    let mut empty = true;
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let entry = entry.map_err(Error::io("read", dir))?;
        let kind = entry
            .file_type()
            .map_err(Error::io("read", &entry.path()))?;
        if kind.is_dir() {
            return refuse("it holds a directory, and a model's directory holds only files");
        }
        empty = false;
        let name = entry.file_name();
        // A link is not ours: a download cache is made of links.
        if !kind.is_file() || !is_ours(&name) {
            let name = escape(&name.to_string_lossy());
            return refuse(&format!(
                "it holds `{name}`, which is no file of a model; move it elsewhere"
            ));
        }
    }
    if !empty && !has_our_config(dir) {
        return refuse("it has no config.json that this program wrote");
    }
    Ok(())
}

/// Whether a directory's `config.json` has a field that only this program writes.
fn has_our_config(dir: &Path) -> bool {
    let path = dir.join(CONFIG);
    let fields = json::read(&path).and_then(|bytes| json::parse(&path, &bytes));
    fields.is_ok_and(|fields: serde_json::Map<_, _>| fields.keys().any(|key| key.starts_with(OURS)))
}

/// Puts directory `new` in the place of `dir`, which goes `aside`. If that fails, `dir` is put back. Returns the lock
/// on the old directory.
fn swap(new: Temporary, dir: &Path, aside: &Path, held: Option<Lock>) -> Result<Option<Lock>> {
    // Not removed like other leftovers: after a kill between the two renames it is the only copy.
    if fs::symlink_metadata(aside).is_ok() {
        let reason =
            "left by a killed process; it may be the only copy of a model, so move or delete it";
        return Err(Error::file(aside, reason));
    }
    // A directory without a lock may have become a run since: then it is not moved at all.
    let held = held.map_or_else(|| lock_old(dir), |lock| Ok(Some(lock)))?;
    let mut live = steady();
    fs::rename(dir, aside).map_err(Error::io("move aside", dir))?;
    // Or at the last moment. In its present place no run can begin any more.
    let lock = match held {
        Some(lock) => Ok(Some(lock)),
        None => lock_old(aside).map_err(|error| match error {
            Error::Busy { .. } => busy(dir),
            other => other,
        }),
    };
    let (error, _new) = match lock {
        Err(error) => (error, Some(new)),
        Ok(lock) => match new.rename_in(&mut live, dir) {
            Ok(()) => {
                // From now on the old directory is what a signal must not leave.
                live.add(aside);
                return Ok(lock);
            }
            Err((new, error)) => (Error::io("replace", dir)(error), Some(new)),
        },
    };
    let back = fs::rename(aside, dir);
    // Before the new directory is removed, which changes the list.
    drop(live);
    Err(match back {
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
