//! A file of tokens: a text is encoded once, and may be larger than memory.
//!
//! ```text
//! offset  bytes
//!      0      8   89 46 54 4f 4b 0d 0a 1a   ("FTOK" in a frame that no text begins with, after PNG's)
//!      8      4   version, 1
//!     12      4   bytes of a token, 2 or 4
//!     16      8   number of tokens
//!     24      8   size of the vocabulary
//!     32     32   SHA-256 of the tokenizer.json
//!     64          the tokens
//! ```
//!
//! All numbers are unsigned, the low byte first. Tokens have two bytes if the vocabulary has at most 65,536.
//!
//! A file is read by position, one window at a time. It is never mapped into memory: a mapped file that is shortened
//! kills the process, and one system call per window costs little.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Fingerprint, TextFiles, Tokenizer};
use crate::files::{Expected, Hashing, START, expect_kind, hex, numbers, read_parts, read_start};
use crate::{Error, Result};

const MAGIC: [u8; 8] = *b"\x89FTOK\r\n\x1a";
const VERSION: u32 = 1;
const HEADER: usize = 64;

/// An open token file.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    /// Reading moves its position, so one reader at a time holds it.
    file: Mutex<File>,
    width: usize,
    count: u64,
    vocab: u64,
    opened: Stamp,
}

/// How a change of a file is noticed: by its length in bytes and its modification time, if the system has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let about = file.metadata()?;
        Ok(Self {
            bytes: about.len(),
            modified: about.modified().ok(),
        })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes)?;
        let since = self.modified.map(|time| time.duration_since(UNIX_EPOCH));
        match since {
            Some(Ok(time)) => write!(f, " written {:.6} s after 1970", time.as_secs_f64()),
            _ => Ok(()),
        }
    }
}

impl TokenFile {
    /// Whether a file begins like a token file; false if it cannot be read.
    pub fn is_one(path: &Path) -> bool {
        let mut start = [0; MAGIC.len()];
        // Only a regular file is opened: reading from a pipe would take its first bytes away.
        path.is_file()
            && File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok())
            && start == MAGIC
    }

    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if it cannot be read, and [`Error::File`] if it is not a token file, is of another
    /// version, does not have the size that its header claims, or was not made with this tokenizer.
    pub fn open(path: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let wrong = |reason: String| Err(Error::file(path, reason));
        if !Self::is_one(path) {
            expect_kind(path, &read_start(path, START)?, Expected::TokenFile)?;
            return wrong("expected a token file, found another kind of file".to_owned());
        }
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        let opened = Stamp::of(&file).map_err(Error::io("read", path))?;
        let size = opened.bytes;
        let mut header = [0; HEADER];
        if size < HEADER as u64 {
            return wrong(format!(
                "truncated: expected a header of {HEADER} bytes, found {size}"
            ));
        }
        file.read_exact(&mut header)
            .map_err(Error::io("read", path))?;
        let small = |at: usize| u32::from_le_bytes(*header[at..].first_chunk().expect("4 bytes"));
        let large = |at: usize| u64::from_le_bytes(*header[at..].first_chunk().expect("8 bytes"));
        let (version, width, count, vocab) = (small(8), small(12), large(16), large(24));
        if version != VERSION {
            return wrong(format!("version: expected {VERSION}, found {version}"));
        }
        if width != width_of(vocab) || vocab == 0 || vocab > 1 << 32 {
            return wrong(format!(
                "{width} bytes a token do not fit a vocabulary of {vocab}"
            ));
        }
        let expected = u128::from(count) * u128::from(width) + HEADER as u128;
        if u128::from(size) != expected {
            let how = if u128::from(size) < expected {
                "truncated"
            } else {
                "too long"
            };
            return wrong(format!(
                "{how}: expected {expected} bytes for {count} tokens, found {size}"
            ));
        }
        if header[32..] != tokenizer.sha256() || vocab != tokenizer.vocab_size() as u64 {
            return wrong(format!(
                "made with a tokenizer of {vocab} tokens (sha256 {}), and this one has {} (sha256 {})",
                hex(&header[32..]),
                tokenizer.vocab_size(),
                tokenizer.sha256_hex()
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(file),
            width: width as usize,
            count,
            vocab,
            opened,
        })
    }

    /// The fingerprint of the file, which is read once for it.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if it cannot be read.
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut read = || {
            file.seek(SeekFrom::Start(0))?;
            let mut source = Hashing::new(&mut *file);
            io::copy(&mut source, &mut io::sink())?;
            Ok(source.fingerprint())
        };
        read().map_err(Error::io("read", &self.path))
    }

    /// Checks that the open file has not changed since it was opened, by its length and modification time. A new file
    /// under the same name does not matter: it is not read.
    ///
    /// # Errors
    /// Returns [`Error::File`] if it was changed and [`Error::Io`] if the system does not say.
    pub fn unchanged(&self) -> Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Stamp::of(&file).map_err(Error::io("read", &self.path))?;
        if now != self.opened {
            let expected = self.opened;
            let reason =
                format!("changed while it was being read: expected {expected}, found {now}");
            return Err(Error::file(&self.path, reason));
        }
        Ok(())
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        // Tokens beyond the range of usize, on a small machine, are left out.
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends `count` tokens from number `start` on.
    pub(super) fn read(&self, start: u64, count: usize, into: &mut Vec<u32>) -> Result<()> {
        // A reader that panicked left only the position in the file, which is set again here.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let place = HEADER as u64 + start * self.width as u64;
        let first = into.len();
        read_parts(&mut file, place, count * self.width, |bytes| {
            match self.width {
                2 => into.extend(numbers(bytes, u16::from_le_bytes).map(u32::from)),
                _ => into.extend(numbers(bytes, u32::from_le_bytes)),
            };
        })
        .map_err(Error::io("read", &self.path))?;
        let mut ids = into[first..].iter().zip(start..);
        let Some((id, number)) = ids.find(|(id, _)| u64::from(**id) >= self.vocab) else {
            return Ok(());
        };
        let expected = format!("an id below {}", self.vocab);
        let reason = format!("token {number}: expected {expected}, found {id}");
        Err(Error::file(&self.path, reason))
    }
}

/// Bytes of a token.
fn width_of(vocab: u64) -> u32 {
    if vocab <= 1 << 16 { 2 } else { 4 }
}

/// Writes the tokens of texts as a token file and returns their number. Memory does not grow with the texts.
///
/// The file is written to `out` from its current position; `path` names it in errors.
///
/// # Errors
/// Returns the errors of [`TextFiles::encode`], and [`Error::Io`] if `out` cannot be written.
pub fn write_tokens(
    path: &Path,
    out: &mut (impl Write + Seek),
    texts: &TextFiles,
    tokenizer: &Tokenizer,
) -> Result<u64> {
    let vocab = tokenizer.vocab_size() as u64;
    let width = width_of(vocab);
    let header = |count: u64| {
        let mut header = MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend(width.to_le_bytes());
        header.extend(count.to_le_bytes());
        header.extend(vocab.to_le_bytes());
        header.extend(tokenizer.sha256());
        header
    };
    let failed = || Error::io("write", path);
    let start = out.stream_position().map_err(failed())?;
    out.write_all(&header(0)).map_err(failed())?;
    let mut count = 0;
    let mut bytes = Vec::new();
    texts.encode(tokenizer, &mut |tokens| {
        count += tokens.len() as u64;
        match width {
            2 => bytes.extend(tokens.iter().flat_map(|id| (*id as u16).to_le_bytes())),
            _ => bytes.extend(tokens.iter().flat_map(|id| id.to_le_bytes())),
        }
        // Short documents have few tokens, and a system call for each would be slow.
        if bytes.len() >= 1 << 20 {
            out.write_all(&bytes).map_err(failed())?;
            bytes.clear();
        }
        Ok(())
    })?;
    out.write_all(&bytes).map_err(failed())?;
    // Only now is their number known.
    out.seek(SeekFrom::Start(start)).map_err(failed())?;
    out.write_all(&header(count)).map_err(failed())?;
    Ok(count)
}

#[cfg(test)]
mod tests;
