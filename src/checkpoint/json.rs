//! A JSON file as a type.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::files::{escape, read_bounded};
use crate::{Error, Result};

/// Largest JSON file that is read, in bytes.
/// The tokenizers of models with 256 thousand tokens take some 35 MB; nothing else comes near.
const LIMIT: u64 = 64 << 20;

/// The bytes of a JSON file, not parsed yet.
///
/// # Errors
/// Returns [`Error::Io`] or [`Error::File`] if the file is missing, empty, not a regular file or larger than 64 MiB.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    read_bounded(path, LIMIT)
}

/// What these bytes of a JSON file say; `path` is only for errors. The caller checks whether the values make sense.
///
/// # Errors
/// Returns [`Error::File`] if the bytes are not JSON or not a `T`; it names line and column, both from 1.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::file(path, place_and_reason(&error)))
}

/// An error in JSON as `line 1 column 2: reason`, the reason fit for a terminal.
pub(super) fn place_and_reason(error: &serde_json::Error) -> String {
    let place = format!("line {} column {}", error.line(), error.column());
    let reason = error.to_string();
    // serde_json ends with the place. It goes first here, where a long reason cannot cut it off.
    let reason = reason
        .strip_suffix(&format!(" at {place}"))
        .unwrap_or(&reason);
    format!("{place}: {}", escape(reason))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Sizes {
        layers: usize,
        eps: f64,
    }

    fn written<T: DeserializeOwned>(content: &[u8]) -> Result<T> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, content).unwrap();
        parse(&path, &read(&path)?)
    }

    #[test]
    fn a_file_becomes_a_value() {
        let sizes: Sizes = written(b"{\"layers\": 4, \"eps\": 0.5}").unwrap();
        assert_eq!(
            sizes,
            Sizes {
                layers: 4,
                eps: 0.5
            }
        );
    }

    #[test]
    fn errors_name_file_line_and_column() {
        for (content, place, reason) in [
            (
                &b"{\"layers\": 4,\n \"eps\": x}"[..],
                "line 2 column 9:",
                "expected value",
            ),
            (b"{\"layers\": -4, \"eps\": 1}", "line 1 column 13:", "-4"),
            (b"{\"layers\": 4}", "line 1 column 13:", "eps"),
            (
                b"{\"layers\": 4, \"eps\": 1} 2",
                "line 1 column 25:",
                "trailing",
            ),
            (b"{\"layers\": 4, \"eps\"", "line 1 column 19:", "EOF"),
            (
                b"{\"layers\": 4, \"layers\": 4, \"eps\": 1}",
                "line 1 column 22:",
                "duplicate",
            ),
        ] {
            let message = written::<Sizes>(content).unwrap_err().to_string();
            assert!(message.contains("config.json"), "{message}");
            assert!(message.contains(place), "{place} in: {message}");
            assert!(message.contains(reason), "{reason} in: {message}");
        }
    }

    #[test]
    fn a_huge_file_is_refused_before_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge.json");
        // Valid JSON, so that only the size can be the reason. The file is a hole and takes no room.
        fs::write(&path, b"1").unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(LIMIT + 1).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains("at most 67108864"), "{message}");
        assert!(written::<Value>(b"").is_err());
    }

    #[test]
    fn deep_nesting_and_bad_text_are_errors() {
        // A reader that recursed without a limit would overflow its stack here.
        assert!(written::<Value>("[".repeat(100_000).as_bytes()).is_err());
        assert!(written::<Value>(b"\"\xff\xfe\"").is_err());
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = b"{\"layers\": 4, \"eps\": 0.5}";
        for len in 0..whole.len() {
            assert!(written::<Sizes>(&whole[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn the_file_cannot_speak_to_the_terminal() {
        let message = written::<Sizes>(b"{\"layers\": \"\\u001b[2J\"}")
            .unwrap_err()
            .to_string();
        assert!(!message.contains('\u{1b}'), "{message:?}");
    }
}
