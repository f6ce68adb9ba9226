//! A model directory: `config.json`, `model.safetensors`, `tokenizer.json` and, for a run, `metrics.jsonl`.
//!
//! `config.json` also records the SHA-256 of the tokenizer that the model was trained with, as
//! `foretoken_tokenizer_sha256`. Without it, any vocabulary that is not larger would be taken for the model's
//! own. Directories written by other programs lack the field; then nothing is compared.

use super::directory::{Contents, create_dir};
use super::encode::Safetensors;
use super::names::{CONFIG, METRICS, TOKENIZER, WEIGHTS};
use super::{TensorFile, json};
use crate::data::Tokenizer;
use crate::files::{Hashing, escape};
use crate::model::config::ARITHMETIC_VERSION;
use crate::model::layout::layout;
use crate::model::{Config, Model};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// The contents of `config.json`.
#[derive(Serialize)]
struct Sealed<'a> {
    #[serde(flatten)]
    config: &'a Config,
    foretoken_tokenizer_sha256: &'a str,
}

/// The field of `config.json` about the tokenizer.
#[derive(Deserialize)]
struct Seal {
    foretoken_tokenizer_sha256: Option<String>,
}

/// The tokenizer of a model's directory, whose `config.json` has these bytes.
///
/// # Errors
/// Returns the errors of [`Tokenizer::load`], and [`Error::File`] if the model was trained with a different tokenizer.
pub(super) fn tokenizer_of(dir: &Path, config: &[u8]) -> Result<Tokenizer> {
    let seal: Seal = json::parse(&dir.join(CONFIG), config)?;
    let path = dir.join(TOKENIZER);
    let tokenizer = Tokenizer::load(&path)?;
    let found = tokenizer.sha256_hex();
    match seal.foretoken_tokenizer_sha256 {
        Some(expected) if expected != found => {
            let expected = escape(&expected);
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
    /// Creates the directory with a model in it, whole or not at all. An existing directory is replaced if `force` is
    /// set and it looks like a model's.
    ///
    /// # Errors
    /// Returns [`Error::Exists`] if the directory exists and is not replaced, [`Error::Busy`] if a process trains into
    /// it, [`Error::NotFinite`] for weights that are not finite, and [`Error::Io`] if writing fails.
    pub fn create(path: &Path, model: &Model, tokenizer: &Tokenizer, force: bool) -> Result<Self> {
        let (dir, ()) = Self::create_with(path, model, tokenizer, &[], force, |_: &Path| Ok(()))?;
        Ok(dir)
    }

    /// [`ModelDir::create`] with more files in the directory, and with `before` called on it before it appears under
    /// its name.
    pub(super) fn create_with<T>(
        path: &Path,
        model: &Model,
        tokenizer: &Tokenizer,
        more: &[(&str, Contents<'_>)],
        force: bool,
        before: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<(Self, T)> {
        let sealed = Sealed {
            config: model.config(),
            foretoken_tokenizer_sha256: &tokenizer.sha256_hex(),
        };
        let config = serde_json::to_string_pretty(&sealed).expect("plain data");
        let tokenizer = tokenizer.json();
        let prepared = with_weights(model, |weights| {
            let mut files = vec![
                (CONFIG, Contents::Bytes(config.as_bytes())),
                (WEIGHTS, Contents::Tensors(&weights)),
                (TOKENIZER, Contents::Bytes(tokenizer.as_bytes())),
                (METRICS, Contents::Bytes(b"")),
            ];
            files.extend(more);
            create_dir(path, &files, force, before)
        })?;
        Ok((Self::at(path), prepared))
    }

    /// The directory at `path`, unchecked.
    pub(super) fn at(path: &Path) -> Self {
        let path = path.to_owned();
        Self { path }
    }

    /// Reads a model. Everything read is untrusted. Names and shapes of all tensors are compared with the config before
    /// the first one is read, and then one tensor is read at a time.
    ///
    /// # Errors
    /// Returns an [`Error`] that names the file, the tensor or field, and the reason.
    pub fn load(path: &Path) -> Result<(Model, Tokenizer)> {
        let file = path.join(CONFIG);
        let bytes = json::read(&file)?;
        // Opened first: the names of the tensors complete a config that leaves something out.
        let mut tensors = TensorFile::open(&path.join(WEIGHTS))?;
        let mut config: Config = json::parse(&file, &bytes)?;
        let keys = json::parse(&file, &bytes)?;
        let version = config.foretoken_arithmetic;
        if version > ARITHMETIC_VERSION {
            let reason =
                format!("arithmetic version {version}: this program knows {ARITHMETIC_VERSION}");
            return Err(Error::file(&file, reason));
        }
        let read = config.read_keys(&keys).and_then(|()| config.check());
        read.map_err(|e| Error::file(&file, e.to_string()))?;
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
        config.infer_qk_norm(&keys, |name| tensors.names().any(|found| found == name));
        let layout = layout(&config);
        let expected = layout.iter().map(|spec| (&*spec.name, &spec.shape[..]));
        tensors.expect(expected)?;
        let model = Model::from_parts(config, |name, shape| tensors.take(name, shape))?;
        Ok((model, tokenizer))
    }

    /// The files of a model in directory `dir`, which need not exist: what [`ModelDir::load`] reads.
    pub fn files(dir: &Path) -> [PathBuf; 3] {
        [CONFIG, WEIGHTS, TOKENIZER].map(|name| dir.join(name))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the weights, whole or not at all.
    ///
    /// # Errors
    /// Returns [`Error::NotFinite`] for weights that are not finite and [`Error::Io`] if writing fails; the old file
    /// stays.
    pub fn save_weights(&self, model: &Model) -> Result<()> {
        with_weights(model, |weights| weights.replace(&self.path.join(WEIGHTS)))
    }

    /// SHA-256 of the model's `model.safetensors`, which need not exist.
    ///
    /// # Errors
    /// Returns [`Error::NotFinite`] for weights that are not finite.
    pub fn sha256(model: &Model) -> Result<String> {
        with_weights(model, |weights| {
            let mut bytes = Hashing::new(io::sink());
            let written = weights.write_to(&mut bytes);
            written.expect("a sink takes all bytes");
            Ok(bytes.fingerprint().sha256)
        })
    }
}

/// Calls `f` with the file `model.safetensors`.
fn with_weights<R>(model: &Model, f: impl FnOnce(Safetensors<'_>) -> Result<R>) -> Result<R> {
    let tensors = model.params().iter();
    let tensors: Vec<_> = tensors.map(|(n, t)| (n, t.shape(), t.values())).collect();
    let parts = tensors.iter().map(|(n, shape, x)| (*n, *shape, &x[..]));
    f(Safetensors::new(parts.collect(), ("format", "pt"))?)
}
