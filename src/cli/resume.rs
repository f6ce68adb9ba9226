//! `foretoken train --resume DIR`: continues a run with its own options.

use super::failure::{Failure, Result};
use super::stop;
use super::texts::{Texts, check_kind};
use super::train::Train;
use crate::train::{Origin, Record, Run, TextFile};
use std::path::{Path, PathBuf};

impl Train {
    /// Runs the command.
    ///
    /// # Errors
    /// If flags, data or files cannot be used, before anything is written; if a loss is not finite.
    pub fn run(self) -> Result {
        let machine = self.machine.clone();
        machine.scope(move || match &self.checkpoints.resume {
            Some(dir) => resume(&self, dir),
            None => self.train(),
        })
    }
}

/// Resumes a run.
///
/// # Errors
/// Flags, texts or files that are not the run's, each before anything is written.
fn resume(train: &Train, dir: &Path) -> Result {
    let saving = train.checkpoints.saving()?;
    let (mut run, mut trainer, tokenizer) = Run::open(dir, saving)?;
    let record = run.record();
    train.given.check(dir, record)?;
    let mut options = record.options.clone();
    if train.given.typed("steps") {
        options.steps = more_steps(train, dir, record)?;
        options.schedule.steps = options.steps;
    }
    if train.given.typed("log_every") {
        options.log_every = train.log_every;
    }
    if train.given.typed("eval_every") {
        options.eval_every = train.eval_every;
    }
    let paths = |stored: &[TextFile]| stored.iter().map(|t| t.path.clone()).collect();
    let moved = |given: &Vec<PathBuf>, stored: &[TextFile]| match given.is_empty() {
        true => paths(stored),
        false => given.clone(),
    };
    let data: Vec<PathBuf> = moved(&train.data, &record.origin.data);
    let valid: Vec<PathBuf> = moved(&train.valid, &record.origin.valid);
    let found = |paths: &[PathBuf], flag: &str, typed: bool| {
        let files = check_kind(flag, paths).and_then(|()| Ok(TextFile::read(paths)?));
        files.map_err(|error| match typed {
            true => error,
            false => Failure::Usage(format!(
                "{error}; if the text has moved, say where with {flag}"
            )),
        })
    };
    let data_found = found(&data, "--data", !train.data.is_empty())?;
    let valid_found = found(&valid, "--valid", !train.valid.is_empty())?;
    run.set_texts(data_found, valid_found)?;
    let Origin {
        separator,
        valid_tokens,
        ..
    } = &run.record().origin;
    let separator = separator.as_deref();
    let texts = Texts::open(&data, &valid, &tokenizer, separator, *valid_tokens)?;
    // A file may have changed between the two readings. What counts is what was read now.
    run.set_texts(texts.data_files.clone(), texts.valid_files.clone())?;
    options.check(trainer.model.config())?;
    // Not before: while texts are read there is nothing to save, and a signal ends the program at once.
    stop::on_signals(run.stopper())?;
    run.go_on(options.clone(), &trainer)?;
    train.drive(&mut trainer, &run, &options, texts, &tokenizer)
}

/// The number of steps that `--steps` asks for.
fn more_steps(train: &Train, dir: &Path, record: &Record) -> Result<u64> {
    let (given, stored) = (train.steps, record.options.steps);
    let started = format!(
        "--steps {given}: the run in {} was started with --steps {stored}",
        dir.display()
    );
    if given < stored {
        return Err(Failure::Usage(format!(
            "{started}, and cannot become shorter"
        )));
    }
    if given > stored && !train.checkpoints.extend {
        return Err(Failure::Usage(format!(
            "{started}, on which its learning rates depend; with --extend it goes on to more, and ends with other weights \
             than a run of {given} steps from the start"
        )));
    }
    Ok(given)
}
