//! Seeded random numbers with the same values in every version and on every machine (rule R10).
//!
//! The bits are the keystream of the published cipher ChaCha8. The functions that turn them into numbers of a range are
//! our own, because those of `rand` may change their values in any release.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The use of the draws. Every use of one seed has a keystream of its own.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(super) enum Stream {
    /// Starts of training windows.
    Windows = 1,
    /// Choices in the built-in stories.
    Stories = 2,
}

/// A sequence of draws.
#[derive(Clone, Debug)]
pub(super) struct Draws(ChaCha8Rng);

impl Draws {
    /// The draws of one use of a seed.
    ///
    /// The cipher's key is the seed's eight bytes, little end first, then zeros. Its nonce is the stream.
    pub(super) fn new(seed: u64, stream: Stream) -> Self {
        Self::keyed(seed, stream as u64)
    }

    fn keyed(seed: u64, nonce: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(nonce);
        Self(generator)
    }

    /// Seeks to a 32-bit word of the keystream, which repeats after 2^68 words.
    pub(super) fn seek(&mut self, word: u128) {
        self.0.set_word_pos(word);
    }

    /// A number in `0..count`: the upper half of the 128-bit product of a 64-bit draw and `count`.
    ///
    /// A number's probability is off by less than 2^-64, far below what a run could notice. Unlike rejection, this
    /// always takes one draw, so the position of every draw is known in advance.
    ///
    /// # Panics
    ///
    /// Panics if `count` is 0.
    #[track_caller]
    pub(super) fn below(&mut self, count: usize) -> usize {
        assert!(count > 0, "Draws::below: no number is below 0");
        // Both casts are exact: a usize has at most 64 bits on every platform, and the result is below `count`.
        scale(self.0.next_u64(), count as u64) as usize
    }
}

/// floor(draw / 2^64 · count)
fn scale(draw: u64, count: u64) -> u64 {
    ((u128::from(draw) * u128::from(count)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first block of test vector TC1 (256-bit key of zeros, nonce of zeros, 8 rounds) in
    /// draft-strombergson-chacha-test-vectors-01.
    const TC1: &str = "3e00ef2f895f40d67f5bb8e81f09a5a12c840ec3ce9a7f3b181be188ef711a1e\
                       984ce172b9216f419f445367456d5619314a42a3da86b001387bfdb80e0cfe42";

    #[test]
    fn the_bits_are_the_published_cipher() {
        let mut draws = Draws::keyed(0, 0);
        let mut hex = String::new();
        for _ in 0..8 {
            for byte in draws.0.next_u64().to_le_bytes() {
                hex += &format!("{byte:02x}");
            }
        }
        assert_eq!(hex, TC1);
    }

    #[test]
    fn scaling_spreads_all_draws_over_the_whole_range() {
        assert_eq!(scale(0, 7), 0);
        assert_eq!(scale(u64::MAX, 7), 6);
        assert_eq!(scale(u64::MAX, 1), 0);
        assert_eq!(scale(u64::MAX, u64::MAX), u64::MAX - 1);
        assert_eq!(scale(1 << 63, 10), 5);
        assert_eq!(scale((1 << 63) - 1, 10), 4);
    }

    #[test]
    fn seeking_lands_on_a_later_draw() {
        let mut walked = Draws::new(3, Stream::Windows);
        for _ in 0..100 {
            walked.below(2);
        }
        let mut jumped = Draws::new(3, Stream::Windows);
        jumped.seek(100 * 2);
        for _ in 0..20 {
            assert_eq!(walked.below(1 << 40), jumped.below(1 << 40));
        }
    }

    #[test]
    fn seeds_and_streams_give_different_draws() {
        let first = |seed, stream| Draws::new(seed, stream).below(usize::MAX);
        assert_ne!(first(0, Stream::Windows), first(1, Stream::Windows));
        assert_ne!(first(0, Stream::Windows), first(0, Stream::Stories));
    }
}
