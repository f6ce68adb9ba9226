//! Predicts, from the training graph alone, how drafting would have done on a text that plain decoding generated.
//!
//! If drafts 1..k − 1 are right, head k is fed exactly the text. So every draft that can be accepted is what [`sample`]
//! samples from the training graph's logits on the finished text, and the number of accepted drafts for any fixed K
//! follows: it equals what [`generate`](super::generate()) reports, exactly.

use super::generate::Generated;
use super::sample::{Sampler, sample};
use crate::exec::{Exec, Rows, TapeExec};
use crate::kernels::par;
use crate::model::Model;
use crate::ops::SelectRows;
use crate::{Error, Result};

/// Logits rows held at a time.
const ROWS: usize = 64;

/// A text that plain decoding generated, and the predictions of every head on it.
#[derive(Clone, Debug)]
pub struct OfflineReplay<'a> {
    /// The prompt, then the generated tokens.
    text: &'a [u32],
    prompt_len: usize,
    /// \[k − 1\]\[row i\]: head k's prediction of the token at i + k + 1.
    predictions: Vec<Vec<u32>>,
}

impl<'a> OfflineReplay<'a> {
    /// Runs the training graph on a text whose first `prompt_len` tokens are the prompt.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] if the text does not fit the model or the prompt is empty or longer than the text. As
    /// [`sample`].
    pub fn new(
        model: &Model,
        text: &'a [u32],
        prompt_len: usize,
        sampler: Sampler,
    ) -> Result<Self> {
        let mut exec = TapeExec::no_grad(model.params());
        Self::with_executor(&mut exec, model, text, prompt_len, sampler)
    }

    /// The same on any executor, in which sequence 0 has no position yet.
    ///
    /// # Errors
    /// As [`OfflineReplay::new`]; [`Error::Device`] if the executor's device failed.
    pub fn with_executor<E: Exec>(
        exec: &mut E,
        model: &Model,
        text: &'a [u32],
        prompt_len: usize,
        sampler: Sampler,
    ) -> Result<Self> {
        par::check_environment()?;
        let config = model.config();
        if !(1..=text.len()).contains(&prompt_len) {
            let expected = format!("1 to the text's {} tokens", text.len());
            return Err(Error::setting("prompt", expected, prompt_len));
        }
        if let Some(token) = text.iter().find(|t| **t as usize >= config.vocab_size) {
            let expected = format!("token ids below {}", config.vocab_size);
            return Err(Error::setting("text", expected, token));
        }
        // The last token is never fed back, so it needs no position.
        let read = &text[..text.len() - 1];
        if read.len() > config.max_position_embeddings {
            let expected = format!("at most {} tokens", config.max_position_embeddings + 1);
            return Err(Error::setting("text", expected, text.len()));
        }
        let mut predictions = vec![Vec::new(); config.mtp_depth];
        if !read.is_empty() {
            let whole = Rows::batch(1, read.len());
            let mut states = vec![(model.trunk(exec, read, &whole), whole)];
            // A head without a row in so short a text predicts nothing.
            for (k, predictions) in (1..read.len()).zip(&mut predictions) {
                let state = model.head_forward_full(exec, k, &states, &read[k..], true);
                *predictions = predict(model, exec, &state.0, state.1.len(), k + 1, sampler)?;
                states.push(state);
            }
        }
        Ok(Self {
            text,
            prompt_len,
            predictions,
        })
    }

    /// For each head, how many of its predictions are the text's token, and how many there are, regardless of the heads
    /// before it.
    pub fn agreement(&self) -> Vec<(usize, usize)> {
        let head = |(k, predictions): (usize, &Vec<u32>)| {
            // Drafting starts at the row of the last prompt token.
            let rows = self.prompt_len - 1..predictions.len().max(self.prompt_len - 1);
            let agrees = |i: &usize| predictions[*i] == self.text[i + k + 1];
            (rows.clone().filter(agrees).count(), rows.len())
        };
        (1..).zip(&self.predictions).map(head).collect()
    }

    /// What [`generate`](super::generate()) reports for this text with a fixed number of drafts per step, if the
    /// request was for `max_tokens` and the context had room for them.
    ///
    /// # Panics
    /// Panics if the text has more than `max_tokens` tokens after its prompt.
    pub fn generated(&self, drafts: usize, max_tokens: usize) -> Generated {
        let (end, prompt_len) = (self.text.len(), self.prompt_len);
        let tokens = &self.text[prompt_len..];
        assert!(
            tokens.len() <= max_tokens,
            "{} tokens of {max_tokens}",
            tokens.len()
        );
        let mut result = Generated {
            tokens: tokens.to_vec(),
            // The prefill gave the first token.
            steps: usize::from(end > prompt_len),
            ..Generated::default()
        };
        // The position of the newest token, which the trunk has not seen.
        let mut p = prompt_len;
        while p + 1 < end {
            let room = max_tokens - (p + 1 - prompt_len) - 1;
            let drafted = drafts.min(self.predictions.len()).min(room);
            let right = |k: &usize| {
                let draft = self.predictions[k - 1].get(p - 1);
                p + k < end && draft == Some(&self.text[p + k])
            };
            let accepted = (1..=drafted).take_while(right).count();
            result.record_step(drafted, accepted);
            p += accepted + 1;
        }
        result
    }
}

/// Samples a token from the logits of each row of h [rows, C]; row i decides the token at i + `ahead`.
fn predict<E: Exec>(
    model: &Model,
    exec: &mut E,
    h: &E::Value,
    rows: usize,
    ahead: usize,
    sampler: Sampler,
) -> Result<Vec<u32>> {
    let mut tokens = Vec::with_capacity(rows);
    for from in (0..rows).step_by(ROWS) {
        let to = rows.min(from + ROWS);
        let indices = (from as u32..to as u32).collect();
        let part = exec.apply(SelectRows { indices }, [h]);
        let logits = model.logits(exec, &part);
        let logits = exec.host(&logits)?;
        for i in from..to {
            tokens.push(sample(logits.row(i - from), i + ahead, sampler)?);
        }
    }
    Ok(tokens)
}
