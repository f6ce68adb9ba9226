//! `foretoken tokenizer`, and the flags that choose a vocabulary.

use super::failure::{Failure, Result};
use super::output::{Output, learning, message, print, reading};
use super::target::{Inputs, Kind, Target};
use super::texts::warn_unsplit;
use crate::Error;
use crate::data::{TextFiles, TokenFile, Tokenizer, write_tokens};
use crate::files::{read_bounded, write, write_with};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Largest vocabulary that is read to see who wrote it, in bytes; ours have a few megabytes.
const MAX_VOCABULARY: u64 = 256 << 20;

/// What `foretoken tokenizer encode` writes.
const TOKENS: Kind = Kind {
    name: "token file",
    wrote: TokenFile::is_one,
};

/// What `foretoken tokenizer train` writes.
const VOCABULARY: Kind = Kind {
    name: "vocabulary",
    wrote: |path| {
        let bytes = read_bounded(path, MAX_VOCABULARY).unwrap_or_default();
        is_vocabulary(&String::from_utf8_lossy(&bytes))
    },
};

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
        let max = Tokenizer::MAX_LEARNED;
        let size = size.parse().ok().filter(|size| (257..=max).contains(size));
        size.map(Self::Learn)
            .ok_or_else(|| format!("expected bpe:N with N from 257 to {max}"))
    }
}

impl Choice {
    /// The file, if it is one.
    fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::File(path) => Some(path),
            _ => None,
        }
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
    /// Read --data and --valid as text even if their first bytes are those of another kind of file, such as an archive
    /// or a page
    #[arg(long)]
    pub as_text: bool,
}

impl Vocabulary {
    /// The file that holds the tokenizer, if one was chosen.
    pub fn file(&self) -> Option<&PathBuf> {
        self.tokenizer.file()
    }

    /// The tokenizer, learned from these texts if the flag says so.
    ///
    /// # Errors
    /// If a file cannot be read or is no tokenizer.
    pub fn of(&self, texts: &[PathBuf]) -> Result<Tokenizer> {
        match &self.tokenizer {
            // Whether the separator was found is reported when the texts are encoded.
            Choice::Learn(size) => {
                let texts = TextFiles::new(texts, self.split_on.as_deref())?;
                Ok(learn(&texts.as_text(self.as_text), *size)?.0)
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
    /// Read --data as text even if its first bytes are those of another kind of file, such as an archive or a page
    #[arg(long)]
    as_text: bool,
    /// Replace the file if it exists and is a vocabulary that this program wrote
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
    /// Read --data as text even if its first bytes are those of another kind of file, such as an archive or a page
    #[arg(long)]
    as_text: bool,
    /// Replace the file if it exists and is a token file
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
        let inputs = Inputs::default().files("--data", &self.data);
        let target = Target::file(&self.out, VOCABULARY, self.force, &inputs)?;
        let texts = TextFiles::new(&self.data, self.split_on.as_deref())?.as_text(self.as_text);
        let (tokenizer, separators) = learn(&texts, self.vocab)?;
        warn_unsplit(self.split_on.as_deref(), separators, &self.data);
        write(&self.out, tokenizer.to_json().as_bytes())?;
        target.written();
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
        let inputs = Inputs::default().files("--data", &self.data);
        let inputs = inputs.files("--tokenizer", self.tokenizer.file());
        let target = Target::file(&self.out, TOKENS, self.force, &inputs)?;
        let texts = TextFiles::new(&self.data, self.split_on.as_deref())?.as_text(self.as_text);
        let (out, vocab_size) = (&*self.out, tokenizer.vocab_size());
        let (tokens, reading) =
            write_with(out, |file| write_tokens(out, file, &texts, &tokenizer))?;
        target.written();
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

/// Whether a `tokenizer.json` was written by this program, which formats it in its own way: everything before the
/// tokens is known but for two values, and a merge takes one line.
fn is_vocabulary(text: &str) -> bool {
    let ours = Tokenizer::bytes().to_json();
    let varies = |line: &str| {
        ["\"id\": ", "\"use_regex\": "]
            .iter()
            .any(|field| line.trim_start().starts_with(field))
    };
    let mut lines = text.lines();
    for line in ours.lines() {
        match lines.next() {
            Some(found) if found == line || varies(found) && varies(line) => {}
            _ => return false,
        }
        if line.trim_start().starts_with("\"vocab\": ") {
            break;
        }
    }
    let mut merges = lines.skip_while(|line| !line.starts_with("    \"merges\": ["));
    merges.next().is_some_and(|first| first.ends_with("[]"))
        || merges
            .next()
            .is_some_and(|merge| merge.starts_with("      [\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vocabulary_of_this_program_is_known() {
        let bytes = Tokenizer::bytes().to_json();
        assert!(is_vocabulary(&bytes));
        let text = "the cat sat on the mat, the cat sat on the mat";
        let learned = Tokenizer::learn([Ok(text.into())], 270).unwrap().to_json();
        assert!(is_vocabulary(&learned));
        // Written by another program, or cut off.
        let value: serde_json::Value = serde_json::from_str(&learned).unwrap();
        for other in [
            String::new(),
            text.to_owned(),
            value.to_string(),
            serde_json::to_string_pretty(&value).unwrap(),
            learned.replace("      [\"", "      [\n        \""),
            learned.replace("\"unk_token\": null", "\"unk_token\": \"x\""),
            learned[..learned.len() / 2].to_owned(),
        ] {
            assert!(!is_vocabulary(&other), "{other}");
        }
    }
}
