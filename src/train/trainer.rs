//! A model in training, and one step.

use super::TrainConfig;
use super::optimiser::{Norms, OptimiserState};
use crate::autograd::Gradients;
use crate::data::Batch;
use crate::kernels::par;
use crate::model::{GradFlow, JointLoss, Model};
use crate::{Error, Result, profile};

/// A model in training.
pub struct Trainer {
    model: Model,
    config: TrainConfig,
    pub(super) optimiser: OptimiserState,
    gradients: Gradients,
    /// Whether the evaluation after the last step was abandoned.
    pub(super) pending_eval: bool,
}

/// One step's figures.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StepReport {
    /// The joint loss: the weighted sum of the losses.
    pub loss: f64,
    /// Mean loss of the main head and of the active heads, in nats per token.
    pub loss_heads: Vec<f64>,
    /// Norms of the gradient before clipping.
    pub norms: Norms,
}

impl Trainer {
    /// A model before its first step. If the configuration freezes the trunk, gradients and the optimiser's state exist
    /// for the heads only.
    ///
    /// [`Trainer::run`] trains as the configuration says. [`Trainer::step`] takes its learning rate and its loss as
    /// arguments, and uses of the configuration only the optimiser and whether the trunk is frozen.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] if a number of the configuration is out of its range, or if a frozen trunk leaves
    /// nothing to train.
    pub fn new(model: Model, config: TrainConfig) -> Result<Self> {
        config.check_values(model.config().mtp_depth)?;
        let optimiser = OptimiserState::new(&config, model.params());
        Ok(Self::assemble(model, config, optimiser))
    }

    pub(super) fn assemble(
        mut model: Model,
        config: TrainConfig,
        optimiser: OptimiserState,
    ) -> Self {
        model.unpack();
        Self {
            gradients: Gradients::zeros_of(model.params(), &|name| config.trains(name)),
            model,
            config,
            optimiser,
            pending_eval: false,
        }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The model, at the end of training.
    pub fn into_model(self) -> Model {
        self.model
    }

    /// How the model is trained.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Changes what may change during a run: a larger number of steps ([`TrainConfig::extend`]), and when the run is
    /// evaluated, reported and saved.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] if another field differs, or if the number of steps becomes smaller.
    pub fn set_config(&mut self, config: TrainConfig) -> Result<()> {
        if config.steps < self.config.steps {
            let expected = format!("at least the run's {}", self.config.steps);
            return Err(Error::setting("steps", expected, config.steps));
        }
        let mut fixed = self.config.clone();
        if config.steps > fixed.steps {
            fixed.extend(config.steps);
        }
        fixed.eval_every = config.eval_every;
        fixed.log_every = config.log_every;
        fixed.save_every = config.save_every;
        fixed.save_after = config.save_after;
        if config != fixed {
            let expected = "that of the run, except for when it is evaluated, reported and saved";
            return Err(Error::setting("config", expected, "another"));
        }
        self.config = config;
        Ok(())
    }

    /// The optimiser's state.
    pub fn optimiser(&self) -> &OptimiserState {
        &self.optimiser
    }

    /// The gradient of the last step, before clipping.
    pub fn gradients(&self) -> &Gradients {
        &self.gradients
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.optimiser.steps
    }

    /// One training step: forward, backward, clipping, update.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] if the batch does not fit the model, if `lr` is negative or not finite, or if the trunk
    /// is frozen and `joint` would train it; [`Error::Diverged`] if the loss or a gradient is not finite;
    /// [`Error::FloatEnvironment`] if a thread's floating-point mode is not the usual one. The parameters are then
    /// unchanged.
    pub fn step(&mut self, batch: &Batch, joint: JointLoss, lr: f64) -> Result<StepReport> {
        self.step_in_parts(std::slice::from_ref(batch), joint, lr)
    }

    /// A step on one batch that was cut into parts ([`Batch::micro_batches`]), which are computed one after the other
    /// to use less memory.
    ///
    /// The parts accumulate into the same gradient (rule R7). The gradient of a tensor that the loss uses once, in a
    /// matrix multiplication or a lookup, equals that of the whole batch bit for bit: it is one chain over the rows,
    /// and the parts' rows follow each other. All other gradients have the same terms in a different order, and differ
    /// in the last bits:
    ///
    /// * norm weights and biases, whose sum over rows is a tree (rule R3), here one tree per part;
    /// * a matrix that is used several times, because all uses of the first part come before those of the second: a
    ///   tied embedding; embedding and LM head if the heads' gradients reach them; the module of recursive heads if
    ///   more than one head is active.
    ///
    /// So the norms and the step differ too. The reported losses are means over the parts, in `f64`.
    ///
    /// # Errors
    /// Those of [`Trainer::step`], and [`Error::Setting`] if the parts are not the whole of one batch.
    pub fn step_in_parts(
        &mut self,
        parts: &[Batch],
        joint: JointLoss,
        lr: f64,
    ) -> Result<StepReport> {
        par::check_environment()?;
        self.check_parts(parts)?;
        if !((lr as f32).is_finite() && lr >= 0.0) {
            return Err(Error::setting("lr", "0 to 3.4e38", lr));
        }
        if self.config.freeze_trunk && joint.grad_flow != GradFlow::Frozen {
            let expected = "Frozen, because the trainer was made to freeze the trunk";
            let found = format!("{:?}", joint.grad_flow);
            return Err(Error::setting("grad_flow", expected, found));
        }
        profile::time("Gradients", "clear", || self.gradients.clear());
        let (mut sums, mut counts) = (Vec::new(), Vec::new());
        for batch in parts {
            let reports = self.model.backward(batch, joint, &mut self.gradients);
            sums.resize(reports.len(), 0.0);
            counts.resize(reports.len(), 0.0);
            for (k, report) in reports.iter().enumerate() {
                sums[k] += f64::from(report.mean()) * report.targets as f64;
                counts[k] += report.targets as f64;
            }
        }
        let loss_heads: Vec<f64> = sums.iter().zip(&counts).map(|(s, n)| s / n).collect();
        let weights = joint.weights(self.model.config().mtp_depth);
        let loss = loss_heads.iter().zip(&weights).map(|(l, w)| l * w).sum();
        let norms = profile::time("Optimiser", "norms", || {
            OptimiserState::norms(self.model.params(), &self.gradients)
        });
        let report = StepReport {
            loss,
            loss_heads,
            norms,
        };
        let numbers = [report.loss, norms.trunk, norms.heads];
        if !numbers.iter().all(|x| x.is_finite()) {
            return Err(Error::Diverged {
                step: self.steps() + 1,
                reason: format!(
                    "the loss or its gradient is not a finite number (loss {}, gradient norms {} and {}); a lower \
                     learning rate may help",
                    report.loss, norms.trunk, norms.heads
                ),
            });
        }
        let params = self.model.params_mut();
        profile::time("Optimiser", "update", || {
            let active = |name: &str| joint.trains(name);
            self.optimiser
                .step(params, &self.gradients, norms, lr, &active);
        });
        Ok(report)
    }

    /// Checks that the parts are one whole batch, and that the model can read it.
    fn check_parts(&self, parts: &[Batch]) -> Result<()> {
        let wrong = |expected: String, found: String| Err(Error::setting("batch", expected, found));
        let rows: usize = parts.iter().map(|part| part.num_targets(0)).sum();
        if rows == 0 {
            return wrong("at least one window".to_owned(), "none".to_owned());
        }
        let config = self.model.config();
        let (vocab, positions) = (config.vocab_size, config.max_position_embeddings);
        let mut windows = 0;
        for part in parts {
            let whole = part.total_targets(0);
            let next = part.first_window() == windows;
            windows += part.batch_size();
            if !next || whole != rows || part.seq_len() != parts[0].seq_len() {
                let expected = format!(
                    "the parts of one batch in order, as `Batch::micro_batches` cuts it, with {whole} rows together"
                );
                return wrong(expected, format!("{} parts with {rows} rows", parts.len()));
            }
            if part.seq_len() > positions {
                let expected = format!("windows of at most the model's {positions} positions");
                return wrong(expected, format!("windows of {}", part.seq_len()));
            }
            let mut tokens = part.tokens().iter().enumerate();
            if let Some((at, token)) = tokens.find(|(_, token)| **token as usize >= vocab) {
                let expected = format!("tokens below the vocabulary's size, {vocab}");
                let (window, place) = (at / (part.seq_len() + 1), at % (part.seq_len() + 1));
                let found = format!("token {token} at position {place} of window {window}");
                return wrong(expected, found);
            }
        }
        Ok(())
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::model::{HeadKind, Preset};
    use crate::simd::float_environment::tests::{FTZ, with_mode};

    #[test]
    fn a_step_notices_a_wrong_floating_point_mode() {
        let model = Preset::Tiny.config(257, HeadKind::Recursive, 1);
        let model = Model::new(model, 1).expect("valid sizes");
        let mut trainer = Trainer::new(model, TrainConfig::default()).expect("the defaults");
        let batch = Batch::new(1, 4, vec![1; 5]);
        let step = with_mode(FTZ, || trainer.step(&batch, JointLoss::default(), 1e-3));
        assert!(matches!(step, Err(Error::FloatEnvironment(_))), "{step:?}");
        trainer
            .step(&batch, JointLoss::default(), 1e-3)
            .expect("the usual mode");
    }
}
