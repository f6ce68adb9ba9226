//! The state of a run as one file: a record as text, named tensors, and a checksum over both.
//!
//! It is a safetensors file. The text stands in its metadata under one key, as JSON:
//!
//! ```text
//! {"foretoken": "{\"sha256\": \"..\", \"record\": \"..\"}"}
//! ```
//!
//! The checksum is the SHA-256 of the record's bytes, one zero byte, and the file's data. A disk or a copy that changed
//! a bit is noticed before anything goes on from it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::TensorFile;
use super::encode::encode_with;
use super::untrusted::shown_json;
use crate::data::hex;
use crate::{Error, Result};

/// The metadata's key.
const KEY: &str = "foretoken";

#[derive(Serialize, Deserialize)]
struct Sealed {
    sha256: String,
    record: String,
}

/// The bytes of a state: `record` and `tensors`, the latter as (name, shape, values).
///
/// # Errors
/// Those of [`encode`](super::encode()): [`Error::Diverged`] for a value that is not finite.
pub fn encode_state(record: &str, tensors: &[(&str, &[usize], &[f32])]) -> Result<Vec<u8>> {
    // The format writes tensors of one type in the order of their names.
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by_key(|(name, ..)| *name);
    let mut digest = Sha256::new();
    digest.update(record.as_bytes());
    digest.update([0]);
    let mut bytes = Vec::new();
    for (_, _, values) in sorted {
        for part in values.chunks(1 << 14) {
            bytes.clear();
            bytes.extend(part.iter().flat_map(|x| x.to_le_bytes()));
            digest.update(&bytes);
        }
    }
    let sealed = Sealed {
        sha256: hex(&digest.finalize()),
        record: record.to_owned(),
    };
    let text = serde_json::to_string(&sealed).expect("plain text");
    encode_with(tensors, (KEY, &text))
}

/// Reads a state: its record, and its tensors to be taken.
///
/// # Errors
/// The file is missing, is no safetensors file, has no record, or its checksum is another one.
pub fn read_state(path: &Path) -> Result<(String, TensorFile)> {
    let file = TensorFile::read(path)?;
    let Some(text) = file.text(KEY) else {
        return Err(Error::file(path, "holds no record of a run"));
    };
    let sealed: Sealed = serde_json::from_str(text)
        .map_err(|e| Error::file(path, format!("its record: {}", shown_json(&e))))?;
    let mut digest = Sha256::new();
    digest.update(sealed.record.as_bytes());
    digest.update([0]);
    digest.update(file.body());
    if hex(&digest.finalize()) != sealed.sha256 {
        let reason = "damaged: its content does not have the checksum that was written with it";
        return Err(Error::file(path, reason));
    }
    Ok((sealed.record, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Vec<u8> {
        let values = [1.5, -2.0, 0.25];
        let tensors: [(&str, &[usize], &[f32]); 2] =
            [("b", &[2, 1], &values[..2]), ("a/1", &[1], &values[2..])];
        encode_state("{\"step\": 3}", &tensors).unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        std::fs::write(&path, small()).unwrap();
        let (record, mut file) = read_state(&path).unwrap();
        assert_eq!(record, "{\"step\": 3}");
        assert_eq!(file.take("b", &[2, 1]).unwrap(), [1.5, -2.0]);
        assert_eq!(file.take("a/1", &[1]).unwrap(), [0.25]);
        file.finish().unwrap();
        assert!(encode_state("", &[("a", &[1], &[f32::NAN])]).is_err());
    }

    /// Whatever happens to a file, it is read as it was or refused with its name.
    #[test]
    fn every_cut_and_every_changed_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let whole = small();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let message = read_state(&path).unwrap_err().to_string();
            assert!(
                message.starts_with(&path.display().to_string()),
                "{message}"
            );
        }
        let mut refused = 0;
        for i in 0..whole.len() {
            let mut changed = whole.clone();
            changed[i] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            let Ok((record, mut file)) = read_state(&path) else {
                refused += 1;
                continue;
            };
            // A changed name of a tensor is what is left, and its owner misses it.
            let taken = file.take("b", &[2, 1]).and(file.take("a/1", &[1]));
            assert!(
                taken.is_err() || file.finish().is_err(),
                "byte {i}: {record}"
            );
        }
        assert!(
            refused > whole.len() * 9 / 10,
            "{refused} of {}",
            whole.len()
        );
    }

    #[test]
    fn a_model_is_no_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, crate::checkpoint::encode(&[]).unwrap()).unwrap();
        let message = read_state(&path).unwrap_err().to_string();
        assert!(message.ends_with("holds no record of a run"), "{message}");
    }
}
