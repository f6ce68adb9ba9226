//! Sampling: the one function that decides a token, in plain decoding, drafting and verification alike.

use super::noise::{GUMBEL_MAX, gumbel};
use crate::simd::scalar;
use crate::{Error, Result};

/// How a token is chosen from logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Divides the scores; 0 takes the largest logit.
    pub temperature: f32,
    /// Keeps this many of the best tokens; 0 for all.
    pub top_k: usize,
    /// Keeps the fewest of the best tokens that together have at least this probability; 1 for all.
    pub top_p: f32,
    /// Keeps tokens with at least this fraction of the best token's probability; 0 for all.
    pub min_p: f32,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Sampler {
    /// The largest logit; the lowest id wins a tie.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: 0,
    };

    /// Checks that the settings are in range.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] for the first that is not.
    pub fn check(&self) -> Result<()> {
        let settings = [
            ("temperature", self.temperature, 0.0..=1e6, "0 to 1000000"),
            (
                "top_p",
                self.top_p,
                f32::MIN_POSITIVE..=1.0,
                "more than 0, at most 1",
            ),
            ("min_p", self.min_p, 0.0..=1.0, "0 to 1"),
        ];
        for (field, value, range, expected) in settings {
            if !range.contains(&value) {
                return Err(Error::setting(field, expected, format!("{value:?}")));
            }
        }
        Ok(())
    }

    /// Whether no token is filtered out.
    pub(crate) fn keeps_all(&self) -> bool {
        self.top_k == 0 && self.top_p >= 1.0 && self.min_p <= 0.0
    }

    /// Ids and scores of the tokens that top-k, top-p and min-p keep, applied in that order: at least one, the best
    /// first, lower ids first among equal scores.
    ///
    /// Top-p cumulates exp(score) in `f64` down that list, in one chain.
    pub(super) fn filter(&self, scores: &[f32]) -> Vec<(u32, f32)> {
        let mut list: Vec<(u32, f32)> = (0..).zip(scores.iter().copied()).collect();
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if (1..list.len()).contains(&self.top_k) {
            // Only the kept tokens have to be sorted.
            list.select_nth_unstable_by(self.top_k - 1, order);
            list.truncate(self.top_k);
        }
        list.sort_unstable_by(order);
        let weight = |(_, score): &(u32, f32)| scalar::exp(f64::from(*score));
        if self.top_p < 1.0 {
            let total = list.iter().fold(0.0, |sum, x| sum + weight(x));
            let enough = f64::from(self.top_p) * total;
            let mut sum = 0.0;
            let last = list.iter().position(|x| {
                sum += weight(x);
                sum >= enough
            });
            list.truncate(last.map_or(list.len(), |last| last + 1));
        }
        if self.min_p > 0.0 {
            let min = f64::from(self.min_p) * list.first().map_or(0.0, weight);
            let keep = list.iter().take_while(|x| weight(x) >= min).count();
            list.truncate(keep.max(1));
        }
        list
    }
}

impl Default for Sampler {
    fn default() -> Self {
        Self::GREEDY
    }
}

/// Samples the token at index `token_index` of its sequence from logits `[V]`.
///
/// A pure function: plain decoding, drafting and verification call it, and get the same token for the same logits. So
/// speculative decoding is exact: a draft is accepted only if it equals the token that this function samples from the
/// trunk's logits. Above temperature 0 this is the Gumbel-max trick (Gumbel 1954) with noise that depends on (seed,
/// token index, token) only:
///
/// ```text
/// score = (logit − max) / temperature;  the filters;  argmax of score + gumbel(seed, token_index, token)
/// ```
///
/// # Errors
/// Returns [`Error::NotFinite`] if a logit is NaN, if there is none, or if the largest is infinite and the temperature
/// is not 0; as [`Sampler::check`].
pub fn sample(logits: &[f32], token_index: usize, sampler: Sampler) -> Result<u32> {
    let (best, scores) = scores(logits, token_index, sampler)?;
    let Some(scores) = scores else {
        return Ok(best);
    };
    let chosen = if sampler.keeps_all() {
        gumbel_argmax(sampler.seed, token_index, (0..).zip(scores))
    } else {
        gumbel_argmax(sampler.seed, token_index, sampler.filter(&scores))
    };
    Ok(chosen.unwrap_or(best))
}

/// The token with the largest logit, and the scores `[V]` of all tokens unless the temperature is 0.
pub(super) fn scores(
    logits: &[f32],
    token_index: usize,
    sampler: Sampler,
) -> Result<(u32, Option<Vec<f32>>)> {
    sampler.check()?;
    let (best, max) = argmax(logits, token_index)?;
    if sampler.temperature == 0.0 {
        return Ok((best, None));
    }
    if max.is_infinite() {
        return Err(Error::NotFinite(format!(
            "the largest logit at token index {token_index} is {max}: it gives no probabilities"
        )));
    }
    let score = |x: &f32| (x - max) / sampler.temperature;
    Ok((best, Some(logits.iter().map(score).collect())))
}

/// The largest logit and the lowest id that has it.
fn argmax(logits: &[f32], token_index: usize) -> Result<(u32, f32)> {
    if let Some(id) = logits.iter().position(|x| x.is_nan()) {
        return Err(Error::NotFinite(format!(
            "the logit of token {id} at token index {token_index} is not a number"
        )));
    }
    let larger = |best: (u32, f32), x: (u32, f32)| if x.1 > best.1 { x } else { best };
    let best = (0..).zip(logits.iter().copied()).reduce(larger);
    best.ok_or_else(|| Error::NotFinite(format!("no logits at token index {token_index}")))
}

/// The token with the largest score plus noise; the lowest id wins a tie.
fn gumbel_argmax(
    seed: u64,
    token_index: usize,
    tokens: impl IntoIterator<Item = (u32, f32)>,
) -> Option<u32> {
    let mut best: Option<(u32, f64)> = None;
    for (id, score) in tokens {
        let score = f64::from(score);
        // Even the largest noise could not make this token the best.
        if best.is_some_and(|(_, max)| score + GUMBEL_MAX < max) {
            continue;
        }
        let value = score + gumbel(seed, token_index, id);
        let wins = |(other, max): (u32, f64)| value > max || (value == max && id < other);
        if best.is_none_or(wins) {
            best = Some((id, value));
        }
    }
    best.map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [1.0, 0.2, -0.5, 1.0, -2.0, 0.4];

    fn at(token_index: usize, sampler: Sampler) -> usize {
        sample(&LOGITS, token_index, sampler).expect("numbers") as usize
    }

    fn sampler(temperature: f32) -> Sampler {
        Sampler {
            temperature,
            ..Sampler::GREEDY
        }
    }

    #[test]
    fn the_largest_logit_and_the_lowest_id() {
        let sample = |logits: &[f32]| sample(logits, 0, Sampler::GREEDY);
        assert_eq!(sample(&[0.0, 3.0, 3.0, -1.0]).expect("numbers"), 1);
        assert_eq!(sample(&[-0.0, 0.0]).expect("numbers"), 0);
        assert_eq!(sample(&[f32::NEG_INFINITY; 3]).expect("numbers"), 0);
        assert!(sample(&[0.0, f32::NAN]).is_err() && sample(&[]).is_err());
    }

    /// Frequencies over seeds and over token indices against exact probabilities, within five standard deviations.
    #[test]
    fn draws_follow_the_distribution() {
        let n = 40_000;
        for (temperature, kept) in [(0.7, 6), (1.0, 6), (2.5, 6), (1.0, 3)] {
            let mut sampler = sampler(temperature);
            sampler.top_k = if kept < 6 { kept } else { 0 };
            // Sorted by logit, ties by id: 0, 3, 5, 1, 2, 4.
            let order = [0usize, 3, 5, 1, 2, 4];
            let weight = |id: &usize| (f64::from(LOGITS[*id]) / f64::from(temperature)).exp();
            let total: f64 = order[..kept].iter().map(weight).sum();
            for by_seed in [true, false] {
                let mut counts = [0usize; 6];
                for i in 0..n {
                    let (seed, token_index) = if by_seed {
                        (i as u64, 3)
                    } else {
                        (7, i % 4000)
                    };
                    let seed = if by_seed {
                        seed
                    } else {
                        seed + (i / 4000) as u64
                    };
                    counts[at(token_index, Sampler { seed, ..sampler })] += 1;
                }
                for (rank, id) in order.iter().enumerate() {
                    let p = if rank < kept { weight(id) / total } else { 0.0 };
                    let slack = 5.0 * (n as f64 * p * (1.0 - p)).sqrt();
                    let off = (counts[*id] as f64 - n as f64 * p).abs();
                    assert!(
                        off <= slack,
                        "token {id} at {temperature}: {} of {n}, p {p}",
                        counts[*id]
                    );
                }
            }
        }
    }

    /// Two indices of one seed: all sixteen pairs of four equally likely tokens occur equally often.
    #[test]
    fn indices_are_independent() {
        let flat = [0.0f32; 4];
        let n = 20_000;
        for distance in [1usize, 2, 64] {
            let mut table = [[0.0f64; 4]; 4];
            for seed in 0..n {
                let sampler = Sampler {
                    seed,
                    ..sampler(1.0)
                };
                let draw = |p: usize| sample(&flat, p, sampler).expect("numbers") as usize;
                table[draw(5)][draw(5 + distance)] += 1.0;
            }
            let expected = n as f64 / 16.0;
            let cells = table.iter().flatten();
            let chi: f64 = cells.map(|x| (x - expected).powi(2) / expected).sum();
            // Chi-square with 15 degrees of freedom: 99.99 % of all tables are below 44.3.
            assert!(chi < 44.3, "distance {distance}: {chi}");
        }
    }

    #[test]
    fn filters_keep_what_they_say() {
        let scores = [0.0f32, -0.8, -1.5, 0.0, -3.0, -0.6];
        let kept = |sampler: Sampler| -> Vec<u32> {
            sampler.filter(&scores).iter().map(|x| x.0).collect()
        };
        let base = sampler(1.0);
        assert_eq!(kept(base), [0, 3, 5, 1, 2, 4]);
        assert_eq!(kept(Sampler { top_k: 3, ..base }), [0, 3, 5]);
        // Weights 1, 1, 0.549, 0.449, 0.223, 0.050; their sum is 3.271.
        assert_eq!(kept(Sampler { top_p: 0.5, ..base }), [0, 3]);
        assert_eq!(kept(Sampler { top_p: 0.7, ..base }), [0, 3, 5]);
        assert_eq!(
            kept(Sampler {
                top_p: 1e-9,
                ..base
            }),
            [0]
        );
        assert_eq!(kept(Sampler { min_p: 0.5, ..base }), [0, 3, 5]);
        assert_eq!(kept(Sampler { min_p: 1.0, ..base }), [0, 3]);
        // Top-p looks at what top-k left: 1, 1, 0.549 with sum 2.549.
        assert_eq!(
            kept(Sampler {
                top_k: 3,
                top_p: 0.7,
                ..base
            }),
            [0, 3]
        );
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let base = Sampler::GREEDY;
        let wrong = [
            (
                "temperature",
                Sampler {
                    temperature: -1.0,
                    ..base
                },
            ),
            (
                "temperature",
                Sampler {
                    temperature: f32::NAN,
                    ..base
                },
            ),
            ("top_p", Sampler { top_p: 0.0, ..base }),
            ("min_p", Sampler { min_p: 1.5, ..base }),
        ];
        for (flag, sampler) in wrong {
            for error in [sampler.check().err(), sample(&LOGITS, 3, sampler).err()] {
                assert!(error.expect(flag).to_string().contains(flag));
            }
        }
        base.check().expect("greedy is fine");
    }
}
