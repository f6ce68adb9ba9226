//! `foretoken tokenizer`, and the flags that choose a vocabulary.

use super::failure::{Failure, Result};
use super::output::{Output, learning, message, print, reading};
use super::texts::warn_unsplit;
use crate::Error;
use crate::data::{TextFiles, Tokenizer, write_tokens};
use crate::files::{write, write_with};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A choice of vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// `bytes`: the 256 byte values and the end of text.
    Bytes,
    /// `bpe:N`: a byte-pair vocabulary of N tokens, learned from the training text.
    Learn(usize),
    /// The path of a `tokenizer.json`.
    File(PathBuf),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "bytes" {
            return Ok(Self::Bytes);
        }
        let Some(size) = text.strip_prefix("bpe:") else {
            return Ok(Self::File(text.into()));
        };
        let most = Tokenizer::MAX_LEARNED;
        let size = size.parse().ok().filter(|size| (257..=most).contains(size));
        size.map(Self::Learn)
            .ok_or_else(|| format!("expected bpe:N with N from 257 to {most}"))
    }
}

/// Flags that choose a vocabulary for texts.
#[derive(Clone, Debug, Args)]
pub struct Vocabulary {
    /// Vocabulary: bytes, bpe:N to learn one of N tokens from all of --data, or a tokenizer.json; --init has its own
    #[arg(long, default_value = "bytes", value_name = "bytes|bpe:N|FILE")]
    #[arg(conflicts_with = "init")]
    tokenizer: Choice,
    /// Text between documents that becomes the end-of-text token, such as "<|endoftext|>"; by default it is plain text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub split_on: Option<String>,
}

impl Vocabulary {
    /// The tokenizer, learned from these texts if the flag says so.
    ///
    /// # Errors
    /// If a file cannot be read or is no tokenizer.
    pub fn of(&self, texts: &[PathBuf]) -> Result<Tokenizer> {
        match &self.tokenizer {
            // Whether the separator was found is reported when the texts are encoded.
            Choice::Learn(size) => {
                let texts = TextFiles::new(texts, self.split_on.as_deref())?;
                Ok(learn(&texts, *size)?.0)
            }
            choice => chosen(choice),
        }
    }
}

/// Learns a vocabulary, and reports if the text yields fewer tokens than requested. Returns how many separators the
/// texts have, too.
fn learn(texts: &TextFiles, size: usize) -> Result<(Tokenizer, u64)> {
    let bar = reading(texts.bytes());
    let mut chunks = texts.chunks();
    let watched = std::iter::from_fn(|| {
        let chunk = chunks.next();
        match chunk {
            Some(_) => bar.set_position(chunks.bytes()),
            None => learning(&bar, size),
        }
        chunk
    });
    let tokenizer = Tokenizer::learn_watched(watched, size, &mut |n| bar.set_position(n as u64));
    bar.finish_and_clear();
    let tokenizer = tokenizer?;
    if tokenizer.vocab_size() < size {
        message(&format!(
            "the text gives a vocabulary of {} tokens, fewer than the {size} asked for: no pair occurs twice any more",
            tokenizer.vocab_size()
        ));
    }
    Ok((tokenizer, chunks.separators()))
}

/// The commands of `foretoken tokenizer`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Learn a byte-pair vocabulary from text files
    Train(Train),
    /// Write the tokens of text files to a token file, for `train --data`
    Encode(Encode),
    /// Print a vocabulary's size, and the tokens of a text
    Show(Show),
}

/// Flags of `foretoken tokenizer train`.
#[derive(Clone, Debug, Args)]
pub struct Train {
    /// Text files
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Size of the vocabulary: 256 bytes, the end of text, and one for each merge
    #[arg(long, value_name = "N")]
    vocab: usize,
    /// tokenizer.json to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Text between documents, which is left out
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    split_on: Option<String>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// Flags of `foretoken tokenizer encode`.
#[derive(Clone, Debug, Args)]
pub struct Encode {
    /// Text files
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Token file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Vocabulary: bytes, or a tokenizer.json
    #[arg(long, default_value = "bytes", value_name = "bytes|FILE")]
    tokenizer: Choice,
    /// Text between documents that becomes the end-of-text token; by default it is plain text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    split_on: Option<String>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Flags of `foretoken tokenizer show`.
#[derive(Clone, Debug, Args)]
pub struct Show {
    /// tokenizer.json, or bytes
    tokenizer: Choice,
    /// Text to encode
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    text: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `foretoken tokenizer encode --json` prints.
#[derive(Clone, Debug, Serialize)]
struct Encoded<'a> {
    out: &'a Path,
    tokens: u64,
    vocab_size: usize,
}

/// What `foretoken tokenizer show --json` prints.
#[derive(Clone, Debug, Serialize)]
struct Shown {
    vocab_size: usize,
    /// The end-of-text token.
    end_of_text: Option<u32>,
    sha256: String,
    /// The tokens of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<Vec<u32>>,
    /// The vocabulary's spelling of each of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    spellings: Option<Vec<String>>,
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// If a file cannot be read or written, or the vocabulary cannot encode a text.
    pub fn run(self) -> Result {
        match self {
            Self::Train(train) => train.run(),
            Self::Encode(encode) => encode.run(),
            Self::Show(show) => show.run(),
        }
    }
}

impl Train {
    fn run(self) -> Result {
        if !(257..=Tokenizer::MAX_LEARNED).contains(&self.vocab) {
            let expected = format!("257 to {} tokens", Tokenizer::MAX_LEARNED);
            return Err(Error::setting("vocab", expected, self.vocab).into());
        }
        check_free(&self.out, self.force)?;
        let texts = TextFiles::new(&self.data, self.split_on.as_deref())?;
        let (tokenizer, separators) = learn(&texts, self.vocab)?;
        warn_unsplit(self.split_on.as_deref(), separators, &self.data);
        write(&self.out, tokenizer.to_json().as_bytes())?;
        let mut output = Output::new(false);
        let (out, size) = (self.out.display(), tokenizer.vocab_size());
        output.line(&format!("{out}: {size} tokens"));
        Ok(output.finish()?)
    }
}

impl Encode {
    fn run(self) -> Result {
        let tokenizer = chosen(&self.tokenizer)?;
        announce(&tokenizer);
        check_free(&self.out, self.force)?;
        let texts = TextFiles::new(&self.data, self.split_on.as_deref())?;
        let (out, vocab_size) = (&*self.out, tokenizer.vocab_size());
        let (tokens, reading) =
            write_with(out, |file| write_tokens(out, file, &texts, &tokenizer))?;
        warn_unsplit(self.split_on.as_deref(), reading.separators, &self.data);
        let report = Encoded {
            out,
            tokens,
            vocab_size,
        };
        print(self.json, &report, || {
            let out = out.display();
            format!("{out}: {tokens} tokens of a vocabulary of {vocab_size}")
        })
    }
}

impl Show {
    fn run(self) -> Result {
        let tokenizer = chosen(&self.tokenizer)?;
        announce(&tokenizer);
        let spelling = |id: &u32| tokenizer.spelling(*id).unwrap_or_default();
        let encode = |text: &String| tokenizer.encode(text.as_bytes());
        let tokens = self.text.as_ref().map(encode).transpose()?;
        let spellings = |ids: &Vec<u32>| ids.iter().map(spelling).collect();
        let report = Shown {
            vocab_size: tokenizer.vocab_size(),
            end_of_text: tokenizer.end_of_text(),
            sha256: tokenizer.sha256_hex(),
            spellings: tokens.as_ref().map(spellings),
            tokens,
        };
        print(self.json, &report, || {
            let end = match report.end_of_text {
                Some(id) => format!("end of text {id} {}", spelling(&id)),
                None => "no end of text".to_owned(),
            };
            let (size, sha256) = (report.vocab_size, &report.sha256);
            let mut text = format!("{size} tokens, {end}\nsha256 {sha256}");
            for id in report.tokens.iter().flatten() {
                text += &format!("\n{id:>8} {}", spelling(id));
            }
            text
        })
    }
}

/// Says once what a vocabulary changes in the texts that it encodes.
pub fn announce(tokenizer: &Tokenizer) {
    let changes = tokenizer.changes();
    if !changes.is_empty() {
        let changes = changes.join("; ");
        message(&format!(
            "note: this vocabulary changes texts before it encodes them: {changes}"
        ));
    }
}

/// A tokenizer that is not learned.
fn chosen(choice: &Choice) -> Result<Tokenizer> {
    match choice {
        Choice::Bytes => Ok(Tokenizer::bytes()),
        Choice::File(path) => Ok(Tokenizer::load(path)?),
        Choice::Learn(size) => Err(Failure::Usage(format!(
            "bpe:{size}: expected bytes or a file here; `foretoken tokenizer train --vocab {size}` makes one"
        ))),
    }
}

/// Refuses to replace a file without `--force`.
fn check_free(out: &Path, force: bool) -> Result {
    if !force && out.symlink_metadata().is_ok() {
        return Err(Failure::Usage(format!(
            "{} exists: choose another file, or replace it with --force",
            out.display()
        )));
    }
    Ok(())
}
