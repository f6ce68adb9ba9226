//! Prefill, then draft, verify and accept until enough tokens are there.

use super::draft::Drafter;
use super::pick::Sampler;
use super::sequence::Sequence;
use super::verify::{Accepted, prefill, verify};
use crate::Result;
use crate::model::Model;

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Tokens to generate at most. The model's positions may end earlier.
    pub max_tokens: usize,
    /// Drafts a step at most.
    pub drafts: usize,
    /// A token that ends the text; it is the last one generated.
    pub stop: Option<u32>,
    /// Prompt tokens a pass. Changes speed and memory only.
    pub chunk: usize,
    /// How tokens are chosen.
    pub sampler: Sampler,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_tokens: 100,
            drafts: usize::MAX,
            stop: None,
            chunk: 256,
            sampler: Sampler::GREEDY,
        }
    }
}

/// What was generated, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generated {
    /// The tokens after the prompt.
    pub tokens: Vec<u32>,
    /// Passes of the trunk, the prefill counted as one. Plain decoding has one token a step.
    pub steps: usize,
    /// How often depth 1, 2, .. drafted.
    pub drafted_by_depth: Vec<usize>,
    /// How often the draft of depth 1, 2, .. was accepted.
    pub accepted_by_depth: Vec<usize>,
}

impl Generated {
    /// Tokens a step; 0 before the first.
    pub fn tokens_per_step(&self) -> f64 {
        self.tokens.len() as f64 / self.steps.max(1) as f64
    }

    fn count(&mut self, drafted: usize, accepted: usize) {
        if self.drafted_by_depth.len() < drafted {
            self.drafted_by_depth.resize(drafted, 0);
            self.accepted_by_depth.resize(drafted, 0);
        }
        self.drafted_by_depth[..drafted]
            .iter_mut()
            .for_each(|n| *n += 1);
        self.accepted_by_depth[..accepted]
            .iter_mut()
            .for_each(|n| *n += 1);
    }
}

/// Continues a prompt. The tokens depend on the model, the prompt, the sampler and the end conditions only: not on the
/// drafter, the number of drafts or the chunks.
///
/// `on_tokens` sees the tokens of each step as they are accepted.
///
/// # Errors
/// [`crate::Error::Usage`] for a prompt that the model cannot take, [`crate::Error::Diverged`] for logits that are not
/// numbers.
pub fn generate(
    model: &Model,
    prompt: &[u32],
    options: &Options,
    drafter: &mut dyn Drafter,
    on_tokens: &mut dyn FnMut(&[u32]),
) -> Result<Generated> {
    let mut sequence = Sequence::new(model, prompt)?;
    let mut result = Generated::default();
    // A token at position i is decided by the row before it, so the last one needs no position of its own.
    let room = model.config().max_position_embeddings + 1 - prompt.len();
    let wanted = options.max_tokens.min(room);
    if wanted == 0 {
        return Ok(result);
    }
    let first = prefill(&mut sequence, options.chunk, options.sampler)?;
    result.steps = 1;
    let mut done = accept(&mut sequence, &[first], options, on_tokens);
    while !done && sequence.generated().len() < wanted {
        // A step yields one token more than the drafts it accepts.
        let most = (wanted - sequence.generated().len() - 1).min(options.drafts);
        let mut drafts = match most {
            0 => Vec::new(),
            _ => drafter.draft(&mut sequence, most)?,
        };
        // Drafts may come from anywhere: more than were asked for, or no tokens at all.
        let vocab = model.config().vocab_size;
        let sound = drafts
            .iter()
            .take(most)
            .take_while(|t| (**t as usize) < vocab);
        drafts.truncate(sound.count());
        let accepted = verify(&mut sequence, &drafts, options.sampler)?;
        let before = sequence.generated().len();
        done = accept(&mut sequence, &accepted, options, on_tokens);
        result.steps += 1;
        // A stop token may end the text before the last accepted draft.
        let used = sequence.generated().len() - before;
        result.count(drafts.len(), used.min(accepted.len() - 1));
    }
    result.tokens = sequence.generated().to_vec();
    Ok(result)
}

/// Appends tokens up to a stop token; says whether there was one.
fn accept(
    sequence: &mut Sequence<'_>,
    tokens: &[Accepted],
    options: &Options,
    on_tokens: &mut dyn FnMut(&[u32]),
) -> bool {
    let before = sequence.generated().len();
    let mut stopped = false;
    for token in tokens {
        sequence.push(*token);
        stopped = Some(token.id()) == options.stop;
        if stopped {
            break;
        }
    }
    on_tokens(&sequence.generated()[before..]);
    stopped
}
