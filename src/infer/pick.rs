//! The one function that decides a token, for plain decoding, for drafting and for verification alike.

use crate::{Error, Result};

/// How a token is chosen from logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sampler {
    /// The largest logit; the lowest id wins a tie. This is temperature 0.
    #[default]
    Greedy,
}

/// The token at index `position` of its sequence, from logits `[V]` and the tokens before it.
///
/// A pure function: the same logits, history and position give the same token, whoever asks. Speculative decoding is
/// exact because drafts are accepted only where they equal what this function says on the trunk's logits.
///
/// # Errors
/// [`Error::Diverged`] where a logit is NaN, or there is none.
pub fn pick(logits: &[f32], history: &[u32], position: usize, sampler: Sampler) -> Result<u32> {
    debug_assert_eq!(history.len(), position);
    let Sampler::Greedy = sampler;
    let mut best: Option<(usize, f32)> = None;
    for (id, x) in logits.iter().enumerate() {
        if x.is_nan() {
            return Err(Error::Diverged(format!(
                "the logit of token {id} at position {position} is not a number"
            )));
        }
        if best.is_none_or(|(_, largest)| *x > largest) {
            best = Some((id, *x));
        }
    }
    let none = || Error::Diverged(format!("no logits at position {position}"));
    best.map(|(id, _)| id as u32).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_logit_and_the_lowest_id() {
        let pick = |logits: &[f32]| pick(logits, &[], 0, Sampler::Greedy);
        assert_eq!(pick(&[0.0, 3.0, 3.0, -1.0]).expect("numbers"), 1);
        assert_eq!(pick(&[-0.0, 0.0]).expect("numbers"), 0);
        assert_eq!(pick(&[f32::NEG_INFINITY; 3]).expect("numbers"), 0);
        assert!(pick(&[0.0, f32::NAN]).is_err() && pick(&[]).is_err());
    }
}
