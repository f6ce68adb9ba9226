//! Flags that the commands that decode share: prompt, sampling, drafts, context.

use super::failure::{Failure, Result};
use super::output::{message, one_of};
use crate::Error;
use crate::data::Tokenizer;
use crate::files::{Expected, START, expect_kind};
use crate::infer::{DecodeMode, DraftLength, GenerateOptions, Sampler};
use crate::model::{Model, WeightFormat};
use clap::{Args, ValueEnum};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Default of `--max-tokens`.
const TOKENS: usize = 200;

/// How tokens are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// The heads draft, the trunk verifies; the tokens are those of plain decoding
    Speculative,
    /// One token per step
    Plain,
    /// Rejection sampling: the distribution of plain decoding, but different tokens
    Rejection,
}

/// The text to continue.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Prompt {
    /// Text to continue
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// File with the text to continue; - for standard input, which may be any bytes
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
}

impl Prompt {
    /// Reads the text.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(&self) -> Result<Vec<u8>> {
        match (&self.prompt, &self.prompt_file) {
            (Some(text), _) => Ok(text.clone().into_bytes()),
            (None, Some(path)) if path.as_os_str() == "-" => {
                let mut text = Vec::new();
                let read = std::io::stdin().read_to_end(&mut text);
                read.map_err(Error::io("read", Path::new("standard input")))?;
                Ok(text)
            }
            (None, Some(path)) => {
                let text = std::fs::read(path).map_err(Error::io("read", path))?;
                expect_kind(path, &text[..text.len().min(START)], Expected::Prompt)?;
                Ok(text)
            }
            (None, None) => unreachable!("clap asks for one of the two"),
        }
    }
}

/// Sampling, drafts, and limits.
#[derive(Clone, Debug, Args)]
pub struct Decoding {
    /// Maximum number of tokens to generate [default: 200, or as many as the context has room for]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// How weight matrices are stored; bf16 and q8 are quantised
    #[arg(long, default_value = "f32", value_parser = one_of(&WeightFormat::ALL, WeightFormat::name))]
    pub weights: WeightFormat,
    /// Drafts per step: a number, or chosen by measured time and acceptance; changes no token of exact decoding
    #[arg(long, default_value = "auto", value_name = "auto|N", value_parser = draft_length)]
    draft: DraftLength,
    /// Sampling temperature; 0 is greedy
    #[arg(long, default_value_t = 0.0, value_name = "T", value_parser = number)]
    temperature: f32,
    /// Sample from the K most likely tokens only; 0 for all
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: usize,
    /// Sample from the most likely tokens whose probabilities add up to P
    #[arg(long, default_value_t = 1.0, value_name = "P", value_parser = number)]
    top_p: f32,
    /// Sample from tokens with at least P times the probability of the most likely one
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = number)]
    min_p: f32,
    /// Seed for sampling
    #[arg(long, default_value_t = 0, value_name = "S")]
    seed: u64,
    /// Maximum number of positions to use [default: all that the model has]
    #[arg(long, value_name = "T")]
    context: Option<usize>,
    /// When the context is full, continue with the last N tokens as if they were the whole text
    #[arg(long, value_name = "N")]
    window: Option<usize>,
}

/// A number that is not rounded to zero.
fn number(text: &str) -> std::result::Result<f32, String> {
    let x: f32 = text.parse().map_err(|_| "expected a number".to_owned())?;
    match text.parse::<f64>() {
        Ok(given) if x == 0.0 && given != 0.0 => {
            Err("too small: expected 0, or at least 1e-45".to_owned())
        }
        _ => Ok(x),
    }
}

fn draft_length(text: &str) -> std::result::Result<DraftLength, String> {
    if text == "auto" {
        return Ok(DraftLength::Auto);
    }
    let number = text.parse().map(DraftLength::Fixed);
    number.map_err(|_| "expected `auto` or a number of drafts".to_owned())
}

impl Decoding {
    /// The options for a prompt of `prompt_len` tokens.
    ///
    /// # Errors
    /// If a flag is out of its range.
    pub fn options(
        &self,
        way: Way,
        model: &Model,
        tokenizer: &Tokenizer,
        prompt_len: usize,
    ) -> Result<GenerateOptions> {
        let sampler = Sampler {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
        };
        sampler.check()?;
        let all = model.config().max_position_embeddings;
        let context = self.context.unwrap_or(all);
        let room = match self.window {
            // The last token is never fed back, so it needs no position.
            None => context.saturating_add(1).saturating_sub(prompt_len).max(1),
            Some(_) => usize::MAX,
        };
        let heads = model.config().mtp_depth;
        if let (DraftLength::Fixed(n), false) = (self.draft, way == Way::Plain)
            && n > heads
        {
            message(&format!(
                "note: --draft {n}: the model has {heads} heads, so a step drafts at most {heads} tokens"
            ));
        }
        let (draft_length, mode) = match way {
            Way::Speculative => (self.draft, DecodeMode::Exact),
            Way::Plain => (DraftLength::Fixed(0), DecodeMode::Exact),
            Way::Rejection => (self.draft, DecodeMode::Rejection),
        };
        Ok(GenerateOptions {
            max_tokens: self.max_tokens.unwrap_or(room.min(TOKENS)),
            draft_length,
            stop: tokenizer.end_of_text().into_iter().collect(),
            sampler,
            mode,
            context: self.context,
            window: self.window,
            ..GenerateOptions::default()
        })
    }
}

/// Starts of `n` prompts of `len` tokens, spread evenly over a text of `tokens`.
///
/// # Errors
/// If there would be no prompt, or the text is shorter than one.
pub fn cut(tokens: usize, n: usize, len: usize) -> Result<Vec<usize>> {
    if n == 0 || len == 0 || tokens < len || n > tokens {
        return Err(Failure::Usage(format!(
            "--prompts {n} of --prompt-tokens {len}: expected at least one of at least one token, and no more than the \
             {tokens} tokens of the text"
        )));
    }
    // In 128 bits, because the product with the length of a long token file overflows 64.
    let start = |i: usize| ((tokens - len) as u128 * i as u128 / n as u128) as usize;
    Ok((0..n).map(start).collect())
}
