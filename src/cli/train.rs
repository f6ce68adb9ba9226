//! `foretoken train`

use super::checkpoints::Checkpoints;
use super::failure::{Failure, Result};
use super::given::Given;
use super::machine::Machine;
use super::output::{Output, message, one_of, progress};
use super::regime::Learning;
use super::stop;
use super::target::{Inputs, Target};
use super::texts::{Texts, check_kind};
use super::tokenizer::Vocabulary;
use super::watch::{Watch, answering};
use crate::checkpoint::ModelDir;
use crate::data::{Tokenizer, check_length};
use crate::model::config::ARITHMETIC_VERSION;
use crate::model::{Config, HeadKind, Model, Preset};
use crate::train::{Optimiser, Origin, Run, Schedule, TextFile, TrainConfig, Trainer};
use crate::{Error, profile};
use clap::Args;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;

/// Flags of `foretoken train`.
#[derive(Clone, Debug, Args)]
pub struct Train {
    /// Set after parsing.
    #[arg(skip)]
    pub given: Given,
    /// Text files, or one token file; without --valid the last tenth is kept for validation
    #[arg(long, required_unless_present = "resume", num_args = 1.., value_name = "FILE")]
    pub(super) data: Vec<PathBuf>,
    /// Text files to validate on, or one token file
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(super) valid: Vec<PathBuf>,
    #[command(flatten)]
    vocabulary: Vocabulary,
    /// Validate on N tokens, in windows spread evenly over the validation part, or on all [default: as many as take
    /// some 4 % of the run]
    #[arg(long, value_name = "N|all", value_parser = tokens_or_all)]
    valid_tokens: Option<usize>,
    /// Model directory to create
    #[arg(long, required_unless_present = "resume", value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace the model directory, as soon as the run starts, if it exists and this program wrote everything in it
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
    /// Training steps
    #[arg(long, default_value_t = TrainConfig::default().steps, value_name = "N")]
    pub(super) steps: u64,
    /// Windows per batch
    #[arg(long, default_value_t = TrainConfig::default().batch, value_name = "B")]
    batch: usize,
    /// Tokens per window [default: the preset's]
    #[arg(long, value_name = "T")]
    context: Option<usize>,
    /// Peak learning rate [default: by the model's width]
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// Steps of linear warm-up [default: a twentieth of the run]
    #[arg(long, value_name = "N")]
    warmup: Option<u64>,
    #[command(flatten)]
    learning: Learning,
    /// Ratio of a head's weight in the loss to that of the head before it
    #[arg(long, default_value_t = TrainConfig::default().beta, value_name = "BETA")]
    beta: f64,
    /// Seed of the initial weights and of the windows
    #[arg(long, default_value_t = TrainConfig::default().seed, value_name = "S")]
    seed: u64,
    /// Steps between evaluations
    #[arg(long, default_value_t = TrainConfig::default().eval_every, value_name = "N")]
    pub(super) eval_every: u64,
    /// Steps between reports
    #[arg(long, default_value_t = TrainConfig::default().log_every, value_name = "N")]
    pub(super) log_every: u64,
    /// Gradient accumulation: batches per step, computed one after the other to save memory
    #[arg(long, default_value_t = TrainConfig::default().accumulate, value_name = "N")]
    accumulate: usize,
    /// Learning rates after the warm-up: half a cosine, or constant with a decay over the last fifth
    #[arg(long, default_value = Schedule::default().name(), value_parser = one_of(&Schedule::ALL, Schedule::name))]
    schedule: Schedule,
    /// How the weights are updated; muon leaves norm weights, biases, embedding matrix and LM head to adamw
    #[arg(long, default_value = Optimiser::default().name(), value_parser = one_of(&Optimiser::ALL, Optimiser::name))]
    optimiser: Optimiser,
    #[command(flatten)]
    pub(super) checkpoints: Checkpoints,
    /// Print the time of each operation at the end, on standard error
    #[arg(long)]
    profile: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub machine: Machine,
}

/// A number of tokens, or all of them.
fn tokens_or_all(text: &str) -> std::result::Result<usize, String> {
    match text {
        "all" => Ok(usize::MAX),
        _ => text
            .parse()
            .map_err(|e| format!("{e}; expected a number, or all")),
    }
}

/// An error about a model's configuration, which names the flag instead of the field.
fn by_flag(error: Error) -> Failure {
    let Error::Config {
        field,
        expected,
        found,
    } = error
    else {
        return error.into();
    };
    let flag = match field.as_str() {
        "mtp_depth" => "--heads",
        "mtp_hidden_size" | "mtp_intermediate_size" => "--head-width",
        "max_position_embeddings" => "--context",
        other => other,
    };
    Failure::Usage(format!("{flag}: expected {expected}, found {found}"))
}

impl Train {
    /// Starts a run.
    pub(super) fn train(&self) -> Result {
        self.checkpoints.check()?;
        check_kind("--data", &self.data)?;
        check_kind("--valid", &self.valid)?;
        if self.heads == Some(0) {
            for (flag, given) in [
                ("--head-width", self.head_width.is_some()),
                ("--head-kind", self.head_kind.is_some()),
            ] {
                if given {
                    let reason = format!("{flag}: expected no such flag with --heads 0");
                    return Err(Failure::Usage(reason));
                }
            }
        }
        let init = self.learning.init.as_deref();
        let inputs = Inputs::default()
            .files("--data", &self.data)
            .files("--valid", &self.valid);
        let inputs = inputs
            .files("--tokenizer", self.vocabulary.file())
            .model("--init", init);
        let out = self.out.as_deref().expect("clap requires it");
        let target = Target::dir(out, &inputs)?;
        let (start, own) = init.map(ModelDir::load).transpose()?.unzip();
        let mut config = self.config(start.as_ref());
        let train_config = self.train_config(&config)?;
        let context = train_config.context;
        config.training_context = context;
        config.max_position_embeddings = config.max_position_embeddings.max(context);
        train_config.check(&config)?;
        // Learning a vocabulary takes a while, so it comes after the flags are checked.
        let tokenizer = own.map_or_else(|| self.vocabulary.of(&self.data), Ok)?;
        // A model to start from may have rows for more tokens than its vocabulary uses.
        if start.is_none() {
            config.vocab_size = tokenizer.vocab_size();
        }
        config.foretoken_arithmetic = ARITHMETIC_VERSION;
        let separator = self.vocabulary.split_on.as_deref();
        let as_text = self.vocabulary.as_text;
        let texts = Texts::open(&self.data, &self.valid, &tokenizer, separator, as_text)?;
        let data = texts.data_files.iter().map(|file| &file.sha256);
        let same = |file: &&TextFile| data.clone().any(|sha256| *sha256 == file.sha256);
        if let Some(file) = texts.valid_files.iter().find(same) {
            message(&format!(
                "note: --valid {}: --data holds the same text, so the losses say nothing about new text",
                file.path.display()
            ));
        }
        check_length("the training part of --data", texts.train.len(), context)?;
        check_length("the validation part", texts.valid.len(), 1)?;

        let model = match &start {
            None => Model::new(config, self.seed),
            Some(model) if self.keeps_heads(model) => model.with_config(config),
            Some(model) => model.with_heads(config, self.seed),
        };
        let model = model.map_err(by_flag)?;
        drop(start);
        let sizes = model.config();
        let defaults = [
            ("context", context.to_string()),
            ("lr", train_config.peak_lr.to_string()),
            ("warmup", train_config.warmup_steps().to_string()),
            ("heads", sizes.mtp_depth.to_string()),
            ("head_kind", sizes.mtp_kind.name().to_owned()),
            ("head_width", sizes.mtp_hidden_size.to_string()),
        ];
        let origin = Origin {
            data: texts.data_files.clone(),
            valid: texts.valid_files.clone(),
            separator: self.vocabulary.split_on.clone(),
            flags: self.given.settings(&defaults),
        };
        let signal = stop::asks();
        let trainer = Trainer::new(model, train_config)?;
        let run = Run::create(out, &trainer, &tokenizer, origin, self.force)?;
        target.written();
        self.drive(trainer, run, texts, &tokenizer, signal)
    }

    /// The configuration that the flags specify, for a model of these sizes.
    fn train_config(&self, model: &Config) -> Result<TrainConfig> {
        let mut config = TrainConfig::for_model(model);
        config.steps = self.steps;
        config.batch = self.batch;
        config.accumulate = self.accumulate;
        config.context = self.context.unwrap_or(config.context);
        config.seed = self.seed;
        config.optimiser = self.optimiser;
        config.peak_lr = self.lr.unwrap_or(config.peak_lr);
        config.warmup = self.warmup;
        config.schedule = self.schedule;
        config.beta = self.beta;
        config.eval_every = self.eval_every;
        config.valid_tokens = self.valid_tokens;
        config.log_every = self.log_every;
        self.learning.set(&mut config);
        self.checkpoints.set(&mut config)?;
        Ok(config)
    }

    /// Trains to the end, or until a signal.
    pub(super) fn drive(
        &self,
        mut trainer: Trainer,
        mut run: Run,
        texts: Texts,
        tokenizer: &Tokenizer,
        signal: &AtomicUsize,
    ) -> Result {
        if !run.is_locked() {
            message(
                "warning: this file system has no locks, so take care that no other process trains into the same directory",
            );
        }
        let bar = progress(trainer.steps(), trainer.config().steps);
        let mut watch = Watch {
            bar: &bar,
            output: Output::new(self.json),
            signal,
        };
        let first = trainer.steps();
        if self.profile {
            profile::start();
        }
        let (train, valid) = (texts.train, texts.valid);
        let ending = answering(signal, &bar, || {
            trainer.run(train, valid, tokenizer, Some(&mut run), &mut watch)
        })?;
        bar.finish_and_clear();
        if self.profile {
            let steps = trainer.steps() - first;
            message(profile::table(&profile::stop(), steps).trim_end());
        }
        let finished = watch.output.finish();
        let ended = stop::ended(ending, run.path(), signal);
        match (ended, finished) {
            // A terminal that was closed takes no more output. That is not why the run ended.
            (Err(stopped), Err(error)) => {
                message(&format!("error: {error}"));
                Err(stopped)
            }
            (ended, finished) => Ok(finished.map_err(Failure::from).and(ended)?),
        }
    }

    /// Whether training continues with the heads of the model that it starts from.
    fn keeps_heads(&self, model: &Model) -> bool {
        let others = self.heads.is_some() || self.head_kind.is_some() || self.head_width.is_some();
        model.config().mtp_depth > 0 && !others
    }

    /// The configuration of the model. Flags decide about the heads, then the model to start from. The vocabulary size
    /// of a new model is set later.
    fn config(&self, start: Option<&Model>) -> Config {
        let (kind, depth) = (HeadKind::Recursive, 3);
        let mut config = match start {
            None => self.preset.config(1, kind, depth),
            Some(model) => model.config().clone(),
        };
        if start.is_some_and(|model| self.keeps_heads(model)) {
            return config;
        }
        if config.mtp_depth == 0 {
            (config.mtp_kind, config.mtp_depth) = (kind, depth);
        }
        config.mtp_kind = self.head_kind.unwrap_or(config.mtp_kind);
        config.mtp_depth = self.heads.unwrap_or(config.mtp_depth);
        // A quarter, of whole heads.
        let quarter = (config.hidden_size / 4).next_multiple_of(config.head_dim);
        let width = quarter.min(config.hidden_size);
        config.set_head_width(self.head_width.unwrap_or(width));
        config
    }
}
