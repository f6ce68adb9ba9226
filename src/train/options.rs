//! How to train, as numbers.

use super::schedule::positive;
use super::{Plan, Schedule};
use crate::model::{Config, JointLoss};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Steps of the run.
    pub steps: u64,
    /// B, windows of a batch.
    pub batch: usize,
    /// N, batches of a step. A step's gradient is the mean over all their windows.
    pub accumulate: usize,
    /// T, tokens of a window.
    pub context: usize,
    /// Seed of the windows (the model's first values have their own).
    pub seed: u64,
    /// Learning rates.
    pub schedule: Schedule,
    /// How much the heads count.
    pub joint: JointLoss,
    /// What changes of that between steps.
    pub plan: Plan,
    /// Steps between evaluations; the last step always has one.
    pub eval_every: u64,
    /// Steps between reports.
    pub log_every: u64,
}

/// Rows of a batch at most, B·T. More would need more memory than any machine has, and would be an abort.
const MOST_ROWS: usize = 1 << 24;
/// Rows of a step at most, N·B·T.
const MOST_ROWS_A_STEP: usize = MOST_ROWS << 4;

impl Options {
    /// Whether a model of these sizes can be trained so. It is the one place for rules about the options of a run.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the flag that stands for what is wrong.
    pub fn check(&self, config: &Config) -> Result<()> {
        let wrong = |what: String| Err(Error::Usage(what));
        let Self {
            batch,
            accumulate,
            context,
            ..
        } = *self;
        let counts = [
            ("--context", context as u64),
            ("--batch", batch as u64),
            ("--accumulate", accumulate as u64),
            ("--steps", self.steps),
            ("--eval-every", self.eval_every),
            ("--log-every", self.log_every),
        ];
        for (flag, value) in counts {
            if value == 0 {
                return wrong(format!("{flag}: expected at least 1, found 0"));
            }
        }
        positive("--lr", self.schedule.peak)?;
        self.plan.check(self.joint, config.mtp_depth)?;
        let rows = context.saturating_mul(batch);
        if rows > MOST_ROWS {
            return wrong(format!(
                "--batch {batch} of --context {context}: expected at most {MOST_ROWS} tokens together"
            ));
        }
        if rows.saturating_mul(accumulate) > MOST_ROWS_A_STEP {
            return wrong(format!(
                "--accumulate {accumulate} of --batch {batch} and --context {context}: expected at most \
                 {MOST_ROWS_A_STEP} tokens a step"
            ));
        }
        let depth = config.mtp_depth;
        if depth >= context {
            return wrong(format!(
                "--heads {depth}: expected fewer than --context, which is {context}"
            ));
        }
        if context > config.max_position_embeddings {
            return wrong(format!(
                "--context {context}: expected at most the model's {} positions",
                config.max_position_embeddings
            ));
        }
        Ok(())
    }
}
