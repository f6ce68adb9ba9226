//! `foretoken generate`

use super::Machine;
use super::output::{Output, message};
use super::utf8::Utf8Stream;
use crate::checkpoint::ModelDir;
use crate::infer::{Drafter, Generated, HeadDrafter, NoDrafts, Options, Sampler, generate};
use crate::model::{Model, WeightFormat};
use crate::{Error, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How tokens are found. Both ways find the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// The heads draft, the trunk verifies
    Speculative,
    /// One token a step
    Plain,
}

/// Flags of `foretoken generate`.
#[derive(Clone, Debug, Args)]
pub struct Generate {
    /// Model directory
    dir: PathBuf,
    /// Text to continue
    #[arg(
        long,
        value_name = "TEXT",
        required_unless_present = "prompt_file",
        conflicts_with = "prompt_file"
    )]
    prompt: Option<String>,
    /// File with the text to continue; - for standard input
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Tokens to generate at most
    #[arg(long, default_value_t = 200, value_name = "N")]
    max_tokens: usize,
    /// How tokens are found; never changes one
    #[arg(long, default_value = "speculative")]
    decode: Way,
    /// Drafts a step at most [default: as many as the model has heads]
    #[arg(long, value_name = "N")]
    draft: Option<usize>,
    /// How much chance there is; 0 takes the most likely token
    #[arg(
        long,
        default_value_t = 0.0,
        value_name = "T",
        allow_negative_numbers = true
    )]
    temperature: f32,
    /// Choose among this many of the best tokens only; 0 for all
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: usize,
    /// Choose among the best tokens that have this share of the probability
    #[arg(
        long,
        default_value_t = 1.0,
        value_name = "P",
        allow_negative_numbers = true
    )]
    top_p: f32,
    /// Choose among tokens with at least this share of the best one's probability
    #[arg(
        long,
        default_value_t = 0.0,
        value_name = "P",
        allow_negative_numbers = true
    )]
    min_p: f32,
    /// Seed of the choices
    #[arg(long, default_value_t = 0, value_name = "S")]
    seed: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: Machine,
}

/// What `foretoken generate --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The new text; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// The new tokens.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Number of new tokens.
    pub new_tokens: usize,
    /// Passes of the trunk, the prefill counted as one.
    pub steps: usize,
    /// New tokens a step.
    pub tokens_per_step: f64,
    /// New tokens a second, prefill included.
    pub tokens_per_s: f64,
    /// How often depth 1, 2, .. drafted.
    pub drafted_by_depth: Vec<usize>,
    /// How often the draft of depth 1, 2, .. was accepted.
    pub accepted_by_depth: Vec<usize>,
}

/// Generates one way and measures the time, what `on_tokens` takes included.
///
/// # Errors
/// A prompt that the model cannot take.
pub fn timed(
    model: &Model,
    prompt: &[u32],
    options: &Options,
    way: Way,
    on_tokens: &mut dyn FnMut(&[u32]),
) -> Result<(Generated, f64)> {
    let mut heads = HeadDrafter::new(model, options.sampler);
    let drafter: &mut dyn Drafter = match way {
        Way::Speculative => &mut heads,
        Way::Plain => &mut NoDrafts,
    };
    let start = Instant::now();
    let generated = generate(model, prompt, options, drafter, on_tokens)?;
    Ok((generated, start.elapsed().as_secs_f64()))
}

impl Generate {
    /// Runs the command.
    ///
    /// # Errors
    /// A model or prompt that cannot be read or does not fit.
    pub fn run(self) -> Result<()> {
        let machine = self.machine.clone();
        machine.scope(move || self.generate())
    }

    fn generate(self) -> Result<()> {
        let sampler = Sampler {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
        };
        sampler.check()?;
        let prompt = match (&self.prompt, &self.prompt_file) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(path)) if path.as_os_str() == "-" => {
                let mut text = Vec::new();
                let read = std::io::stdin().read_to_end(&mut text);
                read.map_err(Error::io("read", Path::new("standard input")))?;
                text
            }
            (None, Some(path)) => std::fs::read(path).map_err(Error::io("read", path))?,
            (None, None) => unreachable!("clap asks for one of the two"),
        };
        let (mut model, tokenizer) = ModelDir::load(&self.dir)?;
        model.pack(WeightFormat::F32);
        let prompt = tokenizer.encode(&prompt);
        let options = Options {
            max_tokens: self.max_tokens,
            drafts: self.draft.unwrap_or(usize::MAX),
            stop: Some(tokenizer.end_of_text()),
            sampler,
            ..Options::default()
        };
        let mut output = Output::new(self.json);
        let mut stream = Utf8Stream::default();
        let mut show = |tokens: &[u32]| {
            if !self.json {
                output.text(&stream.push(&tokenizer.decode(tokens)));
            }
        };
        let (generated, seconds) = timed(&model, &prompt, &options, self.decode, &mut show)?;
        let text = String::from_utf8_lossy(&tokenizer.decode(&generated.tokens)).into_owned();
        let report = Report {
            prompt_tokens: prompt.len(),
            new_tokens: generated.tokens.len(),
            steps: generated.steps,
            tokens_per_step: generated.tokens_per_step(),
            tokens_per_s: generated.tokens.len() as f64 / seconds,
            drafted_by_depth: generated.drafted_by_depth,
            accepted_by_depth: generated.accepted_by_depth,
            tokens: generated.tokens,
            text,
        };
        // As text, all but the end of the last character is there already.
        output.result(&report, || stream.finish());
        if !self.json {
            message(&format!(
                "{} tokens in {} steps: {:.2} tokens a step, {:.0} tokens/s; drafted {:?}, accepted {:?}",
                report.new_tokens,
                report.steps,
                report.tokens_per_step,
                report.tokens_per_s,
                report.drafted_by_depth,
                report.accepted_by_depth
            ));
        }
        output.finish()
    }
}
