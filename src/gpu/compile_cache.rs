//! Compiled kernels in the user's cache directory.
//!
//! A file's name is the SHA-256 of everything that its contents depend on. The file begins with the SHA-256 of the
//! rest; a damaged one is replaced. If the directory cannot be used, kernels are compiled each time.

use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

const CHECKSUM: usize = 32;

/// `$XDG_CACHE_HOME/foretoken`, else `~/.cache/foretoken`.
pub(super) fn directory() -> Option<PathBuf> {
    let absolute = |name| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("foretoken"))
}

/// The cached result of `compile`, which depends on `inputs` only.
pub(super) fn get_or_compile<E>(
    directory: Option<&Path>,
    inputs: &[&str],
    compile: impl FnOnce() -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    // Each input is quoted, so that no two lists of inputs look the same.
    let name = crate::files::hex(&Sha256::digest(format!("{inputs:?}")));
    let path = directory.map(|directory| directory.join(format!("{name}.kernels")));
    if let Some(found) = path.as_deref().and_then(read) {
        return Ok(found);
    }
    let compiled = compile()?;
    if let Some(path) = path {
        // A cache that cannot be written costs time only.
        let _ = write(&path, &compiled);
    }
    Ok(compiled)
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

    /// The result, and whether it was compiled.
    fn get(directory: Option<&Path>, inputs: &[&str], compiled: &[u8]) -> (Vec<u8>, bool) {
        let mut missed = false;
        let Ok(found) = get_or_compile(directory, inputs, || {
            missed = true;
            Ok::<_, Infallible>(compiled.to_vec())
        });
        (found, missed)
    }

    #[test]
    fn compiled_kernels_are_found_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let deep = folder.path().join("a/b");
        let deep = Some(deep.as_path());
        assert_eq!(get(deep, &["x", "y"], b"one"), (b"one".to_vec(), true));
        assert_eq!(get(deep, &["x", "y"], b"two"), (b"one".to_vec(), false));
        for other in [["xy", ""], ["", "xy"], ["y", "x"]] {
            assert_eq!(get(deep, &other, b"two"), (b"two".to_vec(), true));
        }
        assert_eq!(get(None, &["x", "y"], b"two"), (b"two".to_vec(), true));
    }

    #[test]
    fn a_damaged_file_is_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = Some(folder.path());
        get(path, &["x"], b"contents");
        let file = fs::read_dir(folder.path()).expect("a folder").next();
        let file = file.expect("one file").expect("an entry").path();
        let whole = fs::read(&file).expect("a file");
        let mut flipped = whole.clone();
        flipped[CHECKSUM + 3] ^= 1;
        for damaged in [
            &whole[..0],
            &whole[..CHECKSUM - 1],
            &whole[..CHECKSUM + 1],
            &flipped,
        ] {
            fs::write(&file, damaged).expect("a file");
            assert_eq!(get(path, &["x"], b"contents"), (b"contents".to_vec(), true));
            assert_eq!(fs::read(&file).expect("a file"), whole);
        }
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn an_unusable_directory_is_no_error() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let inside = file.path().join("x");
        assert_eq!(get(Some(&inside), &["x"], b"one"), (b"one".to_vec(), true));
    }
}
