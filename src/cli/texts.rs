//! What `foretoken train` trains and validates on.

use crate::data::{TokenFile, Tokenizer, Tokens, open_with_fingerprints};
use crate::train::TextFile;
use crate::{Error, Result};
use std::path::PathBuf;

/// Tokens of a token file that are validated on unless the user says otherwise.
const VALID_TOKENS: usize = 1_000_000;

/// Tokens to train on and to validate on.
pub struct Texts {
    /// The former, which may lie in a file larger than memory.
    pub train: Tokens,
    /// The latter.
    pub valid: Vec<u32>,
    /// How many of the latter were wanted at most; none where all were.
    pub valid_tokens: Option<usize>,
    /// The files to train on, and what they held when the tokens were read.
    pub data_files: Vec<TextFile>,
    /// The same of the files to validate on.
    pub valid_files: Vec<TextFile>,
}

impl Texts {
    /// Opens `data` and `valid`, each text files or one token file, and keeps the last tenth of the former for validation
    /// where there is none of the latter. The separator is for text files: one of the two may be a token file beside it.
    ///
    /// # Errors
    /// What [`open_with_fingerprints`] returns, and [`Error::File`] where a token file is changed meanwhile.
    pub fn open(
        (data, valid): (&[PathBuf], &[PathBuf]),
        tokenizer: &Tokenizer,
        separator: Option<&str>,
        valid_tokens: Option<usize>,
    ) -> Result<Self> {
        let has_tokens = |paths: &[PathBuf]| matches!(paths, [path] if TokenFile::is_one(path));
        // Beside texts that the separator is for, a token file has its end-of-text tokens already.
        let of = |paths, others: &[PathBuf]| {
            let needless = has_tokens(paths) && !others.is_empty() && !has_tokens(others);
            separator.filter(|_| !needless)
        };
        let open = |paths: &[PathBuf], separator| {
            let (tokens, contents) = open_with_fingerprints(paths, tokenizer, separator)?;
            let files = paths.iter().zip(contents);
            let files = files.map(|(path, content)| TextFile::holding(path, content));
            Ok((tokens, files.collect::<Result<Vec<_>>>()?))
        };
        let (tokens, data_files) = open(data, of(data, valid))?;
        let ((train, valid), valid_files) = match valid.is_empty() {
            true => (tokens.split(), Vec::new()),
            false => {
                let (others, files) = open(valid, of(valid, data))?;
                ((tokens, others), files)
            }
        };
        let usual = valid.in_file().then_some(VALID_TOKENS);
        let valid_tokens = valid_tokens.or(usual);
        let first = valid.first(valid_tokens.unwrap_or(usize::MAX))?;
        // They were read after their file was hashed.
        valid.unchanged()?;
        Ok(Self {
            train,
            valid: first,
            valid_tokens,
            data_files,
            valid_files,
        })
    }
}

/// Whether a run can go on with these files later; `flag` names them in the error.
///
/// # Errors
/// [`Error::Usage`] for a pipe, a device or the like, which could be read once only, or for ever.
pub fn check_kind(flag: &str, paths: &[PathBuf]) -> Result<()> {
    let mut checks = paths.iter().map(|path| TextFile::check_kind(path));
    checks.try_for_each(|check| check.map_err(|error| Error::Usage(format!("{flag}: {error}"))))
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
        let texts = Texts::open((&paths[..2], &paths[2..]), &tokenizer, None, None).unwrap();
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
        let texts = Texts::open((&paths, &[]), &tokenizer, None, Some(1)).unwrap();
        assert_eq!(texts.data_files, TextFile::read(&paths).unwrap());
        texts.train.unchanged().unwrap();
        // Written over with as many bytes, later.
        out.set_modified(SystemTime::now() + Duration::from_secs(60))
            .unwrap();
        let message = texts.train.unchanged().unwrap_err().to_string();
        let named = message.starts_with(&path.display().to_string());
        assert!(named && message.contains("changed"), "{message}");
        // Another file under its name changes nothing about the one that is open.
        let texts = Texts::open((&paths, &[]), &tokenizer, None, Some(1)).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "x").unwrap();
        texts.train.unchanged().unwrap();
    }
}
