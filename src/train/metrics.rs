//! Reading `metrics.jsonl`: the curves of a run.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::files::{Expected, START, expect_kind};
use crate::{Error, Result};

/// Largest file that is read, in bytes. A run with ten million reports stays below it.
const MAX_BYTES: u64 = 2 << 30;

/// A training report.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct StepPoint {
    /// Steps done.
    pub step: u64,
    /// Mean loss of the main head and of heads 1..=K, in nats; `None` for a head that was not active.
    pub loss_heads: Vec<Option<f64>>,
    /// Learning rate.
    pub lr: f64,
    /// Training tokens per second.
    pub tokens_per_s: f64,
}

/// An evaluation.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct EvalPoint {
    /// Steps done.
    pub step: u64,
    /// Mean loss of the main head and of heads 1..=K, in nats; `None` for a head that had no target.
    pub loss_heads: Vec<Option<f64>>,
    /// Fraction of targets that have the largest logit, for the same heads.
    pub accuracy_heads: Vec<Option<f64>>,
}

/// One line. Other kinds of events and other fields are ignored.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    Step(StepPoint),
    Eval(EvalPoint),
    #[serde(other)]
    Other,
}

/// The curves of a run, in ascending order of steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Training reports.
    pub steps: Vec<StepPoint>,
    /// Evaluations.
    pub evals: Vec<EvalPoint>,
}

impl Metrics {
    /// The file that [`Metrics::read`] reads.
    pub fn file(path: &Path) -> PathBuf {
        if path.is_dir() {
            path.join("metrics.jsonl")
        } else {
            path.to_owned()
        }
    }

    /// Reads the `metrics.jsonl` of a model directory, or such a file itself.
    ///
    /// An incomplete last line is ignored: the run was killed, or is writing it. If a resumed run logged a step twice,
    /// its last record is used.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be read, and [`Error::File`] if a line is not an event, or if there is
    /// no step and no evaluation.
    pub fn read(path: &Path) -> Result<Self> {
        let file = Self::file(path);
        let mut bytes = Vec::new();
        File::open(&file)
            .and_then(|f| f.take(MAX_BYTES + 1).read_to_end(&mut bytes))
            .map_err(Error::io("read", &file))?;
        expect_kind(&file, &bytes[..bytes.len().min(START)], Expected::Json)?;
        if bytes.len() as u64 > MAX_BYTES {
            let reason = format!("expected at most {MAX_BYTES} bytes, found more");
            return Err(Error::file(&file, reason));
        }
        Self::parse(&file, &bytes)
    }

    fn parse(file: &Path, bytes: &[u8]) -> Result<Self> {
        let mut metrics = Self::default();
        let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        for (number, line) in lines.iter().enumerate() {
            // Text after the last line feed is an incomplete line, unless it happens to be complete.
            let last = number + 1 == lines.len();
            let blank = line.iter().all(u8::is_ascii_whitespace);
            match serde_json::from_slice::<Line>(line) {
                Ok(Line::Step(point)) => {
                    while metrics.steps.pop_if(|old| old.step >= point.step).is_some() {}
                    metrics.steps.push(point);
                }
                Ok(Line::Eval(point)) => {
                    while metrics.evals.pop_if(|old| old.step >= point.step).is_some() {}
                    metrics.evals.push(point);
                }
                Ok(Line::Other) => {}
                Err(_) if last || blank => {}
                Err(error) => {
                    // serde_json's position is within the one line that it parsed.
                    let reason = error.to_string();
                    let reason = reason.split(" at line ").next().unwrap_or_default();
                    let shown = crate::files::escape(reason);
                    let reason = format!("line {}: expected an event, found: {shown}", number + 1);
                    return Err(Error::file(file, reason));
                }
            }
        }
        if metrics.steps.is_empty() && metrics.evals.is_empty() {
            let reason = "expected at least one step or evaluation, found none";
            return Err(Error::file(file, reason));
        }
        Ok(metrics)
    }

    /// The largest number of heads in any event, including the main head.
    pub fn heads(&self) -> usize {
        let steps = self.steps.iter().map(|point| point.loss_heads.len());
        let evals = self.evals.iter().map(|point| point.loss_heads.len());
        steps.chain(evals).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Evaluation, Event};

    fn parse(text: &str) -> Result<Metrics> {
        Metrics::parse(Path::new("run/metrics.jsonl"), text.as_bytes())
    }

    fn step(step: u64) -> Event {
        Event::Step {
            step,
            loss: 2.0,
            loss_heads: vec![Some(1.5), None],
            lr: 0.25,
            tokens_per_s: 100.0,
            training_seconds: 1.5,
        }
    }

    fn line(event: &Event) -> String {
        serde_json::to_string(event).unwrap() + "\n"
    }

    #[test]
    fn what_a_run_writes_is_read_back() {
        let eval = Event::Eval {
            step: 2,
            split: "valid",
            evaluation: Evaluation {
                loss: 1.0,
                bits_per_byte: 2.0,
                loss_heads: vec![Some(1.0), None],
                accuracy_heads: vec![Some(0.5), None],
                tokens: 9,
            },
            training_seconds: 3.0,
        };
        let done = "{\"event\":\"done\",\"steps\":2}\n{\"event\":\"something new\"}\n\n";
        let text = line(&step(1)) + &line(&step(2)) + &line(&eval) + done;
        let metrics = parse(&text).unwrap();
        let point = |step| StepPoint {
            step,
            loss_heads: vec![Some(1.5), None],
            lr: 0.25,
            tokens_per_s: 100.0,
        };
        assert_eq!(metrics.steps, [point(1), point(2)]);
        let eval = EvalPoint {
            step: 2,
            loss_heads: vec![Some(1.0), None],
            accuracy_heads: vec![Some(0.5), None],
        };
        assert_eq!(metrics.evals, [eval]);
        assert_eq!(metrics.heads(), 2);
    }

    #[test]
    fn an_incomplete_line_is_ignored_at_the_end_and_an_error_elsewhere() {
        let whole = line(&step(1)) + &line(&step(2));
        for end in line(&step(1)).len()..whole.len() - 1 {
            assert_eq!(parse(&whole[..end]).unwrap().steps.len(), 1, "{end}");
        }
        // Complete except for its line feed.
        assert_eq!(parse(whole.trim_end()).unwrap().steps.len(), 2);
        for broken in [
            "{\"event\":\"step\"\n",
            "x\n",
            "{\"event\":\"step\",\"step\":-1}\n",
            "{}\n",
            "\u{1b}\n",
        ] {
            let text = line(&step(1)) + broken + &line(&step(2));
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains("metrics.jsonl: line 2:"), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        for text in ["", "\n\n", "{\"event\":\"done\"}\n", "{\"event\":"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("found none"), "{error}");
        }
    }

    #[test]
    fn the_last_record_of_a_step_is_used() {
        let text: String = [1, 2, 3, 2, 3, 4].iter().map(|s| line(&step(*s))).collect();
        let steps: Vec<u64> = parse(&text).unwrap().steps.iter().map(|p| p.step).collect();
        assert_eq!(steps, [1, 2, 3, 4]);
    }
}
