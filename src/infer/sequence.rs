//! One sequence: its known tokens, and how far the model has computed them.

use super::decode_exec::SampleRequest;
use super::draft::Draft;
use super::policy::DraftLimit;
use super::request::{GenerateOptions, Request};
use super::verify::{DecodedToken, VerifyRequest};
use crate::Error;
use crate::exec::Span;
use crate::model::Config;
use std::sync::atomic::{AtomicU64, Ordering};

/// Identifies a sequence. No two sequences of a process have the same id, whatever their sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(u64);

impl std::fmt::Display for SequenceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a sequence finished.
#[derive(Debug)]
#[non_exhaustive]
pub enum FinishReason {
    /// It has `max_tokens` new tokens.
    Length,
    /// Its last token is a stop token.
    Stop,
    /// The next token cannot be decided: the logits are NaN or otherwise unusable. Other sequences are not affected.
    Failed(Error),
}

/// Maximum number of drafts of a sequence in a step, whatever its drafter offers: a bound on the memory of a pass.
const MAX_DRAFTS: usize = 256;

/// What the next step does with a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Computes known tokens that the trunk has not seen; the last of them decides the first new token.
    Prefill,
    /// Drafts and verifies. The trunk has seen all tokens but the newest.
    Decode,
    /// Nothing.
    Finished,
}

/// A sequence of a session. Only verification appends tokens:
///
/// ```compile_fail,E0624
/// # use foretoken::infer::{DecodedToken, Sequence};
/// fn cheat(sequence: &mut Sequence, token: DecodedToken) {
///     sequence.push(token);
/// }
/// ```
#[derive(Debug)]
pub struct Sequence {
    id: SequenceId,
    /// Its index in the executor.
    pub(super) slot: usize,
    pub(super) options: GenerateOptions,
    pub(super) phase: Phase,
    tokens: Vec<u32>,
    /// Number of tokens of the prompt.
    prompt_len: usize,
    /// Index of the token at position 0: not 0 if the window has slid.
    window_start: usize,
    /// Positions that the trunk has seen.
    pub(super) num_cached: usize,
    /// Maximum number of positions.
    context: usize,
    /// The drafts, for the positions after the newest token, that the heads' caches have been computed from.
    pub(super) head_drafts: Vec<u32>,
}

impl Sequence {
    /// A checked request.
    pub(super) fn new(slot: usize, request: Request, config: &Config) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut sequence = Self {
            id: SequenceId(NEXT.fetch_add(1, Ordering::Relaxed)),
            slot,
            options: GenerateOptions::default(),
            phase: Phase::Prefill,
            tokens: Vec::new(),
            prompt_len: 0,
            window_start: 0,
            num_cached: 0,
            context: 0,
            head_drafts: Vec::new(),
        };
        sequence.continue_with(request, config);
        sequence
    }

    /// The id.
    pub fn id(&self) -> SequenceId {
        self.id
    }

    /// All known tokens, the prompt first.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The tokens after the prompt.
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }

    /// The options it was added or extended with.
    pub fn options(&self) -> &GenerateOptions {
        &self.options
    }

    /// Whether it has finished.
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// Position of the newest token.
    pub(super) fn last_position(&self) -> usize {
        self.tokens.len() - 1 - self.window_start
    }

    /// The known tokens from position 0 on.
    pub(super) fn in_window(&self) -> &[u32] {
        &self.tokens[self.window_start..]
    }

    /// The next `len` positions for the trunk.
    pub(super) fn span(&self, len: usize) -> Span {
        Span {
            slot: self.slot,
            first: self.num_cached,
            len,
        }
    }

    /// The newest token and its drafts, to be verified.
    pub(super) fn verify_request<'d>(&self, drafts: &'d [Draft]) -> VerifyRequest<'d> {
        VerifyRequest {
            newest: *self.tokens.last().expect("a sequence has tokens"),
            drafts,
            span: self.span(1 + drafts.len()),
            sample: self.sample_request(0, 0, drafts),
            mode: self.options.mode,
        }
    }

    /// The request for the token `ahead` positions after the next one and for those after its drafts.
    pub(super) fn sample_request(
        &self,
        row: usize,
        ahead: usize,
        drafts: &[Draft],
    ) -> SampleRequest {
        SampleRequest {
            row,
            token_index: self.tokens.len() + ahead,
            sampler: self.options.sampler,
            drafts: drafts.iter().map(|draft| draft.token).collect(),
        }
    }

    /// Maximum number of drafts that still fit into the text and the context.
    pub(super) fn draft_limit(&self) -> DraftLimit {
        // A step yields one more token than the drafts it accepts.
        let tokens = self.options.max_tokens - self.generated().len() - 1;
        let positions = self.context - 1 - self.last_position();
        DraftLimit {
            slot: self.slot,
            room: tokens.min(positions).min(MAX_DRAFTS),
            draft_length: self.options.draft_length,
        }
    }

    /// Appends a token; returns why the text ends with it, if it does.
    pub(super) fn push(&mut self, token: DecodedToken) -> Option<FinishReason> {
        self.tokens.push(token.id());
        if self.options.stop.contains(&token.id()) {
            return Some(FinishReason::Stop);
        }
        let length = self.generated().len() >= self.options.max_tokens;
        length.then_some(FinishReason::Length)
    }

    /// If the context is full, keeps the last tokens, which are to be recomputed as if they were the whole text.
    pub(super) fn slide_if_full(&mut self) {
        if self.phase == Phase::Decode && self.last_position() == self.context {
            let keep = self.options.window;
            let keep = keep.expect("checked: the tokens fit, or slide");
            self.window_start = self.tokens.len() - keep;
            (self.num_cached, self.phase) = (0, Phase::Prefill);
        }
    }

    /// Continues with a checked request, whose prompt begins with this sequence's tokens. What was computed stays if a
    /// new sequence would compute the same.
    pub(super) fn continue_with(&mut self, request: Request, config: &Config) {
        let Request { prompt, options } = request;
        let context = options.context(config);
        let window_start = match options.window {
            Some(keep) if prompt.len() > context => prompt.len() - keep,
            _ => 0,
        };
        if window_start != self.window_start {
            self.num_cached = 0;
        }
        (self.prompt_len, self.tokens) = (prompt.len(), prompt);
        self.phase = match options.max_tokens {
            0 => Phase::Finished,
            _ => Phase::Prefill,
        };
        (self.window_start, self.context, self.options) = (window_start, context, options);
        self.head_drafts.clear();
    }

    /// Drops the tokens `len..` and finishes.
    pub(super) fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.prompt_len = self.prompt_len.min(len);
        if len <= self.window_start {
            (self.window_start, self.num_cached) = (0, 0);
        }
        self.num_cached = self.num_cached.min(self.last_position());
        self.head_drafts.clear();
        self.phase = Phase::Finished;
    }
}
