//! Where a run keeps what it makes, and how it goes on after a kill.
//!
//! A [`Run`] writes checkpoints from which [`Run::open`] goes on to the same bits. The order of writing, and what a kill
//! at any moment leaves, is explained where the files are written: [`RunDir`].

use super::event::Event;
use super::options::Options;
use super::state::{Origin, Record, TextFile};
use super::trainer::Trainer;
use crate::checkpoint::{ModelDir, RunDir};
use crate::data::Tokenizer;
use crate::model::config::ARITHMETIC;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Where a run keeps what it makes.
pub trait Keep {
    /// The directory.
    fn path(&self) -> &Path;
    /// Keeps an event.
    fn event(&self, event: &Event) -> Result<()>;
    /// Whether a checkpoint is wanted after this step; `evaluated` where the model was just evaluated.
    fn due(&self, step: u64, evaluated: bool) -> bool;
    /// Keeps a checkpoint. The last step always has one.
    fn checkpoint(&self, trainer: &Trainer) -> Result<()>;
    /// Whether the run is to end after this step, with a checkpoint. An evaluation is not waited for: it is abandoned, and
    /// made when the run goes on.
    fn stop(&self) -> bool {
        false
    }
    /// The step of the checkpoint that was there before training began, where there was one.
    fn kept(&self) -> Option<u64> {
        None
    }
    /// Hears of every step that is done.
    fn stepped(&self, _step: u64) {}
}

/// A model's directory keeps the weights alone, after each evaluation. Such a run cannot be resumed.
impl Keep for ModelDir {
    fn path(&self) -> &Path {
        self.path()
    }

    fn event(&self, event: &Event) -> Result<()> {
        self.append_metrics(event)
    }

    fn due(&self, _step: u64, evaluated: bool) -> bool {
        evaluated
    }

    fn checkpoint(&self, trainer: &Trainer) -> Result<()> {
        self.save_weights(&trainer.model)
    }
}

/// When checkpoints are made, beside the last step's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intervals {
    /// Every so many steps; after each evaluation where it is `None`.
    pub every: Option<u64>,
    /// When so much time has passed since the last one.
    pub after: Option<Duration>,
}

/// When checkpoints are made, and what ends a run early.
#[derive(Clone, Debug, Default)]
pub struct Saving {
    /// When checkpoints are made. A run that is opened again keeps its own intervals where these are `None`.
    pub intervals: Intervals,
    /// Set to another value than 0, it ends the run after the step that is being computed.
    pub stop: Arc<AtomicUsize>,
}

/// A run that can go on after a kill. While the value lives, no other process trains into the directory.
#[derive(Debug)]
pub struct Run {
    dir: RunDir,
    record: Record,
    /// The record as the directory has it, but for the step.
    stored: Record,
    stop: Arc<AtomicUsize>,
    saved: Cell<Instant>,
}

impl Run {
    /// Makes the directory of a new run, with the state of step 0 in it.
    ///
    /// # Errors
    /// Those of [`RunDir::create`].
    pub fn create(
        path: &Path,
        trainer: &Trainer,
        (options, tokenizer): (&Options, &Tokenizer),
        origin: Origin,
        saving: Saving,
        force: bool,
    ) -> Result<Self> {
        let record = Record {
            arithmetic: ARITHMETIC,
            step: 0,
            owes_evaluation: false,
            intervals: saving.intervals,
            options: options.clone(),
            optimiser: trainer.optimiser.settings,
            config: trainer.model.config().clone(),
            tokenizer_sha256: tokenizer.sha256_hex(),
            origin,
        };
        let dir = with_parts(trainer, |parts| {
            let text = to_text(&record);
            RunDir::create(path, &trainer.model, tokenizer, &text, parts, force)
        })?;
        Ok(Self {
            dir,
            stored: record.clone(),
            record,
            stop: saving.stop,
            saved: Cell::new(Instant::now()),
        })
    }

    /// Reads the last checkpoint of a run. Nothing is changed but what a killed process left half written.
    ///
    /// Intervals of `saving` take the place of the run's own where they are not `None`.
    ///
    /// # Errors
    /// [`Error::Usage`] where another process trains into the directory. [`Error::File`] and [`Error::Tensor`] where the
    /// state is damaged, was made with another arithmetic, or does not belong to the other files in the directory.
    pub fn open(path: &Path, saving: Saving) -> Result<(Self, Trainer, Tokenizer)> {
        let dir = RunDir::open(path)?;
        let file = dir.state_path();
        let wrong = |reason: String| Error::file(&file, reason);
        let (text, tensors) = dir.read_state()?;
        // The version first: under another one the rest may have another form.
        #[derive(serde::Deserialize)]
        struct Version {
            arithmetic: u32,
        }
        let unreadable = |e: serde_json::Error| wrong(format!("its record: {e}"));
        let Version { arithmetic } = serde_json::from_str(&text).map_err(unreadable)?;
        if arithmetic != ARITHMETIC {
            return Err(wrong(format!(
                "the run computes with arithmetic version {arithmetic}, this program with {ARITHMETIC}: it would not go \
                 on to the same weights"
            )));
        }
        let stored: Record = serde_json::from_str(&text).map_err(unreadable)?;
        if stored.step > stored.options.steps {
            return Err(wrong(format!(
                "its record: step {} of {}",
                stored.step, stored.options.steps
            )));
        }
        let (config, tokenizer) = dir.read_rest()?;
        if let Some(reason) = difference(&stored.config, &config) {
            return Err(Error::file(&path.join("config.json"), reason));
        }
        let sha256 = tokenizer.sha256_hex();
        if sha256 != stored.tokenizer_sha256 {
            let reason = format!(
                "is not the run's: its SHA-256 is {sha256}, expected {}",
                stored.tokenizer_sha256
            );
            return Err(Error::file(&path.join("tokenizer.json"), reason));
        }
        let trainer = Trainer::restore(&stored, tensors).map_err(|error| match error {
            Error::Config { .. } => wrong(error.to_string()),
            other => other,
        })?;
        let Intervals { every, after } = saving.intervals;
        let intervals = Intervals {
            every: every.or(stored.intervals.every),
            after: after.or(stored.intervals.after),
        };
        let run = Self {
            dir,
            record: Record {
                intervals,
                ..stored.clone()
            },
            stored,
            stop: saving.stop,
            saved: Cell::new(Instant::now()),
        };
        Ok((run, trainer, tokenizer))
    }

    /// What the last checkpoint recorded, with what was changed since.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether no other process can train into the directory; see [`RunDir::is_locked`].
    pub fn is_locked(&self) -> bool {
        self.dir.is_locked()
    }

    /// What ends the run early when it is set to another value than 0.
    pub fn stopper(&self) -> &Arc<AtomicUsize> {
        &self.stop
    }

    /// Takes texts of the same content, wherever they lie.
    ///
    /// # Errors
    /// [`Error::Usage`] where they are other texts.
    pub fn set_texts(&mut self, data: Vec<TextFile>, valid: Vec<TextFile>) -> Result<()> {
        let Origin {
            data: old_data,
            valid: old_valid,
            ..
        } = &mut self.record.origin;
        TextFile::check("--data", old_data, &data)?;
        TextFile::check("--valid", old_valid, &valid)?;
        (*old_data, *old_valid) = (data, valid);
        Ok(())
    }

    /// Goes on with these options from the checkpoint: cuts the metrics back to it, and writes the model from it where a
    /// kill came between the two. What is changed about the run is written at once, so that a kill before the next
    /// checkpoint does not undo it.
    ///
    /// # Errors
    /// [`Error::Io`] where a file cannot be written.
    pub fn go_on(&mut self, options: Options, trainer: &Trainer) -> Result<()> {
        self.record.options = options;
        let Record {
            step,
            owes_evaluation,
            ..
        } = self.record;
        self.dir.trim_metrics(step, !owes_evaluation)?;
        if self.record == self.stored {
            return self.dir.dir().save_weights(&trainer.model);
        }
        self.stored = self.record.clone();
        self.checkpoint(trainer)
    }
}

impl Keep for Run {
    fn path(&self) -> &Path {
        self.dir.dir().path()
    }

    fn event(&self, event: &Event) -> Result<()> {
        self.dir.dir().append_metrics(event)
    }

    fn due(&self, step: u64, evaluated: bool) -> bool {
        let Intervals { every, after } = self.record.intervals;
        let by_step = match every {
            Some(every) => step.is_multiple_of(every.max(1)),
            None => evaluated,
        };
        let elapsed = || self.saved.get().elapsed();
        by_step || after.is_some_and(|after| elapsed() >= after)
    }

    fn checkpoint(&self, trainer: &Trainer) -> Result<()> {
        let record = Record {
            step: trainer.steps(),
            owes_evaluation: trainer.owes_evaluation,
            ..self.record.clone()
        };
        with_parts(trainer, |parts| {
            self.dir.save(&trainer.model, &to_text(&record), parts)
        })?;
        self.saved.set(Instant::now());
        Ok(())
    }

    fn kept(&self) -> Option<u64> {
        Some(self.record.step)
    }

    fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed) != 0
    }
}

fn to_text(record: &Record) -> String {
    serde_json::to_string(record).expect("plain data")
}

/// Calls `f` with the trainer's tensors as (name, shape, values).
fn with_parts<R>(trainer: &Trainer, f: impl FnOnce(&[(&str, &[usize], &[f32])]) -> R) -> R {
    let tensors = trainer.tensors();
    let parts: Vec<_> = tensors
        .iter()
        .map(|(name, t)| (name.as_str(), t.shape(), t.data()))
        .collect();
    f(&parts)
}

/// The first field in which two of the same type differ, as a sentence.
fn difference<T: serde::Serialize>(expected: &T, found: &T) -> Option<String> {
    let fields = |x: &T| match serde_json::to_value(x) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let found = fields(found);
    let differs = |(key, value): &(&String, &serde_json::Value)| found.get(*key) != Some(*value);
    let expected = fields(expected);
    let (key, value) = expected.iter().find(differs)?;
    let other = found.get(key).unwrap_or(&serde_json::Value::Null);
    Some(format!(
        "`{key}`: expected {value}, with which the run was started, found {other}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HeadKind, JointLoss, Model, Preset};
    use crate::train::{Plan, Schedule};

    #[test]
    fn a_checkpoint_is_due_once_after_the_interval() {
        let mut config = Preset::Tiny.config(257, HeadKind::Medusa, 0);
        (config.hidden_size, config.intermediate_size) = (16, 16);
        (config.num_hidden_layers, config.head_dim) = (1, 8);
        (config.num_attention_heads, config.num_key_value_heads) = (1, 1);
        let trainer = Trainer::new(Model::new(config, 1).unwrap());
        let options = Options {
            steps: 9,
            batch: 1,
            accumulate: 1,
            context: 4,
            seed: 1,
            schedule: Schedule::new(1e-3, 9),
            joint: JointLoss::default(),
            plan: Plan::default(),
            eval_every: 9,
            log_every: 9,
        };
        let after = Duration::from_secs(90);
        let saving = Saving {
            intervals: Intervals {
                every: Some(1000),
                after: Some(after),
            },
            ..Saving::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let plan = (&options, &Tokenizer::bytes());
        let mut run = Run::create(&path, &trainer, plan, Origin::default(), saving, false).unwrap();
        assert!(!run.due(1, false));
        // As if the last checkpoint had been so long ago, and half of that.
        let ago = |time: Duration| Instant::now().checked_sub(time).unwrap();
        run.saved.set(ago(after / 2));
        assert!(!run.due(2, true));
        run.saved.set(ago(after));
        assert!(run.due(3, false));
        run.checkpoint(&trainer).unwrap();
        assert!(!run.due(3, false));
        // Without an interval the clock plays no part.
        run.record.intervals.after = None;
        run.saved.set(ago(after));
        assert!(!run.due(3, false));
    }
}
