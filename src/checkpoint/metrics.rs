//! The lines of `metrics.jsonl`, cut back to a checkpoint.

use std::path::Path;

use serde::Deserialize;

use super::write;
use crate::{Error, Result};

/// What of a line says when it was written.
#[derive(Deserialize)]
struct Line {
    event: String,
    step: Option<u64>,
}

/// Keeps the lines that a run had written when its step `step` was done and its checkpoint was made. What comes
/// later is dropped: events of later steps, the end of the run, and a line that a kill left half written. A missing
/// file becomes an empty one. Where `evaluated` is not set, the evaluation of that step comes later too.
///
/// # Errors
/// [`Error::Io`] where the file cannot be read or replaced; it is then as it was.
pub(super) fn trim(path: &Path, step: u64, evaluated: bool) -> Result<()> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let kept: usize = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .take_while(|line| belongs(line, step, evaluated))
        .map(<[u8]>::len)
        .sum();
    if kept == bytes.len() && path.exists() {
        return Ok(());
    }
    write(path, &bytes[..kept])
}

fn belongs(line: &[u8], step: u64, evaluated: bool) -> bool {
    let parsed = serde_json::from_slice::<Line>(line);
    let early = |line: Line| match line.event.as_str() {
        "done" => false,
        "eval" if !evaluated => line.step.is_some_and(|s| s < step),
        _ => line.step.is_some_and(|s| s <= step),
    };
    line.ends_with(b"\n") && parsed.is_ok_and(early)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_up_to_the_step_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let early = "{\"event\":\"step\",\"step\":1}\n{\"event\":\"step\",\"step\":2}\n\
                     {\"event\":\"eval\",\"step\":2,\"loss\":1.5}\n";
        for late in [
            "",
            "{\"event\":\"step\",\"step\":3}\n",
            "{\"event\":\"step\",\"step\":3}\n{\"event\":\"eval\",\"step\":3}\n{\"event\":\"done\",\"steps\":3}\n",
            "{\"event\":\"done\",\"steps\":2}\n",
            "{\"event\":\"step\",\"st",
            "{\"event\":\"step\",\"step\":2}",
            "{\"event\":\"step\",\"step\":3}\n{\"eve",
            "\0\0\0\n",
        ] {
            std::fs::write(&path, format!("{early}{late}")).unwrap();
            trim(&path, 2, true).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), early, "{late:?}");
        }
        // An evaluation that is still owed is not there yet.
        let steps: String = early.split_inclusive('\n').take(2).collect();
        trim(&path, 2, false).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), steps);
        trim(&path, 0, true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        std::fs::remove_file(&path).unwrap();
        trim(&path, 5, true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }
}
