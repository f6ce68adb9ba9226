//! The directory of a run: a model's directory, one writer, and a state from which training continues after a kill.
//!
//! # What is written, and when a checkpoint is valid
//!
//! `train_state.safetensors` holds everything that the run needs to continue: the weights, the optimiser's tensors, and
//! a record with the step and all options. It is one file, and it is replaced by one rename. **That rename is the
//! commit point.** `model.safetensors` holds the same weights once more, for readers that want a model, and is written
//! afterwards:
//!
//! ```text
//! 1  metrics.jsonl             lines up to this step, synced
//! 2  train_state.safetensors   temporary, synced, renamed           <- from here on the checkpoint is valid
//! 3  model.safetensors         temporary, synced, renamed
//! ```
//!
//! A kill between two of these leaves a state from which the same run continues:
//!
//! | killed | state | model | what resuming does |
//! |---|---|---|---|
//! | before or during 2 | the checkpoint before | the same | continues from there; later lines of the metrics are cut |
//! | between 2 and 3, or during 3 | this checkpoint | the one before | writes the model from the state, continues |
//! | after 3 | this checkpoint | the same | continues |
//!
//! So the model is never newer than the state, and resuming reads nothing from it. A run has its first state, of step
//! 0, in the directory from the moment that the directory appears.
//!
//! A run that is stopped while it evaluates makes a checkpoint that records this. Resuming makes the evaluation first,
//! and cuts its line from the metrics if a kill came after the line and before the next checkpoint.
//!
//! # One writer
//!
//! A process holds the lock of the directory while it trains (`lock`). A new run's lock is taken before its directory
//! appears under its name.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::directory::Contents;
use super::encode::Part;
use super::lock::{Lock, lock};
use super::model::tokenizer_of;
use super::names::{CONFIG, LOCK, METRICS, STATE, WEIGHTS};
use super::state::{read_state, state_file};
use super::{ModelDir, TensorFile, json, metrics};
use crate::data::Tokenizer;
use crate::files::writer;
use crate::model::{Config, Model};
use crate::tensor::Tensor;
use crate::{Error, Result};
use serde::Serialize;

/// A model's directory that this process alone trains into, as long as the value lives.
#[derive(Debug)]
pub struct RunDir {
    dir: ModelDir,
    lock: Lock,
}

impl RunDir {
    /// Makes the directory with a model and the state of step 0, whole or not at all, and locks it.
    ///
    /// # Errors
    /// Returns the errors of [`ModelDir::create`].
    pub fn create(
        path: &Path,
        model: &Model,
        tokenizer: &Tokenizer,
        record: &str,
        tensors: &[(String, &Tensor)],
        force: bool,
    ) -> Result<Self> {
        let state = state_file(record, &parts(tensors))?;
        let files = [
            (STATE, Contents::Tensors(&state)),
            (LOCK, Contents::Bytes(b"")),
        ];
        let (dir, lock) = ModelDir::create_with(path, model, tokenizer, &files, force, lock)?;
        Ok(Self { dir, lock })
    }

    /// Locks the directory of a run, and removes what a killed process left half written in it.
    ///
    /// # Errors
    /// Returns [`Error::Busy`] if another process trains into it and [`Error::File`] if it holds no run.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.join(STATE).exists() {
            let reason = format!("holds no run to continue: there is no {STATE} in it");
            return Err(Error::file(path, reason));
        }
        let lock = lock(path)?;
        for temporary in temporaries(path)? {
            fs::remove_file(&temporary).map_err(Error::io("remove", &temporary))?;
        }
        let dir = ModelDir::at(path);
        Ok(Self { dir, lock })
    }

    /// Whether the directory is locked, so that no other process can train into it. False if its file system has no
    /// locks.
    pub fn is_locked(&self) -> bool {
        self.lock.is_held
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Appends one line to `metrics.jsonl`.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if writing fails.
    pub fn append_metrics(&self, event: &impl Serialize) -> Result<()> {
        let path = self.path().join(METRICS);
        let line = serde_json::to_string(event).expect("plain data");
        let file = File::options().append(true).create(true).open(&path);
        let mut file = file.map_err(Error::io("open", &path))?;
        file.write_all((line + "\n").as_bytes())
            .map_err(Error::io("write", &path))
    }

    /// Replaces `model.safetensors`, whole or not at all.
    ///
    /// # Errors
    /// Returns the errors of [`ModelDir::save_weights`].
    pub fn save_weights(&self, model: &Model) -> Result<()> {
        self.dir.save_weights(model)
    }

    /// Path of the state.
    pub fn state_path(&self) -> PathBuf {
        self.dir.path().join(STATE)
    }

    /// Reads the record and the tensors of the last checkpoint. Everything read is untrusted.
    ///
    /// # Errors
    /// Returns the errors of [`read_state`].
    pub fn read_state(&self) -> Result<(String, TensorFile)> {
        read_state(&self.state_path())
    }

    /// Reads `config.json` and the tokenizer.
    ///
    /// # Errors
    /// Returns an [`Error`] that names the file and the reason.
    pub fn read_rest(&self) -> Result<(Config, Tokenizer)> {
        let path = self.dir.path();
        let file = path.join(CONFIG);
        let bytes = json::read(&file)?;
        let config = json::parse(&file, &bytes)?;
        Ok((config, tokenizer_of(path, &bytes)?))
    }

    /// Makes a checkpoint, in the order of the table above.
    ///
    /// # Errors
    /// Returns [`Error::NotFinite`] for values that are not finite and [`Error::Io`] if writing fails. The previous
    /// checkpoint is then whole; or this one is, if the state was written and the model was not.
    pub fn save(&self, model: &Model, record: &str, tensors: &[(String, &Tensor)]) -> Result<()> {
        let state = state_file(record, &parts(tensors))?;
        let metrics = self.dir.path().join(METRICS);
        match File::open(&metrics).and_then(|file| file.sync_all()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("sync", &metrics)(e));
            }
            _ => {}
        }
        state.replace(&self.state_path())?;
        self.dir.save_weights(model)
    }

    /// Cuts `metrics.jsonl` back to its lines after step `step`, and if `evaluated` is not set, to those before the
    /// evaluation that follows the step.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if it cannot be read or replaced.
    pub fn trim_metrics(&self, step: u64, evaluated: bool) -> Result<()> {
        metrics::trim(&self.dir.path().join(METRICS), step, evaluated)
    }
}

fn parts<'a>(tensors: &'a [(String, &Tensor)]) -> Vec<Part<'a>> {
    let part = |(name, tensor): &'a (String, &Tensor)| (&**name, tensor.shape(), tensor.data());
    tensors.iter().map(part).collect()
}

/// Temporaries of killed writers, for the names that are written during a run. The process that holds the lock is the
/// only writer, so they are not in use.
fn temporaries(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(Error::io("read", path))? {
        let entry = entry.map_err(Error::io("read", path))?;
        let file = entry.file_name();
        let ours = |name: &str| writer(&file, OsStr::new(name)).is_some();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && [STATE, WEIGHTS, METRICS].into_iter().any(ours) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HeadKind, Preset};

    #[test]
    fn only_our_temporaries_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let ours = [
            ".model.safetensors.1.tmp",
            ".train_state.safetensors.4711.tmp",
            ".metrics.jsonl.9.tmp",
        ];
        let others = [
            "model.safetensors",
            ".model.safetensors..tmp",
            ".model.safetensors.x1.tmp",
            ".model.safetensors.1.tmp.kept",
            ".letter.1.tmp",
        ];
        for name in ours.iter().chain(&others) {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let mut found = temporaries(folder.path()).unwrap();
        found.sort();
        let mut expected = ours.map(|name| folder.path().join(name));
        expected.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_run_is_locked_from_its_first_moment_and_never_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        let config = Preset::Tiny.config(257, HeadKind::Recursive, 0);
        let (model, tokenizer) = (Model::new(config, 1).unwrap(), Tokenizer::bytes());
        let plain = |force| ModelDir::create(&path, &model, &tokenizer, force);
        let run = |force| RunDir::create(&path, &model, &tokenizer, "{}", &[], force);

        let held = run(false).unwrap();
        let before = fs::read_dir(&path).unwrap().count();
        for refused in [
            plain(true).map(drop),
            run(true).map(drop),
            RunDir::open(&path).map(drop),
        ] {
            let message = refused.unwrap_err().to_string();
            assert!(message.contains("another process"), "{message}");
        }
        assert_eq!(fs::read_dir(&path).unwrap().count(), before);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        drop(held);
        // A run replaced by a run is held again, and by a plain model is none any more.
        let held = run(true).unwrap();
        assert!(plain(true).is_err());
        drop(held);
        plain(true).unwrap();
        assert!(!path.join(STATE).exists() && !path.join(LOCK).exists());
    }

    #[test]
    fn metrics_are_appended_to_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let config = Preset::Tiny.config(257, HeadKind::Recursive, 0);
        let model = Model::new(config, 1).unwrap();
        let run = RunDir::create(&path, &model, &Tokenizer::bytes(), "{}", &[], false).unwrap();
        fs::write(path.join(METRICS), b"\0whatever").unwrap();
        run.append_metrics(&"event").unwrap();
        assert_eq!(
            fs::read(path.join(METRICS)).unwrap(),
            b"\0whatever\"event\"\n"
        );
        // A file that is missing is made.
        fs::remove_file(path.join(METRICS)).unwrap();
        run.append_metrics(&1).unwrap();
        assert_eq!(fs::read(path.join(METRICS)).unwrap(), b"1\n");
    }

    #[test]
    fn a_directory_without_a_run_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let message = RunDir::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains(STATE), "{message}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(RunDir::open(&folder.path().join("missing")).is_err());
    }
}
