//! `foretoken train --resume DIR`: continues a run with its own configuration.

use super::failure::{Failure, Result};
use super::stop;
use super::texts::{Texts, check_kind};
use super::train::Train;
use crate::Error;
use crate::data::TokenFile;
use crate::files::{Expected, START, expect_kind, read_start};
use crate::train::{Run, TextFile, Trainer};
use std::cmp::Ordering;
use std::path::{Path, PathBuf};

impl Train {
    /// Runs the command.
    ///
    /// # Errors
    /// If flags, data or files cannot be used, before anything is written; if a loss is not finite.
    pub fn run(&self) -> Result {
        match &self.checkpoints.resume {
            Some(dir) => resume(self, dir),
            None => self.train(),
        }
    }
}

/// Resumes a run.
///
/// # Errors
/// Returns an error if flags, texts or files are not the run's, before anything is written.
fn resume(train: &Train, dir: &Path) -> Result {
    let (mut run, mut trainer, tokenizer) = Run::open(dir)?;
    train.given.check(dir, &run.origin().flags)?;
    let mut config = trainer.config().clone();
    if train.given.typed("steps") {
        let steps = more_steps(train, dir, &trainer)?;
        if steps > config.steps {
            config.extend(steps);
        }
    }
    if train.given.typed("log_every") {
        config.log_every = train.log_every;
    }
    if train.given.typed("eval_every") {
        config.eval_every = train.eval_every;
    }
    train.checkpoints.set(&mut config)?;
    config.check(trainer.model().config())?;
    trainer.set_config(config)?;

    let origin = run.origin().clone();
    let (data, data_files) = find("--data", &train.data, &origin.data)?;
    let (valid, valid_files) = find("--valid", &train.valid, &origin.valid)?;
    run.set_texts(data_files, valid_files)
        .map_err(|error| clearer(error, data.iter().chain(&valid)))?;
    let separator = origin.separator.as_deref();
    // Whatever their kind, they have the content with which the run was started.
    let texts = Texts::open(&data, &valid, &tokenizer, separator, true)?;
    // A file may have changed between the two readings. The second one is used.
    run.set_texts(texts.data_files.clone(), texts.valid_files.clone())?;
    // Not before: while texts are read there is nothing to save, and a signal ends the program at once.
    let signal = stop::asks();
    run.resume(&trainer)?;
    train.drive(trainer, run, texts, &tokenizer, signal)
}

/// The error about texts with different content; or if one of them seems to be no text any more, the error about that.
fn clearer<'a>(error: Error, paths: impl Iterator<Item = &'a PathBuf>) -> Error {
    let check = |path: &PathBuf| {
        let start = read_start(path, START).ok()?;
        expect_kind(path, &start, Expected::Text).err()
    };
    // A token file is of a known kind, and it is the other content that counts.
    let texts = paths.filter(|path| !TokenFile::is_one(path));
    texts.map(check).find_map(|wrong| wrong).unwrap_or(error)
}

/// The texts that `flag` gives, or else those of the run, with their content.
fn find(flag: &str, given: &[PathBuf], run: &[TextFile]) -> Result<(Vec<PathBuf>, Vec<TextFile>)> {
    let read = |paths: Vec<PathBuf>| -> Result<_> {
        check_kind(flag, &paths)?;
        let files = TextFile::read(&paths)?;
        Ok((paths, files))
    };
    if !given.is_empty() {
        return read(given.to_vec());
    }
    let hint =
        |error: Failure| format!("{error}; if the text has moved, give its new path with {flag}");
    read(run.iter().map(|file| file.path.clone()).collect())
        .map_err(|error| Failure::Usage(hint(error)))
}

/// The number of steps of `--steps`.
fn more_steps(train: &Train, dir: &Path, trainer: &Trainer) -> Result<u64> {
    let (given, stored) = (train.steps, trainer.config().steps);
    let problem = match given.cmp(&stored) {
        Ordering::Less => "and cannot become shorter".to_owned(),
        Ordering::Greater if !train.checkpoints.extend => format!(
            "on which its learning rates depend; --extend makes it longer, and it ends with different weights than a \
             run that was started with {given} steps"
        ),
        _ => return Ok(given),
    };
    Err(Failure::Usage(format!(
        "--steps {given}: the run in {} was started with --steps {stored}, {problem}",
        dir.display()
    )))
}
