//! Why a command ended early, and the exit code that says so.

use crate::Error;
use crate::simd::isa::CEILING;
use std::fmt;

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// A flag or an argument cannot be used. The sentence names it and says what was expected.
    Usage(String),
    /// What the library reports.
    Error(Error),
    /// A signal of this number ended a run after its step, and the run has said so.
    Stopped(u8),
}

/// The result of a command, or of a part of one.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

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

impl fmt::Display for Failure {
    /// One sentence, in which a setting of the library has the name of its flag.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(sentence) => f.write_str(sentence),
            Self::Error(Error::Setting {
                field,
                expected,
                found,
            }) if *field != CEILING => {
                let flag = match *field {
                    "peak_lr" => "lr".to_owned(),
                    "separator" => "split-on".to_owned(),
                    other => other.replace('_', "-"),
                };
                write!(f, "--{flag}: expected {expected}, found {found}")
            }
            Self::Error(error @ Error::Exists { kept: None, .. }) => {
                write!(
                    f,
                    "{error}: choose another directory, or replace it with --force"
                )
            }
            Self::Error(error @ Error::Exists { .. }) => {
                write!(f, "{error}; --force does not change that")
            }
            Self::Error(error) => write!(f, "{error}"),
            Self::Stopped(signal) => write!(f, "stopped by signal {signal}"),
        }
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
