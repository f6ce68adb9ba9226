//! The safetensors format as we read it: untrusted, and one tensor at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorInfo};
use sha2::{Digest, Sha256};

use super::header::{self, Entries};
use crate::files::{Expected, check_start, escape, numbers, open, read_bytes, read_parts};
use crate::{Error, Result};

/// Longest header, in bytes: the format's own limit.
const HEADER_LIMIT: u64 = 100_000_000;

/// Unexpected names that an error lists before it only counts them.
const LISTED: usize = 3;

/// An open safetensors file whose header was read and checked. Tensors are read by name when they are taken;
/// [`finish`](Self::finish) then checks that none is left.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    tensors: BTreeMap<String, TensorInfo>,
    entries: Entries,
    taken: BTreeSet<String>,
    file: File,
    /// Where the data begin in the file.
    data_start: u64,
}

impl TensorFile {
    /// Opens a file and reads its header. The header's length is compared with the file's real size before the header
    /// is read, and so are the tensors' claims.
    ///
    /// # Errors
    /// Returns [`Error::Io`], [`Error::Kind`], [`Error::File`] or [`Error::Tensor`] if the file is missing, empty, not
    /// a regular file, truncated, too long, or has a bad header.
    pub fn open(path: &Path) -> Result<Self> {
        let (mut file, len) = open(path)?;
        check_start(path, &mut file, Expected::Safetensors)?;
        Self::read_from(path, file, len)
    }

    /// Reads the header of an open file of `len` bytes; `path` is only for errors.
    fn read_from(path: &Path, mut file: File, len: u64) -> Result<Self> {
        let (header, data_start) = read_header(path, &mut file, len)?;
        let (tensors, entries) = header::parse(path, &header, len - data_start)?;
        Ok(Self {
            path: path.to_owned(),
            tensors,
            entries,
            taken: BTreeSet::new(),
            file,
            data_start,
        })
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The text of the file's metadata under a key, as untrusted as the rest.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.entries.get(key).map(String::as_str)
    }

    /// Checks that the file holds exactly these tensors, given as (name, shape), before any data is read.
    ///
    /// # Errors
    /// Returns [`Error::Tensor`] if a tensor is missing or has a different shape or type, and [`Error::File`] if the
    /// file holds tensors that are not in the list.
    pub fn expect<'a>(
        &self,
        layout: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    ) -> Result<()> {
        let mut expected = BTreeSet::new();
        for (name, shape) in layout {
            self.info(name, shape)?;
            expected.insert(name);
        }
        self.check_rest(|name| expected.contains(name))
    }

    /// Type, shape and place of every tensor, by name.
    pub(super) fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// Hashes the data of all tensors, in the order of the file.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be read.
    pub(super) fn hash_data(&mut self, digest: &mut Sha256) -> Result<()> {
        let ends = self.tensors.values().map(|info| info.data_offsets.1);
        let end = ends.max().unwrap_or(0);
        self.read((0, end), |chunk| digest.update(chunk))
    }

    /// Reads the data between two offsets, in chunks.
    fn read(&mut self, (begin, end): (usize, usize), each: impl FnMut(&[u8])) -> Result<()> {
        let start = self.data_start + begin as u64;
        let read = read_parts(&mut self.file, start, end - begin, each);
        read.map_err(Error::io("read", &self.path))
    }

    /// A tensor of this name, shape and a type that can be read.
    fn info(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo> {
        let fail = |reason: String| Err(Error::tensor(&self.path, name, reason));
        let Some(info) = self.tensors.get(name) else {
            return fail(format!("expected shape {shape:?}, the tensor is missing"));
        };
        if info.shape != shape {
            let found = shown_shape(&info.shape);
            return fail(format!("expected shape {shape:?}, found {found}"));
        }
        match info.dtype {
            Dtype::F32 | Dtype::BF16 | Dtype::F16 => Ok(info),
            other => fail(format!("expected type F32, BF16 or F16, found {other}")),
        }
    }

    /// Reads the values of a tensor in row-major order, all finite. F32 is taken as it is; BF16 and F16 are
    /// widened, which is exact. A tensor may be taken again.
    ///
    /// # Errors
    /// Returns [`Error::Tensor`] if the tensor is missing, has a different shape or type, holds a NaN or an
    /// infinity, or does not fit in memory, and [`Error::Io`] if the file cannot be read.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        // The header was checked: the offsets are inside, and a whole number of elements apart.
        let info = self.info(name, shape)?;
        let (dtype, data_offsets) = (info.dtype, info.data_offsets);
        let path = self.path.clone();
        let fail = |reason: String| Error::tensor(&path, name, reason);
        let count = shape.iter().product();
        let mut values: Vec<f32> = Vec::new();
        // A plain allocation would abort the process if memory does not suffice.
        if values.try_reserve_exact(count).is_err() {
            return Err(fail(format!("{count} values do not fit in memory")));
        }
        self.read(data_offsets, |bytes| match dtype {
            Dtype::F32 => values.extend(numbers(bytes, f32::from_le_bytes)),
            Dtype::BF16 => values.extend(numbers(bytes, bf16::from_le_bytes).map(f32::from)),
            _ => values.extend(numbers(bytes, f16::from_le_bytes).map(f32::from)),
        })?;
        if let Some(reason) = not_finite(&values) {
            return Err(fail(reason));
        }
        self.taken.insert(name.to_owned());
        Ok(values)
    }

    /// Ends the reading: every tensor of the file must have been taken.
    ///
    /// # Errors
    /// Returns [`Error::File`] with the names of at most three tensors that were not taken, and the number of the
    /// others.
    pub fn finish(self) -> Result<()> {
        self.check_rest(|name| self.taken.contains(name))
    }

    fn check_rest(&self, is_expected: impl Fn(&str) -> bool) -> Result<()> {
        let mut left = self.names().filter(|&name| !is_expected(name));
        let first: Vec<String> = left
            .by_ref()
            .take(LISTED)
            .map(|name| format!("`{}`", escape(name)))
            .collect();
        if first.is_empty() {
            return Ok(());
        }
        let others = match left.count() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let reason = format!(
            "holds tensors that the model does not have: {}{others}",
            first.join(", ")
        );
        Err(Error::file(&self.path, reason))
    }
}

/// Reads the text of a header from a source of `len` bytes; returns it with the offset of the data.
fn read_header(path: &Path, source: &mut impl Read, len: u64) -> Result<(Vec<u8>, u64)> {
    let Some(after_length) = len.checked_sub(8) else {
        let reason = format!("truncated: expected at least 8 bytes, found {len}");
        return Err(Error::file(path, reason));
    };
    let mut length = [0; 8];
    source
        .read_exact(&mut length)
        .map_err(Error::io("read", path))?;
    let claimed = u64::from_le_bytes(length);
    if claimed > after_length {
        let reason = format!(
            "truncated, or not a safetensors file: it claims a header of {claimed} bytes, and {after_length} follow"
        );
        return Err(Error::file(path, reason));
    }
    if claimed > HEADER_LIMIT {
        let reason = format!("expected a header of at most {HEADER_LIMIT} bytes, found {claimed}");
        return Err(Error::file(path, reason));
    }
    Ok((read_bytes(path, source, claimed)?, 8 + claimed))
}

/// The first NaN or infinity and its place, as a reason; none if all values are finite.
pub(super) fn not_finite(values: &[f32]) -> Option<String> {
    let i = values.iter().position(|value| !value.is_finite())?;
    Some(format!(
        "expected finite values, found {} at index {i} of {}",
        values[i],
        values.len()
    ))
}

/// A shape from a file, as `[2, 3]`. A file may claim a million dimensions, so at most eight are shown.
fn shown_shape(shape: &[usize]) -> String {
    match shape.get(..8) {
        Some(first) if shape.len() > 8 => {
            let first: Vec<String> = first.iter().map(usize::to_string).collect();
            format!("[{}, ...] of {} dimensions", first.join(", "), shape.len())
        }
        _ => format!("{shape:?}"),
    }
}

#[cfg(test)]
mod tests;
