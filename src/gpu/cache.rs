//! Compiled kernels in the user's cache directory.
//!
//! A file is named by the SHA-256 of everything that its contents depend on, and begins with the SHA-256 of the rest. One
//! that is damaged is made anew. Where nothing can be kept, everything is made each time.

use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

const CHECKSUM: usize = 32;

/// Where compiled kernels are kept: `$XDG_CACHE_HOME/foretoken`, else `~/.cache/foretoken`.
pub(super) fn folder() -> Option<PathBuf> {
    let absolute = |name| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("foretoken"))
}

/// What `make` makes from `inputs`, kept in the folder.
pub(super) fn kept<E>(
    folder: Option<&Path>,
    inputs: &[&str],
    make: impl FnOnce() -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    let path = folder.map(|folder| folder.join(format!("{}.kernels", name(inputs))));
    if let Some(found) = path.as_deref().and_then(read) {
        return Ok(found);
    }
    let made = make()?;
    if let Some(path) = path {
        // Whoever cannot keep it makes it again.
        let _ = write(&path, &made);
    }
    Ok(made)
}

fn name(inputs: &[&str]) -> String {
    let mut hash = Sha256::new();
    for input in inputs {
        // The length first, so that no two lists of inputs look the same.
        hash.update((input.len() as u64).to_le_bytes());
        hash.update(input);
    }
    crate::files::hex(&hash.finalize())
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut file = fs::read(path).ok()?;
    let contents = file.get(CHECKSUM..)?;
    if Sha256::digest(contents)[..] != file[..CHECKSUM] {
        return None;
    }
    file.drain(..CHECKSUM);
    Some(file)
}

fn write(path: &Path, contents: &[u8]) -> crate::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(crate::Error::io("create", folder))?;
    }
    let file = [&Sha256::digest(contents)[..], contents].concat();
    crate::files::write(path, &file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// What is found or made, and whether it was made.
    fn ask(folder: Option<&Path>, inputs: &[&str], make: &[u8]) -> (Vec<u8>, bool) {
        let mut made = false;
        let Ok(found) = kept(folder, inputs, || {
            made = true;
            Ok::<_, Infallible>(make.to_vec())
        });
        (found, made)
    }

    #[test]
    fn what_was_made_is_found() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let deep = folder.path().join("a/b");
        let deep = Some(deep.as_path());
        assert_eq!(ask(deep, &["x", "y"], b"one"), (b"one".to_vec(), true));
        assert_eq!(ask(deep, &["x", "y"], b"two"), (b"one".to_vec(), false));
        for other in [["xy", ""], ["", "xy"], ["y", "x"]] {
            assert_eq!(ask(deep, &other, b"two"), (b"two".to_vec(), true));
        }
        assert_eq!(ask(None, &["x", "y"], b"two"), (b"two".to_vec(), true));
    }

    #[test]
    fn a_damaged_file_is_made_anew() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = Some(folder.path());
        ask(path, &["x"], b"contents");
        let file = fs::read_dir(folder.path()).expect("a folder").next();
        let file = file.expect("one file").expect("an entry").path();
        let whole = fs::read(&file).expect("a file");
        let mut turned = whole.clone();
        turned[CHECKSUM + 3] ^= 1;
        for damaged in [
            &whole[..0],
            &whole[..CHECKSUM - 1],
            &whole[..CHECKSUM + 1],
            &turned,
        ] {
            fs::write(&file, damaged).expect("a file");
            assert_eq!(ask(path, &["x"], b"contents"), (b"contents".to_vec(), true));
            assert_eq!(fs::read(&file).expect("a file"), whole);
        }
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_made_costs_nothing() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let inside = file.path().join("x");
        assert_eq!(ask(Some(&inside), &["x"], b"one"), (b"one".to_vec(), true));
    }
}
