//! The training loop: steps, reports, evaluations and checkpoints.

use super::event::{Event, Observer, peak_rss_mb};
use super::trainer::{StepReport, Trainer};
use super::{Run, evaluate_while};
use crate::checkpoint::ModelDir;
use crate::data::{RandomWindows, Tokenizer, Tokens, check_length};
use crate::{Error, Result};
use std::time::Instant;

/// How a call of [`Trainer::run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Done,
    /// The observer stopped it after this step. If it has a directory, there is a checkpoint.
    Stopped(u64),
}

impl Trainer {
    /// Trains on the tokens of `train`, from the steps done so far to the end, as the configuration says. `valid` are
    /// the tokens to evaluate on, and the tokenizer counts their bytes. Either may be a file larger than memory. With a
    /// `run`, metrics and checkpoints are written to its directory.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] if the model cannot be trained with the configuration, [`Error::TooShort`] if a text
    /// is shorter than a window, [`Error::Diverged`] if training diverges, [`Error::File`] if the file of `train`
    /// changed since it was opened (checked before each checkpoint), and [`Error::Io`] if a file cannot be written. If
    /// there is a checkpoint, the error names its step.
    pub fn run(
        &mut self,
        train: impl Into<Tokens>,
        valid: impl Into<Tokens>,
        tokenizer: &Tokenizer,
        run: Option<&mut Run>,
        observer: &mut dyn Observer,
    ) -> Result<Ending> {
        let (train, valid, config) = (train.into(), valid.into(), self.config());
        config.check(self.model().config())?;
        check_length("the validation part", valid.len(), 1)?;
        let windows = config.batch * config.accumulate;
        let windows = RandomWindows::new(train.clone(), config.context, windows, config.seed)?;
        let clock = Clock {
            started: Instant::now(),
            first: self.steps(),
            training: 0.0,
            reported: (self.steps(), 0.0),
        };
        let mut training = TrainingLoop {
            trainer: self,
            run,
            observer,
            train,
            windows,
            valid,
            tokenizer,
            clock,
        };
        let ending = training.run();
        ending.map_err(|error| training.explain(error))
    }
}

/// One call of [`Trainer::run`].
struct TrainingLoop<'a> {
    trainer: &'a mut Trainer,
    run: Option<&'a mut Run>,
    observer: &'a mut dyn Observer,
    train: Tokens,
    windows: RandomWindows,
    valid: Tokens,
    tokenizer: &'a Tokenizer,
    clock: Clock,
}

impl TrainingLoop<'_> {
    fn run(&mut self) -> Result<Ending> {
        if self.trainer.pending_eval {
            self.evaluate()?;
            if self.trainer.pending_eval {
                return Ok(Ending::Stopped(self.trainer.steps()));
            }
            self.save()?;
        }
        while self.trainer.steps() < self.trainer.config().steps {
            if let Some(ending) = self.one_step()? {
                return Ok(ending);
            }
        }
        self.report_end()?;
        Ok(Ending::Done)
    }

    /// A step with the report, the evaluation and the checkpoint that are due after it.
    fn one_step(&mut self) -> Result<Option<Ending>> {
        let begun = Instant::now();
        let (config, step) = (self.trainer.config(), self.trainer.steps());
        let (steps, log_every, eval_every) = (config.steps, config.log_every, config.eval_every);
        let lr = config.lr(step);
        let joint = config.joint_loss(self.trainer.model().config().mtp_depth, step);
        let parts = self.windows.batch(step)?.micro_batches(config.accumulate);
        let report = self.trainer.step_in_parts(&parts, joint, lr)?;
        self.clock.training += begun.elapsed().as_secs_f64();

        let (done, last) = (step + 1, step + 1 == steps);
        self.observer.stepped(done);
        if last || done % log_every == 0 {
            self.report_step(report, lr)?;
        }
        let evaluates = last || done % eval_every == 0;
        if evaluates {
            self.evaluate()?;
        }
        let stops = self.trainer.pending_eval || self.observer.stop() && !last;
        let run = self.run.as_ref();
        let due = run.is_some_and(|run| run.due(self.trainer.config(), done, evaluates));
        if last || stops || due {
            self.save()?;
        }
        Ok(stops.then_some(Ending::Stopped(done)))
    }

    /// Evaluates and reports, unless the observer stops the run: then the evaluation is abandoned and stays pending.
    fn evaluate(&mut self) -> Result<()> {
        let (model, config) = (self.trainer.model(), self.trainer.config());
        let (context, max_tokens) = (config.context, config.eval_tokens());
        let (valid, tokenizer) = (&self.valid, self.tokenizer);
        let go_on = &mut || !self.observer.stop();
        let evaluation = evaluate_while(model, valid, tokenizer, context, max_tokens, go_on)?;
        self.trainer.pending_eval = evaluation.is_none();
        let Some(evaluation) = evaluation else {
            return Ok(());
        };
        self.report(&Event::Eval {
            step: self.trainer.steps(),
            split: "valid",
            evaluation,
            training_seconds: self.clock.training,
        })
    }

    /// Makes a checkpoint, if there is a directory.
    fn save(&mut self) -> Result<()> {
        let Some(run) = self.run.as_mut() else {
            return Ok(());
        };
        // A checkpoint must not contain what was learnt from a text that the record does not name.
        self.train.unchanged()?;
        self.valid.unchanged()?;
        run.checkpoint(self.trainer)
    }

    fn report(&mut self, event: &Event) -> Result<()> {
        if let Some(run) = &self.run {
            run.dir.append_metrics(event)?;
        }
        self.observer.event(event);
        Ok(())
    }

    fn report_step(&mut self, report: StepReport, lr: f64) -> Result<()> {
        let done = self.trainer.steps();
        let training_seconds = self.clock.training;
        let (steps, seconds) = self.clock.reported;
        self.clock.reported = (done, training_seconds);
        self.report(&Event::Step {
            step: done,
            loss: report.loss,
            loss_heads: self.of_all_heads(report.loss_heads),
            lr,
            tokens_per_s: self.tokens(done - steps) / (training_seconds - seconds),
            training_seconds,
        })
    }

    fn report_end(&mut self) -> Result<()> {
        let run = self.run.as_ref();
        let path = run.map(|run| run.path().display().to_string());
        let steps = self.trainer.config().steps;
        self.report(&Event::Done {
            dir: path.unwrap_or_default(),
            steps,
            // A run that was resumed after its last step has no training time.
            tokens_per_s: self.tokens(steps - self.clock.first)
                / f64::max(self.clock.training, f64::MIN_POSITIVE),
            peak_rss_mb: peak_rss_mb(),
            seconds: self.clock.started.elapsed().as_secs_f64(),
            sha256: ModelDir::sha256(self.trainer.model())?,
        })
    }

    /// Losses of the active heads -> losses of all heads.
    fn of_all_heads(&self, active: Vec<f64>) -> Vec<Option<f64>> {
        let depth = self.trainer.model().config().mtp_depth;
        let mut all: Vec<_> = active.into_iter().map(Some).collect();
        all.resize(depth + 1, None);
        all
    }

    /// Training tokens of this many steps.
    fn tokens(&self, steps: u64) -> f64 {
        let config = self.trainer.config();
        steps as f64 * (config.batch * config.accumulate * config.context) as f64
    }

    /// Adds to an error which checkpoint there is. Failures of the disk are left as they are.
    fn explain(&self, mut error: Error) -> Error {
        if let Error::NotFinite(reason) = error {
            error = Error::Diverged {
                step: self.trainer.steps(),
                reason: format!("{reason}; a lower learning rate may help"),
            };
        }
        if let Some(run) = &self.run
            && let Error::Diverged { reason, .. } | Error::File { reason, .. } = &mut error
        {
            let (step, path) = (run.saved_step(), run.path().display());
            *reason += &format!("; the checkpoint of step {step} is kept in {path}");
        }
        error
    }
}

/// The times of a run.
struct Clock {
    started: Instant,
    /// Steps done before.
    first: u64,
    /// Seconds in training steps.
    training: f64,
    /// Steps done at the last report, and the seconds in training steps until then.
    reported: (u64, f64),
}
