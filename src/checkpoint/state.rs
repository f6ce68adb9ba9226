//! The state of a run as one file: a record as text, named tensors, and a checksum over both.
//!
//! It is a safetensors file. The text stands in its metadata under one key, as JSON:
//!
//! ```text
//! {"foretoken": "{\"sha256\": \"..\", \"record\": \"..\"}"}
//! ```
//!
//! The checksum is the SHA-256 of the following; numbers are unsigned, of 64 bits, the low byte first:
//!
//! ```text
//! the record's length and its bytes
//! the number of tensors, and for each, in the order of their names:
//!     its name's length and bytes, the number of its dimensions, each of these, where its data begin and end
//! the file's data
//! ```
//!
//! A bit that a disk or a copy changed is noticed before training continues from it.

use std::io;
use std::path::Path;

use safetensors::tensor::TensorInfo;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::TensorFile;
use super::encode::{Part, Safetensors, infos, write_values};
use super::json::place_and_reason;
use crate::files::{Hashing, hex};
use crate::{Error, Result};

/// The metadata's key.
const KEY: &str = "foretoken";

#[derive(Serialize, Deserialize)]
struct Sealed {
    sha256: String,
    record: String,
}

/// The digest of everything but the data.
fn begun<'a>(
    record: &str,
    tensors: impl ExactSizeIterator<Item = (&'a String, &'a TensorInfo)>,
) -> Sha256 {
    let mut digest = Sha256::new();
    let number = |digest: &mut Sha256, n: usize| digest.update((n as u64).to_le_bytes());
    let text = |digest: &mut Sha256, text: &str| {
        number(digest, text.len());
        digest.update(text);
    };
    text(&mut digest, record);
    number(&mut digest, tensors.len());
    for (name, info) in tensors {
        text(&mut digest, name);
        number(&mut digest, info.shape.len());
        let (begin, end) = info.data_offsets;
        for n in info.shape.iter().copied().chain([begin, end]) {
            number(&mut digest, n);
        }
    }
    digest
}

/// The bytes of a state, `record` and `tensors`. The bytes depend on the content only.
///
/// # Errors
/// Returns the errors of [`encode`](super::encode()): [`Error::NotFinite`] for a value that is not finite.
pub fn encode_state(record: &str, tensors: &[Part<'_>]) -> Result<Vec<u8>> {
    Ok(state_file(record, tensors)?.to_bytes())
}

/// [`encode_state`] as a file that is still to be written.
pub(super) fn state_file<'a>(record: &str, tensors: &[Part<'a>]) -> Result<Safetensors<'a>> {
    // The format writes tensors of one type in the order of their names.
    let mut sorted = tensors.to_vec();
    sorted.sort_by_key(|(name, ..)| *name);
    let infos = infos(&sorted);
    let begun = begun(record, infos.iter().map(|(name, info)| (name, info)));
    let mut data = Hashing::with(begun, io::sink());
    write_values(&sorted, &mut data).expect("a sink takes all bytes");
    let sealed = Sealed {
        sha256: data.fingerprint().sha256,
        record: record.to_owned(),
    };
    let text = serde_json::to_string(&sealed).expect("plain text");
    Safetensors::new(sorted, (KEY, &text))
}

/// Reads a state: its record, and its tensors to be taken. The data are read once for the checksum, in chunks, and
/// again when they are taken.
///
/// # Errors
/// Returns [`Error::Io`], [`Error::File`] or [`Error::Tensor`] if the file is missing, is not a safetensors file, has
/// no record, or does not match its checksum.
pub fn read_state(path: &Path) -> Result<(String, TensorFile)> {
    let mut file = TensorFile::open(path)?;
    let Some(text) = file.text(KEY) else {
        return Err(Error::file(path, "holds no record of a run"));
    };
    let sealed: Sealed = serde_json::from_str(text)
        .map_err(|e| Error::file(path, format!("its record: {}", place_and_reason(&e))))?;
    let mut digest = begun(&sealed.record, file.tensors().iter());
    file.hash_data(&mut digest)?;
    if hex(&digest.finalize()) != sealed.sha256 {
        let reason = "damaged, or written by another version of this program: its content does not match its checksum";
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

    /// A damaged file is refused with its name.
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

    /// The checksum covers the header's tensors: names, shapes, and offsets of the data.
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
