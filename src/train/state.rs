//! What a checkpoint records, and a trainer's tensors by name.
//!
//! | tensors in `train_state.safetensors` | what |
//! |---|---|
//! | `weights/NAME` | every parameter |
//! | `first_moment/NAME`, `second_moment/NAME` | AdamW's m and v |
//! | `momentum/NAME` | Muon's m |
//!
//! A parameter that the run's plan never changes has weights only, if the trainer was made for that plan.
//!
//! The rest is the [`Record`]. Windows are a function of (seed, step), so the position in the data and the state of the
//! generator are the step.

use super::optimiser::{Optimiser, Settings};
use super::options::Options;
use super::run::Intervals;
use super::trainer::Trainer;
use crate::checkpoint::TensorFile;
use crate::data::Fingerprint;
use crate::model::{Config, Model};
use crate::tensor::Tensor;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// All of a run but its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Version of the arithmetic that the run computes with.
    pub arithmetic: u32,
    /// Steps done.
    pub step: u64,
    /// Whether the evaluation that follows this step was abandoned, and is to be made first when the run goes on.
    #[serde(default)]
    pub owes_evaluation: bool,
    /// When the run makes checkpoints.
    #[serde(default)]
    pub intervals: Intervals,
    /// How the run trains.
    pub options: Options,
    /// The optimiser's numbers.
    pub optimiser: Settings,
    /// The model's sizes.
    pub config: Config,
    /// SHA-256 of `tokenizer.json`.
    pub tokenizer_sha256: String,
    /// Where the run came from.
    pub origin: Origin,
}

/// The texts of a run, and what it was started with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Text files to train on in order, or one token file.
    pub data: Vec<TextFile>,
    /// Text files or one token file to validate on; none where a part of `data` is kept for it.
    pub valid: Vec<TextFile>,
    /// Text between documents that becomes the end-of-text token.
    pub separator: Option<String>,
    /// Tokens to validate on at most, the first ones.
    pub valid_tokens: Option<usize>,
    /// Settings by flag, as text, for whoever wants to compare.
    pub flags: BTreeMap<String, String>,
}

/// A text file or token file, and what it held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextFile {
    /// Where it was.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

impl TextFile {
    /// Reads files, each whole but in parts.
    ///
    /// # Errors
    /// [`Error::Io`] where one cannot be read, [`Error::File`] where it could be read once only.
    pub fn read(paths: &[PathBuf]) -> Result<Vec<Self>> {
        paths.iter().map(|path| Self::of(path)).collect()
    }

    /// Whether a run can read a file again when it goes on. What is missing or a directory is left to whoever reads it.
    ///
    /// # Errors
    /// [`Error::File`] for a pipe, a device or the like.
    pub fn check_kind(path: &Path) -> Result<()> {
        match std::fs::metadata(path) {
            Ok(found) if !found.is_file() && !found.is_dir() => {
                let reason = "expected a regular file, which a resumed run can read again, found a pipe or a device";
                Err(Error::file(path, reason))
            }
            _ => Ok(()),
        }
    }

    fn of(path: &Path) -> Result<Self> {
        Self::check_kind(path)?;
        Self::holding(path, Fingerprint::of_file(path)?)
    }

    /// A file and what it held when it was read, which it need not hold any more.
    ///
    /// # Errors
    /// [`Error::Io`] where the path cannot be made absolute.
    pub fn holding(path: &Path, fingerprint: Fingerprint) -> Result<Self> {
        let Fingerprint { bytes, sha256 } = fingerprint;
        // JSON is UTF-8 and a path need not be. The path only serves to find the file again; the rest decides.
        let absolute = std::path::absolute(path).map_err(Error::io("find", path))?;
        let path = absolute.to_string_lossy().into_owned().into();
        Ok(Self {
            path,
            bytes,
            sha256,
        })
    }

    /// Whether files have the content of the run's, in order; `flag` names them in the error.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the first file that differs, what the run was started with and what was found.
    pub fn check(flag: &str, stored: &[Self], found: &[Self]) -> Result<()> {
        if stored.len() != found.len() {
            return Err(Error::Usage(format!(
                "{flag}: the run was started with {} files, found {}",
                stored.len(),
                found.len()
            )));
        }
        for (stored, found) in stored.iter().zip(found) {
            let path = found.path.display();
            if stored.bytes != found.bytes {
                return Err(Error::Usage(format!(
                    "{flag}: {path} has {} bytes, the run was started with a text of {} bytes",
                    found.bytes, stored.bytes
                )));
            }
            if stored.sha256 != found.sha256 {
                return Err(Error::Usage(format!(
                    "{flag}: {path} is another text: its SHA-256 is {}, that of the run's text {}",
                    found.sha256, stored.sha256
                )));
            }
        }
        Ok(())
    }
}

const WEIGHTS: &str = "weights/";

impl Trainer {
    /// All tensors that the next steps depend on, by name.
    pub(super) fn tensors(&self) -> Vec<(String, &Tensor)> {
        let params = self.model.params();
        let weight = |(name, tensor)| (format!("{WEIGHTS}{name}"), tensor);
        let weights = params.iter().map(weight);
        weights.chain(self.optimiser.tensors(params)).collect()
    }

    /// The trainer of a record and its tensors, all of which it takes.
    pub(super) fn restore(record: &Record, mut file: TensorFile) -> Result<Self> {
        let model = Model::from_parts(record.config.clone(), |name, shape| {
            file.take(&format!("{WEIGHTS}{name}"), shape)
        })?;
        let take = &mut |name: &str, shape: &[usize]| file.take(name, shape);
        let plan = record.options.plan;
        let so_far = (record.optimiser, record.step);
        let learns = &|name: &str| plan.learns(name);
        let optimiser = Optimiser::restore(so_far, model.params(), learns, take)?;
        // A trainer that was made without the plan has kept more: it stands in the file and plays no part.
        for (name, t) in model.params().iter().filter(|(name, _)| !learns(name)) {
            for part in record.optimiser.kept(name, t.shape()) {
                let name = format!("{part}{name}");
                if file.names().any(|found| found == name) {
                    file.take(&name, t.shape())?;
                }
            }
        }
        file.finish()?;
        let mut trainer = Self::resumed(model, optimiser, plan, record.step);
        trainer.owes_evaluation = record.owes_evaluation;
        Ok(trainer)
    }
}
