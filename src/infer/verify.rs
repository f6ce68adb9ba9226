//! The trunk's pass over the current tokens and their drafts.

use super::draft::Draft;
use super::engine::{Ask, Wanted};
use super::generate::Mode;
use super::rejection::{Distribution, decide};
use super::sequence::Session;
use crate::Result;

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
/// Where [`pick`](super::pick()) fails, or the executor.
pub(super) fn prefill(session: &mut Session<'_>, sequences: &[usize]) -> Result<Vec<Accepted>> {
    let mut firsts = Vec::with_capacity(sequences.len());
    while firsts.len() < sequences.len() {
        let (mut spans, mut tokens, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        // In order, so that the first of them are done first.
        for sequence in &sequences[firsts.len()..] {
            let state = &session.sequences[*sequence];
            let unseen = &state.in_view()[state.seen..];
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
        if ends.is_empty() {
            session.advance(&spans, &tokens, Wanted::Nothing);
            continue;
        }
        let ended = &sequences[firsts.len()..][..ends.len()];
        session.advance(&spans, &tokens, Wanted::Rows(ends.into()));
        let jobs: Vec<_> = ended
            .iter()
            .map(|sequence| (*sequence, Vec::new()))
            .collect();
        firsts.extend(judge(session, &jobs)?.into_iter().map(|tokens| tokens[0]));
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
/// Where [`pick`](super::pick()) fails, or the executor.
pub(super) fn verify(
    session: &mut Session<'_>,
    jobs: &[(usize, Vec<Draft>)],
) -> Result<Vec<Verdict>> {
    let (mut spans, mut inputs) = (Vec::with_capacity(jobs.len()), Vec::new());
    for (sequence, drafts) in jobs {
        let state = &session.sequences[*sequence];
        assert_eq!(
            state.seen,
            state.current(),
            "the trunk has seen all but the current token"
        );
        inputs.push(*state.tokens().last().expect("a prompt has tokens"));
        inputs.extend(drafts.iter().map(|draft| draft.token));
        spans.push((*sequence, 1 + drafts.len()));
    }
    session.advance(&spans, &inputs, Wanted::All);
    let mut verdicts = Vec::with_capacity(jobs.len());
    for ((sequence, drafts), tokens) in jobs.iter().zip(judge(session, jobs)?) {
        let rejected = drafts[tokens.len() - 1..].iter().map(|d| d.token);
        let rejected = rejected.collect();
        let seen = session.sequences[*sequence].current() + tokens.len();
        session.rewind(*sequence, seen);
        verdicts.push(Verdict { tokens, rejected });
    }
    Ok(verdicts)
}

/// Decides the tokens after the known ones of some sequences, from the last logits, which have a row for each sequence
/// and each of its drafts: the accepted drafts and one token more.
fn judge(session: &mut Session<'_>, jobs: &[(usize, Vec<Draft>)]) -> Result<Vec<Vec<Accepted>>> {
    let mut tokens: Vec<Vec<Accepted>> = Vec::with_capacity(jobs.len());
    let (mut asks, mut asking) = (
        Vec::with_capacity(jobs.len()),
        Vec::with_capacity(jobs.len()),
    );
    let mut row = 0;
    for (job, (sequence, drafts)) in jobs.iter().enumerate() {
        let state = &session.sequences[*sequence];
        let (position, rows) = (state.tokens().len(), 1 + drafts.len());
        let sampler = state.request.options.sampler;
        tokens.push(match state.request.options.mode {
            Mode::Exact => {
                asks.push(Ask {
                    row,
                    rows,
                    position,
                    sampler,
                });
                asking.push(job);
                Vec::with_capacity(rows)
            }
            Mode::Rejection => reject(session, (*sequence, row), drafts)?,
        });
        row += rows;
    }
    session.engine.decide(&asks, &mut |ask, token| {
        let token = token?;
        let job = asking[ask];
        let draft = jobs[job].1.get(tokens[job].len());
        tokens[job].push(Accepted(token));
        Ok(draft.is_some_and(|draft| draft.token == token))
    })?;
    Ok(tokens)
}

/// The same for one sequence in the mode that rejects; `row` is the first row of its logits.
fn reject(
    session: &mut Session<'_>,
    (sequence, row): (usize, usize),
    drafts: &[Draft],
) -> Result<Vec<Accepted>> {
    let state = &session.sequences[sequence];
    let (known, sampler) = (state.tokens().len(), state.request.options.sampler);
    let mut tokens = Vec::with_capacity(1 + drafts.len());
    loop {
        let (i, position) = (tokens.len(), known + tokens.len());
        let logits = session.engine.row(row + i)?;
        let p = Distribution::of(&logits, position, sampler)?;
        let certain;
        let draft = match drafts.get(i) {
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
        let (token, accepted) = decide(&p, draft, sampler.seed, position);
        tokens.push(Accepted(token));
        if !accepted {
            return Ok(tokens);
        }
    }
}
