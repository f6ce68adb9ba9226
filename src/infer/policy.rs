//! How many tokens to draft: what pays, from measured times and measured acceptance.
//!
//! With the time T(m) of a pass over m rows, H(k) of a head step at depth k, and a_k the share of depth k's drafts that
//! are accepted where those before them were, a step of sequences that draft d_1, d_2, .. tokens yields
//!
//! ```text
//! tokens = Σ_i (1 + a_1 + a_1 a_2 + .. + a_1 .. a_{d_i})        time = T(Σ_i (1 + d_i)) + Σ_{k ≤ max d_i} H(k)
//! ```
//!
//! The drafts are ordered by the probability that they count; the best number of them is the one with the most tokens
//! for the time. Times are medians of the last few, and acceptance forgets, so that both follow the text. What is not
//! chosen is not measured either: every so often one draft more or less is tried. Useless heads therefore cost a few
//! steps at the start and one in [`EXPLORE`] later.
//!
//! Nothing here can change a token: drafts decide how many tokens a step yields.

use crate::model::Model;
use crate::model::layout;
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

/// Steps between two tries of what is not chosen.
const EXPLORE: u64 = 32;
/// Share of the drafts that are expected to be accepted before any was judged; counts as much as one draft.
const HOPE: f64 = 0.7;
/// Weight of a judged draft when the next one is judged.
const MEMORY: f64 = 0.98;
/// Time that a row adds to a pass, as a share of it, before any other was measured.
const ROW: f64 = 0.05;

/// The last few values of something noisy.
#[derive(Clone, Debug, Default)]
struct Recent {
    values: [f64; 7],
    count: usize,
}

impl Recent {
    fn add(&mut self, x: f64) {
        self.values[self.count % self.values.len()] = x;
        self.count += 1;
    }

    fn median(&self) -> Option<f64> {
        let mut known = self.values;
        let known = &mut known[..self.count.min(self.values.len())];
        known.sort_by(f64::total_cmp);
        known.get(known.len() / 2).copied()
    }
}

/// Acceptance of one depth: a running share.
#[derive(Clone, Copy, Debug)]
struct Share {
    accepted: f64,
    judged: f64,
}

impl Share {
    fn add(&mut self, accepted: bool) {
        self.accepted = self.accepted * MEMORY + f64::from(u8::from(accepted));
        self.judged = self.judged * MEMORY + 1.0;
    }

    fn value(self) -> f64 {
        self.accepted / self.judged
    }
}

/// Chooses the number of drafts.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    depth: usize,
    /// Seconds of a pass by its rows.
    passes: Vec<Recent>,
    /// Seconds of the head steps 1..=d together, by d.
    heads: Vec<Recent>,
    /// [sequence][depth − 1]
    shares: Vec<Vec<Share>>,
    /// A head step's time as a share of a plain pass, before it was measured.
    head_guess: f64,
    steps: u64,
}

impl Policy {
    pub fn new(model: &Model, sequences: usize) -> Self {
        let config = model.config();
        let elements = |head: bool| -> usize {
            let own = |(name, _): &(&str, _)| layout::is_head(name) == head;
            let sizes = model.params().iter().filter(own);
            sizes.map(|(_, t)| t.data().len()).sum()
        };
        // A recursive module is used at every depth, the others once each; either way this is no less than a depth costs.
        let head_guess = 0.02 + elements(true) as f64 / elements(false) as f64;
        Self::of_depth(config.mtp_depth, sequences, head_guess)
    }

    fn of_depth(depth: usize, sequences: usize, head_guess: f64) -> Self {
        let share = Share {
            accepted: HOPE,
            judged: 1.0,
        };
        Self {
            depth,
            passes: Vec::new(),
            heads: vec![Recent::default(); depth + 1],
            shares: vec![vec![share; depth]; sequences],
            head_guess,
            steps: 0,
        }
    }

    /// Drafts for each sequence; none for those that are done.
    pub fn choose(&mut self, sights: &[Option<Sight>]) -> Vec<usize> {
        let mut wanted: Vec<usize> = sights
            .iter()
            .map(|sight| match sight {
                None => 0,
                Some(sight) => match sight.drafts {
                    Drafts::All => sight.room,
                    Drafts::Fixed(n) => n.min(sight.room),
                    Drafts::Auto => 0,
                },
            })
            .collect();
        let auto = |sight: &Option<Sight>| match sight {
            Some(sight) if sight.drafts == Drafts::Auto => sight.room.min(self.depth),
            _ => 0,
        };
        let rooms: Vec<usize> = sights.iter().map(auto).collect();
        let most = rooms.iter().copied().max().unwrap_or(0);
        if most == 0 {
            return wanted;
        }
        let rows = sights.iter().flatten().count() + wanted.iter().sum::<usize>();
        let mut best = self.best(&rooms, rows);
        let explored = match self.steps {
            // The time of a plain pass is what all others are compared with.
            0 => Some(0),
            n if n % EXPLORE == 0 => {
                let deepest = best.iter().copied().max().unwrap_or(0);
                match n / EXPLORE % 2 {
                    0 => Some((deepest + 1).min(most)),
                    _ if deepest > 0 => Some(deepest - 1),
                    _ => Some(1),
                }
            }
            _ => None,
        };
        if let Some(n) = explored {
            for (best, room) in best.iter_mut().zip(&rooms) {
                *best = n.min(*room);
            }
        }
        self.steps += 1;
        for (wanted, best) in wanted.iter_mut().zip(best) {
            *wanted += best;
        }
        wanted
    }

    /// The drafts with the most tokens for the time; `rows` are computed in any case.
    fn best(&self, rooms: &[usize], rows: usize) -> Vec<usize> {
        // Probabilities that a draft counts, which fall with depth within a sequence.
        let mut drafts: Vec<(f64, usize)> = Vec::new();
        for (sequence, room) in rooms.iter().enumerate() {
            let mut counts = 1.0;
            for share in &self.shares[sequence][..*room] {
                counts *= share.value();
                drafts.push((counts, sequence));
            }
        }
        drafts.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut wanted = vec![0; rooms.len()];
        let mut best = (self.rate(rows as f64, rows, 0), wanted.clone());
        let mut tokens = rows as f64;
        let mut deepest = 0;
        for (i, (counts, sequence)) in drafts.into_iter().enumerate() {
            tokens += counts;
            wanted[sequence] += 1;
            deepest = deepest.max(wanted[sequence]);
            let rate = self.rate(tokens, rows + i + 1, deepest);
            if rate > best.0 {
                best = (rate, wanted.clone());
            }
        }
        best.1
    }

    /// Tokens for the time.
    fn rate(&self, tokens: f64, rows: usize, deepest: usize) -> f64 {
        tokens / (self.pass(rows) + self.head(deepest))
    }

    /// Seconds of a pass over so many rows: measured, or a line through the nearest that were; 1 before any was.
    fn pass(&self, rows: usize) -> f64 {
        let known = |(m, times): (usize, &Recent)| times.median().map(|t| (m, t));
        let mut below = None;
        for (m, t) in self.passes.iter().enumerate().filter_map(known) {
            let m = m as f64;
            let rows = rows as f64;
            match below {
                _ if m == rows => return t,
                None if m > rows => {
                    return t * (1.0 + ROW * (rows - 1.0)) / (1.0 + ROW * (m - 1.0));
                }
                Some((m0, t0)) if m > rows => return t0 + (t - t0) * (rows - m0) / (m - m0),
                _ => below = Some((m, t)),
            }
        }
        let (m, t) = below.unwrap_or((1.0, 1.0));
        t * (1.0 + ROW * (rows as f64 - 1.0)) / (1.0 + ROW * (m - 1.0))
    }

    /// Seconds of the head steps 1..=d: measured, or in proportion to the nearest that were.
    fn head(&self, d: usize) -> f64 {
        if d == 0 {
            return 0.0;
        }
        let known = |k: &usize| self.heads[*k].median().map(|t| t * d as f64 / *k as f64);
        let nearest = (1..=self.depth).filter(|k| self.heads[*k].count > 0);
        let nearest = nearest.min_by_key(|k| k.abs_diff(d));
        nearest
            .and_then(|k| known(&k))
            .unwrap_or_else(|| self.head_guess * d as f64 * self.pass(1))
    }

    /// What a step took: a pass over `rows`, and head steps down to depth `deepest`.
    pub fn timed(&mut self, rows: usize, pass: Duration, deepest: usize, heads: Duration) {
        if self.passes.len() <= rows {
            self.passes.resize(rows + 1, Recent::default());
        }
        self.passes[rows].add(pass.as_secs_f64());
        if (1..=self.depth).contains(&deepest) {
            self.heads[deepest].add(heads.as_secs_f64());
        }
    }

    /// Of a sequence's `drafted` drafts the first `accepted` were accepted; those after the next were never judged.
    pub fn judged(&mut self, sequence: usize, drafted: usize, accepted: usize) {
        for (k, share) in self.shares[sequence].iter_mut().take(drafted).enumerate() {
            if k <= accepted {
                share.add(k < accepted);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(x: f64) -> Duration {
        Duration::from_nanos((x * 1000.0) as u64)
    }

    /// Runs `steps` steps of one sequence on a machine of given costs, with drafts accepted as given; returns the drafts
    /// of each step, and tokens and time of all.
    fn run(
        steps: usize,
        pass: impl Fn(usize) -> f64,
        head: f64,
        mut accepted: impl FnMut(usize) -> usize,
    ) -> (Vec<usize>, f64, f64) {
        let mut policy = Policy::of_depth(4, 1, 0.1);
        let sight = Sight {
            room: 100,
            drafts: Drafts::Auto,
        };
        let (mut chosen, mut tokens, mut time) = (Vec::new(), 0.0, 0.0);
        for _ in 0..steps {
            let d = policy.choose(&[Some(sight)])[0];
            let a = accepted(d);
            let (p, h) = (pass(1 + d), head * d as f64);
            policy.timed(1 + d, micros(p), d, micros(h));
            policy.judged(0, d, a);
            chosen.push(d);
            tokens += 1.0 + a as f64;
            time += p + h;
        }
        (chosen, tokens, time)
    }

    #[test]
    fn good_heads_are_used_and_useless_ones_are_left() {
        let flat = |m: usize| 100.0 + 2.0 * m as f64;
        let (chosen, tokens, time) = run(300, flat, 5.0, |d| d);
        assert!(chosen[20..].iter().filter(|d| **d == 4).count() > 260);
        // Five tokens for 110 + 20 against one for 102.
        assert!(tokens / time > 0.95 * 5.0 / 130.0);

        let (chosen, tokens, time) = run(300, flat, 5.0, |_| 0);
        assert!(chosen[20..].iter().filter(|d| **d == 0).count() > 260);
        assert!(
            tokens / time > 0.97 / 102.0,
            "{} of plain",
            tokens / time * 102.0
        );
    }

    #[test]
    fn rows_that_cost_too_much_are_not_drafted() {
        // Twice the rows, twice the time: even perfect drafts gain nothing.
        let (chosen, ..) = run(300, |m| 100.0 * m as f64, 20.0, |d| d);
        assert!(chosen[20..].iter().filter(|d| **d == 0).count() > 260);
        // The first four rows are free, the fifth is not.
        let step = |m: usize| if m <= 4 { 100.0 } else { 300.0 };
        let (chosen, ..) = run(300, step, 5.0, |d| d);
        assert!(chosen[20..].iter().filter(|d| **d == 3).count() > 240);
    }

    #[test]
    fn a_text_that_changes_is_followed() {
        let flat = |m: usize| 100.0 + 2.0 * m as f64;
        let mut step = 0;
        let (chosen, ..) = run(900, flat, 5.0, |d| {
            step += 1;
            if (300..600).contains(&step) { 0 } else { d }
        });
        let most = |range: std::ops::Range<usize>, d| {
            chosen[range].iter().filter(|x| **x == d).count() > 80
        };
        assert!(most(200..300, 4) && most(500..600, 0) && most(800..900, 4));
    }

    #[test]
    fn sequences_share_a_pass_by_what_they_are_worth() {
        let mut policy = Policy::of_depth(3, 3, 0.01);
        let sight = |drafts| Some(Sight { room: 9, drafts });
        let sights = [sight(Drafts::Auto), None, sight(Drafts::Auto)];
        assert_eq!(policy.choose(&sights), [0, 0, 0], "a plain pass first");
        for _ in 0..30 {
            let wanted = policy.choose(&sights);
            assert_eq!(wanted[1], 0);
            let rows = 2 + wanted[0] + wanted[2];
            policy.timed(
                rows,
                micros(100.0 + 9.0 * rows as f64),
                wanted[0].max(wanted[2]),
                micros(9.0),
            );
            policy.judged(0, wanted[0], wanted[0]);
            policy.judged(2, wanted[2], 0);
        }
        assert_eq!(policy.choose(&sights), [3, 0, 0]);
    }

    #[test]
    fn what_was_asked_for_is_done() {
        let mut policy = Policy::of_depth(3, 3, 0.01);
        let sight = |room, drafts| Some(Sight { room, drafts });
        let sights = [
            sight(5, Drafts::All),
            sight(5, Drafts::Fixed(2)),
            sight(1, Drafts::Fixed(2)),
        ];
        assert_eq!(policy.choose(&sights), [5, 2, 1]);
    }
}
