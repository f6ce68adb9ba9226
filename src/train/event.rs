//! What a run reports: one JSON object each, on standard output with `--json` and in `metrics.jsonl`.

use super::Evaluation;
use serde::Serialize;

/// Something that happened in a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A step was done.
    Step {
        /// Steps done so far.
        step: u64,
        /// The weighted sum of losses.
        loss: f64,
        /// Mean loss of the main head and of the heads that counted, in nats.
        loss_heads: Vec<f64>,
        /// Learning rate of the step.
        lr: f64,
        /// Training tokens a second since the report before.
        tokens_per_s: f64,
        /// See [`Event::Eval::training_seconds`].
        training_seconds: f64,
    },
    /// The model was evaluated.
    Eval {
        /// Steps done so far.
        step: u64,
        /// Which part of the data.
        split: &'static str,
        /// The figures.
        #[serde(flatten)]
        evaluation: Evaluation,
        /// Wall time of all steps of this process, without evaluations and checkpoints. After a resume it counts from 0
        /// again, because the clock of another process, or of another machine, measures something else.
        training_seconds: f64,
    },
    /// The run ended.
    Done {
        /// The model directory.
        dir: String,
        /// Steps of the run.
        steps: u64,
        /// Training tokens a second over the steps alone.
        tokens_per_s: f64,
        /// The largest resident memory of the process, in MB (10^6 bytes).
        peak_rss_mb: f64,
        /// Wall time of the whole run.
        seconds: f64,
        /// SHA-256 of `model.safetensors`.
        sha256: String,
    },
}

/// The largest resident memory of this process so far, in MB; 0 where the system does not say.
pub fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0 / 1e6
}
