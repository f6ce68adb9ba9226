//! Which windows are read: at random to train, one after the other to evaluate.

use super::draws::{Draws, Stream};
use super::{Batch, Tokens, check_length};
use crate::{Error, Result};

/// Keystream words of 32 bits per step. A draw takes two. So there is room for 2^31 windows in a batch, and the steps
/// repeat after 2^36.
const WORDS_PER_STEP: u128 = 1 << 32;

/// Training windows of T+1 tokens that start at random positions.
///
/// A window's start is a pure function of (seed, step, index in the batch). So a run that resumes needs nothing but its
/// step number to continue with the same windows. Neither the batch size nor the number of heads changes them.
///
/// ```text
/// key    the seed                       draw   the 64 bits at word step·2^32 + 2·index
/// nonce  the stream of windows          start  floor(draw / 2^64 · starts), starts = tokens - T
/// ```
#[derive(Clone, Debug)]
pub struct RandomWindows {
    tokens: Tokens,
    seq_len: usize,
    batch_size: usize,
    draws: Draws,
}

impl RandomWindows {
    /// `batch_size` windows of `seq_len` + 1 tokens per step.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Setting`] if `seq_len` or `batch_size` is 0, and [`Error::TooShort`] if the tokens do not fill
    /// one window.
    pub fn new(
        tokens: impl Into<Tokens>,
        seq_len: usize,
        batch_size: usize,
        seed: u64,
    ) -> Result<Self> {
        let tokens = tokens.into();
        if batch_size == 0 {
            return Err(Error::setting("batch", "at least 1 window", 0));
        }
        check_length("the training text", tokens.len(), seq_len)?;
        let draws = Draws::new(seed, Stream::Windows);
        Ok(Self {
            tokens,
            seq_len,
            batch_size,
            draws,
        })
    }

    /// The windows of one training step; the order of calls does not matter.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Tokens::read`]; none for tokens in memory.
    pub fn batch(&self, step: u64) -> Result<Batch> {
        let window = self.seq_len + 1;
        // `new` has checked that this is at least 1.
        let starts = self.tokens.len() - self.seq_len;
        let mut draws = self.draws.clone();
        draws.seek(u128::from(step) * WORDS_PER_STEP);
        let mut tokens = Vec::with_capacity(self.batch_size * window);
        for _ in 0..self.batch_size {
            let start = draws.below(starts);
            self.tokens.read(start, window, &mut tokens)?;
        }
        Ok(Batch::new(self.batch_size, self.seq_len, tokens))
    }
}

/// The windows of an evaluation, each as a batch: window j reads tokens jT..=jT+T-1 and predicts tokens jT+1..=jT+T.
///
/// So the main head predicts every token but the first exactly once. The rest at the end is one shorter window. Fewer
/// than two tokens give none.
///
/// # Panics
///
/// Panics if `seq_len` is 0.
#[track_caller]
pub fn consecutive(tokens: &[u32], seq_len: usize) -> impl Iterator<Item = Batch> {
    assert!(
        seq_len > 0,
        "consecutive: windows of 0 positions predict nothing"
    );
    // The last token is only predicted, so no window starts at it.
    let starts = (0..tokens.len().saturating_sub(1)).step_by(seq_len);
    starts.map(move |start| {
        let rest = &tokens[start..];
        let window = rest.get(..=seq_len).unwrap_or(rest);
        Batch::new(1, window.len() - 1, window.to_vec())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tokens that are their own positions, so that a window shows where it came from.
    fn numbered(length: usize) -> Vec<u32> {
        (0..length as u32).collect()
    }

    fn starts(batch: &Batch) -> Vec<u32> {
        batch
            .inputs()
            .chunks(batch.seq_len())
            .map(|window| window[0])
            .collect()
    }

    #[test]
    fn a_random_window_is_a_run_of_tokens() {
        let windows = RandomWindows::new(numbered(1000), 16, 8, 1).unwrap();
        let batch = windows.batch(0).unwrap();
        assert_eq!((batch.batch_size(), batch.seq_len()), (8, 16));
        for (window, start) in batch.inputs().chunks(16).zip(starts(&batch)) {
            assert_eq!(window, (start..start + 16).collect::<Vec<_>>());
        }
        let next: Vec<u32> = batch.inputs().iter().map(|token| token + 1).collect();
        assert_eq!(batch.targets(0), next);
    }

    #[test]
    fn windows_depend_on_seed_step_and_index_only() {
        let make = |batch, seed| RandomWindows::new(numbered(100_000), 4, batch, seed).unwrap();
        let (small, large) = (make(3, 5), make(7, 5));
        // Out of order, and twice: there is no state.
        for step in [9, 0, 9, 1, u64::from(u32::MAX)] {
            assert_eq!(
                starts(&small.batch(step).unwrap()),
                starts(&large.batch(step).unwrap())[..3],
                "step {step}"
            );
        }
        assert_ne!(small.batch(0).unwrap(), small.batch(1).unwrap());
        assert_ne!(small.batch(0).unwrap(), make(3, 6).batch(0).unwrap());
    }

    #[test]
    fn the_documented_place_of_a_draw_is_the_real_one() {
        let windows = RandomWindows::new(numbered(5000), 10, 4, 77).unwrap();
        let batch = windows.batch(12).unwrap();
        for (index, start) in starts(&batch).into_iter().enumerate() {
            let mut draws = Draws::new(77, Stream::Windows);
            draws.seek(12 * WORDS_PER_STEP + 2 * index as u128);
            assert_eq!(start as usize, draws.below(5000 - 10), "window {index}");
        }
    }

    #[test]
    fn every_start_can_be_drawn_and_none_beyond() {
        let windows = RandomWindows::new(numbered(12), 8, 16, 3).unwrap();
        let mut seen = [false; 4];
        for step in 0..20 {
            for start in starts(&windows.batch(step).unwrap()) {
                seen[start as usize] = true;
            }
        }
        assert_eq!(seen, [true; 4]);
    }

    #[test]
    fn the_shortest_text_is_one_window() {
        let windows = RandomWindows::new(numbered(9), 8, 2, 3).unwrap();
        assert_eq!(starts(&windows.batch(41).unwrap()), [0, 0]);
    }

    #[test]
    fn sizes_that_cannot_work_are_refused() {
        let refusal = |length, seq_len, batch_size| {
            let windows = RandomWindows::new(numbered(length), seq_len, batch_size, 0);
            windows.map(drop).unwrap_err()
        };
        let setting = |error, name| matches!(error, Error::Setting { field, .. } if field == name);
        assert!(setting(refusal(100, 8, 0), "batch"));
        assert!(setting(refusal(100, 0, 4), "context"));
        let short = refusal(8, 8, 4);
        assert!(
            matches!(
                short,
                Error::TooShort {
                    tokens: 8,
                    needed: 9,
                    ..
                }
            ),
            "{short}"
        );
    }

    /// Checks the windows of one evaluation against positions, which the tokens are.
    fn check_evaluation(length: usize, seq_len: usize) {
        let name = format!("length {length}, seq_len {seq_len}");
        let tokens = numbered(length);
        let windows: Vec<Batch> = consecutive(&tokens, seq_len).collect();
        let targets: Vec<u32> = windows
            .iter()
            .flat_map(|window| window.targets(0))
            .collect();
        let inputs: Vec<u32> = windows.iter().flat_map(Batch::inputs).collect();
        assert_eq!(targets, tokens.get(1..).unwrap_or_default(), "{name}");
        assert_eq!(inputs, tokens[..length.saturating_sub(1)], "{name}");
        for (n, window) in windows.iter().enumerate() {
            let last = n + 1 == windows.len();
            assert_eq!(window.batch_size(), 1, "{name}, window {n}");
            assert!(window.seq_len() == seq_len || last, "{name}, window {n}");
            assert_eq!(starts(window), [(n * seq_len) as u32], "{name}, window {n}");
        }
        let predicted = length.saturating_sub(1);
        assert_eq!(windows.len(), predicted.div_ceil(seq_len), "{name}");
    }

    #[test]
    fn every_token_but_the_first_is_a_target_once() {
        for seq_len in [1, 2, 7, 16, usize::MAX] {
            let some = seq_len.min(16);
            let boundaries = [0, 1, 2, some, 2 * some, 3 * some, 6 * some];
            for length in boundaries
                .into_iter()
                .flat_map(|n: usize| [n.saturating_sub(1), n, n + 1, n + 2])
            {
                check_evaluation(length, seq_len);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn every_token_is_a_target_once_at_any_size(length in 0_usize..300, seq_len in 1_usize..40) {
            check_evaluation(length, seq_len);
        }
    }

    #[test]
    fn an_evaluation_written_by_hand() {
        let windows: Vec<Batch> = consecutive(&[5, 6, 7, 8, 9, 10], 2).collect();
        let expected = [
            Batch::new(1, 2, vec![5, 6, 7]),
            Batch::new(1, 2, vec![7, 8, 9]),
            Batch::new(1, 1, vec![9, 10]),
        ];
        assert_eq!(windows, expected);
    }
}
