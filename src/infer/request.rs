//! What to generate: a prompt and how to continue it.

use super::policy::DraftLength;
use super::sample::Sampler;
use crate::model::Config;
use crate::{Error, Result};

/// When a draft is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeMode {
    /// If it equals the token of plain decoding: the tokens are those of plain decoding, whatever is drafted.
    Exact,
    /// With a probability: the tokens have the distribution of plain decoding, but they are another sample, which
    /// changes with the drafts. For comparison.
    Rejection,
}

/// How to continue a text. More fields will come: write `..GenerateOptions::default()`.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// Maximum number of tokens to generate.
    pub max_tokens: usize,
    /// How many tokens are drafted per step. Changes speed only in [`DecodeMode::Exact`], and the sample, not its
    /// distribution, in [`DecodeMode::Rejection`].
    pub draft_length: DraftLength,
    /// Stop tokens. Generation stops after the first of these; it is included.
    pub stop: Vec<u32>,
    /// Maximum number of prompt tokens per pass. Changes speed and memory, and no logit.
    pub chunk: usize,
    /// How tokens are chosen.
    pub sampler: Sampler,
    /// When a draft is accepted.
    pub mode: DecodeMode,
    /// Maximum number of positions to use; `None` for all that the model has.
    pub context: Option<usize>,
    /// When the context is full, keep the last N tokens and recompute them as if they were the whole text. With `None`,
    /// a request that needs more positions than the context has is refused.
    pub window: Option<usize>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 100,
            draft_length: DraftLength::Auto,
            stop: Vec::new(),
            chunk: 256,
            sampler: Sampler::GREEDY,
            mode: DecodeMode::Exact,
            context: None,
            window: None,
        }
    }
}

/// A prompt and how to continue it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The known tokens, at least one.
    pub prompt: Vec<u32>,
    /// How to continue.
    pub options: GenerateOptions,
}

impl Request {
    /// A request.
    pub fn new(prompt: impl Into<Vec<u32>>, options: GenerateOptions) -> Self {
        let prompt = prompt.into();
        Self { prompt, options }
    }

    /// Checks that a model can take it.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] if the prompt is empty, does not fit into the context or holds a token outside the
    /// vocabulary, or if an option is out of range.
    pub fn check(&self, config: &Config) -> Result<()> {
        let Self { prompt, options } = self;
        options.sampler.check()?;
        if prompt.is_empty() {
            return Err(Error::setting("prompt", "at least one token", "none"));
        }
        if let Some(token) = prompt.iter().find(|t| **t as usize >= config.vocab_size) {
            let expected = format!("token ids below {}", config.vocab_size);
            return Err(Error::setting("prompt", expected, token));
        }
        let (positions, context) = (config.max_position_embeddings, options.context(config));
        if context == 0 || context > positions {
            let expected = format!("1 to {positions}, the model's positions");
            return Err(Error::setting("context", expected, context));
        }
        if options.window.is_some() && context == 1 {
            return Err(Error::setting(
                "context",
                "at least 2, with a window",
                context,
            ));
        }
        match options.window {
            Some(keep) if keep == 0 || keep >= context => {
                let expected = format!("1 to {}, fewer than the context", context - 1);
                Err(Error::setting("window", expected, keep))
            }
            // A prompt of any length is cut to the window.
            Some(_) => Ok(()),
            None if prompt.len() > context => {
                let expected = format!("at most {context} tokens, the context, or a window");
                Err(Error::setting("prompt", expected, prompt.len()))
            }
            // The last token is never fed back, so it needs no position: the row before it decides it.
            None if options.max_tokens > context + 1 - prompt.len() => {
                let expected = format!(
                    "at most {} after {} tokens in a context of {context}, or a window",
                    context + 1 - prompt.len(),
                    prompt.len(),
                );
                Err(Error::setting("max_tokens", expected, options.max_tokens))
            }
            None => Ok(()),
        }
    }
}

impl GenerateOptions {
    /// Maximum number of positions to use.
    pub(super) fn context(&self, config: &Config) -> usize {
        self.context.unwrap_or(config.max_position_embeddings)
    }
}
