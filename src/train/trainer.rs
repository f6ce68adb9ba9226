//! One step, and the whole loop.

use super::event::{Event, peak_rss_mb};
use super::optimiser::{Norms, Optimiser, Settings};
use super::options::Options;
use super::run::Keep;
use super::{Plan, evaluate_while};
use crate::autograd::Gradients;
use crate::checkpoint::ModelDir;
use crate::data::{Batch, RandomWindows, Tokenizer, Tokens, check_length};
use crate::model::{GradFlow, Model, Objective};
use crate::{Error, Result, profile};
use std::path::Path;
use std::time::Instant;

/// A model in training.
pub struct Trainer {
    /// The model.
    pub model: Model,
    pub(super) optimiser: Optimiser,
    gradients: Gradients,
    /// Whether gradients and the optimiser's state are held for heads alone.
    frozen: bool,
    steps: u64,
    /// Whether an evaluation after the last step was abandoned.
    pub(super) owes_evaluation: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// After its last step.
    Done,
    /// After this step, because it was asked to stop. A checkpoint was made.
    Stopped(u64),
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
    /// A model before its first step, whose parameters may all learn, with the default optimiser.
    pub fn new(model: Model) -> Self {
        Self::with(model, Settings::default())
    }

    /// The same with another optimiser than the default.
    ///
    /// Gradients and the optimiser's state are held for every parameter, also where the options of [`Trainer::run`] or the
    /// objective of a step freeze the trunk: the weights are those of [`Trainer::planned`], which needs less memory.
    pub fn with(model: Model, settings: Settings) -> Self {
        Self::planned(model, settings, Plan::default())
    }

    /// The same for the steps of a plan: gradients and the optimiser's state are held for what learns in it, and so for
    /// the heads alone where the trunk is frozen.
    ///
    /// Nothing else of the plan is kept: which heads count, how much and when is what the options of [`Trainer::run`] or
    /// the objective of [`Trainer::step`] say. Where the plan freezes the trunk, they have to freeze it too.
    pub fn planned(model: Model, settings: Settings, plan: Plan) -> Self {
        let optimiser = Optimiser::new(settings, model.params(), &|name| plan.learns(name));
        Self::resumed(model, optimiser, plan, 0)
    }

    /// A model with some steps done.
    pub(super) fn resumed(mut model: Model, optimiser: Optimiser, plan: Plan, steps: u64) -> Self {
        model.unpack();
        Self {
            optimiser,
            gradients: Gradients::zeros_of(model.params(), &|name| plan.learns(name)),
            model,
            frozen: plan.freeze_trunk,
            steps,
            owes_evaluation: false,
        }
    }

    /// The optimiser, with what it keeps.
    pub fn optimiser(&self) -> &Optimiser {
        &self.optimiser
    }

    /// The gradient of the last step, before clipping.
    pub fn gradients(&self) -> &Gradients {
        &self.gradients
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Forward, backward, clip, update.
    ///
    /// # Errors
    /// [`Error::Diverged`] where the loss or a gradient is not finite; the parameters are left
    /// as they were.
    /// [`Error::Usage`] where the trunk is to learn and the trainer was made for a plan that freezes it.
    pub fn step(
        &mut self,
        batch: &Batch,
        objective: impl Into<Objective>,
        rate: f64,
    ) -> Result<StepReport> {
        self.step_in_parts(std::slice::from_ref(batch), objective, rate)
    }

    /// A step on a batch given in parts ([`Batch::parts`]), which are computed one after the other to need less memory.
    ///
    /// Each part goes on with the chains of the gradient (rule R7). So the gradient of a tensor that the loss uses once,
    /// in a product or in a lookup, equals that of the whole batch bit for bit: its chain runs over the rows, and the
    /// parts' rows follow each other. All others have the same terms in another order and differ in the last bits:
    ///
    /// * gains and biases, whose sum over rows is a tree (rule R3), here one tree for each part;
    /// * a matrix used several times, since all uses of the first part come before those of the second: the embedding
    ///   where it is the output matrix too; embedding and output matrix where heads use them and their gradients are
    ///   not kept from the trunk; the module of `recursive` heads where more than one depth counts.
    ///
    /// Norms and the step then differ as well. The losses reported are means over the parts, in `f64`.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn step_in_parts(
        &mut self,
        parts: &[Batch],
        objective: impl Into<Objective>,
        rate: f64,
    ) -> Result<StepReport> {
        let objective = objective.into();
        if self.frozen && objective.flow != GradFlow::Frozen {
            return Err(Error::Usage(format!(
                "a trainer of heads on a frozen trunk: expected GradFlow::Frozen, found GradFlow::{:?}",
                objective.flow
            )));
        }
        profile::time("Gradients", "clear", || self.gradients.clear());
        let (mut sums, mut counts) = (Vec::new(), Vec::new());
        for batch in parts {
            let reports = self.model.backward(batch, objective, &mut self.gradients);
            sums.resize(reports.len(), 0.0);
            counts.resize(reports.len(), 0.0);
            for (k, report) in reports.iter().enumerate() {
                sums[k] += f64::from(report.mean()) * report.targets as f64;
                counts[k] += report.targets as f64;
            }
        }
        let loss_heads: Vec<f64> = sums.iter().zip(&counts).map(|(s, n)| s / n).collect();
        let weights = objective.weights(self.model.config().mtp_depth);
        let loss = loss_heads.iter().zip(&weights).map(|(l, w)| l * w).sum();
        let norms = profile::time("Optimiser", "norms", || {
            Optimiser::norms(self.model.params(), &self.gradients)
        });
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
                 a lower --lr may help",
                self.steps + 1,
                report.loss,
                norms.trunk,
                norms.heads
            )));
        }
        let params = self.model.params_mut();
        let takes_part = |name: &str| objective.trains(name);
        profile::time("Optimiser", "update", || {
            self.optimiser
                .step_some(params, &self.gradients, norms, rate, &takes_part);
        });
        self.steps += 1;
        Ok(report)
    }

    /// Trains from the steps done so far to the end. `train` may lie in a file larger than memory; `valid` are tokens.
    /// With `keep` checkpoints and metrics are written.
    ///
    /// # Errors
    /// What [`Trainer::step`] and writing files return, and [`Error::Usage`] for data shorter than a window.
    /// [`Error::File`] where the file of `train` was changed since it was opened, which is asked before each checkpoint.
    /// Where a checkpoint is on the disk then, the error says of which step.
    pub fn run(
        &mut self,
        options: &Options,
        (train, valid): (impl Into<Tokens>, &[u32]),
        tokenizer: &Tokenizer,
        keep: Option<&dyn Keep>,
        on_event: &mut dyn FnMut(&Event),
    ) -> Result<Ending> {
        let mut kept = keep.and_then(Keep::kept);
        let data = (train.into(), valid);
        let ending = self.run_kept(options, data, tokenizer, keep, on_event, &mut kept);
        ending.map_err(|error| match (keep, kept) {
            (Some(keep), Some(step)) => naming(error, step, keep.path()),
            _ => error,
        })
    }

    /// [`Trainer::run`], which sets `kept` to the step of each checkpoint that it made.
    fn run_kept(
        &mut self,
        options: &Options,
        (train, valid): (Tokens, &[u32]),
        tokenizer: &Tokenizer,
        keep: Option<&dyn Keep>,
        on_event: &mut dyn FnMut(&Event),
        kept: &mut Option<u64>,
    ) -> Result<Ending> {
        let Options {
            accumulate,
            context,
            ..
        } = *options;
        options.check(self.model.config())?;
        check_length("the validation part", valid.len(), 1)?;
        let windows = options.batch * accumulate;
        let tokens_a_step = (windows * context) as f64;
        let windows = RandomWindows::new(train.clone(), context, windows, options.seed)?;
        let started = Instant::now();
        let first = self.steps;
        let (mut training, mut since, mut reported) = (0.0, 0.0, first);
        let mut report = |event: Event| -> Result<()> {
            if let Some(keep) = keep {
                keep.event(&event)?;
            }
            on_event(&event);
            Ok(())
        };
        let stop = || keep.is_some_and(|keep| keep.stop());
        let mut checkpoint = |keep: &dyn Keep, trainer: &Self| -> Result<()> {
            // What was learned from another text than the record names is not kept.
            train.unchanged()?;
            keep.checkpoint(trainer)?;
            *kept = Some(trainer.steps);
            Ok(())
        };
        let part = (valid, tokenizer, context);
        if self.owes_evaluation {
            self.validate(part, training, &stop, &mut report)?;
            if self.owes_evaluation {
                return Ok(Ending::Stopped(first));
            }
            if let Some(keep) = keep {
                checkpoint(keep, self)?;
            }
        }
        for step in first..options.steps {
            let now = Instant::now();
            let rate = options.schedule.rate(step);
            let depth = self.model.config().mtp_depth;
            let plan = options.plan;
            let objective = plan.objective(options.joint, depth, step, options.steps);
            let parts = windows.batch(step)?.parts(accumulate);
            let figures = self.step_in_parts(&parts, objective, rate)?;
            let seconds = now.elapsed().as_secs_f64();
            (training, since) = (training + seconds, since + seconds);
            let done = step + 1;
            if let Some(keep) = keep {
                keep.stepped(done);
            }
            let last = done == options.steps;
            if last || done % options.log_every == 0 {
                let tokens = (done - reported) as f64 * tokens_a_step;
                report(Event::Step {
                    step: done,
                    loss: figures.loss,
                    loss_heads: figures.loss_heads,
                    lr: rate,
                    tokens_per_s: tokens / since,
                    training_seconds: training,
                })?;
                (since, reported) = (0.0, done);
            }
            let evaluated = last || done % options.eval_every == 0;
            if evaluated {
                self.validate(part, training, &stop, &mut report)?;
            }
            if let Some(keep) = keep {
                let stop = self.owes_evaluation || keep.stop() && !last;
                if last || stop || keep.due(done, evaluated) {
                    checkpoint(keep, self)?;
                }
                if stop {
                    return Ok(Ending::Stopped(done));
                }
            }
        }
        let sha256 = ModelDir::sha256(&self.model)?;
        report(Event::Done {
            dir: keep
                .map(|d| d.path().display().to_string())
                .unwrap_or_default(),
            steps: options.steps,
            // A run that was resumed after its last step has nothing to divide.
            tokens_per_s: (options.steps - first) as f64 * tokens_a_step
                / f64::max(training, f64::MIN_POSITIVE),
            peak_rss_mb: peak_rss_mb(),
            seconds: started.elapsed().as_secs_f64(),
            sha256,
        })?;
        Ok(Ending::Done)
    }

    /// Evaluates and reports, unless the run is asked to stop: then the evaluation is abandoned and owed.
    fn validate(
        &mut self,
        (valid, tokenizer, context): (&[u32], &Tokenizer, usize),
        training_seconds: f64,
        stop: &dyn Fn() -> bool,
        report: &mut dyn FnMut(Event) -> Result<()>,
    ) -> Result<()> {
        let model = &self.model;
        let done = evaluate_while(model, valid, tokenizer, context, &|| !stop())?;
        self.owes_evaluation = done.is_none();
        let Some(evaluation) = done else {
            return Ok(());
        };
        let step = self.steps;
        if !evaluation.loss_heads.iter().all(|x| x.is_finite()) {
            return Err(Error::Diverged(format!(
                "step {step}: the loss on the validation part is not a finite number ({}); a lower --lr may \
                 help",
                evaluation.loss
            )));
        }
        report(Event::Eval {
            step,
            split: "valid",
            evaluation,
            training_seconds,
        })
    }
}

/// The error with the checkpoint that is there nevertheless, where what failed is no matter of the disk.
fn naming(error: Error, step: u64, dir: &Path) -> Error {
    let left = |what: String| {
        format!(
            "{what}; the checkpoint of step {step} is kept in {}",
            dir.display()
        )
    };
    match error {
        Error::Diverged(what) => Error::Diverged(left(what)),
        Error::File { path, reason } => Error::File {
            path,
            reason: left(reason),
        },
        other => other,
    }
}
