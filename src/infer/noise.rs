//! Random numbers for sampling: a pure function of (seed, token index, token).
//!
//! The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), keyed by the
//! seed; its counter holds the token and its index in the sequence. Counter-based and stateless, so the order of
//! evaluation is irrelevant.

use crate::simd::scalar;

/// Ten rounds of Philox4x32.
fn philox([mut a, mut b, mut c, mut d]: [u32; 4], [mut key0, mut key1]: [u32; 2]) -> [u32; 4] {
    let wide = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    for _ in 0..10 {
        let (high0, low0) = wide(0xd251_1f53, a);
        let (high1, low1) = wide(0xcd9e_8d57, c);
        (a, b, c, d) = (high1 ^ b ^ key0, low1, high0 ^ d ^ key1, low0);
        key0 = key0.wrapping_add(0x9e37_79b9);
        key1 = key1.wrapping_add(0xbb67_ae85);
    }
    [a, b, c, d]
}

/// The use of a number. Each use has an independent stream of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Stream {
    /// Gumbel noise, one number per token.
    Sample = 0,
    /// Which token to draft, in rejection sampling.
    Draft = 1,
    /// Whether a draft is accepted, in rejection sampling.
    Accept = 2,
    /// Which token to take after a rejection, or without a draft.
    Resample = 3,
}

fn words(seed: u64, stream: Stream, token_index: usize, token: u32) -> [u32; 4] {
    let words = |n: u64| [n as u32, (n >> 32) as u32];
    let [low, high] = words(token_index as u64);
    philox([token, low, high, stream as u32], words(seed))
}

/// A uniform number in (0, 1): (2 b + 1) · 2^-24 with 23 random bits b.
fn uniform(seed: u64, token_index: usize, token: u32) -> f64 {
    let bits = words(seed, Stream::Sample, token_index, token)[0] >> 9;
    f64::from(2 * bits + 1) / f64::from(1 << 24)
}

/// A uniform number in [0, 1) with 53 random bits: one per stream and token index.
pub(super) fn uniform_f64(seed: u64, stream: Stream, token_index: usize) -> f64 {
    let [high, low, ..] = words(seed, stream, token_index, 0);
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

/// Standard Gumbel noise −ln(−ln u): adding it to log-probabilities and taking the largest is a draw from them
/// (Gumbel 1954; Maddison et al. 2014).
pub(super) fn gumbel(seed: u64, token_index: usize, token: u32) -> f64 {
    -scalar::ln(-scalar::ln(uniform(seed, token_index, token)))
}

/// No [`gumbel`] value is larger: that of u = 1 − 2^-24 is 16.64.
pub(super) const GUMBEL_MAX: f64 = 16.7;

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the authors' library Random123 (`kat_vectors`, philox4x32 with 10 rounds).
    #[test]
    fn philox_is_philox() {
        let ones = u32::MAX;
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let cases = [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [ones; 4],
                [ones; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                pi,
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox(counter, key), expected);
        }
    }

    #[test]
    fn fine_numbers_fill_the_interval_and_streams_differ() {
        let n = 50_000;
        let streams = [Stream::Draft, Stream::Accept, Stream::Resample];
        for stream in streams {
            let mut cells = [0.0f64; 32];
            for token_index in 0..n {
                let u = uniform_f64(9, stream, token_index);
                assert!((0.0..1.0).contains(&u));
                cells[(u * 32.0) as usize] += 1.0;
            }
            let expected = n as f64 / 32.0;
            let chi: f64 = cells
                .iter()
                .map(|x| (x - expected).powi(2) / expected)
                .sum();
            // Chi-square with 31 degrees of freedom: 99.99 % of all tables are below 69.
            assert!(chi < 69.0, "{stream:?}: {chi}");
        }
        let at = |stream| {
            (0..64)
                .map(|p| uniform_f64(9, stream, p))
                .collect::<Vec<_>>()
        };
        assert!(at(streams[0]) != at(streams[1]) && at(streams[1]) != at(streams[2]));
    }

    #[test]
    fn the_noise_has_the_moments_of_a_gumbel_variable() {
        let n = 200_000;
        let draws: Vec<f64> = (0..n)
            .map(|i| gumbel(5, i / 100, (i % 100) as u32))
            .collect();
        let mean = draws.iter().sum::<f64>() / n as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        // Euler's constant and π²/6.
        assert!((mean - 0.577_216).abs() < 0.02, "{mean}");
        assert!((variance - 1.644_934).abs() < 0.04, "{variance}");
        assert!(draws.iter().all(|x| x.is_finite() && *x < GUMBEL_MAX));
        assert!(-(-(1.0 - 2f64.powi(-24)).ln()).ln() < GUMBEL_MAX);
    }
}
