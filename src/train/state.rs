//! What a checkpoint records, and a trainer's tensors by name.
//!
//! | tensors in `train_state.safetensors` | what |
//! |---|---|
//! | `weights/NAME` | every parameter |
//! | `first_moment/NAME`, `second_moment/NAME` | AdamW's m and v |
//! | `momentum/NAME` | Muon's m |
//!
//! Parameters of a frozen trunk have weights only. Everything else is in the [`Record`]. Windows are a function of
//! (seed, step), so the step is also the position in the data and the state of the random numbers.

use super::optimiser::OptimiserState;
use super::trainer::Trainer;
use super::{TextFile, TrainConfig};
use crate::Result;
use crate::checkpoint::TensorFile;
use crate::model::{Config, Model};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All of a run but its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Version of the arithmetic that the run computes with.
    pub arithmetic: u32,
    /// Steps done.
    pub step: u64,
    /// Whether the evaluation after this step was abandoned. A resumed run makes it first.
    pub pending_eval: bool,
    /// How the run trains.
    pub config: TrainConfig,
    /// The model's configuration.
    pub model: Config,
    /// SHA-256 of `tokenizer.json`.
    pub tokenizer_sha256: String,
    /// The texts of the run.
    pub origin: Origin,
}

/// The texts of a run, and the settings that it was started with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Text files to train on, in order, or one token file.
    pub data: Vec<TextFile>,
    /// Text files or one token file to validate on; empty if a part of `data` is kept for that.
    pub valid: Vec<TextFile>,
    /// Text between documents, which becomes the end-of-text token.
    pub separator: Option<String>,
    /// Settings of the program that started the run, which can compare them when the run is resumed. The library only
    /// stores them: what it needs is in [`TrainConfig`].
    pub flags: BTreeMap<String, String>,
}

const WEIGHTS: &str = "weights/";

impl Trainer {
    /// All tensors that the next steps depend on, by name.
    pub(super) fn tensors(&self) -> Vec<(String, &Tensor)> {
        let params = self.model().params();
        let weight = |(name, tensor)| (format!("{WEIGHTS}{name}"), tensor);
        let weights = params.iter().map(weight);
        weights.chain(self.optimiser.tensors(params)).collect()
    }

    /// The trainer of a record and its tensors. Every tensor of the file must belong to it.
    pub(super) fn restore(record: &Record, mut file: TensorFile) -> Result<Self> {
        let model = Model::from_parts(record.model.clone(), |name, shape| {
            file.take(&format!("{WEIGHTS}{name}"), shape)
        })?;
        let take = &mut |name: &str, shape: &[usize]| file.take(name, shape);
        let optimiser = OptimiserState::restore(&record.config, record.step, model.params(), take)?;
        file.finish()?;
        let mut trainer = Self::assemble(model, record.config.clone(), optimiser);
        trainer.pending_eval = record.pending_eval;
        Ok(trainer)
    }
}
