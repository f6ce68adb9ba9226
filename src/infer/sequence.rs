//! One sequence being decoded: its tokens, caches and hidden states.

use super::verify::Accepted;
use crate::autograd::Var;
use crate::exec::{Decode, Rows};
use crate::model::Model;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Hidden states h [positions, C], appended to and truncated like a cache.
#[derive(Clone, Debug, Default)]
pub(super) struct Hidden {
    data: Vec<f32>,
    width: usize,
}

impl Hidden {
    /// None yet, of width C.
    pub fn new(width: usize) -> Self {
        let data = Vec::new();
        Self { data, width }
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.data.len() / self.width
    }

    /// Appends the rows of h.
    pub fn extend(&mut self, h: &Tensor) {
        self.data.extend_from_slice(h.data());
    }

    /// Forgets positions `len..`.
    pub fn truncate(&mut self, len: usize) {
        self.data.truncate(len * self.width);
    }

    /// Positions `from..to` as a value.
    pub fn rows(&self, from: usize, to: usize) -> Var {
        let rows = self.data[from * self.width..to * self.width].to_vec();
        Var::constant(Tensor::new(&[to - from, self.width], rows))
    }
}

/// A sequence being decoded. A drafter may look at it; only verification changes what the trunk has seen.
pub struct Sequence<'m> {
    /// The model.
    pub(super) model: &'m Model,
    /// Caches of the trunk and of every head.
    pub(super) decode: Decode<'m>,
    /// h⁰ of the positions that the trunk has seen.
    pub(super) hidden: Hidden,
    tokens: Vec<u32>,
    prompt: usize,
}

impl<'m> Sequence<'m> {
    /// A sequence of known tokens, of which the model has seen none yet.
    ///
    /// # Errors
    /// [`Error::Usage`] for an empty prompt, one longer than the model's positions, or a token outside the vocabulary.
    pub fn new(model: &'m Model, prompt: &[u32]) -> Result<Self> {
        let config = model.config();
        if prompt.is_empty() {
            let reason = "the prompt is empty: expected at least one token";
            return Err(Error::Usage(reason.to_owned()));
        }
        if prompt.len() > config.max_position_embeddings {
            return Err(Error::Usage(format!(
                "the prompt has {} tokens: expected at most the model's {} positions",
                prompt.len(),
                config.max_position_embeddings
            )));
        }
        if let Some(token) = prompt.iter().find(|t| **t as usize >= config.vocab_size) {
            return Err(Error::Usage(format!(
                "the prompt holds token {token}: expected ids below the vocabulary's {}",
                config.vocab_size
            )));
        }
        let mut decode = Decode::new(model.params());
        decode.add_sequence();
        Ok(Self {
            model,
            decode,
            hidden: Hidden::new(config.hidden_size),
            tokens: prompt.to_vec(),
            prompt: prompt.len(),
        })
    }

    /// The model that continues it.
    pub fn model(&self) -> &'m Model {
        self.model
    }

    /// All known tokens, the prompt first.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The tokens after the prompt.
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }

    /// Appends a token that verification accepted.
    pub(super) fn push(&mut self, token: Accepted) {
        self.tokens.push(token.id());
    }

    /// Runs the trunk on tokens at the positions that follow those it has seen; returns h⁰ [tokens, C].
    pub(super) fn advance(&mut self, tokens: &[u32]) -> Var {
        let rows = Rows::one(0, self.hidden.len(), tokens.len());
        let h = self.model.trunk(&mut self.decode, tokens, &rows);
        self.hidden.extend(h.value());
        h
    }

    /// Makes the trunk forget positions `len..`, and every head what it computed from the tokens there.
    ///
    /// The heads forget here and not when they draft next: a depth that sits out a step would otherwise keep entries
    /// made from rejected drafts.
    pub(super) fn rewind(&mut self, len: usize) {
        self.hidden.truncate(len);
        let config = self.model.config();
        for layer in 0..config.num_hidden_layers {
            self.decode.truncate(0, layer, len);
        }
        for k in 1..=config.mtp_depth {
            let settled = config.mtp_kind.settled(k, len);
            self.decode.truncate(0, self.model.head_cache(k), settled);
        }
    }
}
