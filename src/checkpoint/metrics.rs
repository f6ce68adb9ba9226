//! The lines of `metrics.jsonl`, cut back to a checkpoint.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;

use serde::Deserialize;

use crate::files::{Expected, check_start, write, write_with};
use crate::{Error, Result};

/// Longest line that can be an event, in bytes. A kill or a damaged disk may leave a file without a line feed.
const LONGEST: u64 = 1 << 20;

/// The fields of a line that say when it was written.
#[derive(Deserialize)]
struct Line {
    event: String,
    step: Option<u64>,
}

/// Keeps the lines that a run had written when it made the checkpoint of step `step`. Later lines are dropped: events
/// of later steps, the end of the run, and a line that a kill left half written. If `evaluated` is not set, the
/// evaluation of that step is dropped as well. A missing file becomes an empty one. The file is read and copied line by
/// line, so it may be of any size.
///
/// # Errors
/// Returns [`Error::Io`] if the file cannot be read or replaced and [`Error::Kind`] if it seems to be of another kind;
/// it is then unchanged.
pub(super) fn trim(path: &Path, step: u64, evaluated: bool) -> Result<()> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return write(path, b""),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    // Another kind of file has no line of the run, and would be emptied.
    check_start(path, &mut file, Expected::Json)?;
    let mut file = BufReader::new(file);
    let (mut kept, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let mut part = file.by_ref().take(LONGEST);
        let read = part.read_until(b'\n', &mut line);
        if read.map_err(Error::io("read", path))? == 0 {
            return Ok(());
        }
        if !belongs(&line, step, evaluated) {
            break;
        }
        kept += line.len() as u64;
    }
    file.rewind().map_err(Error::io("read", path))?;
    write_with(path, |out| {
        let copied = io::copy(&mut file.take(kept), out);
        copied.map(drop).map_err(Error::io("write", path))
    })
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
            &"\0".repeat(LONGEST as usize + 9),
        ] {
            std::fs::write(&path, format!("{early}{late}")).unwrap();
            trim(&path, 2, true).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), early, "{late:?}");
        }
        // The evaluation of a checkpoint that still owes it is dropped.
        let steps: String = early.split_inclusive('\n').take(2).collect();
        trim(&path, 2, false).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), steps);
        trim(&path, 0, true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\n").unwrap();
        assert!(matches!(trim(&path, 0, true), Err(Error::Kind { .. })));
        assert!(std::fs::read(&path).unwrap().starts_with(b"version"));
        std::fs::remove_file(&path).unwrap();
        trim(&path, 5, true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }
}
