//! Sequences being decoded together: their tokens, caches and hidden states.

use super::engine::{Decoder, Engine, Passes, Wanted};
use super::generate::Request;
use super::verify::Accepted;
use crate::exec::{Decode, Rows, Span};
use crate::model::Model;
use crate::{Error, Result};

/// One sequence being decoded. A drafter may look at it; only verification makes it longer.
#[derive(Debug)]
pub struct Sequence<'a> {
    pub(super) request: Request<'a>,
    tokens: Vec<u32>,
    /// Index of the token at position 0: not 0 once the window has slid.
    base: usize,
    /// Positions that the trunk has seen.
    pub(super) seen: usize,
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
pub struct Session<'m> {
    pub(super) model: &'m Model,
    /// Has the caches and hidden states of the trunk and of every head, by sequence.
    pub(super) engine: Box<dyn Engine + 'm>,
    pub(super) sequences: Vec<Sequence<'m>>,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sequences = &self.sequences;
        f.debug_struct("Session")
            .field("sequences", sequences)
            .finish_non_exhaustive()
    }
}

impl<'m> Session<'m> {
    /// Sequences of known tokens, of which the model has seen none yet.
    ///
    /// # Errors
    /// [`Error::Usage`] for a prompt that is empty, does not fit into the context or holds a token outside the vocabulary.
    pub fn new(model: &'m Model, requests: &[Request<'m>]) -> Result<Self> {
        Self::on(model, Decode::new(model.params()), requests)
    }

    /// The same on any executor, which has no sequences yet.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn on(model: &'m Model, exec: impl Decoder + 'm, requests: &[Request<'m>]) -> Result<Self> {
        let config = model.config();
        let mut engine = Box::new(Passes {
            model,
            exec,
            logits: None,
        });
        let mut sequences = Vec::with_capacity(requests.len());
        for request in requests {
            request.check(config)?;
            engine.add_sequence();
            sequences.push(Sequence {
                request: request.clone(),
                tokens: request.prompt.to_vec(),
                base: 0,
                seen: 0,
            });
        }
        Ok(Self {
            model,
            engine,
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

    /// Runs the trunk on tokens at the positions that follow those it has seen, of several sequences in one pass; the
    /// logits that are wanted are the engine's then.
    pub(super) fn advance(&mut self, spans: &[(usize, usize)], tokens: &[u32], wanted: Wanted) {
        let span = |&(sequence, len): &(usize, usize)| Span {
            sequence,
            first: self.sequences[sequence].seen,
            len,
        };
        let rows = Rows::new(spans.iter().map(span).collect());
        self.engine.trunk(tokens, &rows, wanted);
        for &(sequence, len) in spans {
            self.sequences[sequence].seen += len;
        }
    }

    /// Makes the trunk forget positions `len..` of a sequence, and every head what it computed from the tokens there.
    ///
    /// The heads forget here and not when they draft next: a depth that sits out a step would otherwise keep entries
    /// made from rejected drafts.
    pub(super) fn rewind(&mut self, sequence: usize, len: usize) {
        let seen = &mut self.sequences[sequence].seen;
        *seen = len.min(*seen);
        let config = self.model.config();
        for layer in 0..config.num_hidden_layers {
            self.engine.truncate(sequence, layer, len);
        }
        for k in 1..=config.mtp_depth {
            let settled = config.mtp_kind.settled(k, len);
            let cache = self.model.head_cache(k);
            self.engine.truncate(sequence, cache, settled);
        }
    }

    /// Slides the window: the last `keep` known tokens become the whole text, at positions from 0, and the model has
    /// seen none of them.
    pub(super) fn slide(&mut self, sequence: usize, keep: usize) {
        self.rewind(sequence, 0);
        let sequence = &mut self.sequences[sequence];
        sequence.base = sequence.tokens.len() - keep;
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
