//! `foretoken train --resume DIR`: the run's own options, and which flags may stand beside them.

use super::failure::{Failure, Result};
use super::output::{message, quoted};
use super::stop;
use super::texts::{Texts, check_kind};
use super::train::Train;
use crate::train::{Ending, Intervals, Keep, Origin, Record, Run, Saving, TextFile};
use clap::{ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Flags about checkpoints and going on from them.
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
    /// When checkpoints are made. Signals are not listened to yet.
    ///
    /// # Errors
    /// [`Failure::Usage`] for intervals that no run can have.
    pub fn saving(&self) -> Result<Saving> {
        if self.extend && self.resume.is_none() {
            return Err(Failure::Usage(
                "--extend: expected --resume beside it, whose run it makes longer".to_owned(),
            ));
        }
        if self.save_every == Some(0) {
            return Err(Failure::Usage(
                "--save-every: expected at least 1, found 0".to_owned(),
            ));
        }
        let after = |minutes: f64| {
            let wrong = || {
                let what = "--save-minutes: expected a number, more than 0";
                Failure::Usage(format!("{what}, found {minutes}"))
            };
            let seconds = Some(minutes * 60.0)
                .filter(|s| *s > 0.0)
                .ok_or_else(wrong)?;
            Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
        };
        Ok(Saving {
            intervals: Intervals {
                every: self.save_every,
                after: self.save_minutes.map(after).transpose()?,
            },
            ..Saving::default()
        })
    }
}

/// The flags of a command line as text, and which of them were typed. It adds no flag.
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

/// Flags that change no weight, or are looked at one by one: they may stand beside `--resume`.
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
    /// The settings that a run is stored with: every flag that decides its weights, with the value that a default stands
    /// for.
    pub fn settings(&self, defaults: &[(&str, String)]) -> BTreeMap<String, String> {
        let mut settings = self.values.clone();
        settings.retain(|id, _| !FREE.contains(&id.as_str()) && id != "out" && id != "force");
        if settings.contains_key("init") {
            // These are the model's that the run starts from, so their defaults stand for nothing.
            settings.retain(|id, _| id != "preset" && id != "tokenizer");
        }
        for (id, value) in defaults {
            let free = || value.clone();
            settings.entry((*id).to_owned()).or_insert_with(free);
        }
        settings
    }

    fn typed(&self, id: &str) -> bool {
        self.typed.contains(id)
    }

    /// Whether every typed flag agrees with the run.
    fn check(&self, dir: &Path, record: &Record) -> Result {
        // Whole numbers first: as an f64, a large seed is another one.
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
            let stored = record.origin.flags.get(id);
            if stored.is_some_and(|stored| same(stored, value)) {
                continue;
            }
            let stored = match stored {
                Some(stored) => format!("--{} {stored}", id.replace('_', "-")),
                None => "without that flag".to_owned(),
            };
            return Err(Failure::Usage(format!(
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

/// Goes on with a run.
///
/// # Errors
/// Flags, texts or files that are not the run's, each before anything is written.
pub fn resume(train: &Train, dir: &Path) -> Result {
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

/// What is said, and returned, where a run was asked to stop.
///
/// # Errors
/// Returns [`Failure::Stopped`] unless the run is done.
pub fn ended(ending: Ending, run: &Run) -> Result {
    let Ending::Stopped(step) = ending else {
        return Ok(());
    };
    message(&format!(
        "stopped after step {step}, with a checkpoint; go on with: foretoken train --resume {}",
        quoted(run.path())
    ));
    Err(Failure::Stopped(stop::signal(run.stopper())))
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
            let after = flags.saving().unwrap().intervals.after;
            assert_eq!(after, Some(Duration::from_secs_f64(seconds)));
        }
    }
}
