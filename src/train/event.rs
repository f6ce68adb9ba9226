//! What a run reports, and to whom. An event is one JSON object, on standard output with `--json` and in
//! `metrics.jsonl`.

use super::Evaluation;
use serde::Serialize;

/// A report of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Event {
    /// Figures of the last step, every [`TrainConfig::log_every`](super::TrainConfig::log_every) steps.
    Step {
        /// Steps done so far.
        step: u64,
        /// The joint loss: the weighted sum of the losses.
        loss: f64,
        /// Mean loss of the main head and of heads 1..=K, in nats per token; `None` for a head that is not active.
        loss_heads: Vec<Option<f64>>,
        /// Learning rate of the step.
        lr: f64,
        /// Training tokens per second since the previous report.
        tokens_per_s: f64,
        /// See [`Event::Eval::training_seconds`].
        training_seconds: f64,
    },
    /// The model was evaluated.
    Eval {
        /// Steps done so far.
        step: u64,
        /// The part of the data that was evaluated.
        split: &'static str,
        /// The losses.
        #[serde(flatten)]
        evaluation: Evaluation,
        /// Wall time of the training steps of this process so far, without evaluations and checkpoints. It starts at 0
        /// again when a run is resumed, because times of different machines cannot be added.
        training_seconds: f64,
    },
    /// The run ended.
    Done {
        /// The model directory; empty if the run has none.
        dir: String,
        /// Steps of the run.
        steps: u64,
        /// Training tokens per second, without evaluations and checkpoints.
        tokens_per_s: f64,
        /// The largest resident memory of the process, in MB (10^6 bytes).
        peak_rss_mb: f64,
        /// Wall time of the whole run.
        seconds: f64,
        /// SHA-256 of `model.safetensors`.
        sha256: String,
    },
}

/// Watches a run: a closure that takes each [`Event`], or a type that does more.
///
/// ```
/// use foretoken::train::{Event, Observer};
///
/// /// Stops a run once its loss is low enough.
/// struct Until(f64, bool);
///
/// impl Observer for Until {
///     fn event(&mut self, event: &Event) {
///         self.1 |= matches!(event, Event::Eval { evaluation, .. } if evaluation.loss <= self.0);
///     }
///
///     fn stop(&mut self) -> bool {
///         self.1
///     }
/// }
/// ```
pub trait Observer {
    /// Called with each event, after it was written to the run's `metrics.jsonl`.
    fn event(&mut self, event: &Event);

    /// Called after each step with the number of steps done.
    fn stepped(&mut self, _steps: u64) {}

    /// Whether to end the run early. Called after each step and before each window of an evaluation, which is abandoned
    /// then, and made when the run is resumed.
    fn stop(&mut self) -> bool {
        false
    }
}

impl<F: FnMut(&Event)> Observer for F {
    fn event(&mut self, event: &Event) {
        self(event);
    }
}

/// The largest resident memory of this process so far, in MB; 0 if the system does not report it.
pub fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0 / 1e6
}
