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
//! tentative: their s is min(length of cache k, p − 1), since row p − 1 is computed in any case. Kinds without a cache compute row p − 1 alone. A depth that does not
//! draft in a step falls behind and catches up in one pass later; what rejected drafts left was forgotten when the trunk
//! was rewound. Several sequences draft together, depth by depth, each from where it is.

use super::engine::Ask;
use super::generate::Mode;
use super::rejection::Distribution;
use super::sequence::Session;
use crate::Result;
use crate::exec::{Rows, Span};

/// A guess.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// The token.
    pub token: u32,
    /// What it was drawn from, for the mode that rejects; a draft without it counts as certain.
    pub distribution: Option<Distribution>,
}

impl From<u32> for Draft {
    fn from(token: u32) -> Self {
        let distribution = None;
        Self {
            token,
            distribution,
        }
    }
}

/// Guesses the tokens after the current one.
pub trait Drafter {
    /// At most `wanted[i]` guesses for the positions after the last known token of sequence i.
    ///
    /// # Errors
    /// Where guessing fails; a wrong guess is no failure.
    fn draft(&mut self, session: &mut Session<'_>, wanted: &[usize]) -> Result<Vec<Vec<Draft>>>;
}

/// Guesses nothing: plain decoding.
#[derive(Clone, Copy, Debug)]
pub struct NoDrafts;

impl Drafter for NoDrafts {
    fn draft(&mut self, _: &mut Session<'_>, wanted: &[usize]) -> Result<Vec<Vec<Draft>>> {
        Ok(vec![Vec::new(); wanted.len()])
    }
}

/// Guesses with the model's prediction heads. What they remember lies in the session.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadDrafter(());

/// One sequence in the course of a step.
struct Course {
    sequence: usize,
    wanted: usize,
    drafts: Vec<Draft>,
}

impl Drafter for HeadDrafter {
    fn draft(&mut self, session: &mut Session<'_>, wanted: &[usize]) -> Result<Vec<Vec<Draft>>> {
        let config = session.model.config();
        let mut courses = Vec::new();
        for (sequence, wanted) in wanted.iter().enumerate() {
            let state = &session.sequences[sequence];
            // Where the trunk has not seen the tokens before the current one there is nothing to draft from.
            let p = state.current();
            if *wanted > 0 && p > 0 && state.seen == p {
                courses.push(Course {
                    sequence,
                    wanted: *wanted,
                    drafts: Vec::new(),
                });
            }
        }
        let mut drafts = vec![Vec::new(); wanted.len()];
        for k in 1..=config.mtp_depth {
            courses.retain_mut(|course| {
                let goes_on = course.wanted >= k && course.drafts.len() == k - 1;
                if !goes_on {
                    drafts[course.sequence] = std::mem::take(&mut course.drafts);
                }
                goes_on
            });
            if courses.is_empty() {
                return Ok(drafts);
            }
            depth(session, k, &mut courses)?;
        }
        for course in courses {
            drafts[course.sequence] = course.drafts;
        }
        Ok(drafts)
    }
}

/// Depth k of every course, in one pass.
fn depth(session: &mut Session<'_>, k: usize, courses: &mut [Course]) -> Result<()> {
    let model = session.model;
    let kind = model.config().mtp_kind;
    let cache = model.head_cache(k);
    let mut spans = Vec::with_capacity(courses.len());
    let mut following = Vec::new();
    for course in &*courses {
        let state = &session.sequences[course.sequence];
        let p = state.current();
        // Row p - 1 is computed in any case: its logits are the draft.
        let first = match kind.cached() {
            true => {
                let known = session.engine.len(course.sequence, cache);
                kind.settled(k, p).min(p - 1).min(known)
            }
            false => p - 1,
        };
        session.engine.truncate(course.sequence, cache, first);
        let drafts = course.drafts.iter().map(|draft| draft.token);
        let tokens = state.in_view().iter().copied().chain(drafts);
        following.extend(tokens.skip(first + k).take(p - first));
        spans.push(Span {
            sequence: course.sequence,
            first,
            len: p - first,
        });
    }
    session.engine.head(k, &following, &Rows::new(spans));
    let (mut asks, mut asking) = (
        Vec::with_capacity(courses.len()),
        Vec::with_capacity(courses.len()),
    );
    for (row, course) in courses.iter_mut().enumerate() {
        let state = &session.sequences[course.sequence];
        let position = state.tokens().len() + course.drafts.len();
        let sampler = state.request.options.sampler;
        match state.request.options.mode {
            Mode::Exact => {
                asks.push(Ask {
                    row,
                    rows: 1,
                    position,
                    sampler,
                });
                asking.push(row);
            }
            Mode::Rejection => {
                let q = Distribution::of(&session.engine.row(row)?, position, sampler);
                course.drafts.extend(q.map(|q| Draft {
                    token: q.draft(sampler.seed, position),
                    distribution: Some(q),
                }));
            }
        }
    }
    session.engine.decide(&asks, &mut |ask, token| {
        // A head that computes nonsense drafts nothing; what is generated is the trunk's to decide.
        courses[asking[ask]].drafts.extend(token.map(Draft::from));
        Ok(false)
    })
}
