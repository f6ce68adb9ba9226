//! What a file held when it was read: the bytes that were read are the bytes that are hashed.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::hex;

/// What a file held when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes (FIPS 180-4), in lower-case hexadecimal digits.
    pub sha256: String,
}

/// A source that counts and hashes what is read from it.
pub(super) struct Hashed<R> {
    source: R,
    digest: Sha256,
    bytes: u64,
}

impl<R> Hashed<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            digest: Sha256::new(),
            bytes: 0,
        }
    }

    /// All that was read.
    pub(super) fn content(self) -> Content {
        Content {
            bytes: self.bytes,
            sha256: hex(&self.digest.finalize()),
        }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        self.digest.update(&into[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_hashed() {
        let mut source = Hashed::new(&b"abcdef"[..]);
        let mut start = [0; 3];
        source.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"abc");
        // The message "abc" of the examples published with FIPS 180-4 (FIPS 180-2, appendix B.1).
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let expected = Content {
            bytes: 3,
            sha256: sha256.to_owned(),
        };
        assert_eq!(source.content(), expected);
    }
}
