//! `foretoken demo`: the main job on embedded data, with no file and no network.

use super::compare::{check_identical, compare, sameness};
use super::device::Device;
use super::failure::Result;
use super::machine::Machine;
use super::output::{Output, figures, progress, show};
use crate::data::corpus::{DEMO_SEED, stories};
use crate::data::{Tokenizer, Tokens};
use crate::infer::{DraftLength, GenerateOptions};
use crate::model::{HeadKind, Model, Preset, WeightFormat};
use crate::train::{Event, TrainConfig, Trainer};
use clap::Args;

/// Bytes of the training text.
const CORPUS: usize = 2_000_000;
/// K
const HEADS: usize = 3;
/// T of the training windows.
const CONTEXT: usize = 256;
/// B
const BATCH: usize = 4;
/// Peak learning rate.
const PEAK: f64 = 4e-3;
/// Tokens of the continuation.
const CONTINUATION: usize = 190;
/// Timed generations with drafts, and as many without.
const REPEATS: usize = 9;

/// Flags of `foretoken demo`.
#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Training steps
    #[arg(long, default_value_t = 1200, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    #[command(flatten)]
    pub machine: Machine,
}

impl Demo {
    /// Runs the command.
    ///
    /// # Errors
    /// If a loss is not finite.
    pub fn run(&self) -> Result {
        let mut output = Output::new(false);
        let tokenizer = Tokenizer::bytes();
        let tokens = Tokens::from(tokenizer.encode(stories(DEMO_SEED, CORPUS).as_bytes())?);
        let (train, rest) = tokens.split();
        let rest = rest.first(usize::MAX)?;
        let valid = &rest[..12 * CONTEXT];
        let mut config = Preset::Tiny.config(tokenizer.vocab_size(), HeadKind::Recursive, HEADS);
        config.training_context = CONTEXT;
        let model = Model::new(config, DEMO_SEED)?;
        let counts = model.parameter_counts();
        let all = counts.trunk + counts.heads;
        output.line(&format!(
            "A model of {} parameters ({:.1} % of them in its {HEADS} prediction heads) learns from {} bytes of \
             made-up stories.\n",
            all,
            100.0 * counts.heads as f64 / all as f64,
            tokens.len(),
        ));
        output.line("loss in nats per byte on held-out stories: main head, then heads 1 to 3; accuracy of the same");
        let mut config = TrainConfig::for_model(model.config());
        (config.steps, config.batch) = (self.steps, BATCH);
        (config.seed, config.peak_lr) = (DEMO_SEED, PEAK);
        // More weight on the heads than the default: the demo is about drafting.
        (config.lambda, config.beta) = (1.0, 0.8);
        (config.eval_every, config.log_every) = ((self.steps / 6).max(1), 10);
        config.valid_tokens = Some(valid.len());
        let bar = progress(0, self.steps);
        let mut trainer = Trainer::new(model, config)?;
        trainer.run(train, valid, &tokenizer, None, &mut |event: &Event| {
            show(&bar, event);
            bar.suspend(|| match event {
                Event::Eval {
                    step, evaluation, ..
                } => output.line(&format!(
                    "step {step:>4}   loss {}   accuracy {}",
                    figures(&evaluation.loss_heads),
                    figures(&evaluation.accuracy_heads)
                )),
                Event::Done {
                    tokens_per_s,
                    seconds,
                    ..
                } => output.line(&format!(
                    "trained in {seconds:.0} s, {tokens_per_s:.0} tokens/s\n"
                )),
                _ => {}
            });
        })?;
        let mut model = trainer.into_model();
        model.pack(WeightFormat::F32);
        speak(&model, &tokenizer, &rest, &mut output)?;
        Ok(output.finish()?)
    }
}

/// Generates a continuation with and without drafts, and compares.
fn speak(model: &Model, tokenizer: &Tokenizer, held_out: &[u32], output: &mut Output) -> Result {
    let text = tokenizer.decode(held_out);
    // The first held-out story that starts inside the text, with its opening as the prompt.
    let start = text
        .windows(2)
        .position(|w| w == b"\n\n")
        .map_or(0, |i| i + 2);
    let prompt = tokenizer.encode(&text[start..start + 60])?;
    let options = GenerateOptions {
        max_tokens: CONTINUATION,
        draft_length: DraftLength::All,
        ..GenerateOptions::default()
    };
    let held = Device::Cpu.hold(model)?;
    let compared = compare(&held, &[&prompt], &options, REPEATS)?;
    let (plain, fast) = (&compared.plain, &compared.fast);
    let show = |tokens: &[u32]| String::from_utf8_lossy(&tokenizer.decode(tokens)).into_owned();
    output.line(&format!(
        "[{}]{}\n\n\
         medians of {REPEATS} runs each, in turn:\n\
         plain        {:>6.0} tokens/s, {:.2} tokens per step\n\
         speculative  {:>6.0} tokens/s, {:.2} tokens per step; drafted {:?}, accepted {:?} by depth\n\
         speed-up {:.2}; the two texts are {}",
        show(&prompt),
        show(&fast.tokens),
        plain.tokens.len() as f64 / compared.plain_seconds,
        plain.tokens_per_step(),
        plain.tokens.len() as f64 / compared.fast_seconds,
        fast.tokens_per_step(),
        fast.drafted_by_depth,
        fast.accepted_by_depth,
        compared.plain_seconds / compared.fast_seconds,
        sameness(compared.identical)
    ));
    check_identical(compared.identical)
}
