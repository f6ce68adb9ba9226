//! `foretoken train --resume DIR`: the run's own configuration, and which flags may be given too.

use super::output::{message, quoted};
use super::stop;
use super::texts::{Texts, check_kind};
use super::train::Train;
use crate::train::{Ending, Run, TextFile, TrainConfig, Trainer};
use crate::{Error, Result};
use clap::{ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// Flags about checkpoints and resuming.
#[derive(Clone, Debug, Args)]
pub struct Checkpoints {
    /// Go on with the run in this directory, with its own options, to the same weights as if it had never stopped
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "force"])]
    pub resume: Option<PathBuf>,
    /// With --resume: allow a larger --steps; learning rates from there on are those of the longer run: its decay, also
    /// one of wsd that was finished, the stages of --regime curriculum or reverse and a --lambda A:B move with the length
    #[arg(long)]
    pub extend: bool,
    /// Steps between checkpoints; a run keeps it when it is resumed [default: after each evaluation]
    #[arg(long, value_name = "N")]
    pub save_every: Option<u64>,
    /// Minutes between checkpoints, beside the others; a run keeps it when it is resumed
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    pub save_minutes: Option<f64>,
}

impl Checkpoints {
    /// Checks the flags that no configuration holds.
    ///
    /// # Errors
    /// Returns [`Error::Usage`] for `--extend` without `--resume`.
    pub fn check(&self) -> Result<()> {
        if self.extend && self.resume.is_none() {
            return Err(Error::Usage(
                "--extend: expected --resume too, with the run to make longer".to_owned(),
            ));
        }
        Ok(())
    }

    /// Sets the values of the flags that are given.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] for a time that is not positive.
    pub fn set(&self, config: &mut TrainConfig) -> Result<()> {
        config.save_every = self.save_every.or(config.save_every);
        if let Some(minutes) = self.save_minutes {
            let after = Duration::try_from_secs_f64(minutes * 60.0);
            let after = after
                .ok()
                .filter(|_| minutes > 0.0)
                .ok_or_else(|| Error::setting("save_minutes", "a number, more than 0", minutes))?;
            config.save_after = Some(after);
        }
        Ok(())
    }
}

/// The flags of a command line as text, and which of them were typed. It adds no flag of its own.
#[derive(Clone, Debug, Default)]
pub struct Given {
    values: BTreeMap<String, String>,
    typed: BTreeSet<String>,
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let mut given = Self::default();
        let command = Train::augment_args(Command::new("train"));
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            let Ok(Some(values)) = matches.try_get_raw(id) else {
                continue;
            };
            let words: Vec<_> = values.map(|v| v.to_string_lossy()).collect();
            given.values.insert(id.to_owned(), words.join(" "));
            if matches.value_source(id) == Some(ValueSource::CommandLine) {
                given.typed.insert(id.to_owned());
            }
        }
        Ok(given)
    }

    fn update_from_arg_matches(
        &mut self,
        matches: &ArgMatches,
    ) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

/// Flags that may be given with `--resume`: they change no weight, or are checked one by one.
const FREE: [&str; 11] = [
    "data",
    "valid",
    "steps",
    "resume",
    "extend",
    "threads",
    "json",
    "log_every",
    "eval_every",
    "save_every",
    "save_minutes",
];

impl Given {
    /// The flags that a run is stored with: all that decide its weights, with the values of defaults.
    pub fn settings(&self, defaults: &[(&str, String)]) -> BTreeMap<String, String> {
        let mut settings = self.values.clone();
        settings.retain(|id, _| !FREE.contains(&id.as_str()) && id != "out" && id != "force");
        if settings.contains_key("init") {
            // The model that the run starts from decides these.
            settings.retain(|id, _| id != "preset" && id != "tokenizer");
        }
        for (id, value) in defaults {
            let entry = settings.entry((*id).to_owned());
            entry.or_insert_with(|| value.clone());
        }
        settings
    }

    fn typed(&self, id: &str) -> bool {
        self.typed.contains(id)
    }

    /// Checks that every typed flag agrees with the flags that the run was started with.
    fn check(&self, dir: &Path, run: &BTreeMap<String, String>) -> Result<()> {
        // Whole numbers first: a large seed may be different as an f64.
        let whole = |a: &str, b: &str| Some(a.parse::<u64>().ok()? == b.parse::<u64>().ok()?);
        let real = |a: &str, b: &str| Some(a.parse::<f64>().ok()? == b.parse::<f64>().ok()?);
        let number = |a: &str, b: &str| whole(a, b).or_else(|| real(a, b)).unwrap_or(a == b);
        // A λ that changes is written A:B.
        let same = |a: &str, b: &str| match (a.split_once(':'), b.split_once(':')) {
            (Some(a), Some(b)) => number(a.0, b.0) && number(a.1, b.1),
            _ => number(a, b),
        };
        for id in self.typed.iter().filter(|id| !FREE.contains(&id.as_str())) {
            let value = &self.values[id];
            let stored = run.get(id);
            if stored.is_some_and(|stored| same(stored, value)) {
                continue;
            }
            let stored = match stored {
                Some(stored) => format!("--{} {stored}", id.replace('_', "-")),
                None => "without that flag".to_owned(),
            };
            return Err(Error::Usage(format!(
                "--{} {value}: the run in {} was started {}{stored}, and goes on as it was started; leave the flag out",
                id.replace('_', "-"),
                dir.display(),
                if stored.starts_with("--") {
                    "with "
                } else {
                    ""
                },
            )));
        }
        Ok(())
    }
}

/// Resumes a run.
///
/// # Errors
/// Returns an error if flags, texts or files are not the run's, before anything is written.
pub fn resume(train: &Train, dir: &Path) -> Result<()> {
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
    run.set_texts(data_files, valid_files)?;
    let separator = origin.separator.as_deref();
    let texts = Texts::open((&data, &valid), &tokenizer, separator, origin.valid_tokens)?;
    // A file may have changed between the two readings. The second one is used.
    run.set_texts(texts.data_files.clone(), texts.valid_files.clone())?;
    // Not before: while texts are read there is nothing to save, and a signal ends the program at once.
    let signal = Arc::default();
    stop::on_signals(&signal)?;
    run.resume(&trainer)?;
    train.drive(trainer, run, texts, &tokenizer, &signal)
}

/// The texts that `flag` gives, or else those of the run, with their content.
fn find(flag: &str, given: &[PathBuf], run: &[TextFile]) -> Result<(Vec<PathBuf>, Vec<TextFile>)> {
    let paths = if given.is_empty() {
        run.iter().map(|file| file.path.clone()).collect()
    } else {
        given.to_vec()
    };
    let files = check_kind(flag, &paths).and_then(|()| TextFile::read(&paths));
    let files = files.map_err(|error| {
        if !given.is_empty() {
            return error;
        }
        Error::Usage(format!(
            "{error}; if the text has moved, give its new path with {flag}"
        ))
    })?;
    Ok((paths, files))
}

/// The number of steps of `--steps`.
fn more_steps(train: &Train, dir: &Path, trainer: &Trainer) -> Result<u64> {
    let (given, stored) = (train.steps, trainer.config().steps);
    let started = format!(
        "--steps {given}: the run in {} was started with --steps {stored}",
        dir.display()
    );
    if given < stored {
        return Err(Error::Usage(format!(
            "{started}, and cannot become shorter"
        )));
    }
    if given > stored && !train.checkpoints.extend {
        return Err(Error::Usage(format!(
            "{started}, on which its learning rates depend; --extend makes it longer, and it ends with different weights \
             than a run that was started with {given} steps"
        )));
    }
    Ok(given)
}

/// Reports a run that was stopped.
///
/// # Errors
/// Returns [`Error::Stopped`] unless the run is done.
pub fn ended(ending: Ending, dir: &Path, signal: &Arc<AtomicUsize>) -> Result<()> {
    let Ending::Stopped(step) = ending else {
        return Ok(());
    };
    message(&format!(
        "stopped after step {step}, with a checkpoint; go on with: foretoken train --resume {}",
        quoted(dir)
    ));
    Err(Error::Stopped(stop::signal(signal)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_sixty_seconds() {
        for (minutes, seconds) in [(1.5, 90.0), (0.001, 0.06), (60.0, 3600.0)] {
            let flags = Checkpoints {
                resume: None,
                extend: false,
                save_every: None,
                save_minutes: Some(minutes),
            };
            let mut config = TrainConfig::default();
            flags.set(&mut config).unwrap();
            assert_eq!(config.save_after, Some(Duration::from_secs_f64(seconds)));
        }
    }
}
