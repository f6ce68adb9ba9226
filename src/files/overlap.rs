//! Whether writing to one path would destroy what another path names.
//!
//! Files are compared by what they are (device and inode), not by their names: an input may be reached through a
//! symbolic link, a hard link or a relative path.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::{Error, Result};

/// Most symbolic links that are followed one after the other; Linux follows as many.
const LINKS: usize = 40;

/// Refuses an output that is, contains or replaces an input. `what` names the input in the error.
///
/// # Errors
/// Returns [`Error::Exists`].
pub(crate) fn refuse_overlap(output: &Path, input: &Path, what: &str) -> Result<()> {
    let how = if same(output, input) {
        "it is"
    } else if contains(output, input) {
        "it contains"
    } else {
        return Ok(());
    };
    Err(Error::Exists {
        path: output.to_owned(),
        kept: Some(format!("{how} {what}, which the same command reads")),
    })
}

/// Whether a directory has an input in it: under its path, under the path of a link to it, or as a hard link.
fn contains(output: &Path, input: &Path) -> bool {
    if !output.is_dir() {
        return false;
    }
    let lies_in = |place: &PathBuf| place.ancestors().skip(1).any(|above| same(above, output));
    let entries = fs::read_dir(output).into_iter().flatten().flatten();
    places(input).iter().any(lies_in) || entries.map(|entry| entry.path()).any(|e| same(&e, input))
}

/// Whether two paths lead to one file or directory. A path that leads nowhere is the same as none.
#[cfg(unix)]
fn same(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path| {
        fs::metadata(path)
            .ok()
            .map(|found| (found.dev(), found.ino()))
    };
    identity(a).is_some_and(|a| Some(a) == identity(b))
}

/// The standard library does not give the numbers of files here, so hard links are not noticed.
#[cfg(not(unix))]
fn same(a: &Path, b: &Path) -> bool {
    fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b))
}

/// The absolute paths of everything that must stay for `path` to lead where it leads: the path, each link after it,
/// and the file at the end.
fn places(path: &Path) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let mut next = std::path::absolute(path).ok();
    while let Some(place) = next.take().filter(|_| places.len() < LINKS) {
        let above = place.parent().unwrap_or(Path::new("/"));
        next = fs::read_link(&place).ok().map(|target| above.join(target));
        places.push(place);
    }
    // `run/../text` does not lie in `run`. The path without any `..` decides about it.
    places.retain(|place| !place.components().any(|part| part == Component::ParentDir));
    places.extend(fs::canonicalize(path));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reason why `output` must not be written, if there is one.
    fn reason(output: &Path, input: &Path) -> Option<String> {
        match refuse_overlap(output, input, "--data x").err()? {
            Error::Exists { path, kept } => {
                assert_eq!(path, output);
                kept
            }
            other => panic!("expected a path that exists, found {other}"),
        }
    }

    #[test]
    fn an_input_is_found_under_every_name() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("run")).unwrap();
        fs::create_dir_all(at("other")).unwrap();
        for file in ["text", "run/text", "other/text"] {
            fs::write(at(file), file).unwrap();
        }
        for (output, input, how) in [
            ("text", "text", "it is --data x"),
            ("text", "run/../text", "it is --data x"),
            ("other/../text", "text", "it is --data x"),
            ("run", "run", "it is --data x"),
            ("run", "run/text", "it contains --data x"),
            ("run/", "other/../run/./text", "it contains --data x"),
            ("other/..", "run/text", "it contains --data x"),
        ] {
            let found = reason(&at(output), &at(input)).unwrap_or_default();
            assert!(found.starts_with(how), "{output} {input}: {found}");
        }
        for (output, input) in [
            ("new", "text"),
            ("text", "new"),
            ("new", "new"),
            ("text", "run/text"),
            ("run", "text"),
            ("run", "run/../text"),
            ("run", "other/text"),
            ("run/text", "run"),
        ] {
            assert_eq!(reason(&at(output), &at(input)), None, "{output} {input}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_do_not_hide_an_input() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for dir in ["run", "hard", "other"] {
            fs::create_dir(at(dir)).unwrap();
        }
        fs::write(at("text"), "text").unwrap();
        fs::write(at("other/text"), "text").unwrap();
        fs::hard_link(at("text"), at("twin")).unwrap();
        fs::hard_link(at("text"), at("hard/text")).unwrap();
        symlink(at("text"), at("link")).unwrap();
        symlink(at("run"), at("way")).unwrap();
        // The text lies elsewhere, but the links that lead to it lie in the directory.
        symlink("../text", at("run/link")).unwrap();
        symlink("run/link", at("long")).unwrap();
        symlink("../other", at("run/dir")).unwrap();
        // A circle leads nowhere, and ends.
        symlink("circle", at("circle")).unwrap();
        for (output, input, how) in [
            ("twin", "text", "it is"),
            ("text", "link", "it is"),
            ("link", "text", "it is"),
            ("hard", "text", "it contains"),
            ("hard", "twin", "it contains"),
            ("run", "text", "it contains"),
            ("run", "long", "it contains"),
            ("way", "long", "it contains"),
            ("run", "run/dir/text", "it contains"),
            ("run", "way/dir/text", "it contains"),
        ] {
            let found = reason(&at(output), &at(input)).unwrap_or_default();
            assert!(found.starts_with(how), "{output} {input}: {found}");
        }
        for (output, input) in [("run", "other/text"), ("run", "circle"), ("circle", "text")] {
            assert_eq!(reason(&at(output), &at(input)), None, "{output} {input}");
        }
    }
}
