//! One step of a session, from top to bottom.
//!
//! ```text
//! sequences that decode                        sequences with a prompt to compute
//!   how many drafts?      policy.rs              prefill.rs: one pass of the trunk over
//!   draft                 drafter.rs, heads.rs   some of the prompts' tokens
//!   verify: one pass      verify.rs              where a prompt ends, sample its first token
//!   commit                below                  commit, below
//! ```

use super::draft::Draft;
use super::drafter::{Drafter, draft};
use super::policy::{DraftLimit, StepStats};
use super::prefill::prefill;
use super::runner::Runner;
use super::sequence::{FinishReason, Phase, Sequence, SequenceId};
use super::session::Session;
use super::verify::{DecodedToken, Verified, verify};
use crate::Result;
use crate::kernels::par;
use std::time::Instant;

/// What a sequence gained in a step.
#[derive(Debug)]
#[non_exhaustive]
pub struct StepOutput {
    /// The sequence.
    pub id: SequenceId,
    /// The new tokens: the accepted drafts of heads 1, 2, .. and one token of the trunk's own (depth 0), up to the
    /// token that finishes the text. None if the sequence failed.
    pub tokens: Vec<DecodedToken>,
    /// Number of drafts that were submitted to verification. Those after a wrong one are not judged.
    pub drafted: usize,
    /// The draft that the trunk's own token replaced, and those after it; none if there was no wrong draft.
    pub rejected: Vec<u32>,
    /// Why the sequence finished, if it did. It stays in the session, and can be extended, until it is removed.
    pub finish: Option<FinishReason>,
}

impl Session<'_> {
    /// One step of every sequence that is not finished: those with a prompt to compute get some of it computed, the
    /// others draft and verify. Returns the outputs of the sequences that gained tokens or finished, those that decode
    /// first.
    ///
    /// # Errors
    /// Returns the drafter's error, [`Error::Setting`](crate::Error::Setting) if a draft's distribution does not have a
    /// probability per token, or [`Error::FloatEnvironment`](crate::Error::FloatEnvironment) if this thread flushes
    /// subnormal numbers or does not round to nearest, before or after drafting; no sequence has changed then. Returns
    /// [`Error::Device`](crate::Error::Device) if the executor's device failed; sequences may have gained tokens.
    pub fn step(&mut self, drafter: &mut dyn Drafter) -> Result<Vec<StepOutput>> {
        par::check_this_thread()?;
        // Chosen before anything is computed: a sequence that gets its first token now decodes from the next step on.
        let (mut waiting, mut decoding) = (Vec::new(), Vec::new());
        for sequence in self.sequences.values_mut() {
            sequence.slide_if_full();
            match sequence.phase {
                Phase::Prefill => waiting.push(sequence),
                Phase::Decode => decoding.push(sequence),
                Phase::Finished => {}
            }
        }
        let runner = &mut *self.runner;
        let mut outputs = Vec::with_capacity(decoding.len());
        if !decoding.is_empty() {
            // How many drafts.
            let limits: Vec<DraftLimit> = decoding.iter().map(|s| s.draft_limit()).collect();
            let max_drafts = self.policy.choose(&limits, drafter.max_drafts(self.model));
            // Draft.
            let start = Instant::now();
            let drafts = draft(self.model, runner, &mut decoding, &max_drafts, drafter)?;
            let draft_time = start.elapsed();
            // A drafter may call libraries that change the mode.
            par::check_this_thread()?;
            // Verify: the accepted drafts of each sequence and one more token.
            let start = Instant::now();
            let requests = decoding.iter().zip(&drafts);
            let requests = requests.map(|(sequence, drafts)| sequence.verify_request(drafts));
            let verified = verify(runner, requests.collect())?;
            let verify_time = start.elapsed();
            let stats: Vec<StepStats> = { drafts.iter().zip(&verified) }
                .map(|(drafts, tokens)| StepStats {
                    drafted: drafts.len(),
                    accepted: tokens.as_ref().map_or(0, |tokens| num_drafted(tokens)),
                })
                .collect();
            self.policy.learn(draft_time, verify_time, &stats);
            // Commit: append the accepted tokens, rewind.
            for ((sequence, drafts), tokens) in decoding.into_iter().zip(drafts).zip(verified) {
                outputs.push(commit(runner, sequence, &drafts, tokens));
            }
        }
        // Prompts.
        for (sequence, tokens) in prefill(runner, waiting)? {
            outputs.push(commit(runner, sequence, &[], tokens));
        }
        Ok(outputs)
    }
}

fn num_drafted(tokens: &[DecodedToken]) -> usize {
    tokens.iter().filter(|token| token.depth() > 0).count()
}

/// Appends the verified tokens, up to one that finishes the text, and drops what was computed from other tokens.
fn commit(
    runner: &mut dyn Runner,
    sequence: &mut Sequence,
    drafts: &[Draft],
    tokens: Verified,
) -> StepOutput {
    let mut output = StepOutput {
        id: sequence.id(),
        tokens: Vec::new(),
        drafted: drafts.len(),
        rejected: Vec::new(),
        finish: None,
    };
    let tokens = tokens.unwrap_or_else(|error| {
        output.finish = Some(FinishReason::Failed(error));
        Vec::new()
    });
    // The heads may have computed with drafts that are not what was accepted.
    let same = |(token, draft): &(&DecodedToken, &u32)| token.id() == **draft;
    let right = tokens.iter().zip(&sequence.head_drafts).take_while(same);
    let head_len = sequence.last_position() + 1 + right.count();
    for (i, token) in tokens.into_iter().enumerate() {
        output.tokens.push(token);
        output.finish = sequence.push(token);
        if token.depth() == 0 {
            output.rejected = drafts[i..].iter().map(|draft| draft.token).collect();
        }
        if output.finish.is_some() {
            break;
        }
    }
    // The trunk has computed all tokens but the newest.
    sequence.num_cached = sequence.last_position();
    runner.rewind_heads(sequence.slot, head_len.min(sequence.num_cached));
    sequence.head_drafts.clear();
    sequence.phase = match output.finish {
        Some(_) => Phase::Finished,
        None => Phase::Decode,
    };
    output
}
