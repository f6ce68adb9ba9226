//! Why a command ended early, and the exit code that says so.

use crate::Error;
use crate::simd::isa::CEILING;

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A flag or an argument cannot be used. The sentence names it and says what was expected.
    #[error("{0}")]
    Usage(String),
    /// What the library reports.
    #[error("{}", sentence(.0))]
    Error(#[from] Error),
    /// A signal of this number ended a run after its step, and the run has said so.
    #[error("stopped by signal {0}")]
    Stopped(u8),
}

/// The result of a command, or of a part of one.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// 2 for the command line, 128 plus the number of a signal, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Error(
                Error::Setting { .. }
                | Error::Exists { .. }
                | Error::Busy { .. }
                | Error::Text { .. }
                | Error::TooShort { .. },
            ) => 2,
            Self::Stopped(signal) => signal.saturating_add(128),
            Self::Error(_) => 1,
        }
    }
}

/// One sentence, in which a setting of the library has the name of its flag.
fn sentence(error: &Error) -> String {
    match error {
        Error::Setting {
            field,
            expected,
            found,
        } if *field != CEILING => {
            let flag = match *field {
                "peak_lr" => "lr".to_owned(),
                "separator" => "split-on".to_owned(),
                other => other.replace('_', "-"),
            };
            format!("--{flag}: expected {expected}, found {found}")
        }
        Error::Exists { kept: None, .. } => {
            format!("{error}: choose another directory, or replace it with --force")
        }
        Error::Exists { .. } => format!("{error}; --force does not change that"),
        Error::Kind { expected, .. } if *expected == Error::TEXT => {
            format!("{error}, or read it as it is with --as-text")
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_flags_from_files_from_signals() {
        let setting = Failure::from(Error::setting("max_tokens", "at most 64", 70));
        assert_eq!(
            setting.to_string(),
            "--max-tokens: expected at most 64, found 70"
        );
        assert_eq!(setting.exit_code(), 2);
        let file = Failure::from(Error::file("a".as_ref(), "is empty"));
        assert_eq!(file.exit_code(), 1);
        assert_eq!(Failure::Usage(String::new()).exit_code(), 2);
        assert_eq!(Failure::Stopped(15).exit_code(), 143);
    }
}
