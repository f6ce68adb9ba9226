//! What decoding asks of an executor, and a model's passes over one.
//!
//! [`Decoder`] is what an executor must do beyond running operations: hold caches and hidden states by sequence, and
//! decide tokens from logits where these lie. `Engine` is a model's passes with the executor's type forgotten, so that
//! sessions and drafters are the same whatever computes them.

use super::pick::Sampler;
use super::pick_at;
use crate::Result;
use crate::autograd::Var;
use crate::exec::{Decode, Exec, Rows};
use crate::model::Model;
use crate::ops::SelectRows;
use std::borrow::Cow;
use std::sync::Arc;

/// Rows of logits that decide the tokens at consecutive positions of one sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ask {
    /// The first row.
    pub row: usize,
    /// Number of rows, at least one.
    pub rows: usize,
    /// Index, in its sequence, of the token that the first row decides.
    pub position: usize,
    /// How it is chosen.
    pub sampler: Sampler,
}

/// Is told the token of an ask's next row, or why there is none; says whether to go on to the row after it.
pub type Told<'a> = dyn FnMut(usize, Result<u32>) -> Result<bool> + 'a;

/// An executor that keeps caches and hidden states of several sequences, and decides tokens.
pub trait Decoder: Exec {
    /// A new sequence; returns its number, counted from 0.
    fn add_sequence(&mut self) -> usize;

    /// Positions that cache `cache` holds of a sequence.
    fn len(&self, sequence: usize, cache: usize) -> usize;

    /// Forgets positions `len..` of a sequence in cache `cache`; fewer may be there.
    fn truncate(&mut self, sequence: usize, cache: usize, len: usize);

    /// Keeps h of depth `depth` [rows, C] at the positions of its rows. What was kept of these sequences from there on is
    /// forgotten.
    fn keep(&mut self, depth: usize, rows: &Rows, h: &Self::Value);

    /// What was kept of depth `depth` at these positions, [rows, `width`].
    fn kept(&mut self, depth: usize, rows: &Rows, width: usize) -> Self::Value;

    /// Decides tokens as [`pick`](super::pick()) does, ask by ask, and tells them in order. Of an ask it goes on to the
    /// next row while it is told so.
    ///
    /// # Errors
    /// What `told` returns; where the executor's machine failed.
    fn decide(&mut self, logits: &Self::Value, asks: &[Ask], told: &mut Told<'_>) -> Result<()>;

    /// A row of logits `[V]`.
    ///
    /// # Errors
    /// Where the executor's machine failed.
    fn row<'v>(&mut self, logits: &'v Self::Value, row: usize) -> Result<Cow<'v, [f32]>>;

    /// Waits until everything asked for is done.
    ///
    /// # Errors
    /// Where the executor's machine failed.
    fn wait(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Decoder for Decode<'_> {
    fn add_sequence(&mut self) -> usize {
        Decode::add_sequence(self)
    }

    fn len(&self, sequence: usize, cache: usize) -> usize {
        Decode::len(self, sequence, cache)
    }

    fn truncate(&mut self, sequence: usize, cache: usize, len: usize) {
        Decode::truncate(self, sequence, cache, len);
    }

    fn keep(&mut self, depth: usize, rows: &Rows, h: &Var) {
        Decode::keep(self, depth, rows, h.value());
    }

    fn kept(&mut self, depth: usize, rows: &Rows, width: usize) -> Var {
        Var::constant(Decode::kept(self, depth, rows, width))
    }

    fn decide(&mut self, logits: &Var, asks: &[Ask], told: &mut Told<'_>) -> Result<()> {
        for (index, ask) in asks.iter().enumerate() {
            for i in 0..ask.rows {
                let row = logits.value().row(ask.row + i);
                if !told(index, pick_at(row, ask.position + i, ask.sampler))? {
                    break;
                }
            }
        }
        Ok(())
    }

    fn row<'v>(&mut self, logits: &'v Var, row: usize) -> Result<Cow<'v, [f32]>> {
        Ok(Cow::Borrowed(logits.value().row(row)))
    }
}

/// Rows of a pass whose logits are wanted.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// None.
    Nothing,
    /// These.
    Rows(Arc<[u32]>),
    /// All.
    All,
}

/// A model's passes. The logits of the last one are at hand until the next.
pub(super) trait Engine {
    /// As [`Decoder::add_sequence`].
    fn add_sequence(&mut self) -> usize;
    /// As [`Decoder::len`].
    fn len(&self, sequence: usize, cache: usize) -> usize;
    /// As [`Decoder::truncate`].
    fn truncate(&mut self, sequence: usize, cache: usize, len: usize);
    /// Runs the trunk, keeps h⁰ and makes the logits that are wanted.
    fn trunk(&mut self, tokens: &[u32], rows: &Rows, wanted: Wanted);
    /// Runs head k on what was kept of the depth that it reads and on x_{i+k}; keeps h^k where the next depth reads it, and
    /// makes the logits of each span's last row.
    fn head(&mut self, k: usize, following: &[u32], rows: &Rows);
    /// As [`Decoder::decide`], from the last logits.
    fn decide(&mut self, asks: &[Ask], told: &mut Told<'_>) -> Result<()>;
    /// As [`Decoder::row`], of the last logits.
    fn row(&mut self, row: usize) -> Result<Cow<'_, [f32]>>;
    /// As [`Decoder::wait`].
    fn wait(&mut self) -> Result<()>;
}

/// A model on an executor.
pub(super) struct Passes<'m, X: Decoder> {
    pub model: &'m Model,
    pub exec: X,
    pub logits: Option<X::Value>,
}

impl<X: Decoder> Engine for Passes<'_, X> {
    fn add_sequence(&mut self) -> usize {
        self.exec.add_sequence()
    }

    fn len(&self, sequence: usize, cache: usize) -> usize {
        self.exec.len(sequence, cache)
    }

    fn truncate(&mut self, sequence: usize, cache: usize, len: usize) {
        self.exec.truncate(sequence, cache, len);
    }

    fn trunk(&mut self, tokens: &[u32], rows: &Rows, wanted: Wanted) {
        // Given back before the pass, which can use the memory.
        self.logits = None;
        let h = self.model.trunk(&mut self.exec, tokens, rows);
        self.exec.keep(0, rows, &h);
        let h = match wanted {
            Wanted::Nothing => return,
            Wanted::Rows(keep) => self.exec.apply(SelectRows { keep }, [&h]),
            Wanted::All => h,
        };
        self.logits = Some(self.model.logits(&mut self.exec, &h));
    }

    fn head(&mut self, k: usize, following: &[u32], rows: &Rows) {
        self.logits = None;
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

    fn decide(&mut self, asks: &[Ask], told: &mut Told<'_>) -> Result<()> {
        let logits = self.logits.as_ref().expect("the last pass made logits");
        self.exec.decide(logits, asks, told)
    }

    fn row(&mut self, row: usize) -> Result<Cow<'_, [f32]>> {
        let logits = self.logits.as_ref().expect("the last pass made logits");
        self.exec.row(logits, row)
    }

    fn wait(&mut self) -> Result<()> {
        self.exec.wait()
    }
}
