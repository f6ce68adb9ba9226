//! The safetensors format as we read it: untrusted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorInfo};

use super::header;
use super::untrusted::{open, read_bytes, shown, shown_shape};
use super::widen;
use crate::{Error, Result};

/// Longest header, in bytes: the format's own limit.
const HEADER_LIMIT: u64 = 100_000_000;

/// How many leftover names an error lists before it only counts.
const LISTED: usize = 3;

/// A safetensors file in memory, its structure checked. Tensors are taken out by name;
/// [`finish`](Self::finish) then says whether any was left.
pub struct TensorFile {
    path: PathBuf,
    tensors: BTreeMap<String, TensorInfo>,
    taken: BTreeSet<String>,
    body: Vec<u8>,
}

impl TensorFile {
    /// Reads a file. Memory is bounded by the file's real size: the header's length is compared with it
    /// before the header is read, and the tensors' claims are compared with it before the data is read.
    ///
    /// # Errors
    /// The file is missing, empty, not a regular file, truncated, too long, or has a bad header.
    pub fn read(path: &Path) -> Result<Self> {
        let (mut file, len) = open(path)?;
        Self::from_reader(path, &mut file, len)
    }

    /// The same for bytes in memory; `path` is only for errors.
    ///
    /// # Errors
    /// The bytes are truncated, too long, or have a bad header.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self> {
        Self::from_reader(path, &mut &bytes[..], bytes.len() as u64)
    }

    fn from_reader(path: &Path, source: &mut impl Read, len: u64) -> Result<Self> {
        let Some(after_length) = len.checked_sub(8) else {
            let reason = format!("truncated: expected at least 8 bytes, found {len}");
            return Err(Error::file(path, reason));
        };
        let mut length = [0; 8];
        source
            .read_exact(&mut length)
            .map_err(Error::io("read", path))?;
        let claimed = u64::from_le_bytes(length);
        let Some(body) = after_length.checked_sub(claimed) else {
            let reason = format!(
                "truncated, or not a safetensors file: it claims a header of {claimed} bytes, \
                 and {after_length} follow"
            );
            return Err(Error::file(path, reason));
        };
        if claimed > HEADER_LIMIT {
            let reason =
                format!("expected a header of at most {HEADER_LIMIT} bytes, found {claimed}");
            return Err(Error::file(path, reason));
        }
        let header = read_bytes(path, source, claimed)?;
        let tensors = header::parse(path, &header, body)?;
        let body = read_bytes(path, source, body)?;
        Ok(Self {
            path: path.to_owned(),
            tensors,
            taken: BTreeSet::new(),
            body,
        })
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The values of a tensor in row-major order, all finite. F32 is taken as it is; BF16 and F16 are
    /// widened, which is exact. A tensor may be taken again.
    ///
    /// # Errors
    /// The tensor is missing, has another shape or another type, or holds a NaN or an infinity.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let fail = |reason: String| Error::tensor(&self.path, name, reason);
        let info = self
            .tensors
            .get(name)
            .ok_or_else(|| fail(format!("expected shape {shape:?}, the tensor is missing")))?;
        if info.shape != shape {
            let found = shown_shape(&info.shape);
            return Err(fail(format!("expected shape {shape:?}, found {found}")));
        }
        // The header was checked: the offsets are inside, and a whole number of elements apart.
        let bytes = &self.body[info.data_offsets.0..info.data_offsets.1];
        let halves = |widen: fn(u16) -> f32| {
            let halves = bytes.as_chunks().0.iter();
            halves
                .map(|&half| widen(u16::from_le_bytes(half)))
                .collect()
        };
        let values: Vec<f32> = match info.dtype {
            Dtype::F32 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| f32::from_le_bytes(b))
                .collect(),
            Dtype::BF16 => halves(widen::bf16),
            Dtype::F16 => halves(widen::f16),
            other => {
                return Err(fail(format!(
                    "expected type F32, BF16 or F16, found {other}"
                )));
            }
        };
        if let Some(reason) = not_finite(&values) {
            return Err(fail(reason));
        }
        self.taken.insert(name.to_owned());
        Ok(values)
    }

    /// Ends the reading: every tensor of the file must have been taken.
    ///
    /// # Errors
    /// Names tensors that nobody took, at most three, and counts the others.
    pub fn finish(self) -> Result<()> {
        let mut left = self.names().filter(|&name| !self.taken.contains(name));
        let first: Vec<String> = left
            .by_ref()
            .take(LISTED)
            .map(|name| format!("`{}`", shown(name)))
            .collect();
        let others = match left.count() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        if first.is_empty() {
            return Ok(());
        }
        let reason = format!(
            "holds tensors that the model does not have: {}{others}",
            first.join(", ")
        );
        Err(Error::file(&self.path, reason))
    }
}

impl fmt::Debug for TensorFile {
    // Without the data, which may be gigabytes.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TensorFile")
            .field("path", &self.path)
            .field("tensors", &self.tensors.len())
            .field("taken", &self.taken.len())
            .finish_non_exhaustive()
    }
}

/// Says where the first NaN or infinity is, if there is one.
pub(super) fn not_finite(values: &[f32]) -> Option<String> {
    let i = values.iter().position(|value| !value.is_finite())?;
    Some(format!(
        "expected finite values, found {} at index {i} of {}",
        values[i],
        values.len()
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::super::encode::encode;
    use super::super::encode::tests::{by_hand, small};
    use super::*;

    fn file(bytes: &[u8]) -> Result<TensorFile> {
        TensorFile::from_bytes(Path::new("m.safetensors"), bytes)
    }

    /// Does with a file whatever can be done with one. Nothing of it may panic.
    fn exercise(bytes: &[u8]) {
        let Ok(mut file) = file(bytes) else { return };
        let shapes: Vec<_> = file
            .tensors
            .iter()
            .map(|(name, info)| (name.clone(), info.shape.clone()))
            .collect();
        for (name, shape) in shapes {
            if let Ok(values) = file.take(&name, &shape) {
                assert_eq!(values.len(), shape.iter().product::<usize>());
            }
        }
        let _ = file.finish();
    }

    #[test]
    fn what_was_written_is_read_to_the_bit() {
        let bits = [0, 0x8000_0000, 1, 0x7f7f_ffff, 0x0080_0000, 0x3f80_0001];
        let values = bits.map(f32::from_bits);
        let bytes = encode(&[("x", &[3, 2], &values), ("none", &[0, 4], &[])]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        fs::write(&path, bytes).unwrap();

        let mut file = TensorFile::read(&path).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["none", "x"]);
        let read = file.take("x", &[3, 2]).unwrap();
        assert_eq!(
            read.iter().map(|value| value.to_bits()).collect::<Vec<_>>(),
            bits
        );
        assert!(file.take("none", &[0, 4]).unwrap().is_empty());
        file.finish().unwrap();
    }

    #[test]
    fn types_are_widened_or_refused_by_name() {
        let read = |dtype: &str, size: usize, data: &[u8]| {
            let end = size * 2;
            let header =
                format!(r#"{{"w":{{"dtype":"{dtype}","shape":[2],"data_offsets":[0,{end}]}}}}"#);
            file(&by_hand(&header, data)).unwrap().take("w", &[2])
        };
        // 1 and -2: 0x3f80 and 0xc000 in bf16, 0x3c00 and 0xc000 in f16.
        assert_eq!(
            read("BF16", 2, &[0x80, 0x3f, 0, 0xc0]).unwrap(),
            [1.0, -2.0]
        );
        assert_eq!(read("F16", 2, &[0, 0x3c, 0, 0xc0]).unwrap(), [1.0, -2.0]);
        for (dtype, size) in [
            ("F64", 8),
            ("I32", 4),
            ("U8", 1),
            ("F8_E4M3", 1),
            ("I16", 2),
        ] {
            let message = read(dtype, size, &vec![0; 2 * size])
                .unwrap_err()
                .to_string();
            assert!(
                message.contains("`w`") && message.contains(&format!("found {dtype}")),
                "{message}"
            );
        }
        for (dtype, data, value) in [
            ("BF16", vec![0, 0, 0x80, 0xff], "-inf"),
            ("F16", vec![0, 0, 0x01, 0x7c], "NaN"),
            ("F32", vec![0, 0, 0, 0, 0, 0, 0x80, 0x7f], "inf"),
        ] {
            let message = read(dtype, data.len() / 2, &data).unwrap_err().to_string();
            assert!(
                message.contains(&format!("{value} at index 1 of 2")),
                "{message}"
            );
        }
    }

    #[test]
    fn take_and_finish_name_file_tensor_and_what_was_found() {
        let mut open = file(&small()).unwrap();
        for (name, shape, reason) in [
            (
                "b.weight",
                &[1, 2][..],
                "expected shape [1, 2], found [2, 1]",
            ),
            ("b.weight", &[2], "found [2, 1]"),
            ("c", &[7], "expected shape [7], the tensor is missing"),
        ] {
            let message = open.take(name, shape).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("m.safetensors: tensor `{name}`: ")),
                "{message}"
            );
            assert!(message.ends_with(reason), "{message}");
        }
        open.take("a", &[]).unwrap();
        let message = open.finish().unwrap_err().to_string();
        assert!(
            message.contains("`b.weight`") && !message.contains("`a`"),
            "{message}"
        );

        let many = ["a", "b", "c", "d", "e"].map(|name| (name, &[][..], &[0.0][..]));
        let message = file(&encode(&many).unwrap())
            .unwrap()
            .finish()
            .unwrap_err()
            .to_string();
        assert!(message.ends_with("`a`, `b`, `c` and 2 more"), "{message}");
    }

    #[test]
    fn every_truncation_and_every_extension_is_an_error() {
        let whole = small();
        assert!(file(&whole).is_ok());
        for len in 0..whole.len() {
            assert!(
                file(&whole[..len]).is_err(),
                "{len} of {} bytes",
                whole.len()
            );
        }
        assert!(file(&[&whole[..], &[0]].concat()).is_err());
    }

    #[test]
    fn no_single_byte_of_the_header_can_cause_a_panic() {
        let whole = small();
        for i in 0..whole.len() - 12 {
            for flip in 1..=255 {
                let mut bytes = whole.clone();
                bytes[i] ^= flip;
                exercise(&bytes);
            }
        }
    }

    #[test]
    fn a_claim_is_compared_with_the_real_size_before_more_is_read() {
        // Panics when more than the given bytes are asked for. Who allocates by the claim asks for more.
        struct Only<'a>(&'a [u8]);
        impl Read for Only<'_> {
            fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
                assert!(!self.0.is_empty(), "asked for {} bytes more", into.len());
                self.0.read(into)
            }
        }
        let refused = |bytes: &[u8], len| {
            let read = TensorFile::from_reader(Path::new("m"), &mut Only(bytes), len);
            read.unwrap_err().to_string()
        };
        for claim in [13, 99_000_000, 1 << 40, u64::MAX - 7, u64::MAX] {
            let message = refused(&claim.to_le_bytes(), 20);
            assert!(
                message.contains(&format!("header of {claim} bytes")),
                "{message}"
            );
        }
        let message = refused(&(1u64 << 40).to_le_bytes(), 1 << 41);
        assert!(message.contains("at most 100000000"), "{message}");
        // A tensor of 4 TiB in a file of some hundred bytes.
        let end = 1u64 << 42;
        let shape = 1u64 << 40;
        let header =
            format!(r#"{{"w":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,{end}]}}}}"#);
        let bytes = by_hand(&header, &[]);
        let message = refused(&bytes, bytes.len() as u64 + 4);
        assert!(
            message.contains(&format!("need {end} bytes of data, found 4")),
            "{message}"
        );
    }

    #[test]
    fn wrong_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing.safetensors");
        assert!(
            matches!(TensorFile::read(&missing), Err(Error::Io { path, .. }) if path == missing)
        );
        assert!(
            matches!(TensorFile::read(dir.path()), Err(Error::File { path, .. }) if path == dir.path())
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn no_few_bytes_can_cause_a_panic(
            places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        ) {
            let mut bytes = small();
            for (place, byte) in places {
                let i = place.index(bytes.len());
                bytes[i] = byte;
            }
            exercise(&bytes);
        }
    }
}
