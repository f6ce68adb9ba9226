//! A batch of training sequences, which are windows of the text, and the one place where targets are shifted.

/// B windows of the text, of T+1 tokens each, from which every head takes its inputs and its targets.
///
/// Head 0 is the main head. Head k (k = 1..=K) sees `x_i` through the trunk and `x_{i+k}` through its own embedding at
/// position i, and predicts `x_{i+k+1}`. It is trained on i = 0..=T-1-k, because a later target would lie outside the
/// window. With T = 4:
///
/// ```text
///   window           x0   x1   x2   x3   x4         T+1 tokens
///   position i        0    1    2    3
///   inputs           x0   x1   x2   x3              T of them
///   targets(0)       x1   x2   x3   x4
///   head_inputs(1)   x1   x2   x3                   T-1 of them
///   targets(1)       x2   x3   x4
///   head_inputs(2)   x2   x3                        T-2 of them
///   targets(2)       x3   x4
/// ```
///
/// Every list is row-major: all positions of the first window, then all of the second, and so on.
/// A head k >= T has no position left, and its lists are empty. This happens in the short last window of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    batch_size: usize,
    seq_len: usize,
    /// [B, T+1]
    tokens: Vec<u32>,
    /// Windows of the batch that this one is a micro-batch of; `batch_size` if it is none.
    total_windows: usize,
    first_window: usize,
}

impl Batch {
    /// A batch of `batch_size` windows; tokens [B, T+1] with T = `seq_len`.
    ///
    /// # Panics
    ///
    /// Panics if `seq_len` is 0, or if there are not B·(T+1) tokens.
    #[track_caller]
    pub fn new(batch_size: usize, seq_len: usize, tokens: Vec<u32>) -> Self {
        assert!(seq_len > 0, "Batch: windows of 0 positions have no targets");
        assert!(
            seq_len
                .checked_add(1)
                .and_then(|window| window.checked_mul(batch_size))
                == Some(tokens.len()),
            "Batch: {batch_size} windows of {seq_len} + 1 tokens do not hold {} tokens",
            tokens.len(),
        );
        Self {
            batch_size,
            seq_len,
            tokens,
            first_window: 0,
            total_windows: batch_size,
        }
    }

    /// Divides the batch into `count` micro-batches of equal size, in order, for gradient accumulation. A loss of a
    /// micro-batch is divided by [`total_targets`](Self::total_targets), so that the losses and gradients of all
    /// micro-batches add up to those of the batch.
    ///
    /// # Panics
    ///
    /// Panics if the windows cannot be divided evenly.
    #[track_caller]
    pub fn micro_batches(self, count: usize) -> Vec<Self> {
        assert!(
            count > 0 && self.batch_size.is_multiple_of(count),
            "Batch: {} windows in {count} micro-batches",
            self.batch_size
        );
        if count == 1 {
            return vec![self];
        }
        let batch_size = self.batch_size / count;
        let length = (batch_size * (self.seq_len + 1)).max(1);
        let part = |(i, tokens): (usize, &[u32])| Self {
            first_window: self.first_window + i * batch_size,
            total_windows: self.total_windows,
            ..Self::new(batch_size, self.seq_len, tokens.to_vec())
        };
        self.tokens
            .chunks_exact(length)
            .enumerate()
            .map(part)
            .collect()
    }

    /// The number of targets of head k in the whole batch that this is a micro-batch of.
    pub fn total_targets(&self, k: usize) -> usize {
        self.total_windows * self.seq_len.saturating_sub(k)
    }

    /// Index of its first window in the batch that this is a micro-batch of.
    pub fn first_window(&self) -> usize {
        self.first_window
    }

    /// The number of windows, B: the batch size.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// The number of positions in a window, T.
    pub fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// The number of targets of head k, B·(T-k).
    pub fn num_targets(&self, k: usize) -> usize {
        self.batch_size * self.seq_len.saturating_sub(k)
    }

    /// The tokens of all windows [B, T+1].
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The inputs of the trunk: `x_i` for i = 0..=T-1. -> [B·T]
    pub fn inputs(&self) -> Vec<u32> {
        self.shifted(0, self.seq_len)
    }

    /// The inputs of head k's embedding: `x_{i+k}` for i = 0..=T-1-k. -> [B·(T-k)]
    ///
    /// Head 0 has those of the trunk.
    pub fn head_inputs(&self, k: usize) -> Vec<u32> {
        self.shifted(k, self.seq_len.saturating_sub(k))
    }

    /// The targets of head k: `x_{i+k+1}` for i = 0..=T-1-k. -> [B·(T-k)]
    pub fn targets(&self, k: usize) -> Vec<u32> {
        self.shifted(k.saturating_add(1), self.seq_len.saturating_sub(k))
    }

    /// `count` tokens of each window, beginning with `x_first`; `count` is 0 if `first` is past the end.
    fn shifted(&self, first: usize, count: usize) -> Vec<u32> {
        self.tokens
            .chunks_exact(self.seq_len + 1)
            .flat_map(|window| window.iter().skip(first).take(count))
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_window_written_by_hand() {
        let batch = Batch::new(2, 3, vec![10, 11, 12, 13, 20, 21, 22, 23]);
        assert_eq!(batch.inputs(), [10, 11, 12, 20, 21, 22]);
        assert_eq!(batch.targets(0), [11, 12, 13, 21, 22, 23]);
        assert_eq!(batch.head_inputs(1), [11, 12, 21, 22]);
        assert_eq!(batch.targets(1), [12, 13, 22, 23]);
        assert_eq!(batch.head_inputs(2), [12, 22]);
        assert_eq!(batch.targets(2), [13, 23]);
        assert_eq!(
            [
                batch.num_targets(0),
                batch.num_targets(1),
                batch.num_targets(2)
            ],
            [6, 4, 2]
        );
    }

    #[test]
    fn micro_batches_are_the_batch_in_order() {
        let batch = Batch::new(4, 2, (0..12).collect());
        assert_eq!(batch.clone().micro_batches(1), vec![batch.clone()]);
        let parts = batch.clone().micro_batches(2);
        let inputs: Vec<_> = parts.iter().map(Batch::inputs).collect();
        assert_eq!(inputs, [[0, 1, 3, 4], [6, 7, 9, 10]]);
        assert_eq!(inputs.concat(), batch.inputs());
        assert_eq!((parts[0].num_targets(1), parts[0].total_targets(1)), (2, 4));
        assert_eq!((batch.num_targets(1), batch.total_targets(1)), (4, 4));
        let halves_of_halves = parts.into_iter().flat_map(|part| part.micro_batches(2));
        assert_eq!(halves_of_halves.collect::<Vec<_>>(), batch.micro_batches(4));
    }

    #[test]
    #[should_panic(expected = "4 windows in 3 micro-batches")]
    fn uneven_micro_batches_are_refused() {
        let _ = Batch::new(4, 2, (0..12).collect()).micro_batches(3);
    }

    #[test]
    fn a_head_beyond_the_window_has_no_targets() {
        let batch = Batch::new(2, 3, vec![0; 8]);
        for k in [3, 4, 5, usize::MAX] {
            assert_eq!(batch.num_targets(k), 0, "head {k}");
            assert!(batch.head_inputs(k).is_empty(), "head {k}");
            assert!(batch.targets(k).is_empty(), "head {k}");
        }
    }

    #[test]
    fn no_windows_are_a_batch_too() {
        let batch = Batch::new(0, 3, Vec::new());
        assert_eq!(batch.num_targets(0), 0);
        assert!(batch.inputs().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// The definition, as loops over b and i that know nothing of slices.
        #[test]
        fn every_head_follows_the_definition(batch_size in 0_usize..5, seq_len in 1_usize..12) {
            // A prime period, so that swapped windows cannot look alike.
            let tokens: Vec<u32> = (0..batch_size * (seq_len + 1)).map(|n| (n * 7 % 251) as u32).collect();
            let batch = Batch::new(batch_size, seq_len, tokens.clone());
            let x = |b: usize, i: usize| tokens[b * (seq_len + 1) + i];
            for k in 0..seq_len {
                let (mut head_inputs, mut targets) = (Vec::new(), Vec::new());
                for b in 0..batch_size {
                    for i in 0..=seq_len - 1 - k {
                        head_inputs.push(x(b, i + k));
                        targets.push(x(b, i + k + 1));
                    }
                }
                prop_assert_eq!(batch.num_targets(k), targets.len());
                prop_assert_eq!(batch.targets(k), targets);
                if k == 0 {
                    prop_assert_eq!(batch.inputs(), head_inputs.clone());
                }
                prop_assert_eq!(batch.head_inputs(k), head_inputs);
            }
        }
    }

    #[test]
    #[should_panic(expected = "2 windows of 3 + 1 tokens do not hold 7 tokens")]
    fn a_wrong_number_of_tokens_names_the_sizes() {
        Batch::new(2, 3, vec![0; 7]);
    }

    #[test]
    #[should_panic(expected = "windows of 0")]
    fn a_window_of_zero_positions_is_refused() {
        Batch::new(2, 0, vec![0; 2]);
    }

    #[test]
    #[should_panic(expected = "do not hold 0 tokens")]
    fn sizes_that_overflow_are_refused() {
        Batch::new(2, usize::MAX, Vec::new());
    }
}
