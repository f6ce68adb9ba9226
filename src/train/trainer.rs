//! One step, and the whole loop.

use super::event::{Event, peak_rss_mb};
use super::optimiser::{AdamW, Norms};
use super::{Plan, Schedule, evaluate};
use crate::autograd::Gradients;
use crate::checkpoint::ModelDir;
use crate::data::{Batch, RandomWindows, Tokenizer, Tokens, check_length};
use crate::model::{JointLoss, Model, Objective};
use crate::{Error, Result};
use std::time::Instant;

/// How to train.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Steps of the run.
    pub steps: u64,
    /// B, windows of a batch.
    pub batch: usize,
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
    /// Steps between evaluations, each followed by a checkpoint; the last step always has both.
    pub eval_every: u64,
    /// Steps between reports.
    pub log_every: u64,
}

/// A model in training.
pub struct Trainer {
    /// The model.
    pub model: Model,
    optimiser: AdamW,
    gradients: Gradients,
    steps: u64,
}

/// One step's figures.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// The weighted sum of losses.
    pub loss: f64,
    /// Mean loss of the main head and of the heads that counted, in nats.
    pub loss_heads: Vec<f64>,
    /// Norms of the gradient before clipping.
    pub norms: Norms,
}

impl Trainer {
    /// A model before its first step.
    pub fn new(model: Model) -> Self {
        Self {
            optimiser: AdamW::new(model.params()),
            gradients: Gradients::zeros(model.params()),
            model,
            steps: 0,
        }
    }

    /// Forward, backward, clip, update.
    ///
    /// # Errors
    /// [`Error::Diverged`] where the loss or a gradient is not finite; the parameters are left as they were.
    pub fn step(
        &mut self,
        batch: &Batch,
        objective: impl Into<Objective>,
        rate: f64,
    ) -> Result<StepReport> {
        let objective = objective.into();
        self.gradients.clear();
        let reports = self.model.backward(batch, objective, &mut self.gradients);
        let loss_heads: Vec<f64> = reports.iter().map(|r| f64::from(r.mean())).collect();
        let weights = objective.weights(self.model.config().mtp_depth);
        let loss = loss_heads.iter().zip(&weights).map(|(l, w)| l * w).sum();
        let norms = AdamW::norms(self.model.params(), &self.gradients);
        let report = StepReport {
            loss,
            loss_heads,
            norms,
        };
        if ![report.loss, norms.trunk, norms.heads]
            .iter()
            .all(|x| x.is_finite())
        {
            return Err(Error::Diverged(format!(
                "step {}: the loss or its gradient is not a finite number (loss {}, gradient norms {} and {}); \
                 the weights before this step are kept, a lower --lr may help",
                self.steps + 1,
                report.loss,
                norms.trunk,
                norms.heads
            )));
        }
        let params = self.model.params_mut();
        let takes_part = |name: &str| objective.trains(name);
        self.optimiser
            .step_some(params, &self.gradients, norms, rate, &takes_part);
        self.steps += 1;
        Ok(report)
    }

    /// Trains from step 0 to the end. `train` may lie in a file larger than memory; `valid` are tokens. With `dir` checkpoints and metrics are written.
    ///
    /// # Errors
    /// What [`Trainer::step`] and writing files return, and [`Error::Usage`] for data shorter than a window.
    pub fn run(
        &mut self,
        options: &Options,
        (train, valid): (impl Into<Tokens>, &[u32]),
        tokenizer: &Tokenizer,
        dir: Option<&ModelDir>,
        on_event: &mut dyn FnMut(&Event),
    ) -> Result<()> {
        let Options { batch, context, .. } = *options;
        check_options(options, &self.model)?;
        check_length("the validation part", valid, 1)?;
        let windows = RandomWindows::new(train, context, batch, options.seed)?;
        let started = Instant::now();
        let (mut training, mut since, mut reported) = (0.0, 0.0, 0);
        let mut report = |event: Event| -> Result<()> {
            if let Some(dir) = dir {
                dir.append_metrics(&event)?;
            }
            on_event(&event);
            Ok(())
        };
        for step in 0..options.steps {
            let now = Instant::now();
            let rate = options.schedule.rate(step);
            let depth = self.model.config().mtp_depth;
            let plan = options.plan;
            let objective = plan.objective(options.joint, depth, step, options.steps);
            let figures = self.step(&windows.batch(step)?, objective, rate)?;
            let seconds = now.elapsed().as_secs_f64();
            (training, since) = (training + seconds, since + seconds);
            let done = step + 1;
            let last = done == options.steps;
            if last || done % options.log_every.max(1) == 0 {
                let tokens = (done - reported) as f64 * (batch * context) as f64;
                report(Event::Step {
                    step: done,
                    loss: figures.loss,
                    loss_heads: figures.loss_heads,
                    lr: rate,
                    tokens_per_s: tokens / since,
                })?;
                (since, reported) = (0.0, done);
            }
            if last || done % options.eval_every.max(1) == 0 {
                let evaluation = evaluate(&self.model, valid, tokenizer, context)?;
                if !evaluation.loss_heads.iter().all(|x| x.is_finite()) {
                    return Err(Error::Diverged(format!(
                        "step {done}: the loss on the validation part is not a finite number ({}); the weights of the \
                         checkpoint before are kept, a lower --lr may help",
                        evaluation.loss
                    )));
                }
                report(Event::Eval {
                    step: done,
                    split: "valid",
                    evaluation,
                })?;
                if let Some(dir) = dir {
                    dir.save_weights(&self.model)?;
                }
            }
        }
        let sha256 = ModelDir::sha256(&self.model)?;
        report(Event::Done {
            dir: dir
                .map(|d| d.path().display().to_string())
                .unwrap_or_default(),
            steps: options.steps,
            tokens_per_s: options.steps as f64 * (batch * context) as f64 / training,
            peak_rss_mb: peak_rss_mb(),
            seconds: started.elapsed().as_secs_f64(),
            sha256,
        })
    }
}

/// Whether a run makes sense.
fn check_options(options: &Options, model: &Model) -> Result<()> {
    let config = model.config();
    let (context, depth) = (options.context, config.mtp_depth);
    let wrong = |what: String| Err(Error::Usage(what));
    if options.steps == 0 {
        return wrong("--steps: expected at least 1, found 0".to_owned());
    }
    if depth >= context && depth > 0 {
        return wrong(format!(
            "--heads {depth}: expected fewer heads than --context, which is {context}"
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
