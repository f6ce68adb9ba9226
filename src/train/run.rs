//! Where a run keeps what it makes, and how it goes on after a kill.
//!
//! A [`Run`] writes checkpoints from which [`Run::open`] goes on to the same bits. The order of writing, and what a kill
//! at any moment leaves, is explained where the files are written: [`RunDir`].

use super::event::Event;
use super::state::{Origin, Record, TextFile};
use super::trainer::{Options, Trainer};
use crate::checkpoint::{ModelDir, RunDir, sha256_hex};
use crate::data::Tokenizer;
use crate::model::config::ARITHMETIC;
use crate::{Error, Result};
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
    /// Whether the run is to end after this step, with a checkpoint.
    fn stop(&self) -> bool {
        false
    }
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
#[derive(Clone, Debug, Default)]
pub struct Saving {
    /// Every so many steps; after each evaluation where it is `None`.
    pub every: Option<u64>,
    /// When so much time has passed since the last one.
    pub after: Option<Duration>,
    /// Set to another value than 0, it ends the run after the step that is being computed.
    pub stop: Arc<AtomicUsize>,
}

/// A run that can go on after a kill. While the value lives, no other process trains into the directory.
#[derive(Debug)]
pub struct Run {
    dir: RunDir,
    record: Record,
    saving: Saving,
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
            options: options.clone(),
            optimiser: trainer.optimiser.settings,
            config: trainer.model.config().clone(),
            tokenizer_sha256: sha256_hex(tokenizer.to_json().as_bytes()),
            origin,
        };
        let dir = with_parts(trainer, |parts| {
            let text = to_text(&record);
            RunDir::create(path, &trainer.model, tokenizer, (&text, parts), force)
        })?;
        Ok(Self {
            dir,
            record,
            saving,
            saved: Cell::new(Instant::now()),
        })
    }

    /// Reads the last checkpoint of a run. Nothing is changed but what a killed process left half written.
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
        let record: Record = serde_json::from_str(&text).map_err(unreadable)?;
        if record.step > record.options.steps {
            return Err(wrong(format!(
                "its record: step {} of {}",
                record.step, record.options.steps
            )));
        }
        let (config, tokenizer, sha256) = dir.read_rest()?;
        if let Some(reason) = difference(&record.config, &config) {
            return Err(Error::file(&path.join("config.json"), reason));
        }
        if sha256 != record.tokenizer_sha256 {
            let reason = format!(
                "is not the run's: its SHA-256 is {sha256}, expected {}",
                record.tokenizer_sha256
            );
            return Err(Error::file(&path.join("tokenizer.json"), reason));
        }
        let trainer = Trainer::restore(&record, tensors).map_err(|error| match error {
            Error::Config { .. } => wrong(error.to_string()),
            other => other,
        })?;
        let saved = Cell::new(Instant::now());
        let run = Self {
            dir,
            record,
            saving,
            saved,
        };
        Ok((run, trainer, tokenizer))
    }

    /// What the last checkpoint recorded, with what was changed since.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// When checkpoints are made.
    pub fn saving(&self) -> &Saving {
        &self.saving
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
    /// kill came between the two.
    ///
    /// # Errors
    /// [`Error::Io`] where a file cannot be written.
    pub fn go_on(&mut self, options: Options, trainer: &Trainer) -> Result<()> {
        self.record.options = options;
        self.dir.trim_metrics(self.record.step)?;
        self.dir.dir().save_weights(&trainer.model)
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
        let by_step = match self.saving.every {
            Some(every) => step.is_multiple_of(every.max(1)),
            None => evaluated,
        };
        let elapsed = || self.saved.get().elapsed();
        by_step || self.saving.after.is_some_and(|after| elapsed() >= after)
    }

    fn checkpoint(&self, trainer: &Trainer) -> Result<()> {
        let record = Record {
            step: trainer.steps(),
            ..self.record.clone()
        };
        with_parts(trainer, |parts| {
            self.dir.save(&trainer.model, &to_text(&record), parts)
        })?;
        self.saved.set(Instant::now());
        Ok(())
    }

    fn stop(&self) -> bool {
        self.saving.stop.load(Ordering::Relaxed) != 0
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
