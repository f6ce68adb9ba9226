//! What `foretoken train` trains and validates on.

use crate::data::{TokenFile, Tokenizer, Tokens, open_tokens};
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
}

impl Texts {
    /// Opens `data` and `valid`, each text files or one token file, and keeps the last tenth of the former for validation
    /// where there is none of the latter. The separator is for text files: one of the two may be a token file beside it.
    ///
    /// # Errors
    /// What [`open_tokens`] returns.
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
        let tokens = open_tokens(data, tokenizer, of(data, valid))?;
        let (train, valid) = match valid.is_empty() {
            true => tokens.split(),
            false => (tokens, open_tokens(valid, tokenizer, of(valid, data))?),
        };
        let usual = valid.in_file().then_some(VALID_TOKENS);
        let valid_tokens = valid_tokens.or(usual);
        Ok(Self {
            train,
            valid: valid.first(valid_tokens.unwrap_or(usize::MAX))?,
            valid_tokens,
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
