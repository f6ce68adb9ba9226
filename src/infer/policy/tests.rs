//! Machines of given costs, with heads of a given quality, and what the policy makes of them.

use super::*;

/// A policy with this many sequences.
fn policy(sequences: usize, head_guess: f64) -> Policy {
    let mut policy = Policy::with_head_guess(head_guess);
    (0..sequences).for_each(|slot| policy.add_sequence(slot));
    policy
}

fn micros(x: f64) -> Duration {
    Duration::from_nanos((x * 1000.0) as u64)
}

/// A machine: microseconds of a pass by its rows, and of a row of a head.
struct Machine {
    pass: fn(usize) -> f64,
    head_step: f64,
    head_row: f64,
    /// Every so many steps one takes three times as long.
    noise: usize,
}

/// Four depths; a head step costs a twentieth of a pass, a row little.
const FLAT: Machine = Machine {
    pass: |m| 100.0 + 2.0 * m as f64,
    head_step: 5.0,
    head_row: 0.2,
    noise: 0,
};

/// One sequence after a prompt of 100 tokens.
struct Run {
    chosen: Vec<usize>,
    tokens: f64,
    micros: f64,
}

impl Run {
    /// Tokens for the time, relative to plain decoding.
    fn speed_up(&self, machine: &Machine) -> f64 {
        self.tokens / self.micros * (machine.pass)(1)
    }

    /// How often so many drafts were chosen in these steps.
    fn count(&self, steps: std::ops::Range<usize>, drafts: usize) -> usize {
        self.chosen[steps].iter().filter(|d| **d == drafts).count()
    }
}

/// Runs `steps` steps; `accepted` says how many of the drafts of a step are, and `arrive` how many drafts come.
fn run(
    machine: &Machine,
    steps: usize,
    accepted: impl Fn(usize, usize) -> usize,
    arrive: impl Fn(usize) -> usize,
) -> Run {
    let mut policy = policy(1, 0.1);
    let limit = DraftLimit {
        slot: 0,
        room: 100,
        draft_length: DraftLength::Auto,
    };
    let mut behind = [100.0; 4];
    let mut trial = Run {
        chosen: Vec::new(),
        tokens: 0.0,
        micros: 0.0,
    };
    for step in 0..steps {
        let asked = policy.choose(&[limit], 4)[0];
        let drafted = arrive(asked);
        let accepted = accepted(step, drafted);
        let mut heads = 0.0;
        for rows in &mut behind[..asked] {
            heads += machine.head_step + machine.head_row * *rows;
            *rows = 0.0;
        }
        let mut pass = (machine.pass)(1 + drafted);
        if machine.noise > 0 && step % machine.noise == 0 {
            pass *= 3.0;
        }
        behind
            .iter_mut()
            .for_each(|rows| *rows += 1.0 + accepted as f64);
        let stats = StepStats { drafted, accepted };
        policy.learn(micros(heads), micros(pass), &[stats]);
        trial.chosen.push(asked);
        trial.tokens += 1.0 + accepted as f64;
        trial.micros += heads + pass;
    }
    trial
}

#[test]
fn good_heads_are_used() {
    let trial = run(&FLAT, 300, |_, d| d, |d| d);
    assert!(trial.count(20..300, 4) > 250);
    // Five tokens for a pass over five rows, and four head steps with the rows of five tokens each.
    let best = 5.0 / (110.0 + 20.0 + 4.0) * 102.0;
    assert!(
        trial.speed_up(&FLAT) > 0.93 * best,
        "{}",
        trial.speed_up(&FLAT)
    );
}

#[test]
fn useless_heads_are_left_and_cost_less_than_three_in_a_hundred() {
    let noisy = Machine { noise: 7, ..FLAT };
    // As wide as a layer of a small trunk, in the cache: a head step costs a quarter of a pass, rows are not free.
    let wide = Machine {
        pass: |m| 80.0 + 20.0 * m as f64,
        head_step: 25.0,
        head_row: 2.0,
        noise: 0,
    };
    for (machine, steps) in [
        (&FLAT, 200),
        (&FLAT, 3000),
        (&noisy, 200),
        (&wide, 300),
        (&wide, 3000),
    ] {
        let trial = run(machine, steps, |_, _| 0, |d| d);
        assert!(trial.count(20..steps, 0) > (steps - 20) * 9 / 10);
        let plain = run(machine, steps, |_, _| 0, |_| 0);
        // Against a machine that is as noisy.
        let quiet: f64 = (0..steps)
            .map(|step| {
                let slow = machine.noise > 0 && step % machine.noise == 0;
                (machine.pass)(1) * if slow { 3.0 } else { 1.0 }
            })
            .sum();
        let loss = trial.micros / quiet - 1.0;
        assert!(loss < 0.03, "{loss} of {steps} steps");
        // Heads that give no drafts at all are no better.
        assert!(plain.micros / quiet - 1.0 < 0.03);
    }
}

#[test]
fn rows_that_cost_too_much_are_not_drafted() {
    // Twice the rows, twice the time: even perfect drafts gain nothing.
    let steep = Machine {
        pass: |m| 100.0 * m as f64,
        head_step: 20.0,
        ..FLAT
    };
    let trial = run(&steep, 300, |_, d| d, |d| d);
    assert!(trial.count(20..300, 0) > 250);
    // The first four rows are free, the fifth is not.
    let step = Machine {
        pass: |m| if m <= 4 { 100.0 } else { 300.0 },
        ..FLAT
    };
    let trial = run(&step, 300, |_, d| d, |d| d);
    assert!(trial.count(60..300, 3) > 200);
}

#[test]
fn a_slow_first_step_misleads_for_a_moment_only() {
    // The very first pass takes three times as long, and heads are useless.
    let noisy = Machine {
        noise: 1_000_000,
        ..FLAT
    };
    let trial = run(&noisy, 200, |_, _| 0, |d| d);
    assert!(trial.count(20..200, 0) > 165);
}

#[test]
fn a_long_prompt_does_not_make_heads_look_slow() {
    // Catching up with the prompt costs several passes.
    let slow = Machine {
        head_row: 5.0,
        ..FLAT
    };
    let trial = run(&slow, 200, |_, d| d, |d| d);
    assert!(trial.count(20..200, 0) < 10);
}

#[test]
fn a_text_that_changes_is_followed() {
    let useless = |step: usize| (300..900).contains(&step);
    let trial = run(
        &FLAT,
        1600,
        |step, d| if useless(step) { 0 } else { d },
        |d| d,
    );
    assert!(trial.count(200..300, 4) > 80);
    assert!(trial.count(500..900, 0) > 350);
    assert!(trial.count(1500..1600, 4) > 80);
}

#[test]
fn sequences_share_a_pass_by_what_they_are_worth() {
    let mut policy = policy(3, 0.01);
    let limit = |slot| DraftLimit {
        slot,
        room: 9,
        draft_length: DraftLength::Auto,
    };
    // Slot 1 has finished.
    let limits = [limit(0), limit(2)];
    let mut last = Vec::new();
    for step in 0..31 {
        let numbers = policy.choose(&limits, 3);
        assert!(step >= 2 || numbers == [0, 0], "plain passes first");
        let rows = 2 + numbers.iter().sum::<usize>();
        let stats = |i: usize, accepted| StepStats {
            drafted: numbers[i],
            accepted,
        };
        let stats = [stats(0, numbers[0]), stats(1, 0)];
        let deepest = numbers.iter().max().copied().unwrap_or(0);
        let heads = micros(2.0 * deepest as f64);
        policy.learn(heads, micros(100.0 + 9.0 * rows as f64), &stats);
        last = numbers;
    }
    assert_eq!(last, [3, 0]);
}

/// Another sequence in the slot of one whose heads were useless starts afresh.
#[test]
fn a_new_sequence_inherits_no_acceptance() {
    let mut policy = policy(1, 0.01);
    let limits = [DraftLimit {
        slot: 0,
        room: 9,
        draft_length: DraftLength::Auto,
    }];
    let step = |policy: &mut Policy| {
        let drafted = policy.choose(&limits, 3)[0];
        let stats = [StepStats {
            drafted,
            accepted: 0,
        }];
        policy.learn(micros(drafted as f64), micros(100.0), &stats);
        drafted
    };
    let first: Vec<usize> = (0..25).map(|_| step(&mut policy)).collect();
    assert!(first[2] > 0 && first[24] == 0, "{first:?}");
    policy.add_sequence(0);
    assert!(step(&mut policy) > 0);
}

/// A drafter that offers no drafts is not asked for any; one that offers more than before is.
#[test]
fn the_drafter_bounds_the_choice() {
    let mut policy = policy(1, 0.01);
    let limits = [DraftLimit {
        slot: 0,
        room: 9,
        draft_length: DraftLength::Auto,
    }];
    let mut max = 0;
    for step in 0..60 {
        let depth = [0, 2, 5][step / 20];
        let drafted = policy.choose(&limits, depth)[0];
        assert!(drafted <= depth);
        let stats = [StepStats {
            drafted,
            accepted: drafted,
        }];
        policy.learn(micros(drafted as f64), micros(100.0), &stats);
        max = max.max(drafted);
    }
    assert_eq!(max, 5);
}

#[test]
fn what_was_asked_for_is_done() {
    let mut policy = policy(3, 0.01);
    let limit = |slot, room, draft_length| DraftLimit {
        slot,
        room,
        draft_length,
    };
    let limits = [
        limit(0, 5, DraftLength::All),
        limit(1, 5, DraftLength::Fixed(2)),
        limit(2, 1, DraftLength::Fixed(2)),
    ];
    assert_eq!(policy.choose(&limits, 3), [5, 2, 1]);
}
