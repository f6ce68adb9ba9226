//! Rejection sampling: the same distribution as plain sampling, but a different sample.
//!
//! Leviathan et al. 2023 (arXiv:2211.17192, section 2.3) and Chen et al. 2023 (arXiv:2302.01318, algorithm 2). The
//! drafter draws x from its distribution q; p is the trunk's distribution:
//!
//! ```text
//! accept x with probability min(1, p(x) / q(x));  else draw from max(0, p − q) / Σ max(0, p − q)
//! after the last draft, and if there is none, draw from p
//! ```
//!
//! Whatever q is, the token has distribution p: x gets min(p, q) by acceptance, and the rejected mass
//! Σ max(0, q − p) = Σ max(0, p − q) is spread over max(0, p − q). It is here to be compared with exact decoding, which
//! gives the very tokens of plain decoding. DraftContext, accepting and resampling have random streams of their own.

use super::decode_exec::SampleRequest;
use super::noise::{Stream, uniform_f64};
use super::runner::Runner;
use super::sample::{Sampler, scores};
use crate::simd::scalar;
use crate::{Error, Result};

/// Probabilities of all tokens `[V]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution(Vec<f64>);

impl Distribution {
    /// Probabilities of all tokens `[V]`; they are divided by their sum.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] if one is negative or not finite, or if their sum is not positive and finite.
    pub fn new(mut probabilities: Vec<f64>) -> Result<Self> {
        let wrong = |p: &&f64| !p.is_finite() || **p < 0.0;
        if let Some(p) = probabilities.iter().find(wrong) {
            let expected = "finite probabilities of at least 0";
            return Err(Error::setting("distribution", expected, p));
        }
        let sum: f64 = probabilities.iter().sum();
        if sum <= 0.0 || sum.is_infinite() {
            let expected = "a positive, finite sum";
            return Err(Error::setting("distribution", expected, sum));
        }
        probabilities.iter_mut().for_each(|p| *p /= sum);
        Ok(Self(probabilities))
    }

    /// The distribution that a sampler draws from: the softmax of the scores that its filters keep.
    ///
    /// # Errors
    /// As [`sample`](super::sample()).
    pub fn from_logits(logits: &[f32], token_index: usize, sampler: Sampler) -> Result<Self> {
        let (best, scores) = scores(logits, token_index, sampler)?;
        let Some(scores) = scores else {
            return Ok(Self::one_hot(best, logits.len()));
        };
        let mut p = vec![0.0; logits.len()];
        let kept = sampler.filter(&scores);
        for (id, score) in &kept {
            p[*id as usize] = scalar::exp(f64::from(*score));
        }
        let total: f64 = kept.iter().map(|(id, _)| p[*id as usize]).sum();
        p.iter_mut().for_each(|p| *p /= total);
        Ok(Self(p))
    }

    /// All probability on one of `vocab` tokens.
    ///
    /// # Panics
    /// Panics if `token` is not below `vocab`.
    pub fn one_hot(token: u32, vocab: usize) -> Self {
        let mut p = vec![0.0; vocab];
        p[token as usize] = 1.0;
        Self(p)
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The token at `u` in [0, 1) of the cumulative distribution.
    fn quantile(&self, u: f64) -> u32 {
        let total: f64 = self.0.iter().sum();
        let (mut sum, mut last) = (0.0, 0);
        for (id, p) in (0..).zip(&self.0).filter(|(_, p)| **p > 0.0) {
            sum += p;
            last = id;
            if sum > u * total {
                break;
            }
        }
        last
    }
}

/// A draft drawn from the distribution of a row of a head's logits; none if they are NaN or otherwise unusable.
///
/// # Errors
/// Returns the executor's error.
pub(super) fn draft(
    runner: &mut dyn Runner,
    request: &SampleRequest,
) -> Result<Option<(u32, Distribution)>> {
    let (token_index, sampler) = (request.token_index, request.sampler);
    let q = Distribution::from_logits(&runner.logits_row(request.row)?, token_index, sampler).ok();
    let u = uniform_f64(sampler.seed, Stream::Draft, token_index);
    Ok(q.map(|q| (q.quantile(u), q)))
}

/// The accepted drafts and one more token, from the logits rows of a request; `distributions[i]` is the one that its
/// draft i was drawn from. A draft without one, or with one that excludes it, counts as certain. As in
/// [`SampleRequest::verify_drafts`], a row that fails ends the list.
///
/// # Errors
/// As [`sample`](super::sample()), or the executor's error, for the first row.
pub(super) fn verify_drafts(
    runner: &mut dyn Runner,
    request: &SampleRequest,
    distributions: &[Option<&Distribution>],
) -> Result<Vec<u32>> {
    request.verify_drafts(|row, token_index| {
        let p = Distribution::from_logits(&runner.logits_row(row)?, token_index, request.sampler)?;
        let i = row - request.row;
        let draft = request.drafts.get(i).copied();
        let certain = draft.map(|token| Distribution::one_hot(token, p.len()));
        let drawn = distributions.get(i).copied().flatten();
        let q = draft.and_then(|token| drawn.filter(|q| q.0[token as usize] > 0.0));
        let draft = draft.zip(q.or(certain.as_ref()));
        Ok(decide(&p, draft, request.sampler.seed, token_index))
    })
}

/// Probability that a draft of token `x` is accepted.
fn acceptance(p: &Distribution, q: &Distribution, x: u32) -> f64 {
    let (p, q) = (p.0[x as usize], q.0[x as usize]);
    // A token that the trunk excludes is never accepted.
    if p == 0.0 { 0.0 } else { (p / q).min(1.0) }
}

/// The distribution after a rejection: max(0, p − q) up to a factor. If that is zero everywhere, which only rounding or
/// a draft not drawn from q can cause, p.
fn residual(p: &Distribution, q: &Distribution) -> Distribution {
    let part = |(p, q): (&f64, &f64)| if p > q { p - q } else { 0.0 };
    let rest: Vec<f64> = p.0.iter().zip(&q.0).map(part).collect();
    if rest.iter().any(|p| *p > 0.0) {
        Distribution(rest)
    } else {
        p.clone()
    }
}

/// Decides the token at `token_index` from the trunk's distribution p and the draft for it, if there is one, with the
/// distribution q that it was drawn from. It equals the draft if that is accepted.
fn decide(
    p: &Distribution,
    draft: Option<(u32, &Distribution)>,
    seed: u64,
    token_index: usize,
) -> u32 {
    let resample = uniform_f64(seed, Stream::Resample, token_index);
    let Some((x, q)) = draft else {
        return p.quantile(resample);
    };
    if uniform_f64(seed, Stream::Accept, token_index) < acceptance(p, q, x) {
        x
    } else {
        residual(p, q).quantile(resample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V of the enumeration.
    const V: usize = 3;
    /// Tokens of the enumeration: K = 3 drafts and one more.
    const N: usize = 4;

    /// A distribution that depends on the tokens before it; `flavour` tells p from q. Some probabilities are 0.
    fn table(prefix: &[u32], flavour: u64) -> Distribution {
        let state = prefix
            .iter()
            .fold(flavour, |s, t| s * 31 + u64::from(*t) + 1);
        let weight = |i: usize| (uniform_f64(state, Stream::Sample, i) * 5.0 - 0.8).max(0.0);
        let mut p: Vec<f64> = (0..V).map(weight).collect();
        p[state as usize % V] += 0.3;
        let total: f64 = p.iter().sum();
        p.iter_mut().for_each(|p| *p /= total);
        Distribution(p)
    }

    fn code(text: &[u32]) -> usize {
        text.iter().fold(0, |n, t| n * V + *t as usize)
    }

    /// Adds the probability of every continuation of `text` to N tokens by plain sampling.
    fn plainly(text: &[u32], mass: f64, flavour: u64, outcomes: &mut [f64]) {
        if text.len() == N {
            outcomes[code(text)] += mass;
            return;
        }
        let p = table(text, flavour);
        for t in 0..V as u32 {
            plainly(
                &[text, &[t]].concat(),
                mass * p.0[t as usize],
                flavour,
                outcomes,
            );
        }
    }

    /// The same by one step that drafts up to `drafts` tokens, and plain sampling after it.
    fn by_rejection(
        (text, known): (&[u32], usize),
        drafts: usize,
        mass: f64,
        (p_flavour, q_flavour): (u64, u64),
        outcomes: &mut [f64],
    ) {
        let p = table(text, p_flavour);
        if text.len() - known == drafts {
            return plainly(text, mass, p_flavour, outcomes);
        }
        let q = table(text, q_flavour);
        for x in (0..V as u32).filter(|x| q.0[*x as usize] > 0.0) {
            let drafted = mass * q.0[x as usize];
            let accept = acceptance(&p, &q, x);
            let longer = [text, &[x]].concat();
            let flavours = (p_flavour, q_flavour);
            by_rejection(
                (&longer, known),
                drafts,
                drafted * accept,
                flavours,
                outcomes,
            );
            let rest = residual(&p, &q);
            let total: f64 = rest.0.iter().sum();
            for y in 0..V as u32 {
                let resampled = drafted * (1.0 - accept) * rest.0[y as usize] / total;
                plainly(&[text, &[y]].concat(), resampled, p_flavour, outcomes);
            }
        }
    }

    /// Every outcome of draft, accept and resample, summed: the distribution is that of plain sampling.
    #[test]
    fn the_distribution_is_the_targets() {
        for flavour in 0..40 {
            let mut target = vec![0.0; V.pow(N as u32)];
            plainly(&[], 1.0, flavour, &mut target);
            assert!((target.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            for drafts in 0..N {
                for q in [flavour, flavour + 1000, flavour + 2000] {
                    let mut got = vec![0.0; target.len()];
                    by_rejection((&[], 0), drafts, 1.0, (flavour, q), &mut got);
                    for (got, target) in got.iter().zip(&target) {
                        assert!((got - target).abs() < 1e-12, "{got} and {target}");
                    }
                }
            }
        }
    }

    /// The enumeration uses probabilities; `decide` and `draft` must act by them.
    #[test]
    fn decisions_have_these_probabilities() {
        let n = 60_000;
        for flavour in 0..3 {
            let (p, q) = (table(&[], flavour), table(&[], flavour + 1000));
            let mut counts = [[0.0f64; V]; 3];
            for seed in 0..n {
                let x = q.quantile(uniform_f64(seed, Stream::Draft, 7));
                counts[0][x as usize] += 1.0;
                counts[1][decide(&p, Some((x, &q)), seed, 7) as usize] += 1.0;
                counts[2][decide(&p, None, seed, 7) as usize] += 1.0;
            }
            for (counts, exact) in counts.iter().zip([&q, &p, &p]) {
                for (count, p) in counts.iter().zip(&exact.0) {
                    let slack = 5.0 * (n as f64 * p * (1.0 - p)).sqrt();
                    assert!(
                        (count - n as f64 * p).abs() <= slack,
                        "{count} of {n}, p {p}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_draft_from_the_same_distribution_is_always_accepted() {
        let p = table(&[1], 3);
        for seed in 0..500 {
            let x = p.quantile(uniform_f64(seed, Stream::Draft, 2));
            assert_eq!(decide(&p, Some((x, &p)), seed, 2), x);
        }
        // One that the trunk excludes never is, even if the distribution that came with it excludes it too.
        let (a, b) = (Distribution::one_hot(0, V), Distribution::one_hot(2, V));
        let other = Distribution::one_hot(1, V);
        for seed in 0..500 {
            for q in [&a, &b, &other] {
                assert_eq!(decide(&a, Some((2, q)), seed, 2), 0);
            }
        }
    }

    #[test]
    fn what_is_not_a_distribution_is_refused() {
        for wrong in [-0.1, f64::NAN, f64::INFINITY] {
            let error = Distribution::new(vec![0.5, wrong]).expect_err("refused");
            assert!(error.to_string().contains(&wrong.to_string()), "{error}");
        }
        for wrong in [vec![], vec![0.0, 0.0], vec![f64::MAX; 2]] {
            let error = Distribution::new(wrong).expect_err("refused");
            assert!(error.to_string().contains("sum"), "{error}");
        }
        let valid = Distribution::new(vec![0.0, 2.0]).expect("a distribution");
        assert_eq!(valid, Distribution::one_hot(1, 2));
    }

    #[test]
    fn a_sampler_has_the_distribution_that_it_draws_from() {
        let logits = [1.0f32, 0.0, -1.0, 1.0];
        let warm = Sampler {
            temperature: 0.5,
            top_k: 3,
            ..Sampler::GREEDY
        };
        let p = Distribution::from_logits(&logits, 0, warm).expect("numbers");
        // exp(0), exp(-2) and exp(0) over temperature 0.5; the third token is cut off.
        let total = 2.0 + (-2f64).exp();
        let exact = [1.0 / total, (-2f64).exp() / total, 0.0, 1.0 / total];
        for (got, exact) in p.0.iter().zip(exact) {
            assert!((got - exact).abs() < 1e-9);
        }
        let greedy = Distribution::from_logits(&logits, 0, Sampler::GREEDY).expect("numbers");
        assert_eq!(greedy, Distribution::one_hot(0, 4));
        assert!(Distribution::from_logits(&[f32::NAN], 0, warm).is_err());
    }
}
