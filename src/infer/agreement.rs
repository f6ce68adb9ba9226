//! How drafting would go on a text that plain decoding wrote, from the training graph alone.
//!
//! Where drafts 1..k − 1 are right, head k is fed exactly the text. So the drafts that count are what [`pick`] says on the
//! logits of the training graph, fed the finished text, and the accepted drafts of any fixed K follow without drafting:
//! they equal what [`generate`](super::generate()) reports, exactly.

use super::generate::{Generated, Options};
use super::pick::pick;
use crate::Result;
use crate::exec::{Exec, Rows, Train};
use crate::model::Model;
use crate::ops::SelectRows;

/// Rows whose logits are held at a time.
const ROWS: usize = 64;

/// A text that plain decoding wrote, and what every depth would have drafted at each place.
#[derive(Clone, Debug)]
pub struct Hindsight<'a> {
    /// The prompt, then what was generated.
    text: &'a [u32],
    prompt: usize,
    /// [depth − 1][row i]: the guess for the token at i + depth + 1.
    guesses: Vec<Vec<u32>>,
}

impl<'a> Hindsight<'a> {
    /// Runs the training graph on a text of at least two tokens, of which the first `prompt` were given.
    ///
    /// # Errors
    /// Where [`pick`] fails.
    pub fn new(model: &Model, text: &'a [u32], prompt: usize, options: &Options) -> Result<Self> {
        let mut exec = Train::no_grad(model.params());
        Self::on(&mut exec, model, text, prompt, options)
    }

    /// The same on any executor, in which sequence 0 has no position yet.
    ///
    /// # Errors
    /// As [`Hindsight::new`], and where the executor's machine failed.
    pub fn on<E: Exec>(
        exec: &mut E,
        model: &Model,
        text: &'a [u32],
        prompt: usize,
        options: &Options,
    ) -> Result<Self> {
        let whole = Rows::batch(1, text.len());
        let mut states = vec![(model.trunk(exec, text, &whole), whole)];
        // A depth that has no row in so short a text guesses nothing.
        let mut guesses = vec![Vec::new(); model.config().mtp_depth];
        for (k, guesses) in (1..text.len()).zip(&mut guesses) {
            let state = model.next_head(exec, k, &states, &text[k..], true);
            *guesses = said(model, exec, (&state.0, state.1.len()), text, k, options)?;
            states.push(state);
        }
        Ok(Self {
            text,
            prompt,
            guesses,
        })
    }

    /// How often the guess of each depth is the token that plain decoding wrote, and how often there was one, whatever
    /// the depths before it guessed.
    pub fn agreement(&self) -> Vec<(usize, usize)> {
        let depth = |(k, guesses): (usize, &Vec<u32>)| {
            // A guess counts where the row is one to draft from: that of the last prompt token, or a later one.
            let rows = self.prompt - 1..guesses.len().min(self.text.len().saturating_sub(k + 1));
            let agrees = |i: &usize| guesses[*i] == self.text[i + k + 1];
            (rows.clone().filter(agrees).count(), rows.len())
        };
        (1..).zip(&self.guesses).map(depth).collect()
    }

    /// What [`generate`](super::generate()) reports for this text with a fixed number of drafts a step; `max_tokens` is
    /// what was asked for. The context had room for it.
    pub fn replay(&self, drafts: usize, max_tokens: usize) -> Generated {
        let end = self.text.len();
        let mut result = Generated {
            tokens: self.text[self.prompt..].to_vec(),
            // The prefill gave the first token.
            steps: usize::from(end > self.prompt),
            ..Generated::default()
        };
        // The position of the current token, which the trunk has not seen.
        let mut p = self.prompt;
        while p + 1 < end {
            let room = max_tokens - (p + 1 - self.prompt) - 1;
            let drafted = drafts.min(self.guesses.len()).min(room);
            let hit = |k: &usize| {
                let guess = self.guesses[k - 1].get(p - 1);
                p + k < end && guess == Some(&self.text[p + k])
            };
            let accepted = (1..=drafted).take_while(hit).count();
            result.count(drafted, accepted);
            result.steps += 1;
            p += accepted + 1;
        }
        result
    }
}

/// What `pick` says on the logits of h^k [rows, C], row by row.
fn said<E: Exec>(
    model: &Model,
    exec: &mut E,
    (h, rows): (&E::Value, usize),
    text: &[u32],
    k: usize,
    options: &Options,
) -> Result<Vec<u32>> {
    let mut tokens = Vec::with_capacity(rows);
    for from in (0..rows).step_by(ROWS) {
        let to = rows.min(from + ROWS);
        let keep = (from as u32..to as u32).collect();
        let part = exec.apply(SelectRows { keep }, [h]);
        let logits = model.logits(exec, &part);
        let logits = exec.host(&logits)?;
        for i in from..to {
            let history = &text[..i + k + 1];
            let logits = logits.row(i - from);
            tokens.push(pick(logits, history, history.len(), options.sampler)?);
        }
    }
    Ok(tokens)
}
