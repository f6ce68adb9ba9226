//! What decoding costs on this machine: a pass by its rows, a head, a plain read of as many bytes.

use super::drafter::{DraftContext, NoDrafts};
use super::request::{GenerateOptions, Request};
use super::runner::Runner;
use super::session::Session;
use crate::exec::Rows;
use crate::kernels::stream;
use crate::{Error, Result};
use std::hint::black_box;
use std::time::Instant;

/// Medians of interleaved repeats, in seconds.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Costs {
    /// A pass of the trunk over 1, 2, .. rows, including their logits.
    pub passes: Vec<f64>,
    /// A head with its logits, averaged over the heads; none for a model without heads.
    pub head: Option<f64>,
    /// A plain read of as many bytes of weights as a pass reads.
    pub read: f64,
}

/// Measures passes of 1 to `rows` rows after a prompt, `repeats` times in turn, in a session of a packed model. If the
/// prompt leaves no room for the rows, only its last tokens are used. The plain read is the host's.
///
/// # Errors
/// Returns [`Error::Setting`] if `rows` is 0 or the prompt is empty, and [`Error::NotFinite`] if a logit is NaN.
pub fn costs(
    mut session: Session<'_>,
    prompt: &[u32],
    rows: usize,
    repeats: usize,
) -> Result<Costs> {
    let model = session.model();
    let positions = model.config().max_position_embeddings;
    let max = positions.saturating_sub(rows).max(1);
    let prompt = &prompt[prompt.len().saturating_sub(max)..];
    let rows = rows.min(positions - prompt.len());
    if rows == 0 {
        return Err(Error::setting("rows", "at least 1, and room for it", rows));
    }
    let options = GenerateOptions {
        max_tokens: 1,
        ..GenerateOptions::default()
    };
    let id = session.add(Request::new(prompt, options))?;
    for token in session.stream(&mut NoDrafts) {
        token?.1?;
    }
    // Now everything but the token after the prompt has been computed, and that one is the first row.
    let (runner, sequences) = (&mut session.runner, &mut session.sequences);
    let sequence = sequences.get_mut(&id).expect("it was added");
    let (slot, p) = (sequence.slot, sequence.last_position());
    let depth = model.config().mtp_depth;
    let pass = |runner: &mut dyn Runner, rows: usize| {
        let inputs: Vec<u32> = (0..rows).map(|i| prompt[i % prompt.len()]).collect();
        runner.trunk(&inputs, &Rows::one(slot, p, rows), None);
        runner.synchronize()
    };
    let mut draft = |runner: &mut dyn Runner| {
        let pair = std::iter::once((&mut *sequence, depth));
        DraftContext::new(model, runner, pair)
            .run_heads(&[depth])
            .map(drop)
    };
    // All but the first call find the heads' caches filled.
    draft(&mut **runner)?;
    let memory = vec![1.0f32; model.weight_bytes() / 4];
    let (mut passes, mut heads, mut reads) = (vec![Vec::new(); rows], Vec::new(), Vec::new());
    for _ in 0..repeats.max(1) {
        // The read leaves other memory in the CPU's caches, which a decoder would not find there.
        pass(&mut **runner, 1)?;
        for (rows, times) in (1..).zip(&mut passes) {
            times.push(seconds(|| pass(&mut **runner, rows))?);
        }
        if depth > 0 {
            heads.push(seconds(|| draft(&mut **runner))?);
        }
        reads.push(seconds(|| {
            black_box(stream::read(&memory));
            Ok(())
        })?);
    }
    Ok(Costs {
        passes: passes.into_iter().map(median).collect(),
        head: (depth > 0).then(|| median(heads) / depth as f64),
        read: median(reads),
    })
}

impl Costs {
    /// The predicted speed-up over plain decoding for `steps` steps that yielded `tokens` tokens and in which head
    /// k = 1, 2, .. drafted `drafted[k - 1]` times.
    pub fn predicted_speedup(&self, tokens: usize, steps: usize, drafted: &[usize]) -> f64 {
        // A step with exactly d drafts is a pass over d + 1 rows; rows beyond those measured cost as much as the last.
        let at_least = |d: usize| match d {
            0 => steps,
            d => drafted.get(d - 1).copied().unwrap_or(0),
        };
        let pass = |d: usize| self.passes[d.min(self.passes.len() - 1)];
        let exactly = |d: usize| at_least(d).saturating_sub(at_least(d + 1)) as f64;
        let passes: f64 = (0..=drafted.len()).map(|d| exactly(d) * pass(d)).sum();
        let heads = self.head.unwrap_or(0.0) * drafted.iter().sum::<usize>() as f64;
        tokens as f64 * self.passes[0] / (passes + heads)
    }
}

fn seconds(f: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    f()?;
    Ok(start.elapsed().as_secs_f64())
}

/// The middle value; of two, the larger.
///
/// # Panics
/// Panics if there is none.
pub(crate) fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}
