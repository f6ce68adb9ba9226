//! `foretoken train`

use super::Machine;
use super::output::{Output, describe, progress, show};
use super::resume::{Checkpoints, Given, ended, resume};
use crate::data::{Tokenizer, check_length, read_tokens, split};
use crate::model::{HeadKind, JointLoss, Model, Preset};
use crate::train::{
    Event, Kind, Options, Origin, Run, Schedule, Settings, Shape, TextFile, Trainer, check_rows,
};
use crate::{Error, Result};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::path::PathBuf;
use std::sync::Arc;

/// One of several values, by name.
fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let find = move |found: String| {
        let value = all.iter().find(|x| name(**x) == found);
        *value.expect("clap admits the listed names only")
    };
    PossibleValuesParser::new(all.iter().map(|x| name(*x))).map(find)
}

/// Flags of `foretoken train`.
#[derive(Clone, Debug, Args)]
pub struct Train {
    // First, because each flag that follows takes its values away.
    #[command(flatten)]
    pub(super) given: Given,
    /// Text files; without --valid the last tenth is kept for validation
    #[arg(long, required_unless_present = "resume", num_args = 1.., value_name = "FILE")]
    pub(super) data: Vec<PathBuf>,
    /// Text files to validate on
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(super) valid: Vec<PathBuf>,
    /// Model directory to make
    #[arg(long, required_unless_present = "resume", value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace the model directory if it exists, as soon as the run starts
    #[arg(long)]
    force: bool,
    /// Sizes of the model
    #[arg(long, default_value = "tiny", value_parser = one_of(&Preset::ALL, Preset::name))]
    preset: Preset,
    /// K, prediction heads beyond the next token; 0 for none
    #[arg(long, default_value_t = 3, value_name = "K")]
    heads: usize,
    /// How the heads are built
    #[arg(long, default_value = "recursive", value_parser = one_of(&HeadKind::ALL, HeadKind::name))]
    head_kind: HeadKind,
    /// Width of a head's block [default: a quarter of the model's]
    #[arg(long, value_name = "C")]
    head_width: Option<usize>,
    /// Steps of the run
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(super) steps: u64,
    /// Windows of a batch
    #[arg(long, default_value_t = 16, value_name = "B")]
    batch: usize,
    /// Tokens of a window [default: the preset's]
    #[arg(long, value_name = "T")]
    context: Option<usize>,
    /// Highest learning rate [default: the preset's]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    lr: Option<f64>,
    /// Steps of linear warm-up [default: a twentieth of the run]
    #[arg(long, value_name = "N")]
    warmup: Option<u64>,
    /// Weight of all heads together in the loss
    #[arg(long, default_value_t = JointLoss::default().lambda, value_name = "LAMBDA", allow_negative_numbers = true)]
    lambda: f64,
    /// How fast the heads' weights fall with depth
    #[arg(long, default_value_t = JointLoss::default().beta, value_name = "BETA", allow_negative_numbers = true)]
    beta: f64,
    /// Seed of the first weights and of the windows
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// Steps between evaluations
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub(super) eval_every: u64,
    /// Steps between reports
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(super) log_every: u64,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    pub(super) checkpoints: Checkpoints,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: Machine,
}

/// Flags about the way of training.
#[derive(Clone, Debug, Args)]
struct Recipe {
    /// Batches of a step, computed one after the other to need less memory
    #[arg(long, default_value_t = 1, value_name = "N")]
    accumulate: usize,
    /// Learning rates after the warm-up: half a cosine, or level with a decay over the last fifth
    #[arg(long, default_value = "cosine", value_parser = one_of(&Shape::ALL, Shape::name))]
    schedule: Shape,
    /// What moves the weights; muon leaves gains, embedding and output matrix to adamw
    #[arg(long, default_value = "adamw", value_parser = one_of(&Kind::ALL, Kind::name))]
    optimiser: Kind,
}

/// Tokens to train on and to validate on.
pub(super) type Texts = (Arc<[u32]>, Vec<u32>);

/// Reads the texts, and keeps the last tenth for validation where there is none of its own.
pub(super) fn texts(data: &[PathBuf], valid: &[PathBuf], tokenizer: &Tokenizer) -> Result<Texts> {
    let tokens = read_tokens(data, tokenizer)?;
    if valid.is_empty() {
        let (train, valid) = split(&tokens);
        return Ok((train.into(), valid.to_vec()));
    }
    Ok((tokens.into(), read_tokens(valid, tokenizer)?))
}

/// Highest learning rate for a preset: wider models want lower ones.
fn default_rate(preset: Preset) -> f64 {
    match preset {
        Preset::Tiny => 3e-3,
        Preset::Small => 1.5e-3,
        Preset::Base => 1e-3,
    }
}

/// A size that no model can have, named by the flag that asked for it.
fn by_flag(error: Error) -> Error {
    let Error::Config {
        field,
        expected,
        found,
    } = error
    else {
        return error;
    };
    let flag = match field {
        "mtp_depth" => "--heads",
        "mtp_hidden_size" | "mtp_intermediate_size" => "--head-width",
        "max_position_embeddings" => "--context",
        other => other,
    };
    Error::Usage(format!("{flag}: expected {expected}, found {found}"))
}

impl Train {
    /// Runs the command.
    ///
    /// # Errors
    /// Flags, data or files that cannot be used, each before anything is written; a loss that is not finite.
    pub fn run(self) -> Result<()> {
        let machine = self.machine.clone();
        machine.scope(move || self.train())
    }

    fn train(self) -> Result<()> {
        let preset = self.preset;
        let context = self.context.unwrap_or(preset.context());
        self.check(context)?;
        if let Some(dir) = &self.checkpoints.resume {
            return resume(&self, dir);
        }
        let saving = self.checkpoints.saving()?;
        let tokenizer = Tokenizer::bytes();
        let (train, valid) = texts(&self.data, &self.valid, &tokenizer)?;
        check_length("the training part of --data", &train, context)?;
        check_length("the validation part", &valid, 1)?;

        let mut config = preset.config(tokenizer.vocab_size(), self.head_kind, self.heads);
        config.training_context = context;
        config.max_position_embeddings = config.max_position_embeddings.max(context);
        if let Some(width) = self.head_width {
            config.set_head_width(width);
        }
        let model = Model::new(config, self.seed).map_err(by_flag)?;
        let options = Options {
            steps: self.steps,
            batch: self.batch,
            accumulate: self.recipe.accumulate,
            context,
            seed: self.seed,
            schedule: Schedule {
                peak: self.lr.unwrap_or(default_rate(preset)),
                warmup: self.warmup.unwrap_or(self.steps / 20),
                steps: self.steps,
                floor: 0.1,
                shape: self.recipe.schedule,
            },
            joint: JointLoss {
                lambda: self.lambda,
                beta: self.beta,
            },
            eval_every: self.eval_every,
            log_every: self.log_every,
        };
        let origin = Origin {
            data: TextFile::read(&self.data)?,
            valid: TextFile::read(&self.valid)?,
            flags: self.given.settings(&[
                ("context", context.to_string()),
                ("lr", options.schedule.peak.to_string()),
                ("warmup", options.schedule.warmup.to_string()),
                ("head_width", model.config().mtp_hidden_size.to_string()),
            ]),
        };
        let out = self.out.as_deref().expect("clap asks for it");
        let mut trainer = Trainer::with(model, Settings::of(self.recipe.optimiser));
        let plan = (&options, &tokenizer);
        let run = Run::create(out, &trainer, plan, origin, saving, self.force)?;
        self.drive(&mut trainer, &run, &options, (train, valid), &tokenizer)
    }

    /// Trains to the end, or until a signal.
    pub(super) fn drive(
        &self,
        trainer: &mut Trainer,
        run: &Run,
        options: &Options,
        (train, valid): Texts,
        tokenizer: &Tokenizer,
    ) -> Result<()> {
        let mut output = Output::new(self.json);
        let bar = progress(options.steps);
        let mut on_event = |event: &Event| {
            show(&bar, event);
            bar.suspend(|| output.result(event, || describe(event)));
        };
        let data = (train, &*valid);
        let ending = trainer.run(options, data, tokenizer, Some(run), &mut on_event)?;
        bar.finish_and_clear();
        output.finish()?;
        ended(ending, run)
    }

    /// Flags that no run can have.
    fn check(&self, context: usize) -> Result<()> {
        let positive = [
            ("--context", context as u64),
            ("--batch", self.batch as u64),
            ("--steps", self.steps),
            ("--eval-every", self.eval_every),
            ("--log-every", self.log_every),
        ];
        for (flag, value) in positive {
            if value == 0 {
                return Err(Error::Usage(format!(
                    "{flag}: expected at least 1, found 0"
                )));
            }
        }
        check_rows(self.batch, self.recipe.accumulate, context)?;
        if self.heads >= context {
            return Err(Error::Usage(format!(
                "--heads {}: expected fewer than --context, which is {context}",
                self.heads
            )));
        }
        let numbers = [
            (
                "--lr",
                self.lr.unwrap_or(1.0),
                self.lr.is_none_or(|x| x > 0.0),
            ),
            ("--lambda", self.lambda, self.lambda >= 0.0),
            ("--beta", self.beta, self.beta > 0.0),
        ];
        for (flag, value, fits) in numbers {
            if !fits || !value.is_finite() {
                let least = if flag == "--lambda" {
                    "0 or more"
                } else {
                    "more than 0"
                };
                return Err(Error::Usage(format!(
                    "{flag}: expected a number, {least}, found {value}"
                )));
            }
        }
        Ok(())
    }
}
