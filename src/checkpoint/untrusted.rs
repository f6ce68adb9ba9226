//! What all readers here share: opening a file that somebody else wrote, reading a bounded part of it,
//! and printing what it says.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::{Error, Result};

/// Longest text from a file that an error message repeats, in characters.
/// It fits the longest sentence of the safetensors crate with a usual tensor name.
const SHOWN: usize = 240;

/// Opens a regular file that is not empty. Gives its size in bytes too.
///
/// # Errors
/// The file is missing, cannot be read, is empty, or is not a regular file.
pub(super) fn open(path: &Path) -> Result<(File, u64)> {
    // The kind is asked before opening, because opening a pipe waits for somebody to write into it,
    // and a device such as /dev/zero has no end.
    let kind = fs::metadata(path).map_err(Error::io("read", path))?;
    if kind.is_dir() {
        return Err(Error::file(path, "expected a file, found a directory"));
    }
    if !kind.is_file() {
        return Err(Error::file(
            path,
            "expected a regular file, found a device, pipe or socket",
        ));
    }
    let file = File::open(path).map_err(Error::io("read", path))?;
    let len = file.metadata().map_err(Error::io("read", path))?.len();
    if len == 0 {
        return Err(Error::file(path, "the file is empty"));
    }
    Ok((file, len))
}

/// Reads the next `len` bytes. The caller has checked `len` against the file's real size.
///
/// # Errors
/// The source fails, ends early (somebody shortened the file meanwhile), or memory does not suffice.
pub(super) fn read_bytes(path: &Path, source: &mut impl Read, len: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A plain allocation would abort the process where memory does not suffice.
    usize::try_from(len)
        .ok()
        .and_then(|capacity| bytes.try_reserve_exact(capacity).ok())
        .ok_or_else(|| Error::file(path, format!("{len} bytes do not fit in memory")))?;
    source
        .take(len)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    if bytes.len() as u64 != len {
        let reason = format!(
            "truncated: expected {len} more bytes, found {}",
            bytes.len()
        );
        return Err(Error::file(path, reason));
    }
    Ok(bytes)
}

/// Text from a file, fit for a terminal: control characters are escaped and long text is cut.
/// A tensor's name may be a megabyte long, or move the cursor.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == SHOWN {
            out.push_str("...");
            break;
        }
        match c {
            // `escape_debug` would escape these too. They do no harm, and messages are full of them.
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

/// An error in JSON as `line 1 column 2: reason`, the reason fit for a terminal.
pub(super) fn shown_json(error: &serde_json::Error) -> String {
    let place = format!("line {} column {}", error.line(), error.column());
    let reason = error.to_string();
    // serde_json ends with the place. It goes first here, where a long reason cannot cut it off.
    let reason = reason
        .strip_suffix(&format!(" at {place}"))
        .unwrap_or(&reason);
    format!("{place}: {}", shown(reason))
}

/// A shape from a file, as `[2, 3]`. A file may claim a million dimensions, so at most eight are shown.
pub(super) fn shown_shape(shape: &[usize]) -> String {
    match shape.get(..8) {
        Some(first) if shape.len() > 8 => {
            let first: Vec<String> = first.iter().map(usize::to_string).collect();
            format!("[{}, ...] of {} dimensions", first.join(", "), shape.len())
        }
        _ => format!("{shape:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_with_content_open() {
        let dir = tempfile::tempdir().unwrap();
        let message = |path: &Path| open(path).unwrap_err().to_string();

        let missing = dir.path().join("missing");
        assert!(matches!(open(&missing).unwrap_err(), Error::Io { path, .. } if path == missing));
        assert!(message(dir.path()).contains("found a directory"));
        let empty = dir.path().join("empty");
        fs::write(&empty, b"").unwrap();
        assert!(message(&empty).contains("empty"));
        fs::write(&empty, b"abc").unwrap();
        assert_eq!(open(&empty).unwrap().1, 3);
    }

    #[cfg(unix)]
    #[test]
    fn a_device_without_end_is_refused() {
        let message = open(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(message.contains("regular file"), "{message}");
    }

    #[test]
    fn a_file_that_shrank_is_an_error() {
        let path = Path::new("f");
        let message = read_bytes(path, &mut &b"abc"[..], 5)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("expected 5") && message.contains("found 3"),
            "{message}"
        );
        assert_eq!(read_bytes(path, &mut &b"abc"[..], 2).unwrap(), b"ab");
    }

    #[test]
    fn a_size_beyond_memory_is_an_error_and_not_an_abort() {
        let message = read_bytes(Path::new("f"), &mut &b"abc"[..], u64::MAX).unwrap_err();
        assert!(message.to_string().contains("do not fit"), "{message}");
    }

    #[test]
    fn hostile_text_is_escaped_and_cut() {
        assert_eq!(shown("a.weight \"x\" \\"), "a.weight \"x\" \\");
        // Clear the screen; then a character that turns the reading direction around.
        assert_eq!(shown("\u{1b}[2J\u{202e}"), "\\u{1b}[2J\\u{202e}");
        assert_eq!(shown(&"x".repeat(SHOWN)).len(), SHOWN);
        assert_eq!(shown(&"x".repeat(SHOWN + 1)), "x".repeat(SHOWN) + "...");
    }

    #[test]
    fn long_shapes_are_cut() {
        assert_eq!(shown_shape(&[]), "[]");
        assert_eq!(shown_shape(&[1; 8]), "[1, 1, 1, 1, 1, 1, 1, 1]");
        let long = shown_shape(&[1; 9]);
        assert_eq!(long, "[1, 1, 1, 1, 1, 1, 1, 1, ...] of 9 dimensions");
    }
}
