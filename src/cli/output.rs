//! Results on standard output, progress on standard error.

use crate::train::Event;
use crate::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Writes results. After an error nothing more is written; [`Output::finish`] says whether it was one.
#[derive(Debug)]
pub struct Output {
    json: bool,
    closed: Option<std::io::Error>,
}

impl Output {
    /// Text, or one JSON object a line.
    pub fn new(json: bool) -> Self {
        let closed = None;
        Self { json, closed }
    }

    /// Writes a result in the form that was asked for.
    pub fn result(&mut self, value: &impl Serialize, text: impl FnOnce() -> String) {
        let line = match self.json {
            true => serde_json::to_string(value).expect("plain data"),
            false => text(),
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

    /// Whether nobody reads any more, or nothing can be written.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Ends the results. A reader that has gone away is no error.
    ///
    /// # Errors
    /// [`Error::Io`] where standard output could not be written for another reason, as on a full disk.
    pub fn finish(self) -> Result<()> {
        match self.closed {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(Error::io("write", Path::new("standard output"))(error))
            }
            _ => Ok(()),
        }
    }
}

/// Writes a line of text to standard error. That nobody reads it is no error (`eprintln!` would panic).
pub fn message(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A path as a shell takes it for one word.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    // One that begins with a hyphen would be taken for a flag.
    let text = match text.starts_with('-') {
        true => format!("./{text}"),
        false => text,
    };
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    match text.chars().all(plain) && !text.is_empty() {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// A progress bar for a run that has done `first` of its steps: rate, time left and the loss of every head. Silent when
/// not a terminal.
pub fn progress(first: u64, steps: u64) -> ProgressBar {
    let style = "{bar:30} {pos}/{len} steps, {per_sec}, {eta} left  {msg}";
    let style = ProgressStyle::with_template(style).expect("a valid template");
    // Hidden until it stands at its first position, so that nobody sees the rate of the jump there.
    let hidden = ProgressDrawTarget::hidden();
    let bar = ProgressBar::with_draw_target(Some(steps), hidden).with_style(style);
    bar.set_position(first);
    bar.reset_elapsed();
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar
}

/// Moves the bar.
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

/// Numbers with three decimals, one after the other.
pub fn figures(x: &[f64]) -> String {
    let one = |x: &f64| format!("{x:.3}");
    x.iter().map(one).collect::<Vec<_>>().join(" ")
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
            "eval {step:>6}  loss {}  accuracy {}  {:.3} bits/byte",
            figures(&evaluation.loss_heads),
            figures(&evaluation.accuracy_heads),
            evaluation.bits_per_byte
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
