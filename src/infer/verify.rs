//! Verification: the trunk's pass over the newest tokens and their drafts decides which drafts are accepted.

use super::draft::Draft;
use super::rejection;
use super::request::DecodeMode;
use super::runner::Runner;
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

/// A sequence and the drafts for the positions after its newest token.
pub(super) type Drafted<'a> = (&'a Sequence, &'a [Draft]);

/// Runs the trunk over the newest token x_n of each sequence and its drafts for positions n + 1, .., in one pass.
/// Returns the accepted drafts of each sequence and one token more.
///
/// # Errors
/// Returns the executor's error. An inner error concerns one sequence only.
pub(super) fn verify(runner: &mut dyn Runner, sequences: &[Drafted<'_>]) -> Result<Vec<Verified>> {
    let (mut tokens, mut spans) = (Vec::new(), Vec::new());
    for (sequence, drafts) in sequences {
        tokens.extend(sequence.tokens().last());
        tokens.extend(drafts.iter().map(|draft| draft.token));
        spans.push(sequence.span(1 + drafts.len()));
    }
    runner.trunk(&tokens, &Rows::new(spans), None);
    pick_tokens(runner, sequences)
}

/// Decides the next tokens of some sequences from the last logits, which have a row for each sequence and each of its
/// drafts, in that order.
///
/// # Errors
/// As [`verify`].
pub(super) fn pick_tokens(
    runner: &mut dyn Runner,
    sequences: &[Drafted<'_>],
) -> Result<Vec<Verified>> {
    let (mut requests, mut row) = (Vec::with_capacity(sequences.len()), 0);
    for (sequence, drafts) in sequences {
        requests.push(sequence.sample_request(row, 0, drafts));
        row += 1 + drafts.len();
    }
    let sampled = runner.sample(&requests)?;
    let mut verified = Vec::with_capacity(sequences.len());
    for (((sequence, drafts), request), tokens) in sequences.iter().zip(&requests).zip(sampled) {
        let tokens = match sequence.options.mode {
            DecodeMode::Exact => tokens,
            DecodeMode::Rejection => {
                let drawn = drafts.iter().map(|draft| draft.distribution.as_ref());
                rejection::accept(runner, request, &drawn.collect::<Vec<_>>())
            }
        };
        // A token that equals its draft was drafted by that head.
        let accepted = |(i, id)| {
            let drafted = request.drafts.get(i) == Some(&id);
            let head = if drafted { i + 1 } else { 0 };
            Accepted { id, head }
        };
        verified.push(tokens.map(|tokens| tokens.into_iter().enumerate().map(accepted).collect()));
    }
    Ok(verified)
}
