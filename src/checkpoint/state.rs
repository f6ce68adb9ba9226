//! The state of a run as one file: a record as text, named tensors, and a checksum over both.
//!
//! It is a safetensors file. The text stands in its metadata under one key, as JSON:
//!
//! ```text
//! {"foretoken": "{\"sha256\": \"..\", \"record\": \"..\"}"}
//! ```
//!
//! The checksum is the SHA-256 of this, all numbers being unsigned, of 64 bits, the low byte first:
//!
//! ```text
//! the record's length and its bytes
//! the number of tensors, and of each, in the order of their names:
//!     its name's length and bytes, the number of its dimensions, each of these, where its data begin and end
//! the file's data
//! ```
//!
//! A disk or a copy that changed a bit is noticed before anything goes on from it.

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

/// A checksum that has taken in all but the data.
fn begun<'a>(
    record: &str,
    tensors: impl ExactSizeIterator<Item = (&'a str, &'a [usize], (usize, usize))>,
) -> Sha256 {
    let mut digest = Sha256::new();
    let number = |digest: &mut Sha256, n: usize| digest.update((n as u64).to_le_bytes());
    let text = |digest: &mut Sha256, text: &str| {
        number(digest, text.len());
        digest.update(text);
    };
    text(&mut digest, record);
    number(&mut digest, tensors.len());
    for (name, shape, (begin, end)) in tensors {
        text(&mut digest, name);
        number(&mut digest, shape.len());
        for n in shape.iter().copied().chain([begin, end]) {
            number(&mut digest, n);
        }
    }
    digest
}

/// The bytes of a state: `record` and `tensors`, the latter as (name, shape, values).
///
/// # Errors
/// Those of [`encode`](super::encode()): [`Error::NotFinite`] for a value that is not finite.
pub fn encode_state(record: &str, tensors: &[(&str, &[usize], &[f32])]) -> Result<Vec<u8>> {
    // The format writes tensors of one type in the order of their names.
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by_key(|(name, ..)| *name);
    let mut end = 0;
    let parts: Vec<_> = sorted
        .iter()
        .map(|(name, shape, values)| {
            let begin = end;
            end += size_of_val(*values);
            (*name, *shape, (begin, end))
        })
        .collect();
    let mut digest = begun(record, parts.into_iter());
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
    let mut digest = begun(&sealed.record, file.parts());
    digest.update(file.body());
    if hex(&digest.finalize()) != sealed.sha256 {
        let reason = "damaged, or of another version of this program: its content does not have the checksum that was \
                      written with it";
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
        for i in 0..whole.len() {
            let mut changed = whole.clone();
            changed[i] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert!(read_state(&path).is_err(), "byte {i}");
        }
    }

    /// What the header says about the tensors is part of the checksum: names, shapes, and which data are whose.
    #[test]
    fn tensors_that_changed_places_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let tensors: [(&str, &[usize], &[f32]); 2] =
            [("m", &[2, 1], &[1.0, 2.0]), ("v", &[2, 1], &[3.0, 4.0])];
        let whole = encode_state("{}", &tensors).unwrap();
        let length = u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
        let (header, data) = whole[8..].split_at(length);
        let header = std::str::from_utf8(header).unwrap();
        for (a, b) in [("\"m\"", "\"v\""), ("[0,8]", "[8,16]"), ("[2,1]", "[1,2]")] {
            let changed = header.replace(a, "?").replace(b, a).replace('?', b);
            assert_ne!(changed, header);
            let changed = changed.trim_end();
            let bytes = crate::checkpoint::encode::tests::by_hand(changed, data);
            std::fs::write(&path, bytes).unwrap();
            let message = read_state(&path).unwrap_err().to_string();
            assert!(message.contains("damaged"), "{a} {b}: {message}");
        }
        // The same bytes put together by hand are a state.
        std::fs::write(
            &path,
            crate::checkpoint::encode::tests::by_hand(header.trim_end(), data),
        )
        .unwrap();
        read_state(&path).unwrap();
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
