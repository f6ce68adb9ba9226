//! `foretoken generate`

use super::compare::timed;
use super::decoding::{Decoding, Prompt, Way};
use super::device::On;
use super::failure::Result;
use super::output::{Output, message};
use super::voice::{Voice, legend};
use crate::Error;
use crate::checkpoint::ModelDir;
use crate::data::Tokenizer;
use crate::infer::{DecodedToken, Request};
use clap::Args;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Flags of `foretoken generate`.
#[derive(Clone, Debug, Args)]
pub struct Generate {
    /// Model directory
    dir: PathBuf,
    #[command(flatten)]
    prompt: Prompt,
    /// How tokens are decoded
    #[arg(long, default_value = "speculative")]
    decode: Way,
    #[command(flatten)]
    decoding: Decoding,
    /// Stop string: the continuation ends before it; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Id of a token that ends the continuation, in addition to the end of text; may be given several times
    #[arg(long, value_name = "ID")]
    stop_token: Vec<u32>,
    /// Continuations to generate together, with the seeds S, S + 1, ..
    #[arg(long, default_value_t = 1, value_name = "N")]
    samples: usize,
    /// Colour each token by the head that proposed it, and show rejected drafts struck through
    #[arg(long, conflicts_with = "json")]
    show_drafts: bool,
    /// Print one JSON object per continuation
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub on: On,
}

/// What `foretoken generate --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Index of the continuation, if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<usize>,
    /// The new text up to a stop string; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// The new tokens.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Number of new tokens.
    pub new_tokens: usize,
    /// Passes of the trunk; the prefill is one.
    pub steps: usize,
    /// New tokens per step.
    pub tokens_per_step: f64,
    /// New tokens per second, including the prefill.
    pub tokens_per_s: f64,
    /// Drafts of head 1, 2, ..
    pub drafted_by_depth: Vec<usize>,
    /// Accepted drafts of head 1, 2, ..
    pub accepted_by_depth: Vec<usize>,
}

/// Turns tokens into text, which is streamed or kept.
struct Speaker<'a> {
    tokenizer: &'a Tokenizer,
    voices: Vec<Voice>,
    texts: Vec<String>,
    output: Output,
    /// Whether text is printed at once.
    streams: bool,
}

impl Speaker<'_> {
    fn say(&mut self, sequence: usize, text: &str) {
        if self.streams {
            self.output.text(text);
        } else {
            self.texts[sequence] += text;
        }
    }

    fn token(&mut self, sequence: usize, token: DecodedToken, rejected: &[u32]) -> ControlFlow<()> {
        let voice = &mut self.voices[sequence];
        let mut text = voice.rejected(&self.tokenizer.decode(rejected));
        text += &voice.token(&self.tokenizer.decode(&[token.id()]), token.depth());
        let stopped = voice.stopped();
        self.say(sequence, &text);
        if stopped || self.output.is_closed() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

impl Generate {
    /// Runs the command.
    ///
    /// # Errors
    /// If the model or the prompt cannot be read, or the prompt does not fit.
    pub fn run(&self) -> Result {
        let device = self.on.open()?;
        let text = self.prompt.read()?;
        let (mut model, tokenizer) = ModelDir::load(&self.dir)?;
        let prompt = tokenizer.encode(&text)?;
        let decoding = &self.decoding;
        let mut options = decoding.options(self.decode, &model, &tokenizer, prompt.len())?;
        options.stop.extend(&self.stop_token);
        if !(1..=1 << 12).contains(&self.samples) {
            return Err(Error::setting("samples", "1 to 4096", self.samples).into());
        }
        model.pack(self.decoding.weights);
        let held = device.hold(&model)?;
        let mut requests = vec![Request::new(&prompt[..], options); self.samples];
        for (sample, request) in (0..).zip(&mut requests) {
            let seed = &mut request.options.sampler.seed;
            *seed = seed.wrapping_add(sample);
        }
        if self.show_drafts {
            message(&legend(model.config().mtp_depth));
        }
        let mut speaker = Speaker {
            tokenizer: &tokenizer,
            voices: vec![Voice::new(&self.stop, self.show_drafts); self.samples],
            texts: vec![String::new(); self.samples],
            output: Output::new(self.json),
            // A single continuation is streamed; several are printed at the end.
            streams: !self.json && self.samples == 1,
        };
        let (generated, seconds) =
            timed(&held, &requests, self.decode, &mut |i, token, rejected| {
                speaker.token(i, token, rejected)
            })?;
        for (sample, generated) in generated.into_iter().enumerate() {
            let rest = speaker.voices[sample].finish();
            speaker.say(sample, &rest);
            let report = Report {
                sample: (self.samples > 1).then_some(sample),
                text: std::mem::take(&mut speaker.texts[sample]),
                prompt_tokens: prompt.len(),
                new_tokens: generated.tokens.len(),
                steps: generated.steps,
                tokens_per_step: generated.tokens_per_step(),
                tokens_per_s: generated.tokens.len() as f64 / seconds,
                drafted_by_depth: generated.drafted_by_depth,
                accepted_by_depth: generated.accepted_by_depth,
                tokens: generated.tokens,
            };
            if self.samples > 1 && !self.json {
                speaker.output.line(&format!("== {sample}"));
            }
            speaker.output.result(&report, || report.text.clone());
            if !self.json {
                message(&format!(
                    "{} tokens in {} steps: {:.2} tokens per step, {:.0} tokens/s; drafted {:?}, accepted {:?}",
                    report.new_tokens,
                    report.steps,
                    report.tokens_per_step,
                    report.tokens_per_s,
                    report.drafted_by_depth,
                    report.accepted_by_depth
                ));
            }
        }
        Ok(speaker.output.finish()?)
    }
}
