//! Verification: the trunk's pass over the newest tokens and their drafts decides which drafts are accepted.

use super::decode_exec::SampleRequest;
use super::draft::Draft;
use super::rejection;
use super::request::DecodeMode;
use super::runner::Runner;
use crate::Result;
use crate::exec::{Rows, Span};

/// A token that the trunk's own logits decided. Only verification can make one:
///
/// ```compile_fail,E0451
/// let token = foretoken::infer::DecodedToken { id: 7, depth: 1 };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedToken {
    id: u32,
    depth: usize,
}

impl DecodedToken {
    /// The token's id.
    pub fn id(self) -> u32 {
        self.id
    }

    /// 1..=K: the head that drafted it (for another drafter, the index of the draft in its step, from 1); 0 for the
    /// trunk's own token.
    pub fn depth(self) -> usize {
        self.depth
    }
}

/// The accepted drafts of a sequence and one more token (the trunk's replacement of a rejected draft, or a bonus
/// token), or why the sequence fails.
pub(super) type Verified = Result<Vec<DecodedToken>>;

/// A sequence to verify.
pub(super) struct VerifyRequest<'d> {
    /// The newest token, x_n.
    pub newest: u32,
    /// Its drafts for positions n + 1, ..
    pub drafts: &'d [Draft],
    /// The rows of both.
    pub span: Span,
    /// How the tokens after them are chosen; the row is set here.
    pub sample: SampleRequest,
    /// How drafts are accepted.
    pub mode: DecodeMode,
}

/// Runs the trunk over the newest token x_n of each sequence and its drafts for positions n + 1, .., in one pass.
/// Returns the accepted drafts of each sequence and one more token.
///
/// # Errors
/// Returns the executor's error. An inner error concerns one sequence only.
pub(super) fn verify(
    runner: &mut dyn Runner,
    mut requests: Vec<VerifyRequest<'_>>,
) -> Result<Vec<Verified>> {
    let mut tokens = Vec::new();
    for request in &requests {
        tokens.push(request.newest);
        tokens.extend(&request.sample.drafts);
    }
    let spans = requests.iter().map(|request| request.span).collect();
    runner.trunk(&tokens, &Rows::new(spans), None);
    sample_tokens(runner, &mut requests)
}

/// Decides the next tokens of some sequences from the last logits, which have a row for each sequence and each of its
/// drafts, in that order.
///
/// # Errors
/// As [`verify`].
pub(super) fn sample_tokens(
    runner: &mut dyn Runner,
    requests: &mut [VerifyRequest<'_>],
) -> Result<Vec<Verified>> {
    let mut row = 0;
    for request in &mut *requests {
        request.sample.row = row;
        row += 1 + request.drafts.len();
    }
    let samples: Vec<SampleRequest> = requests.iter().map(|r| r.sample.clone()).collect();
    let sampled = runner.sample(&samples)?;
    let mut verified = Vec::with_capacity(requests.len());
    for (request, tokens) in requests.iter().zip(sampled) {
        let tokens = match request.mode {
            DecodeMode::Exact => tokens,
            DecodeMode::Rejection => {
                let drawn = request.drafts.iter().map(|d| d.distribution.as_ref());
                rejection::verify_drafts(runner, &request.sample, &drawn.collect::<Vec<_>>())
            }
        };
        // A token that equals its draft was drafted by that head.
        let decoded = |(i, id)| {
            let drafted = request.sample.drafts.get(i) == Some(&id);
            let depth = if drafted { i + 1 } else { 0 };
            DecodedToken { id, depth }
        };
        verified.push(tokens.map(|tokens| tokens.into_iter().enumerate().map(decoded).collect()));
    }
    Ok(verified)
}
