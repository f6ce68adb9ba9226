//! The directory of a run: metrics, checkpoints, and resuming after a kill.
//!
//! [`Run::open`] continues from the last checkpoint to the same bits as an uninterrupted run. [`RunDir`] explains in
//! which order files are written, and what a kill at any moment leaves.

use super::state::{Origin, Record};
use super::{TextFile, TrainConfig, Trainer};
use crate::checkpoint::RunDir;
use crate::data::Tokenizer;
use crate::files::refuse_overlap;
use crate::model::Config;
use crate::model::config::ARITHMETIC_VERSION;
use crate::{Error, Result};
use serde_json::json;
use std::path::Path;
use std::time::Instant;

/// The directory of a run. While the value lives, no other process trains into it.
#[derive(Debug)]
pub struct Run {
    pub(super) dir: RunDir,
    origin: Origin,
    /// The record of the last checkpoint.
    saved: Record,
    saved_at: Instant,
}

impl Run {
    /// Makes the directory of a new run, with the checkpoint of step 0 in it. `force` replaces a model's directory.
    ///
    /// # Errors
    /// Returns the errors of [`RunDir::create`], and [`Error::Exists`] if the directory holds a text of the run.
    pub fn create(
        path: &Path,
        trainer: &Trainer,
        tokenizer: &Tokenizer,
        origin: Origin,
        force: bool,
    ) -> Result<Self> {
        for text in origin.data.iter().chain(&origin.valid) {
            let name = format!("the text {}", text.path.display());
            refuse_overlap(path, &text.path, &name)?;
        }
        let record = record(trainer, tokenizer.sha256_hex(), &origin);
        let (model, text, tensors) = (trainer.model(), to_text(&record), trainer.tensors());
        let dir = RunDir::create(path, model, tokenizer, &text, &tensors, force)?;
        Ok(Self {
            dir,
            origin,
            saved: record,
            saved_at: Instant::now(),
        })
    }

    /// Reads the last checkpoint of a run. Only what a killed process left half written is changed.
    ///
    /// # Errors
    /// Returns [`Error::Busy`] if another process trains into the directory, and [`Error::File`] or [`Error::Tensor`]
    /// if the state is damaged, has a different version of the arithmetic, or does not belong to the other files in the
    /// directory.
    pub fn open(path: &Path) -> Result<(Self, Trainer, Tokenizer)> {
        let dir = RunDir::open(path)?;
        let file = dir.state_path();
        let wrong = |reason: String| Error::file(&file, reason);
        let (text, tensors) = dir.read_state()?;
        let saved = read_record(&text).map_err(wrong)?;
        let (config, tokenizer) = dir.read_rest()?;
        if let Some(reason) = difference(&saved.model, &config) {
            return Err(Error::file(&path.join("config.json"), reason));
        }
        let sha256 = tokenizer.sha256_hex();
        if sha256 != saved.tokenizer_sha256 {
            let expected = &saved.tokenizer_sha256;
            let reason = format!("is not the run's: its SHA-256 is {sha256}, expected {expected}");
            return Err(Error::file(&path.join("tokenizer.json"), reason));
        }
        let trainer = Trainer::restore(&saved, tensors).map_err(|error| match error {
            Error::Config { .. } => wrong(error.to_string()),
            other => other,
        })?;
        let run = Self {
            dir,
            origin: saved.origin.clone(),
            saved,
            saved_at: Instant::now(),
        };
        Ok((run, trainer, tokenizer))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Whether no other process can train into the directory; see [`RunDir::is_locked`].
    pub fn is_locked(&self) -> bool {
        self.dir.is_locked()
    }

    /// The texts of the run.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The step of the last checkpoint.
    pub fn saved_step(&self) -> u64 {
        self.saved.step
    }

    /// Sets the paths of texts that have the content of the run's texts.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] if their content is different.
    pub fn set_texts(&mut self, data: Vec<TextFile>, valid: Vec<TextFile>) -> Result<()> {
        TextFile::check("data", &self.origin.data, &data)?;
        TextFile::check("valid", &self.origin.valid, &valid)?;
        (self.origin.data, self.origin.valid) = (data, valid);
        Ok(())
    }

    /// Prepares the directory for training from the checkpoint: cuts the metrics back to it, and writes the model from
    /// it if a kill came between the two. A configuration or texts that have changed are written at once, so that a
    /// kill before the next checkpoint does not undo the change.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if a file cannot be written.
    pub fn resume(&mut self, trainer: &Trainer) -> Result<()> {
        let (step, pending_eval) = (self.saved.step, self.saved.pending_eval);
        self.dir.trim_metrics(step, !pending_eval)?;
        if self.record(trainer) == self.saved {
            return self.dir.save_weights(trainer.model());
        }
        self.checkpoint(trainer)
    }

    /// Makes a checkpoint.
    ///
    /// # Errors
    /// Returns the errors of [`RunDir::save`].
    pub fn checkpoint(&mut self, trainer: &Trainer) -> Result<()> {
        let record = self.record(trainer);
        let (model, text, tensors) = (trainer.model(), to_text(&record), trainer.tensors());
        self.dir.save(model, &text, &tensors)?;
        (self.saved, self.saved_at) = (record, Instant::now());
        Ok(())
    }

    /// Whether a checkpoint is due after this step.
    pub(super) fn due(&self, config: &TrainConfig, step: u64, evaluated: bool) -> bool {
        let by_step = match config.save_every {
            Some(every) => step.is_multiple_of(every.max(1)),
            None => evaluated,
        };
        let elapsed = || self.saved_at.elapsed();
        by_step || config.save_after.is_some_and(|after| elapsed() >= after)
    }

    fn record(&self, trainer: &Trainer) -> Record {
        record(trainer, self.saved.tokenizer_sha256.clone(), &self.origin)
    }
}

fn record(trainer: &Trainer, tokenizer_sha256: String, origin: &Origin) -> Record {
    Record {
        arithmetic: ARITHMETIC_VERSION,
        step: trainer.steps(),
        pending_eval: trainer.pending_eval,
        config: trainer.config().clone(),
        model: trainer.model().config().clone(),
        tokenizer_sha256,
        origin: origin.clone(),
    }
}

/// Reads a record, or says why it cannot be used.
fn read_record(text: &str) -> std::result::Result<Record, String> {
    /// The version comes first: a record of a different version may have a different form.
    #[derive(serde::Deserialize)]
    struct Version {
        arithmetic: u32,
    }
    let unreadable = |e: serde_json::Error| format!("its record: {e}");
    let Version { arithmetic } = serde_json::from_str(text).map_err(unreadable)?;
    if arithmetic != ARITHMETIC_VERSION {
        return Err(format!(
            "the run computes with arithmetic version {arithmetic}, this program with {ARITHMETIC_VERSION}: it would end with \
             different weights"
        ));
    }
    let record: Record = serde_json::from_str(text).map_err(unreadable)?;
    let (step, steps) = (record.step, record.config.steps);
    if step > steps {
        return Err(format!("its record: step {step} of {steps}"));
    }
    Ok(record)
}

fn to_text(record: &Record) -> String {
    serde_json::to_string(record).expect("plain data")
}

/// The first field in which two configurations differ, as a sentence.
fn difference(expected: &Config, found: &Config) -> Option<String> {
    let (expected, found) = (json!(expected), json!(found));
    let mut fields = expected.as_object()?.iter();
    let (key, value) = fields.find(|(key, value)| found.get(key) != Some(value))?;
    let other = &found[key];
    Some(format!(
        "`{key}`: expected {value}, with which the run was started, found {other}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HeadKind, Model, Preset};
    use std::time::Duration;

    #[test]
    fn a_checkpoint_is_due_once_after_the_interval() {
        let mut model = Preset::Tiny.config(257, HeadKind::Medusa, 0);
        (model.hidden_size, model.intermediate_size) = (16, 16);
        (model.num_hidden_layers, model.head_dim) = (1, 8);
        (model.num_attention_heads, model.num_key_value_heads) = (1, 1);
        let after = Duration::from_secs(90);
        let mut config = TrainConfig {
            save_every: Some(1000),
            save_after: Some(after),
            ..TrainConfig::default()
        };
        let trainer = Trainer::new(Model::new(model, 1).unwrap(), config.clone()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let (tokenizer, origin) = (Tokenizer::bytes(), Origin::default());
        let mut run = Run::create(&path, &trainer, &tokenizer, origin, false).unwrap();
        assert!(!run.due(&config, 1, false));
        // As if the last checkpoint had been so long ago, and half of that.
        let ago = |time: Duration| Instant::now().checked_sub(time).unwrap();
        run.saved_at = ago(after / 2);
        assert!(!run.due(&config, 2, true));
        run.saved_at = ago(after);
        assert!(run.due(&config, 3, false));
        run.checkpoint(&trainer).unwrap();
        assert!(!run.due(&config, 3, false));
        // Without an interval the clock plays no part.
        config.save_after = None;
        run.saved_at = ago(after);
        assert!(!run.due(&config, 3, false));
    }
}
