//! Results on standard output, progress on standard error.

use super::failure::Result;
use crate::Error;
use crate::train::Event;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Writes results. Nothing is written after an error, which [`Output::finish`] returns.
#[derive(Debug)]
pub struct Output {
    json: bool,
    closed: Option<std::io::Error>,
}

impl Output {
    /// Text, or one JSON object per line.
    pub fn new(json: bool) -> Self {
        let closed = None;
        Self { json, closed }
    }

    /// Writes a result as JSON or as text.
    pub fn result(&mut self, value: &impl Serialize, text: impl FnOnce() -> String) {
        let line = if self.json {
            serde_json::to_string(value).expect("plain data")
        } else {
            text()
        };
        self.line(&line);
    }

    /// Writes a line of text.
    pub fn line(&mut self, line: &str) {
        self.text(&format!("{line}\n"));
    }

    /// Writes text at once, without ending the line.
    pub fn text(&mut self, text: &str) {
        if self.closed.is_none() {
            let mut out = std::io::stdout().lock();
            let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            self.closed = written.err();
        }
    }

    /// Whether standard output was closed or failed.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Ends the results. A reader that closed the pipe is no error.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if standard output could not be written for another reason, such as a full disk.
    pub fn finish(self) -> crate::Result<()> {
        match self.closed {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(Error::io("write", Path::new("standard output"))(error))
            }
            _ => Ok(()),
        }
    }
}

/// Writes one report as JSON or as text.
///
/// # Errors
/// As [`Output::finish`].
pub fn print(json: bool, report: &impl Serialize, text: impl FnOnce() -> String) -> Result {
    let mut output = Output::new(json);
    output.result(report, text);
    Ok(output.finish()?)
}

/// Writes a line of text to standard error. A closed standard error is ignored (`eprintln!` would panic).
pub fn message(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A path quoted for a shell.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    // A path that begins with a hyphen would be read as a flag.
    let text = if text.starts_with('-') {
        format!("./{text}")
    } else {
        text
    };
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if text.chars().all(plain) && !text.is_empty() {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A progress bar for a run that has done `first` of its steps, with rate, time left and the loss of every head. It is
/// hidden if standard error is not a terminal.
pub fn progress(first: u64, steps: u64) -> ProgressBar {
    let style = "{bar:30} {pos}/{len} steps, {per_sec}, {eta} left  {msg}";
    let style = ProgressStyle::with_template(style).expect("a valid template");
    // Hidden until it is at its first position, because the jump there would show as a rate.
    let hidden = ProgressDrawTarget::hidden();
    let bar = ProgressBar::with_draw_target(Some(steps), hidden).with_style(style);
    bar.set_position(first);
    bar.reset_elapsed();
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar
}

/// Shows an event on the bar.
pub fn show(bar: &ProgressBar, event: &Event) {
    match event {
        Event::Step {
            step, loss_heads, ..
        } => {
            bar.set_position(*step);
            bar.set_message(format!("loss {}", figures(loss_heads)));
        }
        Event::Eval { .. } => {}
        Event::Done { .. } => bar.finish_and_clear(),
    }
}

/// A parser for one of several values by name.
pub fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let find = move |found: String| {
        let value = all.iter().find(|x| name(**x) == found);
        *value.expect("clap admits the listed names only")
    };
    PossibleValuesParser::new(all.iter().map(|x| name(*x))).map(find)
}

/// A parser for a count.
pub fn at_least_one() -> impl TypedValueParser<Value = usize> {
    clap::builder::RangedU64ValueParser::<usize>::new().range(1..)
}

/// Numbers with three decimals, separated by spaces; a hyphen for none.
pub fn figures(x: &[impl Into<Option<f64>> + Copy]) -> String {
    let one = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.3}"));
    let all = x.iter().map(|x| one((*x).into()));
    all.collect::<Vec<_>>().join(" ")
}

/// An event as a line of text.
pub fn describe(event: &Event) -> String {
    match event {
        Event::Step {
            step,
            loss_heads,
            lr,
            tokens_per_s,
            ..
        } => format!(
            "step {step:>6}  loss {}  lr {lr:.2e}  {tokens_per_s:.0} tokens/s",
            figures(loss_heads)
        ),
        Event::Eval {
            step, evaluation, ..
        } => format!(
            "eval {step:>6}  loss {}  accuracy {}  {:.3} bits/byte on {} tokens",
            figures(&evaluation.loss_heads),
            figures(&evaluation.accuracy_heads),
            evaluation.bits_per_byte,
            evaluation.tokens
        ),
        Event::Done {
            dir,
            steps,
            tokens_per_s,
            peak_rss_mb,
            seconds,
            sha256,
        } => format!(
            "done: {steps} steps in {seconds:.1} s, {tokens_per_s:.0} tokens/s, {peak_rss_mb:.0} MB at most\n{dir}\n\
             sha256 {sha256}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        for (path, expected) in [
            ("run", "run"),
            ("a/b-1_2.c", "a/b-1_2.c"),
            ("Käse", "Käse"),
            ("my run", "'my run'"),
            ("it's", r"'it'\''s'"),
            ("$HOME/`x`", "'$HOME/`x`'"),
            ("~/run", "'~/run'"),
            ("-x", "./-x"),
            ("- x", "'./- x'"),
            ("a;b", "'a;b'"),
        ] {
            assert_eq!(quoted(Path::new(path)), expected);
        }
    }
}
