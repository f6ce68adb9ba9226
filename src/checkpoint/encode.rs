//! The safetensors format as we write it: one byte sequence for one content, streamed.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::header::METADATA;
use super::tensors::not_finite;
use crate::files::write_with;
use crate::{Error, Result};

/// Stands for the file in errors of [`encode`], which knows no path.
const UNWRITTEN: &str = "(file not yet written)";

/// Values converted at once.
const CHUNK: usize = 1 << 14;

/// A tensor to write: name, shape, values.
pub type Part<'a> = (&'a str, &'a [usize], &'a [f32]);

/// The bytes of a safetensors file that holds `tensors`, f32 and little-endian.
/// The bytes depend on the content only and not on the order given: tensors are sorted by name.
/// [`TensorFile`](super::TensorFile) reads what this returns.
///
/// # Errors
/// Returns [`Error::Tensor`] if a name comes twice or is the format's own `__metadata__`, or if a shape does not fit
/// its values, and [`Error::NotFinite`] for a value that is not finite. So a model that diverged never replaces a valid
/// one.
pub fn encode(tensors: &[Part<'_>]) -> Result<Vec<u8>> {
    Ok(Safetensors::new(tensors.to_vec(), ("format", "pt"))?.to_bytes())
}

/// A safetensors file that can be written: checked, its header made, its values still where they are.
pub(super) struct Safetensors<'a> {
    /// Length and text of the header.
    header: Vec<u8>,
    /// In the order of the file: by name.
    tensors: Vec<Part<'a>>,
}

impl<'a> Safetensors<'a> {
    /// The file of these tensors with one entry of metadata, as (key, text).
    ///
    /// # Errors
    /// Returns the errors of [`encode`].
    pub(super) fn new(mut tensors: Vec<Part<'a>>, (key, text): (&str, &str)) -> Result<Self> {
        tensors.sort_by_key(|(name, ..)| *name);
        for (i, &(name, shape, values)) in tensors.iter().enumerate() {
            let fail = |reason: String| Err(Error::tensor(Path::new(UNWRITTEN), name, reason));
            if name == METADATA {
                return fail("expected a tensor's name, found the format's own".into());
            }
            if i > 0 && tensors[i - 1].0 == name {
                return fail("given twice".into());
            }
            let count = shape
                .iter()
                .try_fold(1usize, |n, &size| n.checked_mul(size));
            if count != Some(values.len()) {
                let found = values.len();
                return fail(format!("expected values of shape {shape:?}, found {found}"));
            }
            if let Some(reason) = not_finite(values) {
                return Err(Error::NotFinite(format!("tensor `{name}`: {reason}")));
            }
        }
        // One key only: the crate keeps the keys in a hash map, whose order changes from run to run.
        let metadata = HashMap::from([(key.to_owned(), text.to_owned())]);
        let metadata = Metadata::new(Some(metadata), infos(&tensors))
            .map_err(|error| Error::file(Path::new(UNWRITTEN), error.to_string()))?;
        let text = serde_json::to_string(&metadata).expect("plain data");
        // Padded with spaces, so that the data begin at a multiple of eight.
        let text = format!("{text:<len$}", len = text.len().next_multiple_of(8));
        let mut header = (text.len() as u64).to_le_bytes().to_vec();
        header.extend_from_slice(text.as_bytes());
        Ok(Self { header, tensors })
    }

    /// Writes the file.
    pub(super) fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.header)?;
        write_values(&self.tensors, out)
    }

    /// Writes the file at `path`, whole or not at all.
    pub(super) fn replace(&self, path: &Path) -> Result<()> {
        write_with(path, |file| {
            self.write_to(file).map_err(Error::io("write", path))
        })
    }

    /// The file in memory.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes).expect("memory takes all bytes");
        bytes
    }
}

/// What the header says about tensors that lie in the file in this order.
pub(super) fn infos(tensors: &[Part<'_>]) -> Vec<(String, TensorInfo)> {
    let mut end = 0;
    let info = |&(name, shape, values): &Part<'_>| {
        let begin = end;
        end += size_of_val(values);
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            data_offsets: (begin, end),
        };
        (name.to_owned(), info)
    };
    tensors.iter().map(info).collect()
}

/// Writes the data of all tensors, one after the other.
pub(super) fn write_values(tensors: &[Part<'_>], out: &mut impl Write) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(4 * CHUNK);
    for (.., values) in tensors {
        for chunk in values.chunks(CHUNK) {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|x| x.to_le_bytes()));
            out.write_all(&bytes)?;
        }
    }
    Ok(())
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
}
