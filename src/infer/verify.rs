//! The trunk's pass over the current token and its drafts.

use super::pick::{Sampler, pick};
use super::sequence::Sequence;
use crate::Result;
use crate::ops::SelectRows;

/// A token that the trunk's own logits decided. Only this file can make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted(u32);

impl Accepted {
    /// The token's id.
    pub fn id(self) -> u32 {
        self.0
    }
}

/// Runs the trunk over the prompt in chunks of at most `chunk` tokens and decides the token after it.
///
/// # Errors
/// Where [`pick`] fails.
pub(super) fn prefill(
    sequence: &mut Sequence<'_>,
    chunk: usize,
    sampler: Sampler,
) -> Result<Accepted> {
    let prompt = sequence.tokens().to_vec();
    let mut last = None;
    for part in prompt.chunks(chunk.max(1)) {
        last = Some((sequence.advance(part), part.len()));
    }
    let (h, rows) = last.expect("a prompt has at least one token");
    let decode = &mut sequence.decode;
    let keep = [rows as u32 - 1].into();
    let h = crate::exec::Exec::apply(decode, SelectRows { keep }, [&h]);
    let logits = sequence.model.logits(decode, &h);
    let token = pick(logits.value().data(), &prompt, prompt.len(), sampler)?;
    Ok(Accepted(token))
}

/// Runs the trunk over the current token x_n and `drafts` for positions n + 1.. in one pass.
///
/// Returns the drafts that equal what [`pick`] says on the trunk's logits, up to the first that does not, and one more
/// token that `pick` gives for free. The trunk's caches are left as if only the accepted tokens had ever been there.
///
/// # Errors
/// Where [`pick`] fails.
pub(super) fn verify(
    sequence: &mut Sequence<'_>,
    drafts: &[u32],
    sampler: Sampler,
) -> Result<Vec<Accepted>> {
    let mut history = sequence.tokens().to_vec();
    let current = history.len() - 1;
    assert_eq!(
        sequence.hidden.len(),
        current,
        "the trunk has seen all but the current token"
    );
    let mut inputs = vec![history[current]];
    inputs.extend_from_slice(drafts);
    let h = sequence.advance(&inputs);
    let logits = sequence.model.logits(&mut sequence.decode, &h);
    let mut accepted = Vec::with_capacity(inputs.len());
    for row in 0..inputs.len() {
        let token = pick(logits.value().row(row), &history, history.len(), sampler)?;
        history.push(token);
        accepted.push(Accepted(token));
        if drafts.get(row) != Some(&token) {
            break;
        }
    }
    sequence.rewind(current + accepted.len());
    Ok(accepted)
}
