//! The trunk's pass over the current tokens and their drafts.

use super::draft::Draft;
use super::generate::Mode;
use super::pick::pick;
use super::rejection::{Distribution, decide};
use super::sequence::Session;
use crate::Result;
use crate::exec::Exec;
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

/// What a pass decided for one sequence.
#[derive(Debug)]
pub(super) struct Verdict {
    /// The accepted drafts, and one token more.
    pub tokens: Vec<Accepted>,
    /// The drafts that were not accepted.
    pub rejected: Vec<u32>,
}

/// Rows of a pass over prompts, about: more make a pass no faster.
const ROWS: usize = 256;

/// Runs the trunk over the known tokens of some sequences that it has not seen, several sequences in one pass, and decides
/// the token after each.
///
/// # Errors
/// Where [`pick`] fails.
pub(super) fn prefill(session: &mut Session<'_>, sequences: &[usize]) -> Result<Vec<Accepted>> {
    let mut firsts = Vec::with_capacity(sequences.len());
    while firsts.len() < sequences.len() {
        let (mut spans, mut tokens, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        // In order, so that the first of them are done first.
        for sequence in &sequences[firsts.len()..] {
            let state = &session.sequences[*sequence];
            let unseen = &state.in_view()[state.hidden.len()..];
            let chunk = state.request.options.chunk.max(1);
            let room = match tokens.len() {
                0 => chunk,
                rows => chunk.min(ROWS.saturating_sub(rows)),
            };
            let part = &unseen[..unseen.len().min(room)];
            if part.is_empty() {
                break;
            }
            tokens.extend_from_slice(part);
            spans.push((*sequence, part.len()));
            if part.len() < unseen.len() {
                break;
            }
            ends.push(tokens.len() as u32 - 1);
        }
        let h = session.advance(&spans, &tokens);
        if ends.is_empty() {
            continue;
        }
        let h = session.decode.apply(SelectRows { keep: ends.into() }, [&h]);
        let logits = session.model.logits(&mut session.decode, &h);
        for row in 0..logits.value().rows() {
            let sequence = sequences[firsts.len()];
            let logits = logits.value().row(row);
            let history = session.sequences[sequence].tokens();
            let (token, _) = judge(session, sequence, logits, history, None)?;
            firsts.push(Accepted(token));
        }
    }
    Ok(firsts)
}

/// Runs the trunk over the current token x_n of several sequences and their drafts for positions n + 1.., in one pass.
///
/// In the exact mode the drafts are accepted that equal what [`pick`] says on the trunk's logits, up to the first that
/// does not, and `pick` gives one more token for free. The trunk's caches are left as if only the accepted tokens had
/// ever been there.
///
/// # Errors
/// Where [`pick`] fails.
pub(super) fn verify(
    session: &mut Session<'_>,
    jobs: &[(usize, Vec<Draft>)],
) -> Result<Vec<Verdict>> {
    let (mut spans, mut inputs) = (Vec::with_capacity(jobs.len()), Vec::new());
    for (sequence, drafts) in jobs {
        let state = &session.sequences[*sequence];
        assert_eq!(
            state.hidden.len(),
            state.current(),
            "the trunk has seen all but the current token"
        );
        inputs.push(*state.tokens().last().expect("a prompt has tokens"));
        inputs.extend(drafts.iter().map(|draft| draft.token));
        spans.push((*sequence, 1 + drafts.len()));
    }
    let h = session.advance(&spans, &inputs);
    let logits = session.model.logits(&mut session.decode, &h);
    let mut verdicts = Vec::with_capacity(jobs.len());
    let mut row = 0;
    for (sequence, drafts) in jobs {
        let tokens: Result<_> = session.with_history(*sequence, |session, history| {
            let mut tokens = Vec::with_capacity(1 + drafts.len());
            loop {
                let draft = drafts.get(tokens.len());
                let logits = logits.value().row(row + tokens.len());
                let (token, accepted) = judge(session, *sequence, logits, history, draft)?;
                history.push(token);
                tokens.push(Accepted(token));
                if !accepted {
                    return Ok(tokens);
                }
            }
        });
        let tokens = tokens?;
        row += 1 + drafts.len();
        let rejected = drafts[tokens.len() - 1..].iter().map(|d| d.token);
        let rejected = rejected.collect();
        let seen = session.sequences[*sequence].current() + tokens.len();
        session.rewind(*sequence, seen);
        verdicts.push(Verdict { tokens, rejected });
    }
    Ok(verdicts)
}

/// Decides the token after `history`; says whether that accepts the draft for it.
fn judge(
    session: &Session<'_>,
    sequence: usize,
    logits: &[f32],
    history: &[u32],
    draft: Option<&Draft>,
) -> Result<(u32, bool)> {
    let options = &session.sequences[sequence].request.options;
    let (position, sampler) = (history.len(), options.sampler);
    match options.mode {
        Mode::Exact => {
            let token = pick(logits, history, position, sampler)?;
            Ok((token, draft.is_some_and(|draft| draft.token == token)))
        }
        Mode::Rejection => {
            let p = Distribution::of(logits, position, sampler)?;
            let certain;
            let draft = match draft {
                None => None,
                Some(Draft {
                    token,
                    distribution: Some(q),
                }) => Some((*token, q)),
                Some(Draft { token, .. }) => {
                    certain = Distribution::certain(*token, logits.len());
                    Some((*token, &certain))
                }
            };
            Ok(decide(&p, draft, sampler.seed, position))
        }
    }
}
