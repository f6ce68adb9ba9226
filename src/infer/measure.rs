//! What decoding costs on this machine: a pass by its rows, a head step, a plain read of as many bytes.

use super::draft::{Drafter, HeadDrafter};
use super::engine::{Decoder, Wanted};
use super::generate::{Options, Request};
use super::sequence::Session;
use super::verify::prefill;
use crate::Result;
use crate::exec::Decode;
use crate::kernels::stream;
use crate::model::Model;
use std::hint::black_box;
use std::time::Instant;

/// Medians of interleaved repeats, in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    /// A pass of the trunk with its logits over 1, 2, .. rows.
    pub passes: Vec<f64>,
    /// One head step with its logits, averaged over the depths; nothing for a model without heads.
    pub head: Option<f64>,
    /// A plain read of as many bytes as a pass reads of the weights.
    pub read: f64,
}

/// Measures passes of 1 to `rows` rows after a prompt, `repeats` times in turn. The model should be packed. Of a prompt
/// that leaves no room for the rows the end is taken.
///
/// # Errors
/// As [`generate`](super::generate()).
pub fn costs(model: &Model, prompt: &[u32], rows: usize, repeats: usize) -> Result<Costs> {
    costs_on(Decode::new(model.params()), model, prompt, rows, repeats)
}

/// [`costs`] on any executor, which has no sequences yet. The plain read is the host's.
///
/// # Errors
/// As [`costs`], and where the executor's machine failed.
pub fn costs_on(
    exec: impl Decoder,
    model: &Model,
    prompt: &[u32],
    rows: usize,
    repeats: usize,
) -> Result<Costs> {
    let options = Options {
        max_tokens: rows,
        ..Options::default()
    };
    let most = model
        .config()
        .max_position_embeddings
        .saturating_sub(rows)
        .max(1);
    let prompt = &prompt[prompt.len().saturating_sub(most)..];
    let rows = rows.min(model.config().max_position_embeddings + 1 - prompt.len());
    let mut session = Session::on(model, exec, &[Request { prompt, options }])?;
    // Now everything but the token after the prompt has been seen, and that one is the first row.
    let next = prefill(&mut session, &[0])?[0];
    session.push(0, next);
    let p = session.sequences()[0].current();
    let depth = model.config().mtp_depth;
    let mut drafter = HeadDrafter::default();
    // All but the first call find the heads' caches filled.
    drafter.draft(&mut session, &[depth])?;
    let memory = vec![1.0f32; model.weight_bytes() / 4];
    let inputs: Vec<u32> = (0..rows).map(|i| prompt[i % prompt.len()]).collect();
    let (mut passes, mut heads, mut reads) = (vec![Vec::new(); rows], Vec::new(), Vec::new());
    for _ in 0..repeats.max(1) {
        // The read leaves other memory in the caches, which a decoder would not find there.
        session.advance(&[(0, 1)], &inputs[..1], Wanted::Nothing);
        session.engine.wait()?;
        session.rewind(0, p);
        for (rows, times) in (1..).zip(&mut passes) {
            let mut done = Ok(());
            times.push(seconds(|| {
                session.advance(&[(0, rows)], &inputs[..rows], Wanted::All);
                done = session.engine.wait();
            }));
            done?;
            session.rewind(0, p);
        }
        if depth > 0 {
            let mut drafted = Ok(Vec::new());
            heads.push(seconds(|| drafted = drafter.draft(&mut session, &[depth])));
            drafted?;
        }
        reads.push(seconds(|| {
            black_box(stream::read(&memory));
        }));
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
        let exactly = |d: usize| (at_least(d) - at_least(d + 1)) as f64;
        let passes: f64 = (0..=drafted.len()).map(|d| exactly(d) * pass(d)).sum();
        let heads = self.head.unwrap_or(0.0) * drafted.iter().sum::<usize>() as f64;
        tokens as f64 * self.passes[0] / (passes + heads)
    }
}

fn seconds(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64()
}

/// The middle one; of two, the larger.
///
/// # Panics
/// Where there is none.
pub fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}
