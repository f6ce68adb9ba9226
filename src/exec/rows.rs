//! What the rows of a computation are: consecutive positions of one or more sequences.

use std::sync::Arc;

/// Consecutive positions of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the sequence in the executor.
    pub slot: usize,
    /// Position of the first row.
    pub first: usize,
    /// Number of rows.
    pub len: usize,
}

/// The rows of a computation: a training batch, a prompt, a verification pass and a batch of sequences alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    spans: Vec<Span>,
}

impl Rows {
    /// The rows of these spans, in this order.
    pub fn new(spans: Vec<Span>) -> Self {
        Self { spans }
    }

    /// Positions `first..first + len` of the sequence in `slot`.
    pub fn one(slot: usize, first: usize, len: usize) -> Self {
        Self::new(vec![Span { slot, first, len }])
    }

    /// Positions 0..`len` of each of `num_sequences` sequences, in slots 0, 1, ..
    pub fn batch(num_sequences: usize, len: usize) -> Self {
        let span = |slot| Span {
            slot,
            first: 0,
            len,
        };
        Self::new((0..num_sequences).map(span).collect())
    }

    /// The spans.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.spans.iter().map(|s| s.len).sum()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Position of each row.
    pub fn positions(&self) -> Arc<[u32]> {
        let span = |s: &Span| s.first as u32..(s.first + s.len) as u32;
        self.spans.iter().flat_map(span).collect()
    }

    /// The same sequences without the last `n` positions of each, and the indices of the remaining rows.
    pub fn without_last(&self, n: usize) -> (Rows, Arc<[u32]>) {
        let (mut spans, mut indices, mut row) = (Vec::new(), Vec::new(), 0);
        for span in &self.spans {
            let len = span.len.saturating_sub(n);
            indices.extend(row..row + len as u32);
            row += span.len as u32;
            spans.push(Span { len, ..*span });
        }
        (Self::new(spans), indices.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_rows_that_remain() {
        let rows = Rows::batch(2, 3);
        assert_eq!(&*rows.positions(), [0, 1, 2, 0, 1, 2]);
        let (fewer, indices) = rows.without_last(1);
        assert_eq!((fewer.len(), &*indices), (4, &[0, 1, 3, 4][..]));
        assert_eq!(&*Rows::one(5, 7, 2).positions(), [7, 8]);
    }
}
