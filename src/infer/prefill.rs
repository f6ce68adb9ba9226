//! Prefill: the trunk's passes over prompts.
//!
//! If one sequence waits, a pass takes up to `chunk` of its tokens, however many those are. If several wait, they
//! share 256 rows: each gets at least one and at most `chunk`, so that only more than 256 sequences make a pass larger.

use super::runner::Runner;
use super::sequence::Sequence;
use super::verify::{Verified, sample_tokens};
use crate::Result;
use crate::exec::Rows;

/// Rows that several sequences share in a pass; larger passes are not faster.
const ROWS: usize = 256;

/// One pass over tokens that the trunk has not seen, of as many rows as the module says. Returns the sequences whose
/// prompts end in it, each with its first new token.
///
/// # Errors
/// Returns the executor's error.
pub(super) fn prefill<'s>(
    runner: &mut dyn Runner,
    mut waiting: Vec<&'s mut Sequence>,
) -> Result<Vec<(&'s mut Sequence, Verified)>> {
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    let (mut tokens, mut spans) = (Vec::new(), Vec::new());
    let (mut ended, mut ends) = (Vec::new(), Vec::new());
    // The sequences share the rows of a pass, so that a long prompt does not delay the others. The shortest come first,
    // because a longer prompt can use what they leave.
    let num_unseen = |sequence: &Sequence| sequence.in_window().len() - sequence.num_cached;
    waiting.sort_by_key(|sequence| num_unseen(sequence));
    let num_waiting = waiting.len();
    for (i, sequence) in waiting.into_iter().enumerate() {
        let chunk = sequence.options.chunk.max(1);
        let share = ROWS.saturating_sub(tokens.len()) / (num_waiting - i);
        let room = if num_waiting == 1 {
            chunk
        } else {
            chunk.min(share.max(1))
        };
        let unseen = &sequence.in_window()[sequence.num_cached..];
        let (chunk, rest) = unseen.split_at(unseen.len().min(room));
        tokens.extend_from_slice(chunk);
        spans.push(sequence.span(chunk.len()));
        if rest.is_empty() {
            ends.push(tokens.len() as u32 - 1);
            ended.push(sequence);
        } else {
            sequence.num_cached += chunk.len();
        }
    }
    for span in &spans {
        // The heads keep what they computed from the tokens before: nothing, or the start of a conversation.
        runner.rewind_heads(span.slot, span.first);
    }
    runner.trunk(&tokens, &Rows::new(spans), Some(ends.into()));
    if ended.is_empty() {
        return Ok(Vec::new());
    }
    let mut requests: Vec<_> = ended.iter().map(|s| s.verify_request(&[])).collect();
    let firsts = sample_tokens(runner, &mut requests)?;
    Ok(ended.into_iter().zip(firsts).collect())
}
