//! The texts that `foretoken train` trains and validates on.

use super::failure::{Failure, Result};
use super::output::message;
use crate::data::{TextFiles, TokenFile, Tokenizer, Tokens};
use crate::train::TextFile;
use std::path::PathBuf;

/// Tokens to train on and to validate on.
pub struct Texts {
    /// To train on; a token file may be larger than memory.
    pub train: Tokens,
    /// To validate on, likewise.
    pub valid: Tokens,
    /// The files to train on, with the hash of what was read.
    pub data_files: Vec<TextFile>,
    /// The files to validate on, likewise.
    pub valid_files: Vec<TextFile>,
}

impl Texts {
    /// Opens `data` and `valid`, each of them text files or one token file. Without `valid` the last tenth of `data` is
    /// kept for validation. The separator applies to text files only, and so does `as_text`, as in
    /// [`TextFiles::as_text`].
    ///
    /// # Errors
    /// As [`TextFiles::tokens_with_fingerprints`], and if a token file changes in the meantime.
    pub fn open(
        data: &[PathBuf],
        valid: &[PathBuf],
        tokenizer: &Tokenizer,
        separator: Option<&str>,
        as_text: bool,
    ) -> Result<Self> {
        let has_tokens = |paths: &[PathBuf]| matches!(paths, [path] if TokenFile::is_one(path));
        // A token file has its end-of-text tokens already. Alone with a separator it is refused; next to texts it is
        // not.
        let of = |paths, others: &[PathBuf]| {
            let needless = has_tokens(paths) && !others.is_empty() && !has_tokens(others);
            separator.filter(|_| !needless)
        };
        let open = |paths: &[PathBuf], separator| {
            let texts = TextFiles::new(paths, separator)?.as_text(as_text);
            let (tokens, reading) = texts.tokens_with_reading(tokenizer)?;
            warn_unsplit(separator, reading.separators, paths);
            let files = paths.iter().zip(reading.fingerprints);
            let files = files.map(|(path, content)| TextFile::holding(path, content));
            Ok::<_, Failure>((tokens, files.collect::<crate::Result<Vec<_>>>()?))
        };
        let (tokens, data_files) = open(data, of(data, valid))?;
        let ((train, valid), valid_files) = if valid.is_empty() {
            (tokens.split(), Vec::new())
        } else {
            let (others, files) = open(valid, of(valid, data))?;
            ((tokens, others), files)
        };
        note_unknown_length(&valid, tokenizer);
        Ok(Self {
            train,
            valid,
            data_files,
            valid_files,
        })
    }
}

/// Warns if a separator that was to split texts is in none of them.
pub fn warn_unsplit(separator: Option<&str>, found: u64, paths: &[PathBuf]) {
    if let Some(separator) = separator.filter(|_| found == 0) {
        let paths: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        message(&format!(
            "warning: --split-on {separator:?}: found nowhere in {}, so nothing is split",
            paths.join(", ")
        ));
    }
}

/// Says so if bits per byte cannot be computed over the bytes of the text.
pub fn note_unknown_length(tokens: &Tokens, tokenizer: &Tokenizer) {
    if tokens.in_file() && !tokenizer.changes().is_empty() {
        message(
            "note: a token file does not hold the text, so bits per byte are over the text as the vocabulary changed it",
        );
    }
}

/// Checks that a resumed run can read these files again; `flag` names them in the error.
///
/// # Errors
/// If one is a pipe, a device or the like, which can be read only once, or without end.
pub fn check_kind(flag: &str, paths: &[PathBuf]) -> Result {
    let mut checks = paths.iter().map(|path| TextFile::check_kind(path));
    checks.try_for_each(|check| check.map_err(|error| Failure::Usage(format!("{flag}: {error}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{TextFiles, write_tokens};
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    /// A text, changed after it was read: the record is about what was read.
    #[test]
    fn files_are_recorded_as_they_were_read() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = Tokenizer::bytes();
        let paths = ["a", "b", "v"].map(|name| folder.path().join(name));
        for path in &paths {
            std::fs::write(path, format!("the text of {}", path.display())).unwrap();
        }
        let before = TextFile::read(&paths).unwrap();
        let texts = Texts::open(&paths[..2], &paths[2..], &tokenizer, None, false).unwrap();
        for path in &paths {
            std::fs::write(path, "another text").unwrap();
        }
        assert_eq!(texts.data_files, before[..2]);
        assert_eq!(texts.valid_files, before[2..]);
        assert_ne!(before, TextFile::read(&paths).unwrap());
    }

    #[test]
    fn a_token_file_is_recorded_whole_and_watched() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = Tokenizer::bytes();
        let (text, path) = (folder.path().join("a"), folder.path().join("a.tok"));
        std::fs::write(&text, "a text of some words").unwrap();
        let mut out = File::create(&path).unwrap();
        let source = TextFiles::new(&[text], None).unwrap();
        write_tokens(&path, &mut out, &source, &tokenizer).unwrap();
        let paths = [path.clone()];
        let texts = Texts::open(&paths, &[], &tokenizer, None, false).unwrap();
        assert_eq!(texts.data_files, TextFile::read(&paths).unwrap());
        texts.train.unchanged().unwrap();
        // Overwritten later with the same number of bytes.
        out.set_modified(SystemTime::now() + Duration::from_secs(60))
            .unwrap();
        let message = texts.train.unchanged().unwrap_err().to_string();
        let named = message.starts_with(&path.display().to_string());
        assert!(named && message.contains("changed"), "{message}");
        // A new file under the same name does not affect the one that is open.
        let texts = Texts::open(&paths, &[], &tokenizer, None, false).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "x").unwrap();
        texts.train.unchanged().unwrap();
    }
}
