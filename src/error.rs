//! The crate's error type.
//!
//! An [`Error`] is about something outside the program: a file, a text, a setting, a device. A wrong shape is a bug in
//! the calling code, and panics with the name of the operation and both shapes.

use std::path::{Path, PathBuf};

/// What was wrong, where, and what was expected instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of a request, a training run or the machine has a value that cannot be used.
    #[error("{field}: expected {expected}, found {found}")]
    Setting {
        /// Name of the field or argument, such as `max_tokens`.
        field: &'static str,
        /// The values that are accepted.
        expected: String,
        /// The value that was given.
        found: String,
    },
    /// A field of a model's configuration has a value that no model can have.
    #[error("config field `{field}`: expected {expected}, found {found}")]
    Config {
        /// Name of the field, as in `config.json`.
        field: String,
        /// The values that are accepted.
        expected: String,
        /// The value that was given.
        found: String,
    },
    /// A file or directory could not be read or written.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// The operation that failed, as a verb: `read`, `write`, `rename`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file's contents are invalid.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What was expected, and what was found.
        reason: String,
    },
    /// A file is of another kind than its reader expects, by its first bytes.
    #[error("{}: expected {expected}, found what seems to be {found}; {remedy}", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// The kind that was expected.
        expected: &'static str,
        /// The kind that it seems to be.
        found: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A tensor in a file is invalid or does not match the model.
    #[error("{}: tensor `{tensor}`: {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What was expected, and what was found.
        reason: String,
    },
    /// A directory is to be created, and one of that name exists and is kept.
    #[error("{} exists{}", path.display(), kept.as_deref().map(|why| format!(" and cannot be replaced: {why}")).unwrap_or_default())]
    Exists {
        /// The directory.
        path: PathBuf,
        /// Why it is not replaced although this was requested; none if it was not requested.
        kept: Option<String>,
    },
    /// Another process is training into the directory.
    #[error("{}: another process is training into this directory", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// A text cannot be encoded, or no vocabulary can be learned from it.
    #[error("text{}: {reason}", byte.map(|at| format!(" at byte {at}")).unwrap_or_default())]
    Text {
        /// Offset in bytes of what is wrong, if it has a place.
        byte: Option<u64>,
        /// What was expected and what was found.
        reason: String,
    },
    /// A text has too few tokens for a window.
    #[error("{text} has {tokens} tokens, expected at least {needed}")]
    TooShort {
        /// Which text, as the subject of a sentence.
        text: String,
        /// Its tokens.
        tokens: usize,
        /// Tokens of a window with its last target.
        needed: usize,
    },
    /// A GPU, its driver or its compiler is missing, or the GPU failed.
    #[error("{0}")]
    Device(String),
    /// A thread computes in a floating-point mode that gives different results from the rules. Another part of the
    /// program, or another library, must have set it.
    #[error(
        "a thread {0}: results would depend on the thread; restore the floating-point mode before using this crate"
    )]
    FloatEnvironment(&'static str),
    /// Training diverged: a loss, a gradient or a weight is not finite.
    #[error("step {step}: {reason}")]
    Diverged {
        /// The step, counted from 1.
        step: u64,
        /// Which number, and the last good checkpoint if there is one.
        reason: String,
    },
    /// A tensor or a row of logits holds a value that is not finite.
    #[error("{0}")]
    NotFinite(String),
}

/// A result with [`enum@Error`] as its error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What [`Error::Kind`] expects of a text. `TextFiles::as_text` reads any bytes as one.
    pub(crate) const TEXT: &str = "a plain text";

    /// An [`Error::Io`] for use with `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// An [`Error::Setting`].
    pub fn setting(field: &'static str, expected: impl Into<String>, found: impl ToString) -> Self {
        Self::Setting {
            field,
            expected: expected.into(),
            found: found.to_string(),
        }
    }

    /// An [`Error::File`].
    pub fn file(path: &Path, reason: impl Into<String>) -> Self {
        Self::File {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    /// An [`Error::Tensor`].
    pub fn tensor(path: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor {
            path: path.to_owned(),
            tensor: tensor.to_owned(),
            reason: reason.into(),
        }
    }
}
