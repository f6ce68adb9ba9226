//! A model on an executor, with the executor's type erased: sessions and drafters are the same on every executor.

use super::decoder::{Decoder, SampleRequest};
use crate::Result;
use crate::exec::Rows;
use crate::model::Model;
use crate::ops::SelectRows;
use std::sync::Arc;

/// Passes of a model. A pass first drops what the caches hold from the positions of its rows on, so that it can be
/// repeated and replaced. Its logits are kept until the next pass.
pub(super) trait Runner: Send {
    /// As [`SequenceCache::add_sequence`](crate::exec::SequenceCache::add_sequence).
    fn add_sequence(&mut self) -> usize;
    /// As [`SequenceCache::remove_sequence`](crate::exec::SequenceCache::remove_sequence).
    fn remove_sequence(&mut self, sequence: usize);
    /// Number of positions of a sequence that head k has computed: all of them if it has no cache and needs none.
    fn head_len(&self, sequence: usize, k: usize) -> usize;
    /// Cuts the caches of all heads to the entries computed from tokens before position `len` only.
    fn rewind_heads(&mut self, sequence: usize, len: usize);
    /// Runs the trunk on tokens `[rows]` and keeps h⁰. The logits are those of the rows `ends`, or of all rows.
    fn trunk(&mut self, tokens: &[u32], rows: &Rows, ends: Option<Arc<[u32]>>);
    /// Runs head k on x_{i+k} `[rows]`; the logits are those of each span's last row.
    fn head(&mut self, k: usize, following: &[u32], rows: &Rows);
    /// As [`Decoder::sample`], from the last pass.
    fn sample(&mut self, requests: &[SampleRequest]) -> Result<Vec<Result<Vec<u32>>>>;
    /// As [`Decoder::row`], from the last pass.
    fn row(&mut self, row: usize) -> Result<Vec<f32>>;
    /// As [`Decoder::wait`].
    fn wait(&mut self) -> Result<()>;
}

/// A model on an executor.
pub(super) struct ModelRunner<'m, X: Decoder> {
    pub model: &'m Model,
    pub exec: X,
    pub logits: Option<X::Value>,
}

impl<X: Decoder> ModelRunner<'_, X> {
    /// Drops what cache `cache` holds from the positions of some rows on.
    fn truncate(&mut self, cache: usize, rows: &Rows) {
        for span in rows.spans() {
            self.exec.truncate(span.sequence, cache, span.first);
        }
    }

    fn last_logits(&mut self) -> (&mut X, &X::Value) {
        let logits = self.logits.as_ref().expect("the last pass made logits");
        (&mut self.exec, logits)
    }
}

impl<X: Decoder<Value: Send> + Send> Runner for ModelRunner<'_, X> {
    fn add_sequence(&mut self) -> usize {
        self.exec.add_sequence()
    }

    fn remove_sequence(&mut self, sequence: usize) {
        self.exec.remove_sequence(sequence);
    }

    fn head_len(&self, sequence: usize, k: usize) -> usize {
        if self.model.config().mtp_kind.cached() {
            self.exec.len(sequence, self.model.head_cache(k))
        } else {
            usize::MAX
        }
    }

    fn rewind_heads(&mut self, sequence: usize, len: usize) {
        let config = self.model.config();
        for k in 1..=config.mtp_depth {
            let valid = config.mtp_kind.num_valid_entries(k, len);
            self.exec
                .truncate(sequence, self.model.head_cache(k), valid);
        }
    }

    fn trunk(&mut self, tokens: &[u32], rows: &Rows, ends: Option<Arc<[u32]>>) {
        // Freed before the pass, which can use the memory.
        self.logits = None;
        for layer in 0..self.model.config().num_hidden_layers {
            self.truncate(layer, rows);
        }
        let h = self.model.trunk(&mut self.exec, tokens, rows);
        if self.model.config().mtp_depth > 0 {
            self.exec.keep(0, rows, &h);
        }
        let h = match ends {
            Some(none) if none.is_empty() => return,
            Some(keep) => self.exec.apply(SelectRows { keep }, [&h]),
            None => h,
        };
        self.logits = Some(self.model.logits(&mut self.exec, &h));
    }

    fn head(&mut self, k: usize, following: &[u32], rows: &Rows) {
        self.logits = None;
        self.truncate(self.model.head_cache(k), rows);
        let config = self.model.config();
        let source = config.mtp_kind.source(k);
        let h = self.exec.kept(source, rows, config.hidden_size);
        let h = self.model.head(&mut self.exec, k, &h, following, rows);
        if config.mtp_kind.chained() && k < config.mtp_depth {
            self.exec.keep(k, rows, &h);
        }
        let ends = rows.spans().iter().scan(0, |end, span| {
            *end += span.len as u32;
            Some(*end - 1)
        });
        let keep = ends.collect();
        let h = self.exec.apply(SelectRows { keep }, [&h]);
        self.logits = Some(self.model.logits(&mut self.exec, &h));
    }

    fn sample(&mut self, requests: &[SampleRequest]) -> Result<Vec<Result<Vec<u32>>>> {
        let (exec, logits) = self.last_logits();
        exec.sample(logits, requests)
    }

    fn row(&mut self, row: usize) -> Result<Vec<f32>> {
        let (exec, logits) = self.last_logits();
        exec.row(logits, row)
    }

    fn wait(&mut self) -> Result<()> {
        self.exec.wait()
    }
}
