//! A directory appears with all its files, or not at all.
//!
//! It is built beside the target under the name `.{name}.{pid}.tmp`, synced, and renamed into place.
//! What stands in the way is replaced only on request, and only if it looks like a model's directory.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::atomic::{Temporary, beside, split, sync_dir, write_synced};
use crate::{Error, Result};

/// The file by which a directory is known to be a model's.
const OURS: &str = "config.json";

/// Creates directory `dir` with all `files`, given as (name, content), so that it appears complete or not at
/// all. Missing parents are created.
///
/// An existing `dir` is refused, unless `force` is set: then it is replaced, with all that is in it.
/// Even then it must look like ours: a directory without subdirectories that is empty or holds a
/// `config.json`. The working directory and those above it are never replaced.
///
/// Replacing takes two renames, and a kill between them leaves no `dir`: the old directory then lies
/// beside it as `.{name}.{pid}.old.tmp`.
///
/// # Errors
/// [`Error::Usage`] where `dir` exists and is not to be replaced, or has no name; otherwise whatever
/// the disk refuses. `dir` is then as it was, and no temporary is left. Two errors come later, when the
/// new directory is in place: it cannot be synced, or the old one cannot be removed.
pub fn create_dir(dir: &Path, files: &[(&str, &[u8])], force: bool) -> Result<()> {
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

    fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
    let temporary = Temporary::claim(parent.join(beside(name, ".tmp")))?;
    fs::create_dir(&temporary.path).map_err(Error::io("create", dir))?;
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
    match &aside {
        None => fs::rename(&temporary.path, dir).map_err(Error::io("create", dir))?,
        Some(aside) => swap(&temporary.path, dir, aside)?,
    }
    temporary.moved();
    sync_dir(&parent)?;
    match &aside {
        None => Ok(()),
        Some(aside) => fs::remove_dir_all(aside).map_err(Error::io("remove", aside)),
    }
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

/// Puts directory `new` in the place of `dir`, which goes `aside`. If that fails, `dir` is put back.
fn swap(new: &Path, dir: &Path, aside: &Path) -> Result<()> {
    // Not removed like other leftovers: after a kill between the two renames it is the only copy.
    if fs::symlink_metadata(aside).is_ok() {
        let reason =
            "left by a killed process; it may be the only copy of a model, so move or delete it";
        return Err(Error::file(aside, reason));
    }
    fs::rename(dir, aside).map_err(Error::io("move aside", dir))?;
    fs::rename(new, dir).map_err(|error| match fs::rename(aside, dir) {
        Ok(()) => Error::io("replace", dir)(error),
        Err(back) => {
            let old = aside.display();
            let reason =
                format!("cannot be replaced ({error}) nor put back ({back}); the old one is {old}");
            Error::file(dir, reason)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;

    const NEW: &[(&str, &[u8])] = &[("config.json", b"{}"), ("m", b"new")];

    /// All that lies in a directory, hidden names too, in order.
    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn usage(result: Result<()>) -> String {
        match result.unwrap_err() {
            Error::Usage(sentence) => sentence,
            other => panic!("expected a usage error, found {other}"),
        }
    }

    /// A directory of ours at `run`, older than `NEW`.
    fn with_old() -> (tempfile::TempDir, PathBuf) {
        let root = tempdir().unwrap();
        let run = root.path().join("run");
        create_dir(&run, &[("config.json", b"{}"), ("old", b"old")], false).unwrap();
        (root, run)
    }

    #[test]
    fn a_directory_appears_with_missing_parents_and_a_trailing_slash() {
        let root = tempdir().unwrap();
        let given = format!("{}/a/b/run/", root.path().display());
        create_dir(Path::new(&given), NEW, false).unwrap();
        assert_eq!(names(&root.path().join("a/b")), ["run"]);
        assert_eq!(names(&root.path().join("a/b/run")), ["config.json", "m"]);
        assert_eq!(fs::read(root.path().join("a/b/run/m")).unwrap(), b"new");
        assert!(create_dir(&root.path().join("a/b/run/m/x"), NEW, false).is_err());
    }

    #[test]
    fn paths_end_in_a_name() {
        let root = tempdir().unwrap();
        for (given, expected) in [
            ("run", "run"),
            ("run/", "run"),
            ("run/.", "run"),
            ("a/run//", "a/run"),
        ] {
            assert_eq!(resolve(Path::new(given)).unwrap(), Path::new(expected));
        }
        assert_eq!(
            split(Path::new("run")),
            Some((".".into(), OsStr::new("run")))
        );
        assert!(usage(create_dir(Path::new(""), NEW, true)).contains("with a name"));
        assert!(usage(create_dir(Path::new("/"), NEW, false)).contains("with a name"));
        assert!(usage(create_dir(Path::new("."), NEW, false)).contains("--force"));
        // `run/..` is the directory above, which exists.
        fs::create_dir(root.path().join("run")).unwrap();
        let sentence = usage(create_dir(&root.path().join("run").join(".."), NEW, false));
        assert!(
            sentence.contains("--force") && !sentence.contains(".."),
            "{sentence}"
        );
        assert_eq!(names(root.path()), ["run"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_relative_path_starts_at_the_working_directory() {
        let root = tempdir().unwrap();
        let here = fs::canonicalize(".").unwrap();
        let up: PathBuf = here.iter().skip(1).map(|_| "..").collect();
        let real = fs::canonicalize(root.path()).unwrap();
        let relative = up.join(real.strip_prefix("/").unwrap()).join("run");
        create_dir(&relative, NEW, false).unwrap();
        create_dir(&relative, NEW, true).unwrap();
        assert_eq!(names(root.path()), ["run"]);
        assert_eq!(names(&root.path().join("run")), ["config.json", "m"]);
    }

    #[test]
    fn an_existing_directory_is_refused_by_name() {
        let (root, run) = with_old();
        let sentence = usage(create_dir(&run, NEW, false));
        assert!(
            sentence.contains(run.to_str().unwrap()) && sentence.contains("--force"),
            "{sentence}"
        );
        assert_eq!(names(&run), ["config.json", "old"]);
        assert_eq!(names(root.path()), ["run"]);
    }

    #[test]
    fn force_replaces_ours_and_the_empty() {
        let (root, run) = with_old();
        fs::create_dir(root.path().join("empty")).unwrap();
        for dir in [run, root.path().join("empty")] {
            create_dir(&dir, NEW, true).unwrap();
            assert_eq!(names(&dir), ["config.json", "m"]);
        }
        create_dir(&root.path().join("fresh"), NEW, true).unwrap();
        assert_eq!(names(root.path()), ["empty", "fresh", "run"]);
    }

    #[test]
    fn force_never_deletes_what_may_be_somebodys() {
        let (root, run) = with_old();
        let sub = |name: &str| root.path().join(name);
        fs::write(sub("file"), b"kept").unwrap();
        fs::create_dir_all(sub("home")).unwrap();
        fs::write(sub("home/letter"), b"kept").unwrap();
        fs::create_dir_all(sub("project/src")).unwrap();
        fs::write(sub("project/config.json"), b"kept").unwrap();
        fs::create_dir_all(sub("odd/config.json")).unwrap();
        let before = names(root.path());
        for name in [
            "file", "home", "home/", "project", "odd", "home/..", "file/",
        ] {
            assert!(
                usage(create_dir(&sub(name), NEW, true)).contains("even with --force"),
                "{name}"
            );
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&run, sub("link")).unwrap();
            assert!(usage(create_dir(&sub("link"), NEW, true)).contains("symbolic link"));
            fs::remove_file(sub("link")).unwrap();
            fs::write(sub("linked.json"), b"{}").unwrap();
            fs::remove_dir(sub("odd/config.json")).unwrap();
            std::os::unix::fs::symlink(sub("linked.json"), sub("odd/config.json")).unwrap();
            assert!(usage(create_dir(&sub("odd"), NEW, true)).contains("no config.json"));
            fs::remove_file(sub("linked.json")).unwrap();
        }
        let found = fs::symlink_metadata(&run).unwrap();
        assert!(usage(check_replaceable(&run, &found, &run)).contains("working directory"));
        assert_eq!(names(root.path()), before);
        assert_eq!(fs::read(sub("home/letter")).unwrap(), b"kept");
        assert_eq!(names(&sub("project")), ["config.json", "src"]);
        assert_eq!(names(&run), ["config.json", "old"]);
    }

    #[test]
    fn a_creation_that_fails_half_way_leaves_everything_as_it_was() {
        let (root, run) = with_old();
        let long = "x".repeat(300);
        for bad in [&long, "a/b", "../x", "/etc/x", "..", ".", "", "m"] {
            // The first file is written before the bad one fails; `m` is bad as it comes twice.
            let files: &[(&str, &[u8])] = &[("config.json", b"{}"), ("m", b"new"), (bad, b"bad")];
            assert!(create_dir(&run, files, true).is_err(), "{bad}");
            assert!(
                create_dir(&root.path().join("fresh"), files, false).is_err(),
                "{bad}"
            );
            assert_eq!(names(root.path()), ["run"]);
            assert_eq!(names(&run), ["config.json", "old"]);
        }
    }

    #[test]
    fn a_failed_swap_puts_the_old_directory_back() {
        let (root, run) = with_old();
        let (new, aside) = (root.path().join("new"), root.path().join("aside"));
        let message = swap(&new, &run, &aside).unwrap_err().to_string();
        assert!(message.contains("replace"), "{message}");
        assert_eq!(names(&run), ["config.json", "old"]);
        assert_eq!(names(root.path()), ["run"]);
    }

    #[test]
    fn what_a_killed_replacement_left_aside_is_not_deleted() {
        let (root, run) = with_old();
        let aside = root.path().join(beside(OsStr::new("run"), ".old.tmp"));
        fs::create_dir(&aside).unwrap();
        let message = create_dir(&run, NEW, true).unwrap_err().to_string();
        assert!(
            message.contains(".old.tmp") && message.contains("only copy"),
            "{message}"
        );
        assert!(aside.exists());
        assert_eq!(names(&run), ["config.json", "old"]);
        assert_eq!(names(root.path()).len(), 2);
    }
}
