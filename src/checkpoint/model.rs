//! A model directory: `config.json`, `model.safetensors`, `tokenizer.json` and, for a run, `metrics.jsonl`.
//!
//! Beside the model's sizes, `config.json` has the SHA-256 of the tokenizer that the model was trained with, under
//! `foretoken_tokenizer_sha256`. A vocabulary of as many tokens, or of fewer, would else be taken for the model's own.
//! Directories of other programs lack the field, and nothing is compared then.

use super::directory::create_dir_with;
use super::untrusted::shown;
use super::{TensorFile, encode, json, sha256_hex, write};
use crate::data::Tokenizer;
use crate::model::config::ARITHMETIC;
use crate::model::{Config, Model};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};

pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const METRICS: &str = "metrics.jsonl";

/// What `config.json` holds.
#[derive(Serialize)]
struct Sealed<'a> {
    #[serde(flatten)]
    config: &'a Config,
    foretoken_tokenizer_sha256: &'a str,
}

/// What `config.json` says about the tokenizer beside it.
#[derive(Deserialize)]
struct Seal {
    foretoken_tokenizer_sha256: Option<String>,
}

/// The tokenizer of a model's directory, whose `config.json` has these bytes.
///
/// # Errors
/// What [`Tokenizer::load`] returns, and [`Error::File`] where it is another one than the model was trained with.
pub(super) fn tokenizer_of(dir: &Path, config: &[u8]) -> Result<Tokenizer> {
    let seal: Seal = json::parse(&dir.join(CONFIG), config)?;
    let path = dir.join(TOKENIZER);
    let tokenizer = Tokenizer::load(&path)?;
    let found = tokenizer.sha256_hex();
    match seal.foretoken_tokenizer_sha256 {
        Some(expected) if expected != found => {
            let expected = shown(&expected);
            let reason = format!(
                "is not the model's: its SHA-256 is {found}, {CONFIG} says that the model was trained with {expected}"
            );
            Err(Error::file(&path, reason))
        }
        _ => Ok(tokenizer),
    }
}

/// A directory that holds a model.
#[derive(Clone, Debug)]
pub struct ModelDir {
    path: PathBuf,
}

impl ModelDir {
    /// Makes the directory with a model in it, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Usage`] where the directory exists and `force` is not set or would delete what is not a model, or a run
    /// that another process trains.
    pub fn create(path: &Path, model: &Model, tokenizer: &Tokenizer, force: bool) -> Result<Self> {
        let (dir, ()) = Self::create_with(path, (model, tokenizer), &[], force, |_: &Path| Ok(()))?;
        Ok(dir)
    }

    /// [`ModelDir::create`] with more files in it, as (name, content), and with something done to the directory before it
    /// appears under its name.
    pub(super) fn create_with<T>(
        path: &Path,
        (model, tokenizer): (&Model, &Tokenizer),
        more: &[(&str, &[u8])],
        force: bool,
        before: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<(Self, T)> {
        let sealed = Sealed {
            config: model.config(),
            foretoken_tokenizer_sha256: &tokenizer.sha256_hex(),
        };
        let config = serde_json::to_string_pretty(&sealed).expect("plain data");
        let weights = weights(model)?;
        let tokenizer = tokenizer.to_json();
        let mut files: Vec<(&str, &[u8])> = vec![
            (CONFIG, config.as_bytes()),
            (WEIGHTS, &weights),
            (TOKENIZER, tokenizer.as_bytes()),
            (METRICS, b""),
        ];
        files.extend(more);
        let prepared = create_dir_with(path, &files, force, before)?;
        Ok((Self::at(path), prepared))
    }

    /// The directory of that path, about which nothing is known yet.
    pub(super) fn at(path: &Path) -> Self {
        let path = path.to_owned();
        Self { path }
    }

    /// Reads a model. Everything read is untrusted.
    ///
    /// # Errors
    /// [`Error`] naming file, tensor or field, and the reason.
    pub fn load(path: &Path) -> Result<(Model, Tokenizer)> {
        let file = path.join(CONFIG);
        let bytes = json::read(&file)?;
        let config: Config = json::parse(&file, &bytes)?;
        let version = config.foretoken_arithmetic;
        if version > ARITHMETIC {
            return Err(Error::file(
                &file,
                format!("arithmetic version {version}: this program knows {ARITHMETIC}"),
            ));
        }
        config
            .check()
            .map_err(|e| Error::file(&file, e.to_string()))?;
        let tokenizer = tokenizer_of(path, &bytes)?;
        // A model may have rows that no token uses: public ones fill their vocabulary up to a round number.
        if tokenizer.vocab_size() > config.vocab_size {
            let reason = format!(
                "vocab_size {}: expected at least the {} tokens of {TOKENIZER}",
                config.vocab_size,
                tokenizer.vocab_size()
            );
            return Err(Error::file(&file, reason));
        }
        let mut tensors = TensorFile::read(&path.join(WEIGHTS))?;
        let model = Model::from_parts(config, |name, shape| tensors.take(name, shape))?;
        tensors.finish()?;
        Ok((model, tokenizer))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the weights, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Diverged`] for weights that are not finite, [`Error::Io`] where writing fails; the old file stays.
    pub fn save_weights(&self, model: &Model) -> Result<()> {
        write(&self.path.join(WEIGHTS), &weights(model)?)
    }

    /// Appends one line to `metrics.jsonl`.
    ///
    /// # Errors
    /// [`Error::Io`] where writing fails.
    pub fn append_metrics(&self, event: &impl Serialize) -> Result<()> {
        let path = self.path.join(METRICS);
        let mut line = serde_json::to_string(event).expect("plain data");
        line.push('\n');
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path);
        let mut file = file.map_err(Error::io("open", &path))?;
        file.write_all(line.as_bytes())
            .map_err(Error::io("write", &path))
    }

    /// SHA-256 of the model's `model.safetensors`.
    ///
    /// # Errors
    /// [`Error::Diverged`] for weights that are not finite.
    pub fn sha256(model: &Model) -> Result<String> {
        Ok(sha256_hex(&weights(model)?))
    }
}

/// The bytes of `model.safetensors`.
fn weights(model: &Model) -> Result<Vec<u8>> {
    let tensors = model.params().iter();
    let tensors: Vec<_> = tensors.map(|(n, t)| (n, t.shape(), t.values())).collect();
    let parts: Vec<_> = tensors
        .iter()
        .map(|(n, shape, x)| (*n, *shape, &x[..]))
        .collect();
    encode(&parts)
}
