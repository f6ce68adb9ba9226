//! The number of drafts per step: chosen to maximise tokens per second, from measured times and acceptance rates.
//!
//! Let time(m) be the time of a pass over m rows, heads(k) that of heads 1..=k, and a_k the acceptance rate of head k
//! given that the drafts before were accepted. A step in which sequence i drafts d_i tokens yields
//!
//! ```text
//! tokens = Σ_i (1 + a_1 + a_1 a_2 + .. + a_1 .. a_{d_i})        seconds = time(Σ_i (1 + d_i)) + heads(max d_i)
//! ```
//!
//! Candidate drafts are sorted by their probability of being accepted, a_1 .. a_k; the number with the most tokens per
//! second is taken. A time is the minimum of its last few samples, because noise only ever makes a step slower;
//! acceptance rates forget old samples.
//!
//! This is a multi-armed bandit whose arms are the numbers of drafts, and times and rates are learnt only of arms that
//! are played. So now and then another arm is, as long as the time lost that way stays within 1 % of the total. And a
//! sequence starts with head 1 and reaches deeper heads as drafts are accepted, so that useless heads never compute the
//! prompt.
//!
//! With [`DecodeMode::Exact`](super::DecodeMode::Exact) nothing here can change a token. With rejection sampling the
//! number of drafts changes the sample, but not its distribution.

use super::pass_times::{MIN_SAMPLES, Times};
use crate::model::Config;
use std::time::Duration;

/// How many tokens a sequence drafts per step. Changes speed only, except that
/// [`DecodeMode::Rejection`](super::DecodeMode::Rejection) gives another sample of the same distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DraftLength {
    /// As many as the drafter returns.
    All,
    /// At most this many.
    Fixed(usize),
    /// As many as give the most tokens per second, by measurement.
    Auto,
}

/// Limits of a sequence's drafts in a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct DraftLimit {
    /// The sequence's index in the executor.
    pub slot: usize,
    /// Maximum number of drafts that still fit into the text and the context.
    pub room: usize,
    /// The request's setting.
    pub draft_length: DraftLength,
}

/// A sequence's drafts in a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepStats {
    /// Number of drafts submitted to verification.
    pub drafted: usize,
    /// Number of drafts accepted.
    pub accepted: usize,
}

/// Plain steps at the start: the baseline.
const PLAIN_STEPS: u64 = MIN_SAMPLES as u64;
/// Drafting must promise this many times plain decoding's tokens per second; a smaller gain is within measurement
/// error.
const MIN_GAIN: f64 = 1.02;
/// Minimum number of steps between two trials.
const TRIAL_INTERVAL: u64 = 32;
/// Fraction of the total time that trials may lose.
const TRIAL_BUDGET: f64 = 0.01;
/// Prior of an acceptance rate, and its weight in drafts.
const PRIOR_RATE: f64 = 0.7;
const PRIOR_WEIGHT: f64 = 0.5;
/// Drafts that an acceptance rate averages over, about.
const RATE_WINDOW: f64 = 25.0;

/// The acceptance rate of a head: a running average.
#[derive(Clone, Copy, Debug)]
struct AcceptanceRate {
    accepted: f64,
    total: f64,
}

impl AcceptanceRate {
    const PRIOR: Self = Self {
        accepted: PRIOR_RATE * PRIOR_WEIGHT,
        total: PRIOR_WEIGHT,
    };

    fn add(&mut self, accepted: bool) {
        let keep = (RATE_WINDOW / (self.total + 1.0)).min(1.0);
        self.accepted = (self.accepted + f64::from(u8::from(accepted))) * keep;
        self.total = (self.total + 1.0) * keep;
    }

    fn value(self) -> f64 {
        self.accepted / self.total
    }
}

/// What is known of a sequence's drafts.
#[derive(Clone, Debug, Default)]
struct SequenceStats {
    /// By head.
    rates: Vec<AcceptanceRate>,
    /// Maximum number of drafts accepted in one step, a: heads up to 2 a + 1 may draft.
    most_accepted: usize,
    /// Drafts requested in the step before. Deeper heads are behind and catch up first.
    last: usize,
}

/// An arm played to learn about it.
#[derive(Clone, Copy, Debug)]
struct Trial {
    slot: usize,
    drafts: usize,
    /// In the first of its two steps heads catch up, in the second they are measured.
    steps_left: u8,
    /// Seconds that the best arm would have taken.
    best_time: f64,
}

/// Chooses the numbers of drafts.
#[derive(Clone, Debug, Default)]
pub(super) struct Policy {
    /// Maximum number of drafts of a sequence that [`DraftLength::Auto`] considers.
    depth: usize,
    passes: Times,
    /// Seconds of heads 1..=k together, by k, in steps in which none had to catch up.
    heads: Times,
    /// By slot.
    sequences: Vec<SequenceStats>,
    /// Time of a head relative to a plain pass, until it has been measured.
    head_guess: f64,
    steps: u64,
    trials: u64,
    trial: Option<Trial>,
    /// The step in which the last trial started.
    last_trial: u64,
    /// Seconds of all steps.
    total: f64,
    /// Seconds lost by trials, and by the last one.
    lost: f64,
    last_loss: f64,
    /// Slots and numbers of drafts of the step under way.
    requested: Vec<(usize, usize)>,
}

impl Policy {
    pub fn new(config: &Config) -> Self {
        let head_guess = if config.mtp_depth == 0 {
            1.0
        } else {
            let flops = config.flops(config.default_context());
            0.02 + flops.draft as f64 / flops.decode as f64
        };
        Self::with_head_guess(head_guess)
    }

    fn with_head_guess(head_guess: f64) -> Self {
        Self {
            head_guess,
            ..Self::default()
        }
    }

    /// A new sequence in this slot.
    pub fn add_sequence(&mut self, slot: usize) {
        let slots = self.sequences.len().max(slot + 1);
        self.sequences.resize_with(slots, SequenceStats::default);
        self.sequences[slot] = SequenceStats::default();
    }

    /// Numbers of drafts for the sequences of a step; `depth` is the maximum per sequence that pays to consider.
    pub fn choose(&mut self, limits: &[DraftLimit], depth: usize) -> Vec<usize> {
        // A drafter may name any number; no sequence has room for more drafts than the context has positions.
        let depth = depth.min(limits.iter().map(|limit| limit.room).max().unwrap_or(0));
        self.depth = depth;
        // The numbers that are given, and the room for those that are chosen here.
        let given = |limit: &DraftLimit| match limit.draft_length {
            DraftLength::All => (limit.room, 0),
            DraftLength::Fixed(n) => (n.min(limit.room), 0),
            DraftLength::Auto => (0, limit.room.min(depth)),
        };
        let (mut numbers, rooms): (Vec<_>, Vec<_>) = limits.iter().map(given).unzip();
        // Rows that are computed whatever is chosen here; a drafter seldom returns more than `depth` drafts.
        let rows = limits.len() + numbers.iter().map(|n| (*n).min(depth)).sum::<usize>();
        if self.steps >= PLAIN_STEPS && rooms.iter().any(|room| *room > 0) {
            let mut auto = self.best(limits, &rooms, rows);
            self.explore(&mut auto, limits, &rooms, rows);
            for (n, auto) in numbers.iter_mut().zip(auto) {
                *n += auto;
            }
        }
        self.steps += 1;
        let slots = limits.iter().map(|limit| limit.slot);
        let capped = numbers.iter().map(|n| (*n).min(depth));
        self.requested = slots.zip(capped).collect();
        numbers
    }

    /// The numbers with the most tokens per second; `rows` are computed in any case.
    fn best(&mut self, limits: &[DraftLimit], rooms: &[usize], rows: usize) -> Vec<usize> {
        // Probabilities of acceptance, which fall with depth within a sequence.
        let mut drafts: Vec<(f64, usize)> = Vec::new();
        for (i, (limit, room)) in limits.iter().zip(rooms).enumerate() {
            let stats = &mut self.sequences[limit.slot];
            let known = stats.rates.len().max(self.depth);
            stats.rates.resize(known, AcceptanceRate::PRIOR);
            let mut probability = 1.0;
            for rate in &stats.rates[..(*room).min(2 * stats.most_accepted + 1)] {
                probability *= rate.value();
                drafts.push((probability, i));
            }
        }
        drafts.sort_by(|a, b| b.0.total_cmp(&a.0));
        let curve = self.passes.curve();
        let mut numbers = vec![0; rooms.len()];
        let mut tokens = rows as f64;
        let plain = tokens / curve.at(rows);
        let mut best = (plain * MIN_GAIN, 0);
        let mut deepest = 0;
        for (i, (probability, sequence)) in drafts.iter().enumerate() {
            tokens += probability;
            numbers[*sequence] += 1;
            deepest = deepest.max(numbers[*sequence]);
            let rate = tokens / (curve.at(rows + i + 1) + self.head_time(deepest));
            if rate > best.0 {
                best = (rate, i + 1);
            }
        }
        numbers.fill(0);
        for (_, sequence) in &drafts[..best.1] {
            numbers[*sequence] += 1;
        }
        numbers
    }

    /// Replaces one sequence's best number by one more, one less or none, if the budget allows a trial.
    fn explore(&mut self, best: &mut [usize], limits: &[DraftLimit], rooms: &[usize], rows: usize) {
        let budget = TRIAL_BUDGET * self.total - self.lost;
        if self.trial.is_none()
            && self.steps >= self.last_trial + TRIAL_INTERVAL
            && budget >= self.last_loss
        {
            let candidates: Vec<usize> = (0..rooms.len()).filter(|i| rooms[*i] > 0).collect();
            let sequence = candidates[self.trials as usize % candidates.len()];
            let n = best[sequence];
            let drafts = match self.trials % 3 {
                0 => (n + 1).min(rooms[sequence]),
                1 => n.saturating_sub(1),
                _ if n == 0 => 1,
                _ => 0,
            };
            self.trials += 1;
            self.last_trial = self.steps;
            if drafts != n {
                self.trial = Some(Trial {
                    slot: limits[sequence].slot,
                    drafts,
                    steps_left: 2,
                    best_time: 0.0,
                });
                self.last_loss = 0.0;
            }
        }
        let deepest = best.iter().copied().max().unwrap_or(0);
        let rows = rows + best.iter().sum::<usize>();
        let best_time = self.passes.curve().at(rows) + self.head_time(deepest);
        if let Some(trial) = &mut self.trial {
            trial.best_time = best_time;
            trial.steps_left = trial.steps_left.saturating_sub(1);
            if let Some(i) = limits.iter().position(|limit| limit.slot == trial.slot) {
                best[i] = trial.drafts.min(rooms[i]);
            }
        }
    }

    /// Seconds of heads 1..=k: measured, or in proportion to the nearest that were.
    fn head_time(&self, k: usize) -> f64 {
        if k == 0 {
            return 0.0;
        }
        match self.heads.known().min_by_key(|(i, _)| i.abs_diff(k)) {
            Some((i, t)) => t * k as f64 / i as f64,
            None => self.head_guess * k as f64 * self.passes.curve().at(1),
        }
    }

    /// The times of a step's heads and pass, and the drafts of the sequences for which it was [chosen](Self::choose).
    pub fn learn(&mut self, heads: Duration, pass: Duration, stats: &[StepStats]) {
        let (heads, pass) = (heads.as_secs_f64(), pass.as_secs_f64());
        let requested = std::mem::take(&mut self.requested);
        let deepest = requested.iter().map(|(_, n)| *n).max().unwrap_or(0);
        let behind = |(slot, n): &(usize, usize)| *n > self.sequences[*slot].last;
        if deepest > 0 && !requested.iter().any(behind) {
            self.heads.add(deepest, heads);
        }
        let rows = stats.iter().map(|stats| 1 + stats.drafted).sum();
        self.passes.add(rows, pass);
        self.total += heads + pass;
        if let Some(trial) = self.trial {
            let loss = (heads + pass - trial.best_time).max(0.0);
            self.lost += loss;
            self.last_loss += loss;
            if trial.steps_left == 0 {
                self.trial = None;
            }
        }
        for ((slot, requested), stats) in requested.into_iter().zip(stats) {
            let sequence = &mut self.sequences[slot];
            sequence.last = requested;
            sequence.most_accepted = sequence.most_accepted.max(stats.accepted);
            // Drafts after a wrong one were not judged. A missing draft is as good as a wrong one.
            for (k, rate) in sequence.rates.iter_mut().take(requested).enumerate() {
                if k <= stats.accepted {
                    rate.add(k < stats.accepted);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
