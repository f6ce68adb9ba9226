//! Plain and speculative decoding in turn: their times, and whether their tokens are the same.

use super::decoding::Way;
use super::device::Held;
use super::failure::Result;
use crate::Error;
use crate::infer::costs::median;
use crate::infer::{DraftLength, Drafter, GenerateOptions, Generated, HeadDrafter};
use crate::infer::{NoDrafts, OnToken, Request};
use std::ops::ControlFlow;
use std::time::Instant;

/// Generates one way and measures the time, including that of `on_token`.
///
/// # Errors
/// A request that the model cannot take.
pub fn timed(
    held: &Held<'_>,
    requests: &[Request],
    way: Way,
    on_token: &mut OnToken<'_>,
) -> Result<(Vec<Generated>, f64)> {
    let drafter: &mut dyn Drafter = match way {
        Way::Speculative | Way::Rejection => &mut HeadDrafter,
        Way::Plain => &mut NoDrafts,
    };
    let start = Instant::now();
    let generated = held.session().generate(requests, drafter, on_token)?;
    let seconds = start.elapsed().as_secs_f64();
    let generated: crate::Result<_> = generated.into_iter().collect();
    Ok((generated?, seconds))
}

/// Plain decoding and decoding with drafts.
#[derive(Default)]
pub struct Compared {
    /// What was generated for all prompts.
    pub plain: Generated,
    pub fast: Generated,
    /// The sum of each prompt's median time.
    pub plain_seconds: f64,
    pub fast_seconds: f64,
    /// Whether drafting left the tokens unchanged.
    pub identical: bool,
}

/// Continues each prompt `repeats` times with the drafts of `options` and without, in turn.
///
/// # Errors
/// A prompt that the model cannot take.
pub fn compare(
    held: &Held<'_>,
    prompts: &[&[u32]],
    options: &GenerateOptions,
    repeats: usize,
) -> Result<Compared> {
    let run = |request: &Request, way| -> Result<(Generated, f64)> {
        let next = &mut |_, _, _: &[u32]| ControlFlow::Continue(());
        let (mut all, seconds) = timed(held, std::slice::from_ref(request), way, next)?;
        Ok((all.remove(0), seconds))
    };
    let mut compared = Compared {
        identical: true,
        ..Compared::default()
    };
    for prompt in prompts {
        let drafting = Request::new(*prompt, options.clone());
        let mut plain = drafting.clone();
        plain.options.draft_length = DraftLength::Fixed(0);
        // The first run of each warms up; the tokens of all are compared.
        let (expected, _) = run(&plain, Way::Plain)?;
        let (mut fast, _) = run(&drafting, Way::Speculative)?;
        let (mut plain_times, mut fast_times) = (Vec::new(), Vec::new());
        for _ in 0..repeats.max(1) {
            plain_times.push(run(&plain, Way::Plain)?.1);
            let (again, seconds) = run(&drafting, Way::Speculative)?;
            fast_times.push(seconds);
            compared.identical &= fast.tokens == expected.tokens;
            fast = again;
        }
        compared.identical &= fast.tokens == expected.tokens;
        add(&mut compared.plain, expected);
        add(&mut compared.fast, fast);
        compared.plain_seconds += median(plain_times);
        compared.fast_seconds += median(fast_times);
    }
    Ok(compared)
}

/// Adds what was generated for another prompt.
pub fn add(total: &mut Generated, more: Generated) {
    total.tokens.extend(more.tokens);
    total.steps += more.steps;
    for (total, more) in [
        (&mut total.drafted_by_depth, more.drafted_by_depth),
        (&mut total.accepted_by_depth, more.accepted_by_depth),
    ] {
        // A shorter list counts as padded with zeros.
        total.resize(total.len().max(more.len()), 0);
        total.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
    }
}

/// `part` by `all`, element by element; 0 where there is nothing.
pub fn shares(part: &[usize], all: &[usize]) -> Vec<f64> {
    let share = |(part, all): (&usize, &usize)| *part as f64 / (*all).max(1) as f64;
    part.iter().zip(all).map(share).collect()
}

/// The word for whether two texts are the same.
pub fn sameness(identical: bool) -> &'static str {
    if identical { "identical" } else { "DIFFERENT" }
}

/// An error unless speculative and plain decoding gave the same tokens.
///
/// # Errors
/// Returns [`Error::NotFinite`] if they differ, which is a bug.
pub fn check_identical(identical: bool) -> Result {
    if identical {
        return Ok(());
    }
    let what = "speculation changed the text: please report this";
    Err(Error::NotFinite(what.to_owned()).into())
}
