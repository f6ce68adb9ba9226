//! A model on an executor, with the executor's type erased: sessions and drafters are the same on every executor.

use super::decode_exec::{DecodeExec, SampleRequest};
use crate::Result;
use crate::exec::Rows;
use crate::model::Model;
use crate::ops::SelectRows;
use std::sync::Arc;

/// Passes of a model. A pass first truncates each cache to the span's start, so that a pass can be repeated. Its logits
/// are kept until the next pass.
pub(super) trait Runner: Send {
    /// As [`SequenceCache::add_sequence`](crate::exec::SequenceCache::add_sequence).
    fn add_sequence(&mut self) -> usize;
    /// As [`SequenceCache::remove_sequence`](crate::exec::SequenceCache::remove_sequence).
    fn remove_sequence(&mut self, slot: usize);
    /// Number of positions of a slot that head k has computed: `usize::MAX` if it has no cache and needs none.
    fn head_len(&self, slot: usize, k: usize) -> usize;
    /// Truncates the caches of all heads to the entries computed from tokens before position `len` only.
    fn rewind_heads(&mut self, slot: usize, len: usize);
    /// Runs the trunk on tokens `[rows]` and stores h⁰. The logits are those of the rows `ends`, or of all rows.
    fn trunk(&mut self, tokens: &[u32], rows: &Rows, ends: Option<Arc<[u32]>>);
    /// Runs head k on x_{i+k} `[rows]`; the logits are those of each span's last row.
    fn head(&mut self, k: usize, head_inputs: &[u32], rows: &Rows);
    /// As [`DecodeExec::sample`], from the last pass.
    fn sample(&mut self, requests: &[SampleRequest]) -> Result<Vec<Result<Vec<u32>>>>;
    /// As [`DecodeExec::logits_row`], from the last pass.
    fn logits_row(&mut self, row: usize) -> Result<Vec<f32>>;
    /// As [`DecodeExec::synchronize`].
    fn synchronize(&mut self) -> Result<()>;
}

/// A model on an executor.
pub(super) struct ModelRunner<'m, X: DecodeExec> {
    pub model: &'m Model,
    pub exec: X,
    pub logits: Option<X::Value>,
}

impl<X: DecodeExec> ModelRunner<'_, X> {
    /// Truncates cache `cache` to the start of each span.
    fn truncate(&mut self, cache: usize, rows: &Rows) {
        for span in rows.spans() {
            self.exec.truncate(span.slot, cache, span.first);
        }
    }

    fn last_logits(&mut self) -> (&mut X, &X::Value) {
        let logits = self.logits.as_ref().expect("the last pass made logits");
        (&mut self.exec, logits)
    }
}

impl<X: DecodeExec<Value: Send> + Send> Runner for ModelRunner<'_, X> {
    fn add_sequence(&mut self) -> usize {
        self.exec.add_sequence()
    }

    fn remove_sequence(&mut self, slot: usize) {
        self.exec.remove_sequence(slot);
    }

    fn head_len(&self, slot: usize, k: usize) -> usize {
        if self.model.config().mtp_kind.cached() {
            self.exec.len(slot, self.model.head_cache(k))
        } else {
            usize::MAX
        }
    }

    fn rewind_heads(&mut self, slot: usize, len: usize) {
        let config = self.model.config();
        for k in 1..=config.mtp_depth {
            let valid = config.mtp_kind.num_valid_entries(k, len);
            self.exec.truncate(slot, self.model.head_cache(k), valid);
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
            self.exec.store_hidden(0, rows, &h);
        }
        let h = match ends {
            Some(none) if none.is_empty() => return,
            Some(indices) => self.exec.apply(SelectRows { indices }, [&h]),
            None => h,
        };
        self.logits = Some(self.model.logits(&mut self.exec, &h));
    }

    fn head(&mut self, k: usize, head_inputs: &[u32], rows: &Rows) {
        self.logits = None;
        self.truncate(self.model.head_cache(k), rows);
        let config = self.model.config();
        let source = config.mtp_kind.source(k);
        let h = self.exec.load_hidden(source, rows, config.hidden_size);
        let h = self.model.head(&mut self.exec, k, &h, head_inputs, rows);
        if config.mtp_kind.chained() && k < config.mtp_depth {
            self.exec.store_hidden(k, rows, &h);
        }
        let ends = rows.spans().iter().scan(0, |end, span| {
            *end += span.len as u32;
            Some(*end - 1)
        });
        let indices = ends.collect();
        let h = self.exec.apply(SelectRows { indices }, [&h]);
        self.logits = Some(self.model.logits(&mut self.exec, &h));
    }

    fn sample(&mut self, requests: &[SampleRequest]) -> Result<Vec<Result<Vec<u32>>>> {
        let (exec, logits) = self.last_logits();
        exec.sample(logits, requests)
    }

    fn logits_row(&mut self, row: usize) -> Result<Vec<f32>> {
        let (exec, logits) = self.last_logits();
        exec.logits_row(logits, row)
    }

    fn synchronize(&mut self) -> Result<()> {
        self.exec.synchronize()
    }
}
