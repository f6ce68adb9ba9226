//! SHA-256 (FIPS 180-4) of bytes, of files, and of what flows through a reader or a writer.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The length of some bytes and their SHA-256: two texts of one fingerprint are the same text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fingerprint {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 in lower-case hexadecimal digits.
    pub sha256: String,
}

impl Fingerprint {
    /// The fingerprint of a file, which is read in chunks and may be of any size.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be read.
    pub fn of_file(path: &Path) -> Result<Self> {
        let mut sink = Hashing::new(io::sink());
        File::open(path)
            .and_then(|mut file| io::copy(&mut file, &mut sink))
            .map_err(Error::io("read", path))?;
        Ok(sink.fingerprint())
    }
}

/// A reader or writer that hashes the bytes that pass through it.
pub(crate) struct Hashing<T> {
    inner: T,
    digest: Sha256,
    bytes: u64,
}

impl<T> Hashing<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self::with(Sha256::new(), inner)
    }

    /// Continues a digest.
    pub(crate) fn with(digest: Sha256, inner: T) -> Self {
        Self {
            inner,
            digest,
            bytes: 0,
        }
    }

    /// The fingerprint of all bytes that passed.
    pub(crate) fn fingerprint(self) -> Fingerprint {
        Fingerprint {
            bytes: self.bytes,
            sha256: hex(&self.digest.finalize()),
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.add(&into[..read]);
        Ok(read)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.add(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Bytes in lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message "abc" of the examples published with FIPS 180-4 (FIPS 180-2, appendix B.1).
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn bytes_that_pass_through_are_hashed_and_no_others() {
        let mut source = Hashing::new(&b"abcdef"[..]);
        let mut start = [0; 3];
        source.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"abc");
        let mut sink = Hashing::new(&mut start[..]);
        // Only three bytes fit.
        assert_eq!(sink.write(b"abcdef").unwrap(), 3);
        let expected = Fingerprint {
            bytes: 3,
            sha256: ABC.to_owned(),
        };
        assert_eq!(source.fingerprint(), expected);
        assert_eq!(sink.fingerprint(), expected);
    }

    #[test]
    fn a_file_has_the_fingerprint_of_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        // More than one chunk.
        let long = vec![7; 200_001];
        std::fs::write(&path, &long).unwrap();
        let expected = Fingerprint {
            bytes: 200_001,
            sha256: hex(&Sha256::digest(&long)),
        };
        assert_eq!(Fingerprint::of_file(&path).unwrap(), expected);
        assert!(Fingerprint::of_file(folder.path()).is_err());
    }
}
