//! What an executor keeps of each sequence while decoding.

use super::{Exec, Rows};

/// An executor that keeps KV caches and hidden states of several sequences. Sequences, caches and depths are numbered
/// from 0.
pub trait SequenceCache: Exec {
    /// Adds an empty sequence and returns its number, which may be that of a removed sequence.
    fn add_sequence(&mut self) -> usize;

    /// Removes a sequence and frees its memory.
    fn remove_sequence(&mut self, sequence: usize);

    /// Number of positions of a sequence in cache `cache`.
    fn len(&self, sequence: usize, cache: usize) -> usize;

    /// Removes positions `len..` of a sequence from cache `cache`, if it holds that many.
    fn truncate(&mut self, sequence: usize, cache: usize, len: usize);

    /// Keeps h [rows, C] of depth `depth` at the positions of its rows. Later positions of these sequences are dropped.
    ///
    /// # Panics
    /// Panics if positions before a span are missing.
    fn keep(&mut self, depth: usize, rows: &Rows, h: &Self::Value);

    /// The hidden states kept of depth `depth` at the positions of some rows, [rows, `width`].
    ///
    /// # Panics
    /// Panics if none were kept there.
    fn kept(&mut self, depth: usize, rows: &Rows, width: usize) -> Self::Value;
}
