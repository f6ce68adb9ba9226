//! Verification: the trunk's pass over the newest tokens and their drafts decides which drafts are accepted.

use super::draft::Draft;
use super::rejection;
use super::request::Mode;
use super::runner::{LogitRows, Runner};
use super::sequence::Sequence;
use crate::Result;
use crate::exec::Rows;

/// A token that the trunk's own logits decided. Only verification can make one:
///
/// ```compile_fail,E0451
/// let token = foretoken::infer::Accepted { id: 7, head: 1 };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    id: u32,
    head: usize,
}

impl Accepted {
    /// The token's id.
    pub fn id(self) -> u32 {
        self.id
    }

    /// The head that drafted it, 1..=K (for another drafter: the number of the draft in its step), or 0 for the trunk.
    pub fn head(self) -> usize {
        self.head
    }
}

/// The accepted drafts of a sequence and one token more, or why the sequence fails.
pub(super) type Verified = Result<Vec<Accepted>>;

/// Runs the trunk over the newest token x_n of each sequence and its drafts for positions n + 1, .., in one pass. Returns
/// the accepted drafts of each sequence and one token more.
///
/// # Errors
/// Returns the executor's error. An inner error concerns one sequence only.
pub(super) fn verify(
    runner: &mut dyn Runner,
    sequences: &[&mut Sequence],
    drafts: &[Vec<Draft>],
) -> Result<Vec<Verified>> {
    let (mut tokens, mut spans) = (Vec::new(), Vec::with_capacity(sequences.len()));
    for (sequence, drafts) in sequences.iter().zip(drafts) {
        tokens.extend(sequence.tokens().last());
        tokens.extend(drafts.iter().map(|draft| draft.token));
        spans.push(sequence.span(1 + drafts.len()));
    }
    runner.trunk(&tokens, &Rows::new(spans), LogitRows::All);
    pick_tokens(runner, sequences, drafts)
}

/// Decides the next tokens of some sequences from the last logits, which have a row for each sequence and each of its
/// drafts, in that order.
///
/// # Errors
/// As [`verify`].
pub(super) fn pick_tokens(
    runner: &mut dyn Runner,
    sequences: &[&mut Sequence],
    drafts: &[Vec<Draft>],
) -> Result<Vec<Verified>> {
    let (mut requests, mut row) = (Vec::with_capacity(sequences.len()), 0);
    for (sequence, drafts) in sequences.iter().zip(drafts) {
        requests.push(sequence.sample(row, 0, drafts));
        row += 1 + drafts.len();
    }
    let sampled = runner.sample(&requests)?;
    let mut verified = Vec::with_capacity(sequences.len());
    for (i, tokens) in sampled.into_iter().enumerate() {
        let tokens = match sequences[i].options.mode {
            Mode::Exact => tokens,
            Mode::Rejection => rejection::accept(runner, &requests[i], &drafts[i]),
        };
        verified.push(tokens.map(|tokens| {
            // All but the last of them were drafted.
            let last = tokens.len() - 1;
            let head = |i| if i == last { 0 } else { i + 1 };
            let tokens = tokens.into_iter().enumerate();
            tokens
                .map(|(i, id)| Accepted { id, head: head(i) })
                .collect()
        }));
    }
    Ok(verified)
}
