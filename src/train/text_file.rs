//! The text files of a run, recognised by their content when the run is resumed.

use crate::data::Fingerprint;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A text file or token file, and its content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextFile {
    /// Where it was.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

impl TextFile {
    /// Reads files, one after the other and in parts.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if a file cannot be read, and [`Error::File`] if it is not a regular file.
    pub fn read(paths: &[PathBuf]) -> Result<Vec<Self>> {
        let read = |path: &PathBuf| {
            Self::check_kind(path)?;
            Self::holding(path, Fingerprint::of_file(path)?)
        };
        paths.iter().map(read).collect()
    }

    /// Checks that a resumed run can read the file again. A missing file and a directory pass: reading them fails.
    ///
    /// # Errors
    /// Returns [`Error::File`] for a pipe, a device or the like.
    pub fn check_kind(path: &Path) -> Result<()> {
        match std::fs::metadata(path) {
            Ok(found) if !found.is_file() && !found.is_dir() => {
                let reason = "expected a regular file, which a resumed run can read again, found a pipe or a device";
                Err(Error::file(path, reason))
            }
            _ => Ok(()),
        }
    }

    /// A file with the content that it had when it was read, which may have changed since.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the path cannot be made absolute.
    pub fn holding(path: &Path, fingerprint: Fingerprint) -> Result<Self> {
        let Fingerprint { bytes, sha256 } = fingerprint;
        // JSON is UTF-8 and a path need not be. The path only helps to find the file again; its content decides.
        let absolute = std::path::absolute(path).map_err(Error::io("find", path))?;
        let path = absolute.to_string_lossy().into_owned().into();
        Ok(Self {
            path,
            bytes,
            sha256,
        })
    }

    /// Checks that files have the content of the run's files, in order. `field` names them in the error: `data` or
    /// `valid`.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] with the first file that differs.
    pub fn check(field: &'static str, stored: &[Self], found: &[Self]) -> Result<()> {
        let files = |n: usize| match n {
            1 => "1 file".to_owned(),
            _ => format!("{n} files"),
        };
        if stored.len() != found.len() {
            let expected = format!("the {} that the run was started with", files(stored.len()));
            return Err(Error::setting(field, expected, files(found.len())));
        }
        for (stored, found) in stored.iter().zip(found) {
            let path = found.path.display();
            if stored.bytes != found.bytes {
                let expected = format!("the run's text of {} bytes", stored.bytes);
                let found = format!("{path} with {} bytes", found.bytes);
                return Err(Error::setting(field, expected, found));
            }
            if stored.sha256 != found.sha256 {
                let expected = format!("the run's text with SHA-256 {}", stored.sha256);
                let found = format!("{path} with SHA-256 {}", found.sha256);
                return Err(Error::setting(field, expected, found));
            }
        }
        Ok(())
    }
}
