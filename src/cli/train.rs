//! `foretoken train`

use super::Machine;
use super::output::{Output, describe, message, progress, show};
use super::regime::Learning;
use super::resume::{Checkpoints, Given, ended, resume};
use super::stop;
use super::texts::{Texts, check_kind};
use super::tokenizer::Vocabulary;
use super::watch::{Answer, Watched};
use crate::data::{Tokenizer, check_length};
use crate::model::config::ARITHMETIC;
use crate::model::{Config, HeadKind, JointLoss, Model, Preset};
use crate::train::{Event, Kind, Options, Origin, Run, Schedule, Settings, Shape, Trainer};
use crate::{Error, Result, profile};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::path::PathBuf;

/// One of several values, by name.
pub(super) fn one_of<T: Copy + Send + Sync + 'static>(
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
    /// Text files, or one token file; without --valid the last tenth is kept for validation
    #[arg(long, required_unless_present = "resume", num_args = 1.., value_name = "FILE")]
    pub(super) data: Vec<PathBuf>,
    /// Text files to validate on, or one token file
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(super) valid: Vec<PathBuf>,
    #[command(flatten)]
    vocabulary: Vocabulary,
    /// Tokens to validate on at most, the first ones [default: all of a text, 1000000 of a token file]
    #[arg(long, value_name = "N")]
    valid_tokens: Option<usize>,
    /// Model directory to make
    #[arg(long, required_unless_present = "resume", value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace the model directory if it exists, as soon as the run starts
    #[arg(long)]
    force: bool,
    /// Sizes of the model; --init has its own
    #[arg(long, default_value = "tiny", conflicts_with = "init", value_parser = one_of(&Preset::ALL, Preset::name))]
    preset: Preset,
    /// K, prediction heads beyond the next token; 0 for none [default: 3]
    #[arg(long, value_name = "K")]
    heads: Option<usize>,
    /// How the heads are built [default: recursive]
    #[arg(long, value_parser = one_of(&HeadKind::ALL, HeadKind::name))]
    head_kind: Option<HeadKind>,
    /// Width of a head [default: a quarter of the model's]
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
    /// Highest learning rate [default: by the model's width]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    lr: Option<f64>,
    /// Steps of linear warm-up [default: a twentieth of the run]
    #[arg(long, value_name = "N")]
    warmup: Option<u64>,
    #[command(flatten)]
    learning: Learning,
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
    /// Print the time of each operation at the end, on standard error
    #[arg(long)]
    profile: bool,
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
    #[arg(long, default_value = Shape::default().name(), value_parser = one_of(&Shape::ALL, Shape::name))]
    schedule: Shape,
    /// What moves the weights; muon leaves gains, biases, embedding and output matrix to adamw
    #[arg(long, default_value = Kind::default().name(), value_parser = one_of(&Kind::ALL, Kind::name))]
    optimiser: Kind,
}

/// Highest learning rate for a width: wider models want lower ones.
fn default_rate(hidden_size: usize) -> f64 {
    match hidden_size {
        0..=128 => 3e-3,
        129..=256 => 1.5e-3,
        _ => 1e-3,
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
        // Before anything is read or written.
        let preset = self.preset;
        if let Some(dir) = &self.checkpoints.resume {
            return resume(&self, dir);
        }
        let saving = self.checkpoints.saving()?;
        check_kind("--data", &self.data)?;
        check_kind("--valid", &self.valid)?;
        let (start, own) = self.learning.start()?.unzip();
        let usual = start.as_ref().map(|m| m.config().default_context());
        let context = self.context.unwrap_or(usual.unwrap_or(preset.context()));
        let mut config = self.config(start.as_ref());
        config.training_context = context;
        config.max_position_embeddings = config.max_position_embeddings.max(context);
        let options = self.options(context, config.hidden_size);
        options.check(&config)?;
        // Learning a vocabulary takes a while, so it comes after the flags are known to be sound.
        let tokenizer = own.map_or_else(|| self.vocabulary.of(&self.data), Ok)?;
        // A model to start from may have rows for more tokens than its vocabulary uses.
        if start.is_none() {
            config.vocab_size = tokenizer.vocab_size();
        }
        config.foretoken_arithmetic = ARITHMETIC;
        let separator = self.vocabulary.separator();
        let files = (&*self.data, &*self.valid);
        let texts = Texts::open(files, &tokenizer, separator, self.valid_tokens)?;
        check_length("the training part of --data", texts.train.len(), context)?;
        check_length("the validation part", texts.valid.len(), 1)?;

        let model = match &start {
            None => Model::new(config, self.seed),
            Some(model) if self.keeps_heads(model) => model.rebuilt(config),
            Some(model) => model.with_heads(config, self.seed),
        };
        let model = model.map_err(by_flag)?;
        drop(start);
        let sizes = model.config();
        let mut defaults = vec![
            ("context", context.to_string()),
            ("lr", options.schedule.peak.to_string()),
            ("warmup", options.schedule.warmup.to_string()),
            ("heads", sizes.mtp_depth.to_string()),
            ("head_kind", sizes.mtp_kind.name().to_owned()),
            ("head_width", sizes.mtp_hidden_size.to_string()),
        ];
        defaults.extend(texts.valid_tokens.map(|n| ("valid_tokens", n.to_string())));
        let origin = Origin {
            data: texts.data_files.clone(),
            valid: texts.valid_files.clone(),
            separator: separator.map(str::to_owned),
            valid_tokens: texts.valid_tokens,
            flags: self.given.settings(&defaults),
        };
        stop::on_signals(&saving.stop)?;
        let out = self.out.as_deref().expect("clap asks for it");
        let settings = Settings::of(self.recipe.optimiser);
        let mut trainer = Trainer::planned(model, settings, options.plan);
        let plan = (&options, &tokenizer);
        let run = Run::create(out, &trainer, plan, origin, saving, self.force)?;
        self.drive(&mut trainer, &run, &options, texts, &tokenizer)
    }

    /// How the flags say to train a model of that width.
    fn options(&self, context: usize, hidden_size: usize) -> Options {
        let peak = self.lr.unwrap_or(default_rate(hidden_size));
        let usual = Schedule::new(peak, self.steps);
        Options {
            steps: self.steps,
            batch: self.batch,
            accumulate: self.recipe.accumulate,
            context,
            seed: self.seed,
            schedule: Schedule {
                warmup: self.warmup.unwrap_or(usual.warmup),
                shape: self.recipe.schedule,
                ..usual
            },
            joint: JointLoss {
                lambda: self.learning.lambda(),
                beta: self.beta,
            },
            plan: self.learning.plan(),
            eval_every: self.eval_every,
            log_every: self.log_every,
        }
    }

    /// Trains to the end, or until a signal.
    pub(super) fn drive(
        &self,
        trainer: &mut Trainer,
        run: &Run,
        options: &Options,
        texts: Texts,
        tokenizer: &Tokenizer,
    ) -> Result<()> {
        if !run.is_locked() {
            super::output::message(
                "note: this file system has no locks, so take care that no other process trains into the same directory",
            );
        }
        let mut output = Output::new(self.json);
        let bar = progress(trainer.steps(), options.steps);
        let answer = Answer::to(run.stopper(), &bar);
        let watched = Watched { run, bar: &bar };
        let mut on_event = |event: &Event| {
            show(&bar, event);
            bar.suspend(|| output.result(event, || describe(event)));
        };
        let data = (texts.train, &*texts.valid);
        let first = trainer.steps();
        if self.profile {
            profile::start();
        }
        let ending = trainer.run(options, data, tokenizer, Some(&watched), &mut on_event);
        let table = self
            .profile
            .then(|| profile::table(&profile::stop(), trainer.steps() - first));
        let ending = ending?;
        drop(answer);
        bar.finish_and_clear();
        if let Some(table) = table {
            message(table.trim_end());
        }
        output.finish()?;
        ended(ending, run)
    }

    /// Whether a model that training starts from goes on with its own heads.
    fn keeps_heads(&self, model: &Model) -> bool {
        let others = self.heads.is_some() || self.head_kind.is_some() || self.head_width.is_some();
        model.config().mtp_depth > 0 && !others
    }

    /// Sizes of the model, with heads as the flags say, and where they say nothing as in the model to start from. The
    /// vocabulary of a new one is set later.
    fn config(&self, start: Option<&Model>) -> Config {
        let (depth, kind) = (self.heads.unwrap_or(3), HeadKind::Recursive);
        let mut config = match start {
            None => self.preset.config(1, self.head_kind.unwrap_or(kind), depth),
            Some(model) if self.keeps_heads(model) => return model.config().clone(),
            Some(model) => {
                let old = model.config();
                let (depth, kind) = match old.mtp_depth {
                    0 => (depth, kind),
                    k => (self.heads.unwrap_or(k), old.mtp_kind),
                };
                let mut config = Config {
                    mtp_kind: self.head_kind.unwrap_or(kind),
                    mtp_depth: depth,
                    ..old.clone()
                };
                // A quarter, of whole heads.
                let width = (old.hidden_size / 4).next_multiple_of(old.head_dim);
                config.set_head_width(width.min(old.hidden_size));
                config
            }
        };
        if let Some(width) = self.head_width {
            config.set_head_width(width);
        }
        config
    }
}
