//! How many tokens to draft: what pays, from measured times and measured acceptance.
//!
//! With the time T(m) of a pass over m rows, H(k) of the head steps 1..=k, and a_k the share of depth k's drafts that are
//! accepted where those before them were, a step of sequences that draft d_1, d_2, .. tokens yields
//!
//! ```text
//! tokens = Σ_i (1 + a_1 + a_1 a_2 + .. + a_1 .. a_{d_i})        time = T(Σ_i (1 + d_i)) + H(max d_i)
//! ```
//!
//! The drafts are ordered by the probability that they count; the best number of them is the one with the most tokens
//! for the time. Noise only ever makes a step slower, so a time is the least of the last few; acceptance forgets. Two
//! things keep useless heads cheap. A sequence tries depth 1 first, and deeper ones only as drafts are accepted, so that
//! no other depth has to catch up with the prompt. And what is not chosen is tried again only while all such tries take
//! less than a hundredth of the time.
//!
//! Nothing here can change a token: drafts decide how many tokens a step yields.

use super::cost::{ENOUGH, Passes, Recent};
use crate::model::Config;
use std::time::Duration;

/// Drafts a step of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drafts {
    /// As many as the drafter has.
    All,
    /// At most so many.
    Fixed(usize),
    /// As many as pay.
    Auto,
}

/// What limits a sequence's drafts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    /// Drafts that still fit into the text and the context.
    pub room: usize,
    /// What was asked for.
    pub drafts: Drafts,
}

/// What a sequence did in a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    /// The sequence.
    pub sequence: usize,
    /// Drafts that there were.
    pub drafted: usize,
    /// Drafts that were accepted.
    pub accepted: usize,
}

/// Plain steps at the start: what all others are compared with.
const PLAIN: u64 = ENOUGH as u64;
/// Drafts must promise so many times the tokens of a plain step: less is within what times are known to.
const WORTH: f64 = 1.02;
/// Steps between two tries of what is not chosen, at least.
const EXPLORE: u64 = 32;
/// The share of all time that tries may take beyond what the best choice would have taken.
const TRIES: f64 = 0.01;
/// Share of the drafts that are expected to be accepted before any was judged, and how many drafts that counts as.
const HOPE: f64 = 0.7;
const HOPE_COUNTS: f64 = 0.5;
/// Judged drafts that a share remembers, about.
const MEMORY: f64 = 25.0;

/// Acceptance of one depth: a running share.
#[derive(Clone, Copy, Debug)]
struct Share {
    accepted: f64,
    judged: f64,
}

impl Share {
    fn add(&mut self, accepted: bool) {
        let keep = (MEMORY / (self.judged + 1.0)).min(1.0);
        self.accepted = (self.accepted + f64::from(u8::from(accepted))) * keep;
        self.judged = (self.judged + 1.0) * keep;
    }

    fn value(self) -> f64 {
        self.accepted / self.judged
    }
}

/// A sequence with its acceptance.
#[derive(Clone, Debug)]
struct Record {
    shares: Vec<Share>,
    /// Depths that may be tried: one, and two more for each draft accepted in one step.
    reach: usize,
    /// Drafts that it was asked for in the step before: deeper depths have to catch up first.
    before: usize,
}

/// A try that is under way.
#[derive(Clone, Copy, Debug)]
struct Try {
    sequence: usize,
    drafts: usize,
    /// The first of its two steps lets heads catch up, the second is measured.
    steps_left: u8,
    /// Seconds that what it replaces would have taken.
    instead: f64,
}

/// Chooses the number of drafts.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    depth: usize,
    passes: Passes,
    /// Seconds of the head steps 1..=d together, by d, of depths that had nothing to catch up with.
    heads: Vec<Recent>,
    records: Vec<Record>,
    /// A head step's time as a share of a plain pass, before it was measured.
    head_guess: f64,
    steps: u64,
    /// The step after which the next try may come, the number of tries, and the one under way.
    next_try: u64,
    tries: u64,
    trying: Option<Try>,
    /// Seconds of all steps, and of tries beyond what they should have taken.
    total: f64,
    lost: f64,
    /// What the last try lost.
    last_loss: f64,
    /// What was asked for in this step.
    asked: Vec<usize>,
}

impl Policy {
    pub fn new(config: &Config, sequences: usize) -> Self {
        let head_guess = match config.mtp_depth {
            0 => 1.0,
            _ => {
                let flops = config.flops(config.default_context());
                0.02 + flops.draft as f64 / flops.decode as f64
            }
        };
        Self::of_depth(config.mtp_depth, sequences, head_guess)
    }

    fn of_depth(depth: usize, sequences: usize, head_guess: f64) -> Self {
        let share = Share {
            accepted: HOPE * HOPE_COUNTS,
            judged: HOPE_COUNTS,
        };
        let record = Record {
            shares: vec![share; depth],
            reach: 1,
            before: 0,
        };
        Self {
            depth,
            passes: Passes::default(),
            heads: vec![Recent::default(); depth + 1],
            records: vec![record; sequences],
            head_guess,
            steps: 0,
            next_try: EXPLORE,
            tries: 0,
            trying: None,
            total: 0.0,
            lost: 0.0,
            last_loss: 0.0,
            asked: Vec::new(),
        }
    }

    /// Drafts for each sequence; none for those that are done.
    pub fn choose(&mut self, sights: &[Option<Sight>]) -> Vec<usize> {
        let fixed = |sight: &Option<Sight>| match sight {
            Some(Sight { room, drafts }) => match drafts {
                Drafts::All => *room,
                Drafts::Fixed(n) => (*n).min(*room),
                Drafts::Auto => 0,
            },
            None => 0,
        };
        let mut wanted: Vec<usize> = sights.iter().map(fixed).collect();
        // A drafter has no more than the model's depths, or it is not ours to know.
        let others: usize = wanted.iter().map(|n| (*n).min(self.depth)).sum();
        let rows = sights.iter().flatten().count() + others;
        let rooms: Vec<usize> = (0..sights.len())
            .map(|i| match sights[i] {
                Some(sight) if sight.drafts == Drafts::Auto => sight.room.min(self.depth),
                _ => 0,
            })
            .collect();
        if self.steps >= PLAIN && rooms.iter().any(|room| *room > 0) {
            let mut best = self.best(&rooms, rows);
            self.explore(&mut best, &rooms, rows);
            wanted.iter_mut().zip(best).for_each(|(n, auto)| *n += auto);
        }
        self.steps += 1;
        self.asked.clone_from(&wanted);
        wanted
    }

    /// The drafts with the most tokens for the time; `rows` are computed in any case.
    fn best(&self, rooms: &[usize], rows: usize) -> Vec<usize> {
        // Probabilities that a draft counts, which fall with depth within a sequence.
        let mut drafts: Vec<(f64, usize)> = Vec::new();
        for (sequence, room) in rooms.iter().enumerate() {
            let record = &self.records[sequence];
            let mut counts = 1.0;
            for share in &record.shares[..(*room).min(record.reach)] {
                counts *= share.value();
                drafts.push((counts, sequence));
            }
        }
        drafts.sort_by(|a, b| b.0.total_cmp(&a.0));
        let line = self.passes.line();
        let mut wanted = vec![0; rooms.len()];
        let mut tokens = rows as f64;
        let plain = tokens / line.at(rows);
        let mut best = (plain * WORTH, 0);
        let mut deepest = 0;
        for (i, (counts, sequence)) in drafts.iter().enumerate() {
            tokens += counts;
            wanted[*sequence] += 1;
            deepest = deepest.max(wanted[*sequence]);
            let rate = tokens / (line.at(rows + i + 1) + self.head(deepest));
            if rate > best.0 {
                best = (rate, i + 1);
            }
        }
        wanted.fill(0);
        for (_, sequence) in &drafts[..best.1] {
            wanted[*sequence] += 1;
        }
        wanted
    }

    /// Every so often lets one sequence draft one token more or less, or none, if that costs little.
    fn explore(&mut self, best: &mut [usize], rooms: &[usize], rows: usize) {
        let budget = TRIES * self.total - self.lost;
        if self.trying.is_none() && self.steps >= self.next_try && budget >= self.last_loss {
            let candidates: Vec<usize> = (0..rooms.len()).filter(|i| rooms[*i] > 0).collect();
            let sequence = candidates[self.tries as usize % candidates.len()];
            let n = best[sequence];
            let drafts = match self.tries % 3 {
                0 => (n + 1).min(rooms[sequence]),
                1 => n.saturating_sub(1),
                _ if n == 0 => 1,
                _ => 0,
            };
            self.tries += 1;
            self.next_try = self.steps + EXPLORE;
            if drafts != n {
                self.trying = Some(Try {
                    sequence,
                    drafts,
                    steps_left: 2,
                    instead: 0.0,
                });
                self.last_loss = 0.0;
            }
        }
        let deepest = best.iter().copied().max().unwrap_or(0);
        let instead = self.passes.line().at(rows + best.iter().sum::<usize>()) + self.head(deepest);
        if let Some(go) = &mut self.trying {
            go.instead = instead;
            best[go.sequence] = go.drafts.min(rooms[go.sequence]);
            go.steps_left -= 1;
        }
    }

    /// Seconds of the head steps 1..=d: measured, or in proportion to the nearest that were.
    fn head(&self, d: usize) -> f64 {
        if d == 0 {
            return 0.0;
        }
        let known = |k: usize| Some((k, self.heads[k].least()?));
        let nearest = (1..=self.depth).filter_map(known);
        match nearest.min_by_key(|(k, _)| k.abs_diff(d)) {
            Some((k, t)) => t * d as f64 / k as f64,
            None => self.head_guess * d as f64 * self.passes.line().at(1),
        }
    }

    /// What the step took and what came of it: head steps, a pass, and every sequence that took part.
    pub fn learn(&mut self, heads: Duration, pass: Duration, judged: &[Judged]) {
        let (heads, pass) = (heads.as_secs_f64(), pass.as_secs_f64());
        let rows = judged.iter().map(|j| 1 + j.drafted).sum();
        let (mut deepest, mut caught_up) = (0, true);
        for j in judged {
            let asked = self.asked[j.sequence].min(self.depth);
            deepest = deepest.max(asked);
            caught_up &= asked <= self.records[j.sequence].before;
        }
        self.passes.add(rows, pass);
        if deepest > 0 && caught_up {
            self.heads[deepest].add(heads);
        }
        self.total += heads + pass;
        if let Some(go) = self.trying {
            let loss = (heads + pass - go.instead).max(0.0);
            self.lost += loss;
            self.last_loss += loss;
            if go.steps_left == 0 {
                self.trying = None;
            }
        }
        for j in judged {
            let asked = self.asked[j.sequence].min(self.depth);
            let record = &mut self.records[j.sequence];
            record.before = asked;
            record.reach = record.reach.max(2 * j.accepted + 1).min(self.depth);
            // Drafts after a wrong one were not judged. One that was asked for and did not come is as good as wrong.
            for (k, share) in record.shares.iter_mut().take(asked).enumerate() {
                if k <= j.accepted {
                    share.add(k < j.accepted);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
