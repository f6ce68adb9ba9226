//! The safetensors format as we write it: one byte sequence for one content.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use safetensors::tensor::{Dtype, View, serialize};
use sha2::{Digest, Sha256};

use super::header::METADATA;
use super::tensors::not_finite;
use crate::data::hex;
use crate::{Error, Result};

/// Stands for the file in errors of [`encode`], which knows no path.
const UNWRITTEN: &str = "(file not yet written)";

/// The bytes of a safetensors file that holds `tensors` as (name, shape, values), f32 and little-endian.
/// The bytes depend on the content only and not on the order given: tensors are sorted by name.
/// What this returns, [`TensorFile`](super::TensorFile) reads.
///
/// # Errors
/// A name comes twice or is the format's own `__metadata__`, values are not as many as the shape says, or
/// a value is not finite ([`Error::NotFinite`]). So a model that diverged never replaces one that is whole.
pub fn encode(tensors: &[(&str, &[usize], &[f32])]) -> Result<Vec<u8>> {
    encode_with(tensors, ("format", "pt"))
}

/// [`encode`] with another entry of metadata, as (key, text).
pub(super) fn encode_with(
    tensors: &[(&str, &[usize], &[f32])],
    (key, text): (&str, &str),
) -> Result<Vec<u8>> {
    let mut names = BTreeSet::new();
    for &(name, shape, values) in tensors {
        let fail = |reason: String| Error::tensor(Path::new(UNWRITTEN), name, reason);
        if name == METADATA {
            return Err(fail(
                "expected a tensor's name, found the format's own".into(),
            ));
        }
        if !names.insert(name) {
            return Err(fail("given twice".into()));
        }
        let count = shape
            .iter()
            .try_fold(1usize, |n, &size| n.checked_mul(size));
        if count != Some(values.len()) {
            let reason = format!("expected values of shape {shape:?}, found {}", values.len());
            return Err(fail(reason));
        }
        if let Some(reason) = not_finite(values) {
            return Err(Error::NotFinite(format!("tensor `{name}`: {reason}")));
        }
    }
    // One key only: the crate keeps the keys in a hash map, whose order changes from run to run.
    let metadata = HashMap::from([(key.to_owned(), text.to_owned())]);
    let views = tensors
        .iter()
        .map(|&(name, shape, values)| (name, Values { shape, values }));
    serialize(views, Some(metadata))
        .map_err(|error| Error::file(Path::new(UNWRITTEN), error.to_string()))
}

/// The SHA-256 of bytes (FIPS 180-4) in lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The length of a file in bytes, and its SHA-256. The file is read in parts and may be of any size.
///
/// # Errors
/// [`Error::Io`] where it cannot be read.
pub fn sha256_file(path: &Path) -> Result<(u64, String)> {
    let fail = || Error::io("read", path);
    let mut file = File::open(path).map_err(fail())?;
    let (mut digest, mut length) = (Sha256::new(), 0);
    let mut part = vec![0; 1 << 16];
    loop {
        match file.read(&mut part) {
            Ok(0) => return Ok((length, hex(&digest.finalize()))),
            Ok(n) => {
                digest.update(&part[..n]);
                length += n as u64;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(fail()(e)),
        }
    }
}

/// A tensor as the crate wants to see it.
struct Values<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl View for Values<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(self.values) {
            *bytes = value.to_le_bytes();
        }
        bytes.into()
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file by the format's public text: length, header padded with spaces to a multiple of eight, data.
    pub(in crate::checkpoint) fn by_hand(header: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{header:<len$}", len = header.len().next_multiple_of(8));
        [
            &(header.len() as u64).to_le_bytes(),
            header.as_bytes(),
            data,
        ]
        .concat()
    }

    pub(in crate::checkpoint) fn small() -> Vec<u8> {
        encode(&[("b.weight", &[2, 1], &[1.5, -2.0]), ("a", &[], &[0.25])]).unwrap()
    }

    #[test]
    fn the_bytes_are_those_of_the_format_whatever_the_order() {
        let expected = by_hand(
            concat!(
                r#"{"__metadata__":{"format":"pt"},"#,
                r#""a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"#,
                r#""b.weight":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]}}"#,
            ),
            // 0.25, 1.5 and -2 by IEEE 754: 0x3e800000, 0x3fc00000, 0xc0000000.
            &[0, 0, 0x80, 0x3e, 0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0],
        );
        assert_eq!(small(), expected);
        let other_order = encode(&[("a", &[], &[0.25]), ("b.weight", &[2, 1], &[1.5, -2.0])]);
        assert_eq!(other_order.unwrap(), expected);
    }

    #[test]
    fn encode_refuses_what_read_would_refuse() {
        let message =
            |tensors: &[(&str, &[usize], &[f32])]| encode(tensors).unwrap_err().to_string();
        assert!(message(&[("a", &[1], &[0.0]), ("a", &[1], &[0.0])]).contains("`a`: given twice"));
        assert!(message(&[("__metadata__", &[1], &[0.0])]).contains("the format's own"));
        assert!(message(&[("a", &[2, 3], &[0.0; 5])]).contains("shape [2, 3], found 5"));
        assert!(message(&[("a", &[usize::MAX, 2], &[])]).contains("found 0"));
        let diverged = encode(&[("a", &[2], &[0.0, f32::NAN])]).unwrap_err();
        assert!(matches!(&diverged, Error::NotFinite(text) if text.contains("NaN at index 1")));
    }

    #[test]
    fn sha256_of_the_published_example() {
        // The message "abc" of the examples published with FIPS 180-4 (FIPS 180-2, appendix B.1).
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(b"abc"), expected);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(sha256_file(&path).unwrap(), (3, expected.to_owned()));
        // More than one part.
        let long = vec![7; 200_001];
        std::fs::write(&path, &long).unwrap();
        assert_eq!(sha256_file(&path).unwrap(), (200_001, sha256_hex(&long)));
        assert!(sha256_file(folder.path()).is_err());
    }
}
