//! Generation from start to end: simple functions over a [`Session`].

use super::drafter::Drafter;
use super::request::{GenerateOptions, Request};
use super::sequence::{FinishReason, SequenceId};
use super::session::Session;
use super::verify::DecodedToken;
use crate::Result;
use crate::model::Model;
use std::ops::ControlFlow;

/// What was generated for one request, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Generated {
    /// The tokens after the prompt.
    pub tokens: Vec<u32>,
    /// Steps that gave tokens, the end of the prefill included. Plain decoding has one token per step.
    pub steps: usize,
    /// Drafts of head 1, 2, ..
    pub drafted_by_depth: Vec<usize>,
    /// Accepted drafts of head 1, 2, ..
    pub accepted_by_depth: Vec<usize>,
}

impl Generated {
    /// Tokens per step; 0 before the first.
    pub fn tokens_per_step(&self) -> f64 {
        self.tokens.len() as f64 / self.steps.max(1) as f64
    }

    /// Counts a step and its drafts.
    pub(super) fn record_step(&mut self, drafted: usize, accepted: usize) {
        self.steps += 1;
        if self.drafted_by_depth.len() < drafted {
            self.drafted_by_depth.resize(drafted, 0);
            self.accepted_by_depth.resize(drafted, 0);
        }
        let count = |list: &mut [usize]| list.iter_mut().for_each(|n| *n += 1);
        count(&mut self.drafted_by_depth[..drafted]);
        count(&mut self.accepted_by_depth[..accepted]);
    }
}

/// Continues a prompt. In [`DecodeMode::Exact`](super::DecodeMode::Exact) the tokens do not depend on the drafter or
/// the number of drafts.
///
/// # Errors
/// As [`generate_batch`].
pub fn generate(
    model: &Model,
    prompt: &[u32],
    options: &GenerateOptions,
    drafter: &mut dyn Drafter,
) -> Result<Generated> {
    let request = Request::new(prompt, options.clone());
    Ok(generate_batch(model, &[request], drafter)?.remove(0))
}

/// Continues several prompts together. In [`DecodeMode::Exact`](super::DecodeMode::Exact) the tokens of each are those
/// that it gets alone.
///
/// # Errors
/// As [`Session::generate`], and the error of the first request that fails.
pub fn generate_batch(
    model: &Model,
    requests: &[Request],
    drafter: &mut dyn Drafter,
) -> Result<Vec<Generated>> {
    let next = &mut |_, _, _: &[u32]| ControlFlow::Continue(());
    let results = Session::new(model).generate(requests, drafter, next)?;
    results.into_iter().collect()
}

/// Receives each token as soon as it is decided: the request's index, the token, and the rejected drafts from its place
/// on. [`ControlFlow::Break`] ends the request's text with this token.
pub type OnToken<'a> = dyn FnMut(usize, DecodedToken, &[u32]) -> ControlFlow<()> + 'a;

impl Session<'_> {
    /// Adds requests and steps until all sequences of the session are finished. The new sequences stay in the session,
    /// as its last ones, and can be extended. A request that fails has its error in place of a result.
    ///
    /// # Errors
    /// As [`Session::add`] and [`Session::step`].
    pub fn generate(
        &mut self,
        requests: &[Request],
        drafter: &mut dyn Drafter,
        on_token: &mut OnToken<'_>,
    ) -> Result<Vec<Result<Generated>>> {
        let ids = requests.iter().map(|request| self.add(request.clone()));
        let ids: Vec<SequenceId> = ids.collect::<Result<_>>()?;
        let mut results: Vec<_> = ids.iter().map(|_| Ok(Generated::default())).collect();
        while self.unfinished() > 0 {
            for output in self.step(drafter)? {
                let Ok(i) = ids.binary_search(&output.id) else {
                    continue;
                };
                if let Some(FinishReason::Failed(error)) = output.finish {
                    results[i] = Err(error);
                }
                let Ok(result) = &mut results[i] else {
                    continue;
                };
                let mut accepted = 0;
                for token in output.tokens {
                    result.tokens.push(token.id());
                    accepted += usize::from(token.depth() > 0);
                    let rejected = if token.depth() == 0 {
                        &output.rejected[..]
                    } else {
                        &[]
                    };
                    if on_token(i, token, rejected).is_break() {
                        self.truncate(output.id, requests[i].prompt.len() + result.tokens.len())?;
                        break;
                    }
                }
                result.record_step(output.drafted, accepted);
            }
        }
        Ok(results)
    }

    /// Steps until all sequences are finished, and returns each token when it is decided, with the sequence that gained
    /// it. A sequence that fails gives its own error, and the others continue; an error of a step is the last item.
    ///
    /// Tokens that were decided but not taken stay in the session, and the next iterator begins with them, unless their
    /// sequence is removed or cut before that.
    pub fn stream<'s>(
        &'s mut self,
        drafter: &'s mut dyn Drafter,
    ) -> impl Iterator<Item = Result<(SequenceId, Result<DecodedToken>)>> + 's {
        let mut stopped = false;
        std::iter::from_fn(move || {
            while self.not_taken.is_empty() && !stopped && self.unfinished() > 0 {
                let outputs = match self.step(drafter) {
                    Ok(outputs) => outputs,
                    Err(error) => {
                        stopped = true;
                        return Some(Err(error));
                    }
                };
                for output in outputs {
                    let tokens = output.tokens.into_iter().map(Ok);
                    let failure = match output.finish {
                        Some(FinishReason::Failed(error)) => Some(Err(error)),
                        _ => None,
                    };
                    let items = tokens.chain(failure);
                    self.not_taken.extend(items.map(|item| (output.id, item)));
                }
            }
            self.not_taken.pop_front().map(Ok)
        })
    }
}
