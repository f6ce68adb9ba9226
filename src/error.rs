//! The one error type: what in the world outside the program was wrong, and what was expected.
//!
//! A bug in a shape is a panic that names the operation; only files, text and flags give an [`Error`].

use std::path::{Path, PathBuf};

/// What went wrong outside the program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A flag or an argument cannot be used. The sentence names it and says what was expected.
    #[error("{0}")]
    Usage(String),
    /// A setting of a request, of a training run or of the machine has a value that cannot be used.
    #[error("{field}: expected {expected}, found {found}")]
    Setting {
        /// Name of the setting's field or argument, such as `max_tokens`. The command line shows its flag instead.
        field: &'static str,
        /// What would have been accepted.
        expected: String,
        /// What was there.
        found: String,
    },
    /// A field of a model's configuration has a value that no model can have.
    #[error("config field `{field}`: expected {expected}, found {found}")]
    Config {
        /// Name of the field, as in `config.json`.
        field: &'static str,
        /// What would have been accepted.
        expected: String,
        /// What was there.
        found: String,
    },
    /// A file or directory could not be read or written.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `write`, `rename`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file was read, and what it says cannot be right.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// A file holds a tensor that does not fit.
    #[error("{}: tensor `{tensor}`: {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// A GPU or what it needs is missing, or a GPU failed.
    #[error("{0}")]
    Device(String),
    /// A thread computes in a floating-point mode that gives other results than the rules, which a program or a library
    /// beside this crate must have set.
    #[error(
        "a thread {0}: results would depend on the thread; restore the floating-point mode before using this crate"
    )]
    FloatEnvironment(&'static str),
    /// A number stopped being finite.
    #[error("{0}")]
    Diverged(String),
    /// A signal asked the program to end, and it did so in good order.
    #[error("stopped by signal {0}")]
    Stopped(u8),
}

/// A result whose error is [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
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

    /// The process's exit code: 2 where the command line was wrong, 128 and the signal's number after a signal, 1 for
    /// everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Setting { .. } => 2,
            Self::Stopped(signal) => signal.saturating_add(128),
            _ => 1,
        }
    }
}
