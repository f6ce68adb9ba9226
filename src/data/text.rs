//! Files to one stream of tokens, and the stream to its training and validation parts.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::pieces::Pieces;
use super::{TokenFile, Tokenizer, Tokens};
use crate::{Error, Result};

/// Text files in order, as one stream: between two of them stands one end-of-text token, if the vocabulary has one.
///
/// A separator is a text that stands between documents inside a file, such as `<|endoftext|>`. Each one becomes the
/// end-of-text token; one that ends a file is the token that stands between it and the next.
#[derive(Clone, Debug)]
pub struct Texts {
    paths: Vec<PathBuf>,
    separator: Option<String>,
}

impl Texts {
    /// The files, and the separator if there is one.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no file in the list, or the separator is empty.
    pub fn new(paths: &[PathBuf], separator: Option<&str>) -> Result<Self> {
        if paths.is_empty() {
            return Err(Error::Usage(
                "expected at least one text file, found none".to_owned(),
            ));
        }
        if separator == Some("") {
            return Err(Error::Usage(
                "expected a separator of at least one character, found none".to_owned(),
            ));
        }
        Ok(Self {
            paths: paths.to_vec(),
            separator: separator.map(str::to_owned),
        })
    }

    /// The pieces of all files, without separators: what a vocabulary is learned from.
    pub fn pieces(&self) -> impl Iterator<Item = Result<Vec<u8>>> {
        self.paths.iter().flat_map(move |path| {
            let (file, error) = match open(path) {
                Ok(file) => (Some(file), None),
                Err(error) => (None, Some(Err(error))),
            };
            let pieces = file
                .into_iter()
                .flat_map(|file| Pieces::new(file, self.separator()));
            let read = |piece: std::io::Result<super::pieces::Piece>| {
                piece
                    .map(|piece| piece.text)
                    .map_err(Error::io("read", path))
            };
            error.into_iter().chain(pieces.map(read))
        })
    }

    /// Gives the tokens of all files to `sink`, a piece at a time. Memory does not grow with the text.
    ///
    /// # Errors
    /// [`Error::Io`] if a file is missing or cannot be read. [`Error::File`] if one is a directory, a token file or
    /// empty, or has text that the vocabulary cannot encode. [`Error::Usage`] for a separator that cannot become a
    /// token. What `sink` returns.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        sink: &mut dyn FnMut(&[u32]) -> Result<()>,
    ) -> Result<()> {
        let end = tokenizer.end_of_text();
        if let (Some(separator), None) = (&self.separator, end) {
            return Err(Error::Usage(format!(
                "separator `{separator}`: the tokenizer has no end-of-text token that could stand for it"
            )));
        }
        let end = end.as_slice();
        let mut ended = true;
        for path in &self.paths {
            if !ended {
                sink(end)?;
            }
            for piece in Pieces::new(open(path)?, self.separator()) {
                let piece = piece.map_err(Error::io("read", path))?;
                let tokens = tokenizer
                    .encode_piece(&piece.text)
                    .map_err(|(place, reason)| {
                        Error::file(
                            path,
                            format!("at byte {}: {reason}", piece.start + place as u64),
                        )
                    })?;
                sink(&tokens)?;
                if piece.separated {
                    sink(end)?;
                }
                ended = piece.separated;
            }
        }
        Ok(())
    }

    fn separator(&self) -> &[u8] {
        self.separator.as_deref().unwrap_or_default().as_bytes()
    }
}

/// Reads the text files in the order given, with one end-of-text token between two of them; or one token file.
///
/// The bytes need not be UTF-8 if the vocabulary has all bytes.
///
/// # Errors
///
/// What [`Texts::encode`] and [`TokenFile::open`] return.
pub fn read_tokens(paths: &[PathBuf], tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let tokens = open_tokens(paths, tokenizer, None)?;
    tokens.first(tokens.len())
}

/// The tokens of text files, or of one token file, which stays on the disk.
///
/// # Errors
///
/// What [`Texts::encode`] and [`TokenFile::open`] return. [`Error::Usage`] for a token file together with other files
/// or with a separator.
pub fn open_tokens(
    paths: &[PathBuf],
    tokenizer: &Tokenizer,
    separator: Option<&str>,
) -> Result<Tokens> {
    let texts = Texts::new(paths, separator)?;
    if let Some(path) = paths.iter().find(|path| TokenFile::is_one(path)) {
        if paths.len() > 1 || separator.is_some() {
            return Err(Error::Usage(format!(
                "{} is a token file, which goes alone: without other files and without a separator",
                path.display()
            )));
        }
        return Ok(TokenFile::open(path, tokenizer)?.into());
    }
    let mut tokens = Vec::new();
    texts.encode(tokenizer, &mut |some| {
        tokens.extend_from_slice(some);
        Ok(())
    })?;
    Ok(tokens.into())
}

/// Checks that so many tokens fill at least one window of `context` + 1 tokens; `name` says whose they are.
///
/// # Errors
///
/// [`Error::Usage`] with both numbers if they do not, or if `context` is 0.
pub fn check_length(name: &str, tokens: usize, context: usize) -> Result<()> {
    if context == 0 {
        return Err(Error::Usage(
            "the context must be at least 1 token, found 0".to_owned(),
        ));
    }
    if tokens <= context {
        return Err(Error::Usage(format!(
            "{name} has {tokens} tokens, expected at least {} for one window of context {context} and its last target",
            context.saturating_add(1),
        )));
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    // Reading a directory fails too, but the reason would differ between systems.
    if path.is_dir() {
        return Err(Error::file(path, "expected a text file, found a directory"));
    }
    if TokenFile::is_one(path) {
        return Err(Error::file(
            path,
            "expected a text file, found a token file",
        ));
    }
    let file = File::open(path).map_err(Error::io("read", path))?;
    let about = file.metadata().map_err(Error::io("read", path))?;
    if about.is_file() && about.len() == 0 {
        return Err(Error::file(path, "expected some text, found an empty file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
