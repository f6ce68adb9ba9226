//! How to train: every number of a run, and which numbers a model can be trained with.

use super::{Optimiser, Regime, Schedule};
use crate::model::{Config, JointLoss, Preset};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How to train. The default is that of `foretoken train` for the preset `tiny`; [`TrainConfig::for_model`] has the
/// defaults for other models.
///
/// ```
/// use foretoken::train::TrainConfig;
///
/// let mut config = TrainConfig::default();
/// (config.steps, config.batch) = (200, 8);
/// assert_eq!(config.lr(0), config.peak_lr / 10.0); // the first of 10 warm-up steps
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TrainConfig {
    /// Steps of the run.
    pub steps: u64,
    /// B, training sequences (windows of the text) per batch.
    pub batch: usize,
    /// N, batches per step. A step's gradient is the mean over the windows of all of them.
    pub accumulate: usize,
    /// T, tokens per training sequence.
    pub context: usize,
    /// Seed of the windows. The model's initial values have a seed of their own.
    pub seed: u64,

    /// How the weights are updated.
    pub optimiser: Optimiser,
    /// Weight decay of matrices. Norm weights and biases do not decay.
    pub weight_decay: f64,
    /// The gradient of the trunk and that of the heads are each clipped to this norm.
    pub clip_norm: f64,
    /// Peak learning rate.
    pub peak_lr: f64,
    /// Steps of linear warm-up; `None` is a twentieth of the run.
    pub warmup: Option<u64>,
    /// How the learning rate changes after the warm-up.
    pub schedule: Schedule,
    /// Learning rate at the end of the run, as a fraction of the peak.
    pub final_lr: f64,

    /// Which heads are active at which step, and where their gradients go.
    pub regime: Regime,
    /// λ of the joint loss at the first step.
    pub lambda: f64,
    /// λ at the last step, reached in a straight line; `None` keeps it constant.
    pub lambda_end: Option<f64>,
    /// β of the joint loss.
    pub beta: f64,
    /// Whether the trunk keeps its weights, so that only heads are trained.
    pub freeze_trunk: bool,

    /// Steps between evaluations. The last step is always evaluated.
    pub eval_every: u64,
    /// Tokens of an evaluation, in windows spread evenly over the validation text and rounded up to whole windows.
    /// `None` takes a ninth of the tokens that are trained on between two evaluations: a forward pass costs about a
    /// third of a step, so that evaluation takes some 4 % of a run.
    pub valid_tokens: Option<usize>,
    /// Steps between reports.
    pub log_every: u64,
    /// Steps between checkpoints; `None` makes one after each evaluation. The last step always has one.
    pub save_every: Option<u64>,
    /// Time between checkpoints, in addition to the others.
    pub save_after: Option<Duration>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        let joint = JointLoss::default();
        Self {
            steps: 1000,
            batch: 16,
            accumulate: 1,
            context: Preset::Tiny.context(),
            seed: 1,
            optimiser: Optimiser::default(),
            weight_decay: 0.1,
            clip_norm: 1.0,
            peak_lr: 3e-3,
            warmup: None,
            schedule: Schedule::default(),
            final_lr: 0.1,
            regime: Regime::default(),
            lambda: joint.lambda,
            lambda_end: None,
            beta: joint.beta,
            freeze_trunk: false,
            eval_every: 500,
            valid_tokens: None,
            log_every: 50,
            save_every: None,
            save_after: None,
        }
    }
}

/// Maximum number of rows of a batch, B·T. More need more memory than any machine has, and allocating it would abort.
const MAX_BATCH_ROWS: usize = 1 << 24;
/// Maximum number of rows of a step, N·B·T.
const MAX_STEP_ROWS: usize = MAX_BATCH_ROWS << 4;

impl TrainConfig {
    /// The defaults for a model: windows as long as its training context, and a learning rate that falls with its
    /// width.
    pub fn for_model(model: &Config) -> Self {
        Self {
            context: model.default_context(),
            peak_lr: match model.hidden_size {
                0..=128 => 3e-3,
                129..=256 => 1.5e-3,
                _ => 1e-3,
            },
            ..Self::default()
        }
    }

    /// Makes the run longer. The warm-up and the evaluations keep their length; the decay of the learning rate, the stages of the regime and
    /// the line of λ move with the end of the run.
    pub fn extend(&mut self, steps: u64) {
        self.warmup = Some(self.warmup_steps());
        self.valid_tokens = Some(self.eval_tokens());
        self.steps = steps;
    }

    /// The number of tokens of an evaluation. It does not depend on the length of a run that is evaluated before its
    /// end, so that the curves of such runs can be compared.
    pub fn eval_tokens(&self) -> usize {
        let rows = (self.batch * self.accumulate * self.context) as u64;
        let between = self.eval_every.min(self.steps).saturating_mul(rows);
        let ninth = usize::try_from(between / 9).unwrap_or(usize::MAX);
        self.valid_tokens.unwrap_or(ninth.max(1))
    }

    /// Checks that a model can be trained like this.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] with the first field that is not valid.
    pub fn check(&self, model: &Config) -> Result<()> {
        self.check_values(model.mtp_depth)?;
        self.check_sizes(model)
    }

    /// The part of [`TrainConfig::check`] that no window of the text depends on.
    pub(super) fn check_values(&self, num_heads: usize) -> Result<()> {
        let counts = [
            ("context", self.context as u64),
            ("batch", self.batch as u64),
            ("accumulate", self.accumulate as u64),
            ("steps", self.steps),
            ("eval_every", self.eval_every),
            ("log_every", self.log_every),
            ("save_every", self.save_every.unwrap_or(1)),
            ("valid_tokens", self.valid_tokens.unwrap_or(1) as u64),
        ];
        for (field, value) in counts {
            if value == 0 {
                return Err(Error::setting(field, "at least 1", 0));
            }
        }
        self.optimiser.check()?;
        // Weights are updated in `f32`.
        let positive = |x: f64| (x as f32).is_finite() && x as f32 > 0.0;
        for (field, value) in [
            ("peak_lr", self.peak_lr),
            ("beta", self.beta),
            ("clip_norm", self.clip_norm),
        ] {
            if !positive(value) {
                return Err(Error::setting(field, "more than 0, at most 3.4e38", value));
            }
        }
        let lambda_end = self.lambda_end.unwrap_or(self.lambda);
        for (field, value) in [
            ("lambda", self.lambda),
            ("lambda", lambda_end),
            ("weight_decay", self.weight_decay),
            ("final_lr", self.final_lr),
        ] {
            if !(value == 0.0 || positive(value)) {
                return Err(Error::setting(field, "0 to 3.4e38", value));
            }
        }
        self.check_freeze(num_heads)
    }

    fn check_sizes(&self, model: &Config) -> Result<()> {
        if self.context > MAX_BATCH_ROWS {
            let expected = format!("at most {MAX_BATCH_ROWS} tokens");
            return Err(Error::setting("context", expected, self.context));
        }
        let rows = self.context.saturating_mul(self.batch);
        if rows > MAX_BATCH_ROWS {
            let windows = MAX_BATCH_ROWS / self.context;
            let expected = format!(
                "at most {windows} windows of {} tokens, which are {MAX_BATCH_ROWS} tokens",
                self.context
            );
            return Err(Error::setting("batch", expected, self.batch));
        }
        if rows.saturating_mul(self.accumulate) > MAX_STEP_ROWS {
            let expected = format!("at most {MAX_STEP_ROWS} tokens per step, of batches of {rows}");
            return Err(Error::setting("accumulate", expected, self.accumulate));
        }
        if model.mtp_depth >= self.context {
            let expected = format!("fewer than the {} tokens of a window", self.context);
            return Err(Error::setting("heads", expected, model.mtp_depth));
        }
        let positions = model.max_position_embeddings;
        if self.context > positions {
            let expected = format!("at most the model's {positions} positions");
            return Err(Error::setting("context", expected, self.context));
        }
        Ok(())
    }

    /// Checks that a frozen trunk leaves something to train at every step.
    fn check_freeze(&self, num_heads: usize) -> Result<()> {
        let found = match self.regime {
            _ if !self.freeze_trunk => return Ok(()),
            Regime::Curriculum | Regime::Reverse => {
                format!("the regime {}, which has steps without", self.regime.name())
            }
            _ if num_heads == 0 => "0 heads".to_owned(),
            _ => return Ok(()),
        };
        let expected = "active heads at every step";
        Err(Error::setting("freeze_trunk", expected, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HeadKind;
    use crate::train::AdamW;

    #[test]
    fn every_preset_can_be_trained_with_its_defaults() {
        for preset in Preset::ALL {
            let model = preset.config(257, HeadKind::Recursive, 3);
            TrainConfig::for_model(&model).check(&model).unwrap();
        }
        let tiny = Preset::Tiny.config(257, HeadKind::Recursive, 3);
        assert_eq!(TrainConfig::for_model(&tiny), TrainConfig::default());
    }

    #[test]
    fn every_wrong_field_is_named() {
        type Spoil = fn(&mut TrainConfig);
        const ADAMW: AdamW = AdamW::DEFAULT;
        fn muon(momentum: f64) -> Optimiser {
            let adamw = ADAMW;
            Optimiser::Muon { momentum, adamw }
        }
        let wrong: [(&str, Spoil); 24] = [
            ("steps", |c| c.steps = 0),
            ("batch", |c| c.batch = 0),
            ("batch", |c| c.batch = usize::MAX),
            ("accumulate", |c| c.accumulate = 0),
            ("accumulate", |c| c.accumulate = usize::MAX),
            ("context", |c| c.context = 0),
            ("context", |c| c.context = 4096),
            ("heads", |c| c.context = 3),
            ("eval_every", |c| c.eval_every = 0),
            ("log_every", |c| c.log_every = 0),
            ("save_every", |c| c.save_every = Some(0)),
            ("valid_tokens", |c| c.valid_tokens = Some(0)),
            ("peak_lr", |c| c.peak_lr = f64::NAN),
            // Infinite in the `f32` of the weights.
            ("peak_lr", |c| c.peak_lr = 1e39),
            ("weight_decay", |c| c.weight_decay = 1e308),
            ("momentum", |c| c.optimiser = muon(f64::NAN)),
            ("beta1", |c| {
                c.optimiser = Optimiser::AdamW(AdamW {
                    beta1: 1.0,
                    ..ADAMW
                });
            }),
            // 1 in `f32`.
            ("beta2", |c| {
                c.optimiser = Optimiser::AdamW(AdamW {
                    beta2: 1.0 - 1e-12,
                    ..ADAMW
                });
            }),
            ("eps", |c| {
                c.optimiser = Optimiser::AdamW(AdamW { eps: 0.0, ..ADAMW });
            }),
            ("beta", |c| c.beta = 0.0),
            ("lambda", |c| c.lambda = -1.0),
            ("lambda", |c| c.lambda_end = Some(f64::INFINITY)),
            ("clip_norm", |c| c.clip_norm = 0.0),
            ("freeze_trunk", |c| {
                (c.freeze_trunk, c.regime) = (true, Regime::Reverse);
            }),
        ];
        let model = Preset::Tiny.config(257, HeadKind::Recursive, 3);
        for (expected, spoil) in wrong {
            let mut config = TrainConfig::default();
            spoil(&mut config);
            match config.check(&model).expect_err(expected) {
                Error::Setting { field, .. } => assert_eq!(field, expected),
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn a_longer_run_keeps_its_warm_up() {
        let mut config = TrainConfig::default();
        config.extend(3000);
        assert_eq!((config.steps, config.warmup_steps()), (3000, 50));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<TrainConfig>(&text).unwrap(), config);
    }
}
