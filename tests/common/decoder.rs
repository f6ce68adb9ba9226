//! Drives [`CacheExec`] row by row, the way a speculative decoder does, and keeps every logit it sees.

use super::{Logits, matrix};
use foretoken::autograd::Var;
use foretoken::exec::{CacheExec, Rows, SequenceCache, Span};
use foretoken::model::Model;

/// Several sequences being decoded.
pub struct Decoder<'m> {
    model: &'m Model,
    decode: CacheExec<'m>,
    sequences: Vec<Sequence>,
}

/// What is known of one sequence.
struct Sequence {
    tokens: Vec<u32>,
    /// h^k by depth 0..=K, [rows, C].
    hidden: Vec<Vec<f32>>,
    /// [rows, V]
    logits: Logits,
}

impl<'m> Decoder<'m> {
    /// `count` empty sequences.
    pub fn new(model: &'m Model, count: usize) -> Self {
        let mut decode = CacheExec::new(model.params());
        let depths = model.config().mtp_depth + 1;
        let sequence = |_| {
            decode.add_sequence();
            Sequence {
                tokens: Vec::new(),
                hidden: vec![Vec::new(); depths],
                logits: vec![Vec::new(); depths],
            }
        };
        Self {
            model,
            sequences: (0..count).map(sequence).collect(),
            decode,
        }
    }

    /// The tokens that the trunk has seen.
    pub fn tokens(&self, sequence: usize) -> &[u32] {
        &self.sequences[sequence].tokens
    }

    /// Every depth's logits for the rows it has seen.
    pub fn logits(&self, sequence: usize) -> &Logits {
        &self.sequences[sequence].logits
    }

    /// Rows that depth `k` has seen.
    pub fn rows(&self, sequence: usize, k: usize) -> usize {
        self.sequences[sequence].hidden[k].len() / self.model.config().hidden_size
    }

    /// Rows that depth k ≥ 1 can have seen: all that h^0 has, or those of h^{k−1} whose x_{i+k} is known.
    pub fn available(&self, sequence: usize, k: usize) -> usize {
        match self.model.config().mtp_kind.chained() {
            true => {
                let known = self.sequences[sequence].tokens.len().saturating_sub(k);
                known.min(self.rows(sequence, k - 1))
            }
            false => self.rows(sequence, 0),
        }
    }

    /// The depth whose hidden states depth `k` reads.
    fn source(&self, k: usize) -> usize {
        let chained = self.model.config().mtp_kind.chained();
        if chained { k - 1 } else { 0 }
    }

    /// The trunk on some more tokens of each of some sequences, all in one pass.
    pub fn feed(&mut self, jobs: &[(usize, &[u32])]) {
        let span = |&(slot, tokens): &(usize, &[u32])| Span {
            slot,
            first: self.sequences[slot].tokens.len(),
            len: tokens.len(),
        };
        let rows = Rows::new(jobs.iter().map(span).collect());
        if rows.is_empty() {
            return;
        }
        let tokens: Vec<u32> = jobs.iter().flat_map(|job| job.1).copied().collect();
        let h = self.model.trunk(&mut self.decode, &tokens, &rows);
        for (sequence, tokens) in jobs {
            self.sequences[*sequence].tokens.extend_from_slice(tokens);
        }
        self.keep(0, &h, &rows);
    }

    /// Depth k ≥ 1 on at most `max` more rows of each of some sequences, all in one pass.
    pub fn head(&mut self, k: usize, sequences: &[usize], max: usize) {
        let c = self.model.config().hidden_size;
        let (mut spans, mut h, mut head_inputs) = (Vec::new(), Vec::new(), Vec::new());
        for &sequence in sequences {
            let first = self.rows(sequence, k);
            let end = self.available(sequence, k).min(first + max);
            let state = &self.sequences[sequence];
            h.extend_from_slice(&state.hidden[self.source(k)][first * c..end * c]);
            // Kinds that do not read these tokens are promised not to need them.
            if end > first && self.model.config().mtp_kind.chained() {
                head_inputs.extend_from_slice(&state.tokens[first + k..end + k]);
            }
            spans.push(Span {
                slot: sequence,
                first,
                len: end - first,
            });
        }
        let rows = Rows::new(spans);
        if rows.is_empty() {
            return;
        }
        let h = Var::constant(matrix(c, h));
        let h = self
            .model
            .head(&mut self.decode, k, &h, &head_inputs, &rows);
        self.keep(k, &h, &rows);
    }

    /// Every head on every row there is.
    pub fn heads(&mut self, sequences: &[usize]) {
        for k in 1..=self.model.config().mtp_depth {
            self.head(k, sequences, usize::MAX / 2);
        }
    }

    fn keep(&mut self, k: usize, h: &Var, rows: &Rows) {
        let logits = self.model.logits(&mut self.decode, h);
        let mut row = 0;
        for span in rows.spans() {
            let state = &mut self.sequences[span.slot];
            for r in row..row + span.len {
                state.hidden[k].extend_from_slice(h.value().row(r));
                state.logits[k].extend_from_slice(logits.value().row(r));
            }
            row += span.len;
        }
    }

    /// Forgets the tokens `len..` and everything computed from them: positions from `len` on of the trunk, and of
    /// depth k from `len` − k on, because its row i has seen x_{i+k} (or, for kinds that read h^0 only, x_i).
    pub fn truncate(&mut self, sequence: usize, len: usize) {
        let config = self.model.config();
        let state = &mut self.sequences[sequence];
        state.tokens.truncate(len);
        for k in 0..=config.mtp_depth {
            let rows = match config.mtp_kind.chained() {
                true => len.saturating_sub(k),
                false => len,
            };
            state.hidden[k].truncate(rows * config.hidden_size);
            state.logits[k].truncate(rows * config.vocab_size);
            let caches = match k {
                0 => 0..config.num_hidden_layers,
                _ => self.model.head_cache(k)..self.model.head_cache(k) + 1,
            };
            for cache in caches {
                self.decode.truncate(sequence, cache, rows);
            }
        }
    }

    /// Positions in each cache, trunk layers first.
    pub fn cache_lengths(&self, sequence: usize) -> Vec<usize> {
        let config = self.model.config();
        let caches = config.num_hidden_layers + config.mtp_depth;
        { 0..caches }
            .map(|cache| self.decode.len(sequence, cache))
            .collect()
    }
}
