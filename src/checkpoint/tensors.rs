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
    texts: header::Texts,
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
        let (tensors, texts) = header::parse(path, &header, body)?;
        let body = read_bytes(path, source, body)?;
        Ok(Self {
            path: path.to_owned(),
            tensors,
            texts,
            taken: BTreeSet::new(),
            body,
        })
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// What the file's metadata says under a key. It is as untrusted as the rest.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.texts.get(key).map(String::as_str)
    }

    /// Every tensor's name, shape, and where its data begin and end, in the order of names.
    pub(super) fn parts(&self) -> impl ExactSizeIterator<Item = (&str, &[usize], (usize, usize))> {
        self.tensors
            .iter()
            .map(|(name, info)| (name.as_str(), info.shape.as_slice(), info.data_offsets))
    }

    /// The data of all tensors, in the order of the file.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
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
mod tests;
