//! What an executor keeps of each sequence while decoding.

use super::{Exec, Rows};

/// An executor that keeps KV caches and hidden states of several sequences, each in a slot. Slots, caches and depths
/// are numbered from 0.
pub trait SequenceCache: Exec {
    /// Adds an empty sequence and returns its slot, which may be that of a removed sequence.
    fn add_sequence(&mut self) -> usize;

    /// Removes the sequence in a slot and frees its memory.
    fn remove_sequence(&mut self, slot: usize);

    /// Number of positions that cache `cache` of a slot holds.
    fn len(&self, slot: usize, cache: usize) -> usize;

    /// Removes positions `len..` from cache `cache` of a slot, if it holds that many.
    fn truncate(&mut self, slot: usize, cache: usize, len: usize);

    /// Stores h [rows, C] of depth `depth` at the positions of its rows. Later positions of these sequences are
    /// dropped.
    ///
    /// # Panics
    /// Panics if positions before a span are missing.
    fn store_hidden(&mut self, depth: usize, rows: &Rows, h: &Self::Value);

    /// The hidden states stored of depth `depth` at the positions of some rows, [rows, `width`].
    ///
    /// # Panics
    /// Panics if none were stored there.
    fn load_hidden(&mut self, depth: usize, rows: &Rows, width: usize) -> Self::Value;
}
