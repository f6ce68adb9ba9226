//! The flags of `foretoken train` as they were typed: what a run stores, and what may be given with `--resume`.

use super::failure::{Failure, Result};
use clap::ArgMatches;
use clap::parser::ValueSource;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The flags of a command line as text, and which of them were typed.
#[derive(Clone, Debug, Default)]
pub struct Given {
    values: BTreeMap<String, String>,
    typed: BTreeSet<String>,
}

/// Flags that may be given with `--resume`: they change no weight, or are checked one by one.
const FREE: [&str; 12] = [
    "as_text",
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
    /// The flags of a command, with the values of defaults.
    pub fn of(matches: &ArgMatches) -> Self {
        let mut given = Self::default();
        for id in matches.ids().map(|id| id.as_str()) {
            // Flags have the names of fields; groups of flags have the names of types.
            let is_flag = !id.starts_with(char::is_uppercase);
            let Some(values) = is_flag.then(|| matches.get_raw(id)).flatten() else {
                continue;
            };
            let words: Vec<_> = values.map(|v| v.to_string_lossy()).collect();
            given.values.insert(id.to_owned(), words.join(" "));
            if matches.value_source(id) == Some(ValueSource::CommandLine) {
                given.typed.insert(id.to_owned());
            }
        }
        given
    }

    /// The settings that a run is stored with: every flag that decides its weights, with the value that a default
    /// stands for.
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

    /// Whether the flag was typed.
    pub fn typed(&self, id: &str) -> bool {
        self.typed.contains(id)
    }

    /// Checks that every typed flag agrees with the flags that the run was started with.
    pub fn check(&self, dir: &Path, run: &BTreeMap<String, String>) -> Result {
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
            let flag = |value: &str| format!("--{} {value}", id.replace('_', "-"));
            let started = match stored {
                Some(stored) => format!("with {}", flag(stored)),
                None => "without that flag".to_owned(),
            };
            return Err(Failure::Usage(format!(
                "{}: the run in {} was started {started}, and goes on as it was started; leave the flag out",
                flag(value),
                dir.display(),
            )));
        }
        Ok(())
    }
}
