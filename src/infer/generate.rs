//! Prefill, then draft, verify and accept until enough tokens are there.

use super::draft::{Draft, Drafter};
use super::engine::{Decoder, Wanted};
use super::pick::Sampler;
use super::policy::{Drafts, Judged, Policy, Sight};
use super::sequence::Session;
use super::verify::{Accepted, Verdict, prefill, verify};
use crate::Result;
use crate::exec::Decode;
use crate::model::{Config, Model};
use std::ops::ControlFlow;
use std::time::Instant;

/// How drafts are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A draft is accepted where it equals what plain decoding says: the tokens are those of plain decoding.
    Exact,
    /// A draft is accepted with a probability: the tokens have the distribution of plain decoding. For comparison.
    Rejection,
}

/// What to generate, for one sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Drafts a step.
    pub drafts: Drafts,
    /// Tokens that end the text; the one that did is the last one generated.
    pub stop: Vec<u32>,
    /// Prompt tokens a pass. Changes speed and memory only.
    pub chunk: usize,
    /// How tokens are chosen.
    pub sampler: Sampler,
    /// How drafts are judged.
    pub mode: Mode,
    /// Positions to use at most; none for all that the model has.
    pub context: Option<usize>,
    /// Where the context is full: go on with the last so many tokens as if they were the whole text. Without it, asking
    /// for more tokens than the context has positions is an error.
    pub window: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_tokens: 100,
            drafts: Drafts::All,
            stop: Vec::new(),
            chunk: 256,
            sampler: Sampler::GREEDY,
            mode: Mode::Exact,
            context: None,
            window: None,
        }
    }
}

impl Options {
    /// Positions to use at most.
    pub(super) fn context(&self, config: &Config) -> usize {
        self.context.unwrap_or(config.max_position_embeddings)
    }
}

/// A prompt and what to do with it.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The known tokens, at least one.
    pub prompt: &'a [u32],
    /// How to go on.
    pub options: Options,
}

/// What was generated for one sequence, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generated {
    /// The tokens after the prompt.
    pub tokens: Vec<u32>,
    /// Passes of the trunk over this sequence, the prefill counted as one and those of a sliding window not at all. Plain
    /// decoding has one token a step.
    pub steps: usize,
    /// How often depth 1, 2, .. drafted.
    pub drafted_by_depth: Vec<usize>,
    /// How often the draft of depth 1, 2, .. was accepted.
    pub accepted_by_depth: Vec<usize>,
}

impl Generated {
    /// Tokens a step; 0 before the first.
    pub fn tokens_per_step(&self) -> f64 {
        self.tokens.len() as f64 / self.steps.max(1) as f64
    }

    pub(super) fn count(&mut self, drafted: usize, accepted: usize) {
        if self.drafted_by_depth.len() < drafted {
            self.drafted_by_depth.resize(drafted, 0);
            self.accepted_by_depth.resize(drafted, 0);
        }
        let count = |list: &mut [usize]| list.iter_mut().for_each(|n| *n += 1);
        count(&mut self.drafted_by_depth[..drafted]);
        count(&mut self.accepted_by_depth[..accepted]);
    }
}

/// Follows what is generated, as it is accepted.
pub trait Listener {
    /// A token of a sequence: the draft of depth 1, 2, .., or the trunk's own at depth 0. A break ends the sequence with
    /// this token.
    fn token(&mut self, sequence: usize, token: u32, depth: usize) -> ControlFlow<()> {
        let _ = (sequence, token, depth);
        ControlFlow::Continue(())
    }

    /// Drafts that were not accepted, told before the trunk's own token that stands in their place.
    fn rejected(&mut self, sequence: usize, drafts: &[u32]) {
        let _ = (sequence, drafts);
    }
}

/// Follows nothing.
impl Listener for () {}

/// Continues a prompt: [`generate_batch`] for one sequence.
///
/// # Errors
/// As [`generate_batch`].
pub fn generate(
    model: &Model,
    prompt: &[u32],
    options: &Options,
    drafter: &mut dyn Drafter,
    listener: &mut dyn Listener,
) -> Result<Generated> {
    let options = options.clone();
    let mut results = generate_batch(model, &[Request { prompt, options }], drafter, listener)?;
    Ok(results.remove(0))
}

/// Continues several prompts together. The tokens of each depend on the model, its prompt, its sampler, its context and
/// window and its end conditions only: not on the drafter, the number of drafts, the chunks or the other sequences. (In
/// the mode that rejects this holds for their distribution.)
///
/// # Errors
/// [`crate::Error::Usage`] for a request that the model cannot take, [`crate::Error::NotFinite`] for logits that are not
/// numbers, in whichever sequence they are.
pub fn generate_batch<'m>(
    model: &'m Model,
    requests: &[Request<'m>],
    drafter: &mut dyn Drafter,
    listener: &mut dyn Listener,
) -> Result<Vec<Generated>> {
    generate_batch_on(
        Decode::new(model.params()),
        model,
        requests,
        drafter,
        listener,
    )
}

/// [`generate_batch`] on any executor, which has no sequences yet. The tokens are the same.
///
/// # Errors
/// As [`generate_batch`], and where the executor's machine failed.
pub fn generate_batch_on<'m>(
    exec: impl Decoder + 'm,
    model: &'m Model,
    requests: &[Request<'m>],
    drafter: &mut dyn Drafter,
    listener: &mut dyn Listener,
) -> Result<Vec<Generated>> {
    let mut run = Run {
        session: Session::on(model, exec, requests)?,
        results: vec![Generated::default(); requests.len()],
        done: requests.iter().map(|r| r.options.max_tokens == 0).collect(),
        policy: Policy::new(model.config(), requests.len()),
        listener,
    };
    run.begin()?;
    while run.done.contains(&false) {
        run.step(drafter)?;
    }
    for (result, sequence) in run.results.iter_mut().zip(run.session.sequences()) {
        result.tokens = sequence.generated().to_vec();
    }
    Ok(run.results)
}

/// A generation under way.
struct Run<'m, 'l> {
    session: Session<'m>,
    results: Vec<Generated>,
    done: Vec<bool>,
    policy: Policy,
    listener: &'l mut dyn Listener,
}

impl Run<'_, '_> {
    /// The prompts, and the token after each.
    fn begin(&mut self) -> Result<()> {
        let context = |options: &Options| options.context(self.session.model.config());
        let waiting: Vec<usize> = (0..self.done.len()).filter(|i| !self.done[*i]).collect();
        let longer = waiting.iter().filter_map(|sequence| {
            let state = &self.session.sequences[*sequence];
            let options = &state.request.options;
            let keep = options.window?;
            (state.tokens().len() > context(options)).then_some((*sequence, keep))
        });
        for (sequence, keep) in longer.collect::<Vec<_>>() {
            self.session.slide(sequence, keep);
        }
        let firsts = prefill(&mut self.session, &waiting)?;
        for (sequence, first) in waiting.into_iter().zip(firsts) {
            self.results[sequence].steps += 1;
            let verdict = Verdict {
                tokens: vec![first],
                rejected: Vec::new(),
            };
            self.accept(sequence, &verdict);
        }
        Ok(())
    }

    /// One step of every sequence that goes on.
    fn step(&mut self, drafter: &mut dyn Drafter) -> Result<()> {
        let sights: Vec<Option<Sight>> = (0..self.done.len())
            .map(|sequence| (!self.done[sequence]).then(|| self.sight(sequence)))
            .collect();
        let wanted = self.policy.choose(&sights);
        let start = Instant::now();
        let mut drafts = match wanted.iter().all(|n| *n == 0) {
            true => Vec::new(),
            false => drafter.draft(&mut self.session, &wanted)?,
        };
        // Drafts may come from anywhere: for fewer sequences or more than there are ..
        drafts.resize(wanted.len(), Vec::new());
        let drafted = start.elapsed();
        let vocab = self.session.model().config().vocab_size;
        let mut jobs = Vec::with_capacity(drafts.len());
        for (sequence, mut drafts) in drafts.into_iter().enumerate() {
            if sights[sequence].is_none() {
                continue;
            }
            // .. more than were asked for, or no tokens at all.
            let sound = |draft: &&Draft| (draft.token as usize) < vocab;
            let most = wanted[sequence];
            let count = drafts.iter().take(most).take_while(sound).count();
            drafts.truncate(count);
            jobs.push((sequence, drafts));
        }
        let start = Instant::now();
        let verdicts = verify(&mut self.session, &jobs)?;
        let verified = start.elapsed();
        let judged: Vec<Judged> = { jobs.iter().zip(&verdicts) }
            .map(|((sequence, drafts), verdict)| Judged {
                sequence: *sequence,
                drafted: drafts.len(),
                accepted: verdict.tokens.len() - 1,
            })
            .collect();
        self.policy.learn(drafted, verified, &judged);
        for (judged, verdict) in judged.iter().zip(&verdicts) {
            let used = self.accept(judged.sequence, verdict);
            let result = &mut self.results[judged.sequence];
            result.steps += 1;
            // A stop may end the text before the last accepted draft.
            result.count(judged.drafted, used.min(judged.accepted));
        }
        Ok(())
    }

    /// What a sequence may draft; slides its window where the context is full.
    fn sight(&mut self, sequence: usize) -> Sight {
        let state = &self.session.sequences()[sequence];
        let options = &state.request.options;
        let context = options.context(self.session.model().config());
        let (drafts, max_tokens) = (options.drafts, options.max_tokens);
        if state.current() == context {
            let keep = options.window.expect("checked: the tokens fit, or slide");
            self.session.slide(sequence, keep);
            // All but the newest of them, which the step itself reads.
            let state = &self.session.sequences()[sequence];
            let (view, options) = (state.in_view(), &state.request.options);
            let (known, chunk) = (view[..view.len() - 1].to_vec(), options.chunk.max(1));
            for part in known.chunks(chunk) {
                let span = (sequence, part.len());
                self.session.advance(&[span], part, Wanted::Nothing);
            }
        }
        let state = &self.session.sequences()[sequence];
        // A step yields one token more than the drafts it accepts.
        let tokens = max_tokens - state.generated().len() - 1;
        let positions = context - 1 - state.current();
        Sight {
            room: tokens.min(positions),
            drafts,
        }
    }

    /// Appends tokens up to one that ends the text; returns how many.
    fn accept(&mut self, sequence: usize, verdict: &Verdict) -> usize {
        let last = verdict.tokens.len() - 1;
        for (i, token) in verdict.tokens.iter().enumerate() {
            let depth = if i == last { 0 } else { i + 1 };
            if depth == 0 && !verdict.rejected.is_empty() {
                self.listener.rejected(sequence, &verdict.rejected);
            }
            if self.push(sequence, *token, depth) {
                self.done[sequence] = true;
                return i + 1;
            }
        }
        last + 1
    }

    /// Appends a token; says whether the text ends with it.
    fn push(&mut self, sequence: usize, token: Accepted, depth: usize) -> bool {
        self.session.push(sequence, token);
        let told = self.listener.token(sequence, token.id(), depth);
        let state = &self.session.sequences()[sequence];
        let options = &state.request.options;
        told.is_break()
            || options.stop.contains(&token.id())
            || state.generated().len() >= options.max_tokens
    }
}
