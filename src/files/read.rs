//! Opening a regular file of unknown origin and reading a bounded part of it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::kind::{Expected, START, expect_kind};
use crate::{Error, Result};

/// Bytes that [`read_parts`] reads at once.
const PART: usize = 1 << 16;

/// Opens a regular file that is not empty, and returns its size in bytes as well.
///
/// # Errors
/// Returns [`Error::Io`] if the file cannot be read, and [`Error::File`] if it is empty or not a regular file.
pub(crate) fn open(path: &Path) -> Result<(File, u64)> {
    // Checked before opening, because opening a pipe waits for a writer, and a device such as /dev/zero has no end.
    let kind = fs::metadata(path).map_err(Error::io("read", path))?;
    if kind.is_dir() {
        return Err(Error::file(path, "expected a file, found a directory"));
    }
    if !kind.is_file() {
        return Err(Error::file(
            path,
            "expected a regular file, found a device, pipe or socket",
        ));
    }
    let file = File::open(path).map_err(Error::io("read", path))?;
    let len = file.metadata().map_err(Error::io("read", path))?.len();
    if len == 0 {
        return Err(Error::file(path, "the file is empty"));
    }
    Ok((file, len))
}

/// Looks at the first bytes of an open file, which is then at its start again.
///
/// # Errors
/// Returns [`Error::Io`] if the file cannot be read, and [`Error::Kind`] if it seems to be of another kind.
pub(crate) fn check_start(path: &Path, file: &mut File, expected: Expected) -> Result<()> {
    let mut start = Vec::new();
    let read = file.take(START as u64).read_to_end(&mut start);
    let rewound = read.and_then(|_| file.rewind());
    rewound.map_err(Error::io("read", path))?;
    expect_kind(path, &start, expected)
}

/// The first `most` bytes of a regular file, fewer if it is shorter.
///
/// # Errors
/// Returns the errors of [`open`].
pub(crate) fn read_start(path: &Path, most: usize) -> Result<Vec<u8>> {
    let (file, _) = open(path)?;
    let mut start = Vec::new();
    let read = file.take(most as u64).read_to_end(&mut start);
    read.map_err(Error::io("read", path))?;
    Ok(start)
}

/// Reads a whole regular file of JSON, of at most `max` bytes.
///
/// # Errors
/// Returns the errors of [`open`] and [`expect_kind`], and [`Error::File`] if the file is larger or memory does not
/// suffice.
pub(crate) fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>> {
    let (mut file, len) = open(path)?;
    check_start(path, &mut file, Expected::Json)?;
    if len > max {
        let reason = format!("expected at most {max} bytes, found {len}");
        return Err(Error::file(path, reason));
    }
    read_bytes(path, &mut file, len)
}

/// Reads the next `len` bytes. The caller has checked `len` against the file's real size.
///
/// # Errors
/// Returns [`Error::Io`] if the source fails, and [`Error::File`] if it ends early (the file was shortened meanwhile)
/// or memory does not suffice.
pub(crate) fn read_bytes(path: &Path, source: &mut impl Read, len: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A plain allocation would abort the process if memory does not suffice.
    usize::try_from(len)
        .ok()
        .and_then(|capacity| bytes.try_reserve_exact(capacity).ok())
        .ok_or_else(|| Error::file(path, format!("{len} bytes do not fit in memory")))?;
    source
        .take(len)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    if bytes.len() as u64 != len {
        let reason = format!(
            "truncated: expected {len} more bytes, found {}",
            bytes.len()
        );
        return Err(Error::file(path, reason));
    }
    Ok(bytes)
}

/// Passes the `len` bytes from `start` on to `each`, in parts whose size is a multiple of eight bytes but for the last.
pub(crate) fn read_parts(
    file: &mut File,
    start: u64,
    len: usize,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    file.seek(SeekFrom::Start(start))?;
    let mut part = vec![0; PART.min(len)];
    let mut left = len;
    while left > 0 {
        let part = &mut part[..PART.min(left)];
        file.read_exact(part)?;
        each(part);
        left -= part.len();
    }
    Ok(())
}

/// The numbers of N bytes each that `bytes` hold; a rest of fewer bytes is left out.
pub(crate) fn numbers<T, const N: usize>(
    bytes: &[u8],
    from_bytes: impl Fn([u8; N]) -> T,
) -> impl Iterator<Item = T> {
    let (whole, _) = bytes.as_chunks();
    whole.iter().map(move |number| from_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_with_content_open() {
        let dir = tempfile::tempdir().unwrap();
        let message = |path: &Path| open(path).unwrap_err().to_string();

        let missing = dir.path().join("missing");
        assert!(matches!(open(&missing).unwrap_err(), Error::Io { path, .. } if path == missing));
        assert!(message(dir.path()).contains("found a directory"));
        let empty = dir.path().join("empty");
        fs::write(&empty, b"").unwrap();
        assert!(message(&empty).contains("empty"));
        fs::write(&empty, b"abc").unwrap();
        assert_eq!(open(&empty).unwrap().1, 3);
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"abc").unwrap();
        assert_eq!(read_bounded(&path, 3).unwrap(), b"abc");
        // The file is a hole and takes no room.
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(1 << 40).unwrap();
        let message = read_bounded(&path, 1 << 20).unwrap_err().to_string();
        assert!(message.contains("at most 1048576"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_without_end_is_refused() {
        let message = open(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(message.contains("regular file"), "{message}");
    }

    #[test]
    fn a_file_that_shrank_is_an_error() {
        let path = Path::new("f");
        let message = read_bytes(path, &mut &b"abc"[..], 5)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("expected 5") && message.contains("found 3"),
            "{message}"
        );
        assert_eq!(read_bytes(path, &mut &b"abc"[..], 2).unwrap(), b"ab");
    }

    #[test]
    fn a_size_beyond_memory_is_an_error_and_not_an_abort() {
        let message = read_bytes(Path::new("f"), &mut &b"abc"[..], u64::MAX).unwrap_err();
        assert!(message.to_string().contains("do not fit"), "{message}");
    }
}
