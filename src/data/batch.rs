//! A batch of windows, and the one place where targets are shifted.

/// Windows of T+1 tokens, B of them, from which every depth reads its inputs and its targets.
///
/// Depth 0 is the main head. Depth k is the k-th extra head: at position i it sees `x_i` through the trunk
/// and `x_{i+k}` through its own embedding, and predicts `x_{i+k+1}`. It is trained on i = 0..=T-1-k,
/// because a later target would lie outside the window. With T = 4:
///
/// ```text
///   window         x0   x1   x2   x3   x4         T+1 tokens
///   position i      0    1    2    3
///   inputs         x0   x1   x2   x3              T of them
///   targets(0)     x1   x2   x3   x4
///   following(1)   x1   x2   x3                   T-1 of them
///   targets(1)     x2   x3   x4
///   following(2)   x2   x3                        T-2 of them
///   targets(2)     x3   x4
/// ```
///
/// Every list is row-major: all positions of the first window, then all of the second, and so on.
/// A depth of T or more has no position left, and its lists are empty. This happens in the short last
/// window of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    sequences: usize,
    context: usize,
    /// [B, T+1]
    tokens: Vec<u32>,
    /// Windows of the batch that this one is a part of, its own number where it is whole.
    whole: usize,
}

impl Batch {
    /// A batch of `sequences` windows; tokens [B, T+1] with T = `context`.
    ///
    /// # Panics
    ///
    /// If `context` is 0, or if there are not B·(T+1) tokens.
    #[track_caller]
    pub fn new(sequences: usize, context: usize, tokens: Vec<u32>) -> Self {
        assert!(
            context > 0,
            "Batch: a context of 0 positions has no targets"
        );
        assert!(
            context
                .checked_add(1)
                .and_then(|window| window.checked_mul(sequences))
                == Some(tokens.len()),
            "Batch: {sequences} windows of {context} + 1 tokens do not hold {} tokens",
            tokens.len(),
        );
        Self {
            sequences,
            context,
            tokens,
            whole: sequences,
        }
    }

    /// The batch in `count` parts of as many windows each, in order. Means over a part's targets are then means over
    /// the whole batch's: the parts' sums make up the batch's mean.
    ///
    /// # Panics
    ///
    /// If the windows cannot be shared out evenly.
    #[track_caller]
    pub fn parts(self, count: usize) -> Vec<Self> {
        assert!(
            count > 0 && self.sequences.is_multiple_of(count),
            "Batch: {} windows in {count} parts",
            self.sequences
        );
        if count == 1 {
            return vec![self];
        }
        let sequences = self.sequences / count;
        let length = (sequences * (self.context + 1)).max(1);
        let part = |tokens: &[u32]| Self {
            whole: self.whole,
            ..Self::new(sequences, self.context, tokens.to_vec())
        };
        self.tokens.chunks_exact(length).map(part).collect()
    }

    /// The number of positions that depth k is trained on in the whole batch that this is a part of.
    pub fn whole_rows(&self, k: usize) -> usize {
        self.whole * self.context.saturating_sub(k)
    }

    /// The number of windows, B.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// The number of positions in a window, T.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The number of positions that depth k is trained on, B·(T-k).
    pub fn rows(&self, k: usize) -> usize {
        self.sequences * self.context.saturating_sub(k)
    }

    /// The tokens of all windows [B, T+1].
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What the trunk reads: `x_i` for i = 0..=T-1. -> [B·T]
    pub fn inputs(&self) -> Vec<u32> {
        self.shifted(0, self.context)
    }

    /// What the embedding of extra head k reads: `x_{i+k}` for i = 0..=T-1-k. -> [B·(T-k)]
    ///
    /// For k = 0 these are the inputs.
    pub fn following(&self, k: usize) -> Vec<u32> {
        self.shifted(k, self.context.saturating_sub(k))
    }

    /// What depth k predicts: `x_{i+k+1}` for i = 0..=T-1-k. -> [B·(T-k)]
    pub fn targets(&self, k: usize) -> Vec<u32> {
        self.shifted(k.saturating_add(1), self.context.saturating_sub(k))
    }

    /// `count` tokens of each window, beginning with `x_first`; none are asked for where `first` is past the end.
    fn shifted(&self, first: usize, count: usize) -> Vec<u32> {
        self.tokens
            .chunks_exact(self.context + 1)
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
        assert_eq!(batch.following(1), [11, 12, 21, 22]);
        assert_eq!(batch.targets(1), [12, 13, 22, 23]);
        assert_eq!(batch.following(2), [12, 22]);
        assert_eq!(batch.targets(2), [13, 23]);
        assert_eq!([batch.rows(0), batch.rows(1), batch.rows(2)], [6, 4, 2]);
    }

    #[test]
    fn parts_are_the_batch_in_order() {
        let batch = Batch::new(4, 2, (0..12).collect());
        assert_eq!(batch.clone().parts(1), vec![batch.clone()]);
        let parts = batch.clone().parts(2);
        let inputs: Vec<_> = parts.iter().map(Batch::inputs).collect();
        assert_eq!(inputs, [[0, 1, 3, 4], [6, 7, 9, 10]]);
        assert_eq!(inputs.concat(), batch.inputs());
        assert_eq!((parts[0].rows(1), parts[0].whole_rows(1)), (2, 4));
        assert_eq!((batch.rows(1), batch.whole_rows(1)), (4, 4));
    }

    #[test]
    #[should_panic(expected = "4 windows in 3 parts")]
    fn uneven_parts_are_refused() {
        let _ = Batch::new(4, 2, (0..12).collect()).parts(3);
    }

    #[test]
    fn a_depth_beyond_the_window_has_no_rows() {
        let batch = Batch::new(2, 3, vec![0; 8]);
        for k in [3, 4, 5, usize::MAX] {
            assert_eq!(batch.rows(k), 0, "depth {k}");
            assert!(batch.following(k).is_empty(), "depth {k}");
            assert!(batch.targets(k).is_empty(), "depth {k}");
        }
    }

    #[test]
    fn no_windows_are_a_batch_too() {
        let batch = Batch::new(0, 3, Vec::new());
        assert_eq!(batch.rows(0), 0);
        assert!(batch.inputs().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// The definition, as loops over b and i that know nothing of slices.
        #[test]
        fn every_depth_follows_the_definition(sequences in 0_usize..5, context in 1_usize..12) {
            // A prime period, so that swapped windows cannot look alike.
            let tokens: Vec<u32> = (0..sequences * (context + 1)).map(|n| (n * 7 % 251) as u32).collect();
            let batch = Batch::new(sequences, context, tokens.clone());
            let x = |b: usize, i: usize| tokens[b * (context + 1) + i];
            for k in 0..context {
                let (mut following, mut targets) = (Vec::new(), Vec::new());
                for b in 0..sequences {
                    for i in 0..=context - 1 - k {
                        following.push(x(b, i + k));
                        targets.push(x(b, i + k + 1));
                    }
                }
                prop_assert_eq!(batch.rows(k), targets.len());
                prop_assert_eq!(batch.targets(k), targets);
                if k == 0 {
                    prop_assert_eq!(batch.inputs(), following.clone());
                }
                prop_assert_eq!(batch.following(k), following);
            }
        }
    }

    #[test]
    #[should_panic(expected = "2 windows of 3 + 1 tokens do not hold 7 tokens")]
    fn a_wrong_number_of_tokens_names_the_sizes() {
        Batch::new(2, 3, vec![0; 7]);
    }

    #[test]
    #[should_panic(expected = "context of 0")]
    fn a_context_of_zero_is_refused() {
        Batch::new(2, 0, vec![0; 2]);
    }

    #[test]
    #[should_panic(expected = "do not hold 0 tokens")]
    fn sizes_that_overflow_are_refused() {
        Batch::new(2, usize::MAX, Vec::new());
    }
}
