//! Drafting with the model's prediction heads.
//!
//! Let p be the position of the newest token, which the trunk has not seen yet.
//!
//! ```text
//! for k = 1..=K:
//!     s = min(valid entries of cache k, p − 1)                      entry i of head k depends on tokens up to x_{i+k}
//!     h^k[s..p] = head k on h^{k-1}[s..p] and x_{s+k}..x_{p-1+k}    drafts stand in for tokens after x_p
//!                 (on h^0[s..p] alone, if the kind is not chained)
//!     d_k = sample(logits of row p − 1)                             the draft for position p + k
//! ```
//!
//! So one pass computes both the rows that catch up with accepted tokens and the row that drafts, and what the heads
//! compute is what the training graph computes on the same tokens. Valid entries are those computed from known tokens
//! only ([`HeadKind::num_valid_entries`](crate::model::HeadKind::num_valid_entries)). Heads without a cache compute row
//! p − 1 only. A head that is skipped in a step falls behind, and catches up in one pass when it drafts again. Several
//! sequences draft together, head by head.

use super::decode_exec::SampleRequest;
use super::draft::Draft;
use super::drafter::{DraftContext, DraftRequest};
use super::rejection;
use super::request::DecodeMode;
use super::runner::Runner;
use crate::Result;
use crate::exec::{Rows, Span};

impl DraftContext<'_> {
    /// Drafts with the model's heads 1, 2, ..: at most `max_drafts[i]` tokens for request i (none if there is no such
    /// element).
    ///
    /// # Errors
    /// Returns [`Error::Device`](crate::Error::Device) if the executor's device failed.
    pub fn run_heads(&mut self, max_drafts: &[usize]) -> Result<Vec<Vec<Draft>>> {
        let num_heads = self.model().config().mtp_depth;
        let (runner, requests) = (&mut *self.runner, &mut self.requests);
        for request in &mut *requests {
            // Drafts of a step that failed, or of heads that were run before in this one.
            request.sequence.head_drafts.clear();
            runner.rewind_heads(request.sequence.slot, request.sequence.num_cached);
        }
        let mut drafts = vec![Vec::new(); requests.len()];
        for k in 1..=num_heads {
            let is_active = |i: &usize| max_drafts.get(*i) >= Some(&k) && drafts[*i].len() == k - 1;
            let active: Vec<usize> = (0..requests.len()).filter(is_active).collect();
            if active.is_empty() {
                break;
            }
            let found = head(runner, k, requests, &active)?;
            for (i, draft) in active.into_iter().zip(found) {
                if let Some(draft) = draft {
                    requests[i].sequence.head_drafts.push(draft.token);
                    drafts[i].push(draft);
                }
            }
        }
        Ok(drafts)
    }
}

/// Head k of some requests in one pass: a draft for each, or none if the head's logits are NaN or otherwise unusable.
fn head(
    runner: &mut dyn Runner,
    k: usize,
    requests: &[DraftRequest<'_>],
    active: &[usize],
) -> Result<Vec<Option<Draft>>> {
    let sequences = active.iter().map(|i| &*requests[*i].sequence);
    let (mut head_inputs, mut spans) = (Vec::new(), Vec::new());
    for sequence in sequences.clone() {
        let (slot, p) = (sequence.slot, sequence.last_position());
        // Row p − 1 is computed in any case: its logits are the draft.
        let first = runner.head_len(slot, k).min(p - 1);
        let tokens = sequence.in_window().iter().chain(&sequence.head_drafts);
        head_inputs.extend(tokens.skip(first + k).take(p - first));
        spans.push(Span {
            first,
            ..sequence.span(p - first)
        });
    }
    runner.head(k, &head_inputs, &Rows::new(spans));
    let samples = sequences.clone().enumerate();
    let samples: Vec<SampleRequest> = samples
        .map(|(row, s)| s.sample_request(row, k - 1, &[]))
        .collect();
    let sampled = runner.sample(&samples)?;
    let mut drafts = Vec::with_capacity(active.len());
    for ((sequence, sample), tokens) in sequences.zip(&samples).zip(sampled) {
        drafts.push(match sequence.options.mode {
            DecodeMode::Exact => tokens.ok().map(|tokens| Draft::from(tokens[0])),
            DecodeMode::Rejection => rejection::draft(runner, sample)?.map(|(token, q)| Draft {
                token,
                distribution: Some(q),
            }),
        });
    }
    Ok(drafts)
}
