//! Sequences being decoded together: their tokens, caches and hidden states.

use super::generate::Request;
use super::verify::Accepted;
use crate::autograd::Var;
use crate::exec::{Decode, Rows, Span};
use crate::model::Model;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Hidden states h [positions, C], appended to and truncated like a cache.
#[derive(Clone, Debug)]
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

    /// Appends some rows.
    pub fn extend(&mut self, rows: &[f32]) {
        self.data.extend_from_slice(rows);
    }

    /// Forgets positions `len..`.
    pub fn truncate(&mut self, len: usize) {
        self.data.truncate(len * self.width);
    }

    /// Positions `from..to`, [to − from, C].
    pub fn rows(&self, from: usize, to: usize) -> &[f32] {
        &self.data[from * self.width..to * self.width]
    }
}

/// One sequence being decoded. A drafter may look at it; only verification makes it longer.
#[derive(Debug)]
pub struct Sequence<'a> {
    pub(super) request: Request<'a>,
    tokens: Vec<u32>,
    /// Index of the token at position 0: not 0 once the window has slid.
    base: usize,
    /// h⁰ of the positions that the trunk has seen.
    pub(super) hidden: Hidden,
}

impl Sequence<'_> {
    /// All known tokens, the prompt first.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The tokens after the prompt.
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.request.prompt.len()..]
    }

    /// Position of the newest known token, which the trunk has not seen yet.
    pub(super) fn current(&self) -> usize {
        self.tokens.len() - 1 - self.base
    }

    /// The known tokens from position 0 on.
    pub(super) fn in_view(&self) -> &[u32] {
        &self.tokens[self.base..]
    }
}

/// Sequences that one executor advances together. They never see each other, and each has the bits it has alone.
#[derive(Debug)]
pub struct Session<'m> {
    pub(super) model: &'m Model,
    /// Caches of the trunk and of every head, by sequence.
    pub(super) decode: Decode<'m>,
    pub(super) sequences: Vec<Sequence<'m>>,
}

impl<'m> Session<'m> {
    /// Sequences of known tokens, of which the model has seen none yet.
    ///
    /// # Errors
    /// [`Error::Usage`] for a prompt that is empty, does not fit into the context or holds a token outside the vocabulary.
    pub fn new(model: &'m Model, requests: &[Request<'m>]) -> Result<Self> {
        let config = model.config();
        let mut decode = Decode::new(model.params());
        let mut sequences = Vec::with_capacity(requests.len());
        for request in requests {
            request.check(config)?;
            decode.add_sequence();
            sequences.push(Sequence {
                request: request.clone(),
                tokens: request.prompt.to_vec(),
                base: 0,
                hidden: Hidden::new(config.hidden_size),
            });
        }
        Ok(Self {
            model,
            decode,
            sequences,
        })
    }

    /// The model.
    pub fn model(&self) -> &'m Model {
        self.model
    }

    /// The sequences, in the order of the requests.
    pub fn sequences(&self) -> &[Sequence<'m>] {
        &self.sequences
    }

    /// Appends a token that verification accepted.
    pub(super) fn push(&mut self, sequence: usize, token: Accepted) {
        self.sequences[sequence].tokens.push(token.id());
    }

    /// Runs `f` with the known tokens of a sequence, to which it may append guesses; these are gone afterwards.
    pub(super) fn with_history<R>(
        &mut self,
        sequence: usize,
        f: impl FnOnce(&Self, &mut Vec<u32>) -> R,
    ) -> R {
        let mut history = std::mem::take(&mut self.sequences[sequence].tokens);
        let known = history.len();
        let result = f(self, &mut history);
        history.truncate(known);
        self.sequences[sequence].tokens = history;
        result
    }

    /// Runs the trunk on tokens at the positions that follow those it has seen, of several sequences in one pass;
    /// returns h⁰ [tokens, C].
    pub(super) fn advance(&mut self, spans: &[(usize, usize)], tokens: &[u32]) -> Var {
        let span = |&(sequence, len): &(usize, usize)| Span {
            sequence,
            first: self.sequences[sequence].hidden.len(),
            len,
        };
        let rows = Rows::new(spans.iter().map(span).collect());
        let h = self.model.trunk(&mut self.decode, tokens, &rows);
        let (mut rest, c) = (h.value().data(), h.value().cols());
        for &(sequence, len) in spans {
            let (own, others) = rest.split_at(len * c);
            self.sequences[sequence].hidden.extend(own);
            rest = others;
        }
        h
    }

    /// Makes the trunk forget positions `len..` of a sequence, and every head what it computed from the tokens there.
    ///
    /// The heads forget here and not when they draft next: a depth that sits out a step would otherwise keep entries
    /// made from rejected drafts.
    pub(super) fn rewind(&mut self, sequence: usize, len: usize) {
        self.sequences[sequence].hidden.truncate(len);
        let config = self.model.config();
        for layer in 0..config.num_hidden_layers {
            self.decode.truncate(sequence, layer, len);
        }
        for k in 1..=config.mtp_depth {
            let settled = config.mtp_kind.settled(k, len);
            let cache = self.model.head_cache(k);
            self.decode.truncate(sequence, cache, settled);
        }
    }

    /// Slides the window: the last `keep` known tokens become the whole text, at positions from 0, and the model has
    /// seen none of them.
    pub(super) fn slide(&mut self, sequence: usize, keep: usize) {
        self.rewind(sequence, 0);
        let sequence = &mut self.sequences[sequence];
        sequence.base = sequence.tokens.len() - keep;
    }

    /// Hidden states of several sequences as one value [rows, C].
    pub(super) fn gather<'h>(&self, parts: impl Iterator<Item = &'h [f32]>) -> Var {
        let c = self.model.config().hidden_size;
        let mut data = Vec::new();
        parts.for_each(|part| data.extend_from_slice(part));
        Var::constant(Tensor::new(&[data.len() / c, c], data))
    }
}

impl Request<'_> {
    /// Whether the model can take it.
    fn check(&self, config: &crate::model::Config) -> Result<()> {
        let wrong = |reason: String| Err(Error::Usage(reason));
        let (prompt, options) = (self.prompt, &self.options);
        options.sampler.check()?;
        if prompt.is_empty() {
            return wrong("the prompt is empty: expected at least one token".to_owned());
        }
        if let Some(token) = prompt.iter().find(|t| **t as usize >= config.vocab_size) {
            return wrong(format!(
                "the prompt holds token {token}: expected ids below the vocabulary's {}",
                config.vocab_size
            ));
        }
        let positions = config.max_position_embeddings;
        let context = options.context(config);
        if context == 0 || context > positions {
            return wrong(format!(
                "--context {context}: expected 1 to the model's {positions} positions"
            ));
        }
        match options.window {
            Some(keep) if keep == 0 || keep >= context => wrong(format!(
                "--window {keep}: expected 1 to {}, fewer than the context's {context} positions",
                context.saturating_sub(1)
            )),
            // A prompt of any length is cut to the window before anything is computed.
            Some(_) => Ok(()),
            None if prompt.len() > context => wrong(format!(
                "the prompt has {} tokens: expected at most the context's {context} positions; --window N goes on with its \
                 last N tokens",
                prompt.len()
            )),
            // The last token needs no position of its own: the row before it decides it.
            None if options.max_tokens > context + 1 - prompt.len() => wrong(format!(
                "the prompt's {} tokens and --max-tokens {} need {} positions: the context has {context}; ask for at most \
                 {} tokens, or for --window N to go on with the last N tokens when the context is full",
                prompt.len(),
                options.max_tokens,
                prompt.len().saturating_add(options.max_tokens) - 1,
                (context + 1).saturating_sub(prompt.len()),
            )),
            None => Ok(()),
        }
    }
}
