//! Files to one stream of tokens, and the stream to its training and validation parts.

use std::fs;
use std::path::{Path, PathBuf};

use super::Tokenizer;
use crate::{Error, Result};

/// Reads the files in the order given, with one end-of-text token between two of them.
///
/// The bytes need not be UTF-8.
///
/// # Errors
///
/// [`Error::Usage`] if there is no file in the list. [`Error::Io`] if one is missing or cannot be read.
/// [`Error::File`] if one is a directory or empty.
pub fn read_tokens(paths: &[PathBuf], tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    if paths.is_empty() {
        return Err(Error::Usage(
            "expected at least one text file, found none".to_owned(),
        ));
    }
    let mut tokens = Vec::new();
    for path in paths {
        let text = read(path)?;
        if !tokens.is_empty() {
            tokens.push(tokenizer.end_of_text());
        }
        tokens.extend(tokenizer.encode(&text));
    }
    Ok(tokens)
}

/// The tokens to train on, the first 90 % rounded down, and the tokens to validate on, the rest.
pub fn split(tokens: &[u32]) -> (&[u32], &[u32]) {
    // floor(9 n / 10) without the product, which could overflow.
    let (tens, ones) = (tokens.len() / 10, tokens.len() % 10);
    tokens.split_at(tens * 9 + ones * 9 / 10)
}

/// Checks that the tokens fill at least one window of `context` + 1 tokens; `name` says whose they are.
///
/// # Errors
///
/// [`Error::Usage`] with both numbers if they do not, or if `context` is 0.
pub fn check_length(name: &str, tokens: &[u32], context: usize) -> Result<()> {
    if context == 0 {
        return Err(Error::Usage(
            "the context must be at least 1 token, found 0".to_owned(),
        ));
    }
    if tokens.len() <= context {
        return Err(Error::Usage(format!(
            "{name} has {} tokens, expected at least {} for one window of context {context} and its last target",
            tokens.len(),
            context.saturating_add(1),
        )));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    // Reading a directory fails too, but the reason would differ between systems.
    if path.is_dir() {
        return Err(Error::file(path, "expected a text file, found a directory"));
    }
    let text = fs::read(path).map_err(Error::io("read", path))?;
    if text.is_empty() {
        return Err(Error::file(path, "expected some text, found an empty file"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(directory: &tempfile::TempDir, name: &str, text: &[u8]) -> PathBuf {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn files_are_joined_by_one_end_of_text() {
        let directory = tempfile::tempdir().unwrap();
        let paths = [
            written(&directory, "a", b"ab"),
            written(&directory, "b", b"\xff\n"),
            written(&directory, "c", b"c"),
        ];
        let tokenizer = Tokenizer::bytes();
        let end = tokenizer.end_of_text();
        let joined = [97, 98, end, 255, 10, end, 99];
        assert_eq!(read_tokens(&paths, &tokenizer).unwrap(), joined);
        assert_eq!(read_tokens(&paths[..1], &tokenizer).unwrap(), joined[..2]);
    }

    #[test]
    fn a_refused_file_is_named_in_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let good = written(&directory, "good", b"text");
        let empty = written(&directory, "empty", b"");
        let missing = directory.path().join("missing");
        let folder = directory.path().to_owned();
        for (path, reason) in [(empty, "empty"), (missing, "read"), (folder, "directory")] {
            let error =
                read_tokens(&[good.clone(), path.clone()], &Tokenizer::bytes()).unwrap_err();
            let sentence = error.to_string();
            assert!(sentence.contains(&path.display().to_string()), "{sentence}");
            assert!(sentence.contains(reason), "{sentence}");
            assert_eq!(sentence.lines().count(), 1, "{sentence}");
        }
    }

    #[test]
    fn no_files_are_a_wrong_command_line() {
        let error = read_tokens(&[], &Tokenizer::bytes()).unwrap_err();
        assert!(matches!(error, Error::Usage(_)), "{error:?}");
    }

    #[test]
    fn the_split_keeps_order_and_loses_nothing() {
        let tokens: Vec<u32> = (0..200).collect();
        for length in 0..tokens.len() {
            let (train, valid) = split(&tokens[..length]);
            assert_eq!(train.len(), length * 9 / 10);
            assert_eq!([train, valid].concat(), tokens[..length]);
        }
    }

    #[test]
    fn a_length_check_names_both_numbers() {
        check_length("the text", &[0; 5], 4).unwrap();
        check_length("the text", &[0; 2], 1).unwrap();
        let sentence = check_length("the text", &[0; 4], 4)
            .unwrap_err()
            .to_string();
        assert!(
            sentence.starts_with("the text has 4 tokens, expected at least 5"),
            "{sentence}"
        );
        check_length("the text", &[], usize::MAX).unwrap_err();
        check_length("the text", &[0; 4], 0).unwrap_err();
    }
}
