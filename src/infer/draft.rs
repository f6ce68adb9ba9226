//! Drafting: guesses for the tokens after the current one, from wherever.
//!
//! A step of the prediction heads. Let p be the position of the current token, which the trunk has not seen yet, and s
//! the entries of depth k that stay: those computed from known tokens only.
//!
//! ```text
//! for k = 1..=K:
//!     s = min(length of cache k, max(0, p − k))      entry i of depth k depends on tokens up to x_{i+k}
//!     truncate cache k and h^k to s
//!     h^k[s..p] = head k on h^{k-1}[s..p] and x_{s+k}..x_{p-1+k}     drafts stand in where i + k > p
//!     d_k = pick(logits of row p − 1)                                the draft for position p + k
//! ```
//!
//! So the rows that catch up on accepted tokens and the row that drafts go through in one pass, and what the drafter
//! computes is what the training graph computes on the same tokens. Kinds that read the trunk's state only are never
//! tentative: their s is the length of the cache. A depth that does not draft in a step falls behind and catches up in one
//! pass later; what rejected drafts left was forgotten when the trunk was rewound.

use super::pick::{Sampler, pick};
use super::sequence::{Hidden, Sequence};
use crate::Result;
use crate::exec::{Exec, Rows};
use crate::model::Model;
use crate::ops::SelectRows;

/// Guesses the tokens after the current one.
pub trait Drafter {
    /// At most `wanted` guesses for the positions after the last known token.
    ///
    /// # Errors
    /// Where guessing fails; a wrong guess is no failure.
    fn draft(&mut self, sequence: &mut Sequence<'_>, wanted: usize) -> Result<Vec<u32>>;
}

/// Guesses nothing: plain decoding.
#[derive(Clone, Copy, Debug)]
pub struct NoDrafts;

impl Drafter for NoDrafts {
    fn draft(&mut self, _: &mut Sequence<'_>, _: usize) -> Result<Vec<u32>> {
        Ok(Vec::new())
    }
}

/// Guesses with the model's prediction heads.
#[derive(Clone, Debug)]
pub struct HeadDrafter {
    sampler: Sampler,
    /// h^1.., each over positions; empty for kinds that do not need it.
    hidden: Vec<Hidden>,
}

impl HeadDrafter {
    /// For one sequence of this model.
    pub fn new(model: &Model, sampler: Sampler) -> Self {
        let config = model.config();
        Self {
            sampler,
            hidden: vec![Hidden::new(config.hidden_size); config.mtp_depth],
        }
    }
}

impl Drafter for HeadDrafter {
    fn draft(&mut self, sequence: &mut Sequence<'_>, wanted: usize) -> Result<Vec<u32>> {
        let model = sequence.model;
        let chained = model.config().mtp_kind.chained();
        let mut tokens = sequence.tokens().to_vec();
        let p = tokens.len() - 1;
        if p == 0 || sequence.hidden.len() != p {
            // The trunk has not seen the tokens before the current one: there is nothing to draft from.
            return Ok(Vec::new());
        }
        for k in 1..=wanted.min(self.hidden.len()) {
            let decode = &mut sequence.decode;
            let cache = model.head_cache(k);
            // Row p - 1 is computed in any case: its logits are the draft.
            let settled = model.config().mtp_kind.settled(k, p).min(p - 1);
            let from = decode.len(0, cache).min(settled);
            decode.truncate(0, cache, from);
            let source = match k {
                _ if !chained => &sequence.hidden,
                1 => &sequence.hidden,
                _ => &self.hidden[k - 2],
            };
            let rows = Rows::one(0, from, p - from);
            let following = &tokens[from + k..p + k];
            let h = model.head(decode, k, &source.rows(from, p), following, &rows);
            if chained {
                self.hidden[k - 1].truncate(from);
                self.hidden[k - 1].extend(h.value());
            }
            let keep = [(p - from - 1) as u32].into();
            let h = decode.apply(SelectRows { keep }, [&h]);
            let logits = model.logits(decode, &h);
            // A head that computes nonsense drafts nothing; what is generated is the trunk's to decide.
            let Ok(draft) = pick(logits.value().data(), &tokens, p + k, self.sampler) else {
                break;
            };
            tokens.push(draft);
        }
        Ok(tokens.split_off(p + 1))
    }
}
