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

    /// The size of all files in bytes; none if one cannot be told, such as that of a pipe.
    pub fn bytes(&self) -> Option<u64> {
        let about = self.paths.iter().map(|path| path.metadata().ok());
        let sizes = about.map(|about| {
            about
                .filter(|about| about.is_file())
                .map(|about| about.len())
        });
        sizes.sum()
    }

    /// The texts of all files in chunks, without separators: what a vocabulary is learned from.
    pub fn chunks(&self) -> TextChunks<'_> {
        TextChunks {
            texts: self,
            paths: self.paths.iter(),
            file: None,
            bytes: 0,
            separators: 0,
        }
    }

    /// Passes the tokens of all files to `sink`, chunk by chunk. Memory does not grow with the text.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if a file is missing or cannot be read, [`Error::File`] if one is a directory, a token
    /// file or empty, or has text that the vocabulary cannot encode, [`Error::Kind`] if one seems to be no text,
    /// [`Error::Setting`] for a separator that cannot become a token, and the errors of `sink`.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        sink: &mut dyn FnMut(&[u32]) -> Result<()>,
    ) -> Result<Reading> {
        self.encode_with_lengths(tokenizer, None, sink)
    }

    /// [`TextFiles::encode`], which also appends to `lengths` how many bytes of the text each token stands for.
    fn encode_with_lengths(
        &self,
        tokenizer: &Tokenizer,
        mut lengths: Option<&mut Vec<u32>>,
        sink: &mut dyn FnMut(&[u32]) -> Result<()>,
    ) -> Result<Reading> {
        let end = tokenizer.end_of_text();
        if let (Some(separator), None) = (&self.separator, end) {
            let expected = "none, because the tokenizer has no end-of-text token to replace it";
            return Err(Error::setting("separator", expected, separator));
        }
        let end = end.as_slice();
        let (mut ended, mut reading) = (true, Reading::default());
        let finish = |lengths: Option<&mut Vec<u32>>, sink: &mut dyn FnMut(&[u32]) -> _| {
            // The end of a text stands for no byte of it.
            if let Some(lengths) = lengths {
                lengths.extend(end.iter().map(|_| 0));
            }
            sink(end)
        };
        for path in &self.paths {
            if !ended {
                finish(lengths.as_deref_mut(), sink)?;
            }
            let mut source = Hashing::new(self.open(path)?);
            for chunk in Chunks::new(&mut source, self.separator()) {
                let chunk = chunk.map_err(Error::io("read", path))?;
                let wrong = |(place, reason)| {
                    let byte = chunk.start + place as u64;
                    Error::file(path, format!("at byte {byte}: {reason}"))
                };
                let tokens = tokenizer.encode_chunk(&chunk.text, lengths.as_deref_mut());
                sink(&tokens.map_err(wrong)?)?;
                if chunk.separated {
                    finish(lengths.as_deref_mut(), sink)?;
                }
                ended = chunk.separated;
                reading.separators += u64::from(ended);
            }
            reading.fingerprints.push(source.fingerprint());
        }
        Ok(reading)
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

    /// [`TextFiles::tokens`] with what was read: for text files, the bytes that were encoded. A token file is read once
    /// for its fingerprint, which is valid as long as [`Tokens::unchanged`] returns no error.
    ///
    /// # Errors
    /// Returns the errors of [`TextFiles::tokens`].
    pub fn tokens_with_reading(&self, tokenizer: &Tokenizer) -> Result<(Tokens, Reading)> {
        let Some(path) = self.token_file()? else {
            return self.encoded(tokenizer);
        };
        let file = TokenFile::open(path, tokenizer)?;
        let reading = Reading {
            fingerprints: vec![file.fingerprint()?],
            separators: 0,
        };
        Ok((file.into(), reading))
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

    fn encoded(&self, tokenizer: &Tokenizer) -> Result<(Tokens, Reading)> {
        let (mut tokens, mut lengths) = (Vec::new(), Vec::new());
        // Without loss the tokens themselves say how long the text is.
        let wanted = (!tokenizer.is_reversible()).then_some(&mut lengths);
        let reading = self.encode_with_lengths(tokenizer, wanted, &mut |some| {
            tokens.extend_from_slice(some);
            Ok(())
        })?;
        let tokens = if tokenizer.is_reversible() {
            tokens.into()
        } else {
            Tokens::with_lengths(tokens, lengths)
        };
        Ok((tokens, reading))
    }

    /// Opens a file whose first bytes do not seem to be another kind of file. It may be a pipe, so these bytes are
    /// kept.
    fn open(&self, path: &Path) -> Result<Source> {
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

/// An open file after the first bytes that were looked at.
type Source = io::Chain<io::Cursor<Vec<u8>>, File>;

/// What was read from files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reading {
    /// The fingerprint of the bytes that were read from each file.
    pub fingerprints: Vec<Fingerprint>,
    /// How many separators were found.
    pub separators: u64,
}

/// The texts of files in chunks, as [`TextFiles::chunks`] gives them. After an error there are no more.
#[derive(Debug)]
pub struct TextChunks<'a> {
    texts: &'a TextFiles,
    paths: std::slice::Iter<'a, PathBuf>,
    /// The file that is being read.
    file: Option<(&'a Path, Chunks<'a, Source>)>,
    bytes: u64,
    separators: u64,
}

impl TextChunks<'_> {
    /// Bytes of text read so far, without separators.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Separators found so far.
    pub fn separators(&self) -> u64 {
        self.separators
    }
}

impl Iterator for TextChunks<'_> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let failed = |this: &mut Self, error| {
            (this.file, this.paths) = (None, [].iter());
            Some(Err(error))
        };
        loop {
            if let Some((path, chunks)) = &mut self.file {
                match chunks.next() {
                    Some(Ok(chunk)) => {
                        self.bytes += chunk.text.len() as u64;
                        self.separators += u64::from(chunk.separated);
                        return Some(Ok(chunk.text));
                    }
                    Some(Err(error)) => {
                        let error = Error::io("read", path)(error);
                        return failed(self, error);
                    }
                    None => self.file = None,
                }
            }
            let path = self.paths.next()?;
            match self.texts.open(path) {
                Ok(file) => self.file = Some((path, Chunks::new(file, self.texts.separator()))),
                Err(error) => return failed(self, error),
            }
        }
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
