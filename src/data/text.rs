//! Files to one stream of tokens.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::chunks::Chunks;
use super::{Fingerprint, TokenFile, Tokenizer, Tokens};
use crate::files::{Expected, Hashing, START, expect_kind};
use crate::{Error, Result};

/// Text files in order, as one stream of tokens with one end-of-text token between two files, if the vocabulary has
/// one.
///
/// A separator is a text between documents inside a file, such as `<|endoftext|>`. Each one becomes the end-of-text
/// token; a file that ends with a separator gets no second one before the next file.
#[derive(Clone, Debug)]
pub struct TextFiles {
    paths: Vec<PathBuf>,
    separator: Option<String>,
    /// Whatever the first bytes seem to be.
    as_text: bool,
}

impl TextFiles {
    /// # Errors
    /// Returns [`Error::Setting`] if the list of files or the separator is empty.
    pub fn new(paths: &[PathBuf], separator: Option<&str>) -> Result<Self> {
        if paths.is_empty() {
            return Err(Error::setting("data", "at least one text file", "none"));
        }
        if separator == Some("") {
            let expected = "a separator of at least one character";
            return Err(Error::setting("separator", expected, "none"));
        }
        Ok(Self {
            paths: paths.to_vec(),
            separator: separator.map(str::to_owned),
            as_text: false,
        })
    }

    /// With `forced`, bytes that seem to be no text, such as those of an archive or a page, are read as they are.
    /// Otherwise they are an [`Error::Kind`].
    pub fn as_text(mut self, forced: bool) -> Self {
        self.as_text = forced;
        self
    }

    /// The texts of all files in chunks, without separators: what a vocabulary is learned from.
    pub fn chunks(&self) -> impl Iterator<Item = Result<Vec<u8>>> {
        type Texts<'a> = Box<dyn Iterator<Item = Result<Vec<u8>>> + 'a>;
        self.paths.iter().flat_map(|path| -> Texts {
            match self.open(path) {
                Err(error) => Box::new(std::iter::once(Err(error))),
                Ok(file) => Box::new(Chunks::new(file, self.separator()).map(|chunk| {
                    let text = chunk.map(|chunk| chunk.text);
                    text.map_err(Error::io("read", path))
                })),
            }
        })
    }

    /// Passes the tokens of all files to `sink`, chunk by chunk. Memory does not grow with the text. Returns the
    /// fingerprint of the bytes that were read from each file.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if a file is missing or cannot be read, [`Error::File`] if one is a directory, a token
    /// file or empty, or has text that the vocabulary cannot encode, [`Error::Kind`] if one seems to be no text,
    /// [`Error::Setting`] for a separator that cannot become a token, and the errors of `sink`.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        sink: &mut dyn FnMut(&[u32]) -> Result<()>,
    ) -> Result<Vec<Fingerprint>> {
        let end = tokenizer.end_of_text();
        if let (Some(separator), None) = (&self.separator, end) {
            let expected = "none, because the tokenizer has no end-of-text token to replace it";
            return Err(Error::setting("separator", expected, separator));
        }
        let end = end.as_slice();
        let (mut ended, mut fingerprints) = (true, Vec::new());
        for path in &self.paths {
            if !ended {
                sink(end)?;
            }
            let mut source = Hashing::new(self.open(path)?);
            for chunk in Chunks::new(&mut source, self.separator()) {
                let chunk = chunk.map_err(Error::io("read", path))?;
                let wrong = |(place, reason)| {
                    let byte = chunk.start + place as u64;
                    Error::file(path, format!("at byte {byte}: {reason}"))
                };
                sink(&tokenizer.encode_chunk(&chunk.text).map_err(wrong)?)?;
                if chunk.separated {
                    sink(end)?;
                }
                ended = chunk.separated;
            }
            fingerprints.push(source.fingerprint());
        }
        Ok(fingerprints)
    }

    /// The tokens of all files in memory; or those of one token file, which stays on the disk.
    ///
    /// # Errors
    /// Returns the errors of [`TextFiles::encode`] and [`TokenFile::open`], and [`Error::Setting`] for a token file
    /// together with other files or with a separator.
    pub fn tokens(&self, tokenizer: &Tokenizer) -> Result<Tokens> {
        match self.token_file()? {
            Some(path) => Ok(TokenFile::open(path, tokenizer)?.into()),
            None => Ok(self.encoded(tokenizer)?.0),
        }
    }

    /// [`TextFiles::tokens`] with the fingerprint of each file: for text files, that of the bytes that were encoded. A
    /// token file is read once for it; its fingerprint is valid as long as [`Tokens::unchanged`] returns no error.
    ///
    /// # Errors
    /// Returns the errors of [`TextFiles::tokens`].
    pub fn tokens_with_fingerprints(
        &self,
        tokenizer: &Tokenizer,
    ) -> Result<(Tokens, Vec<Fingerprint>)> {
        let Some(path) = self.token_file()? else {
            return self.encoded(tokenizer);
        };
        let file = TokenFile::open(path, tokenizer)?;
        let fingerprint = file.fingerprint()?;
        Ok((file.into(), vec![fingerprint]))
    }

    /// The token file among the paths, which is then the only one.
    fn token_file(&self) -> Result<Option<&Path>> {
        let Some(path) = self.paths.iter().find(|path| TokenFile::is_one(path)) else {
            return Ok(None);
        };
        if self.paths.len() > 1 || self.separator.is_some() {
            let expected = "a token file alone, without other files and without a separator";
            return Err(Error::setting("data", expected, path.display()));
        }
        Ok(Some(path))
    }

    fn encoded(&self, tokenizer: &Tokenizer) -> Result<(Tokens, Vec<Fingerprint>)> {
        let mut tokens = Vec::new();
        let fingerprints = self.encode(tokenizer, &mut |some| {
            tokens.extend_from_slice(some);
            Ok(())
        })?;
        Ok((tokens.into(), fingerprints))
    }

    /// Opens a file whose first bytes do not seem to be another kind of file. It may be a pipe, so these bytes are kept.
    fn open(&self, path: &Path) -> Result<impl Read + use<>> {
        // Reading a directory fails too, but the reason would differ between systems.
        if path.is_dir() {
            return Err(Error::file(path, "expected a text file, found a directory"));
        }
        if TokenFile::is_one(path) {
            let reason = "expected a text file, found a token file";
            return Err(Error::file(path, reason));
        }
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        let about = file.metadata().map_err(Error::io("read", path))?;
        if about.is_file() && about.len() == 0 {
            return Err(Error::file(path, "expected some text, found an empty file"));
        }
        let mut start = Vec::new();
        if !self.as_text {
            let read = (&mut file).take(START as u64).read_to_end(&mut start);
            read.map_err(Error::io("read", path))?;
            expect_kind(path, &start, Expected::Text)?;
        }
        Ok(io::Cursor::new(start).chain(file))
    }

    fn separator(&self) -> &[u8] {
        self.separator.as_deref().unwrap_or_default().as_bytes()
    }
}

/// The tokens of text files in the order given, with one end-of-text token between two of them; or those of one token
/// file, which stays on the disk.
///
/// The bytes need not be UTF-8 if the vocabulary has all bytes.
///
/// # Errors
/// Returns the errors of [`TextFiles::new`] and [`TextFiles::tokens`].
pub fn open_tokens(
    paths: &[PathBuf],
    tokenizer: &Tokenizer,
    separator: Option<&str>,
) -> Result<Tokens> {
    TextFiles::new(paths, separator)?.tokens(tokenizer)
}

/// Checks that the `tokens` tokens of `text` fill at least one window of `seq_len` + 1 tokens.
///
/// # Errors
/// Returns [`Error::TooShort`] if they do not and [`Error::Setting`] if `seq_len` is 0.
pub fn check_length(text: &str, tokens: usize, seq_len: usize) -> Result<()> {
    if seq_len == 0 {
        return Err(Error::setting("context", "at least 1 token", 0));
    }
    if tokens <= seq_len {
        return Err(Error::TooShort {
            text: text.to_owned(),
            tokens,
            needed: seq_len.saturating_add(1),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
