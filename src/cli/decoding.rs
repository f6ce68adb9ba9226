//! Flags that the commands that decode share: prompt, sampling, drafts, context.

use super::train::one_of;
use crate::data::Tokenizer;
use crate::infer::{Drafts, GenerateOptions, Mode, Sampler};
use crate::model::{Model, WeightFormat};
use crate::{Error, Result};
use clap::{Args, ValueEnum};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Tokens to generate where nobody says how many.
const TOKENS: usize = 200;

/// How tokens are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// The heads draft, the trunk verifies; the tokens are those of plain decoding
    Speculative,
    /// One token a step
    Plain,
    /// Drafts are accepted with a probability: the distribution of plain decoding, but not its tokens
    Rejection,
}

/// Where the text to continue comes from.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Prompt {
    /// Text to continue
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// File with the text to continue; - for standard input
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
}

impl Prompt {
    /// The text.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(&self) -> Result<Vec<u8>> {
        match (&self.prompt, &self.prompt_file) {
            (Some(text), _) => Ok(text.clone().into_bytes()),
            (None, Some(path)) if path.as_os_str() == "-" => {
                let mut text = Vec::new();
                let read = std::io::stdin().read_to_end(&mut text);
                read.map_err(Error::io("read", Path::new("standard input")))?;
                Ok(text)
            }
            (None, Some(path)) => std::fs::read(path).map_err(Error::io("read", path)),
            (None, None) => unreachable!("clap asks for one of the two"),
        }
    }
}

/// How a token is chosen, how many are drafted, and when it ends.
#[derive(Clone, Debug, Args)]
pub struct Decoding {
    /// Tokens to generate at most [default: 200, or as many as the context has room for]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// How matrices are stored, rounded where it is not f32
    #[arg(long, default_value = "f32", value_parser = one_of(&WeightFormat::ALL, WeightFormat::name))]
    pub weights: WeightFormat,
    /// Drafts a step: a number, or as many as pay by measured time and acceptance; never changes a token
    #[arg(long, default_value = "auto", value_name = "auto|N", value_parser = drafts)]
    draft: Drafts,
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
    /// Positions to use at most [default: all that the model has]
    #[arg(long, value_name = "T")]
    context: Option<usize>,
    /// When the context is full, go on with the last N tokens as if they were the whole text
    #[arg(long, value_name = "N")]
    window: Option<usize>,
}

fn drafts(text: &str) -> std::result::Result<Drafts, String> {
    match text {
        "auto" => Ok(Drafts::Auto),
        _ => match text.parse() {
            Ok(n) => Ok(Drafts::Fixed(n)),
            Err(_) => Err("expected `auto` or a number of drafts".to_owned()),
        },
    }
}

impl Decoding {
    /// The options of one sequence with a prompt of so many tokens.
    ///
    /// # Errors
    /// [`Error::Usage`] for a flag out of its range.
    pub fn options(
        &self,
        way: Way,
        (model, tokenizer): (&Model, &Tokenizer),
        prompt: usize,
    ) -> Result<GenerateOptions> {
        let sampler = Sampler {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
        };
        sampler.check()?;
        let context = self
            .context
            .unwrap_or(model.config().max_position_embeddings);
        let room = match self.window {
            // The last token needs no position of its own.
            None => context.saturating_add(1).saturating_sub(prompt).max(1),
            Some(_) => usize::MAX,
        };
        Ok(GenerateOptions {
            max_tokens: self.max_tokens.unwrap_or(room.min(TOKENS)),
            drafts: match way {
                Way::Plain => Drafts::Fixed(0),
                Way::Speculative | Way::Rejection => self.draft,
            },
            stop: tokenizer.end_of_text().into_iter().collect(),
            sampler,
            mode: match way {
                Way::Rejection => Mode::Rejection,
                Way::Speculative | Way::Plain => Mode::Exact,
            },
            context: self.context,
            window: self.window,
            ..GenerateOptions::default()
        })
    }
}

/// Where `n` prompts of `len` tokens start, spread evenly over a text of `tokens`.
///
/// # Errors
/// [`Error::Usage`] for none, or a text shorter than one.
pub fn cut(tokens: usize, n: usize, len: usize) -> Result<Vec<usize>> {
    if n == 0 || len == 0 || tokens < len || n > tokens {
        return Err(Error::Usage(format!(
            "--prompts {n} of --prompt-tokens {len}: expected at least one of at least one token, and no more than the \
             {tokens} tokens of the text"
        )));
    }
    // In 128 bits, because a token file may be so long that the product fits in no fewer.
    let start = |i: usize| ((tokens - len) as u128 * i as u128 / n as u128) as usize;
    Ok((0..n).map(start).collect())
}
