//! The choice of tokens where the logits are.

use super::device::{Arg, Array, Device};
use super::rows::{THREADS, blocks, word};
use crate::Result;
use crate::infer::{self, Sampler};

/// `TOKENS`, `ENTRY` and `NO_TOKEN` of `kernels/pick.cu`.
const TOKENS: usize = 2048;
const ENTRY: usize = 4;
const NO_TOKEN: u32 = u32::MAX;
/// Rows of one launch: what the second dimension of a grid holds.
const ROWS: usize = 65_535;

/// The tokens that [`infer::pick`](crate::infer::pick()) chooses from rows of logits [.., V]; each with its row, the
/// token's position and how to choose.
///
/// Rows whose sampler filters tokens are read back, and decided by the CPU. So are rows from which nothing follows, for
/// which it gives its error.
///
/// # Errors
/// Where the device failed.
///
/// # Panics
/// Where there is no such row.
#[track_caller]
pub fn pick(
    device: &Device,
    logits: &Array,
    v: usize,
    rows: &[(usize, usize, Sampler)],
) -> Result<Vec<Result<u32>>> {
    let last = rows.iter().map(|(row, ..)| row + 1).max().unwrap_or(0);
    assert!(last * v <= logits.len(), "{last} rows of {v} logits");
    let asks: Vec<_> = rows.iter().copied().filter(|x| plain(x.2)).collect();
    let mut decided = Vec::new();
    if v > 0 {
        for asks in asks.chunks(ROWS) {
            decided.extend(decide(device, logits, v, asks)?);
        }
    }
    let mut decided = decided.into_iter();
    let decide = |&(row, position, sampler): &(usize, usize, Sampler)| {
        let token = match plain(sampler) {
            true => decided.next().unwrap_or(NO_TOKEN),
            false => NO_TOKEN,
        };
        if token != NO_TOKEN {
            return Ok(Ok(token));
        }
        let z = device.read(logits, row * v..(row + 1) * v)?;
        Ok(infer::pick(&z, position, sampler))
    };
    rows.iter().map(decide).collect()
}

/// Whether the sampler takes the largest logit, or noise over the whole vocabulary.
fn plain(sampler: Sampler) -> bool {
    let temperature = sampler.temperature;
    temperature == 0.0 || (sampler.keeps_all() && temperature > 0.0 && temperature.is_finite())
}

/// A token for each row, or [`NO_TOKEN`].
fn decide(
    device: &Device,
    logits: &Array,
    v: usize,
    rows: &[(usize, usize, Sampler)],
) -> Result<Vec<u32>> {
    let words = |n: u64| [n as u32, (n >> 32) as u32];
    let ask = |&(row, position, sampler): &(usize, usize, Sampler)| {
        let [low, high] = words(position as u64);
        let [seed_low, seed_high] = words(sampler.seed);
        let temperature = sampler.temperature.to_bits();
        [row as u32, low, high, temperature, seed_low, seed_high]
    };
    let asks: Vec<u32> = rows.iter().flat_map(ask).collect();
    let asks = device.upload_u32(&asks);
    let (n, blocks) = (rows.len(), v.div_ceil(TOKENS));
    let entries = device.empty(n * blocks * ENTRY);
    let args = [logits.into(), (&asks).into(), (&entries).into(), word(v)];
    device.launch("pick_largest", [blocks, n, 1], THREADS, &args);
    let mut loudest = entries.clone();
    if rows.iter().any(|x| x.2.temperature != 0.0) {
        loudest = device.empty(n * blocks * ENTRY);
        let args = [
            logits.into(),
            (&asks).into(),
            (&entries).into(),
            (&loudest).into(),
            word(v),
        ];
        device.launch("pick_loudest", [blocks, n, 1], THREADS, &args);
    }
    let tokens = device.empty(n);
    let args = [
        (&asks).into(),
        (&entries).into(),
        (&loudest).into(),
        (&tokens).into(),
        word(blocks),
    ];
    device.launch("pick_token", [n, 1, 1], THREADS, &args);
    device.download_u32(&tokens)
}

/// A function that the kernels are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elementary {
    /// e^x
    Exp,
    /// ln x
    Ln,
    /// −ln(−ln x) in `f64`, for x in (0, 1): noise of a uniform number.
    Gumbel,
}

/// A function of each number, to compare with the CPU's: `[n]`, for [`Elementary::Gumbel`] [n, 2] with the `f64`'s low word
/// first.
pub fn elementary(device: &Device, function: Elementary, x: &Array) -> Array {
    let (which, words) = match function {
        Elementary::Exp => (0, 1),
        Elementary::Ln => (1, 1),
        Elementary::Gumbel => (2, 2),
    };
    let y = device.empty(words * x.len());
    let args = [x.into(), (&y).into(), Arg::U64(x.len() as u64), word(which)];
    device.launch("elementary", [blocks(x.len()), 1, 1], THREADS, &args);
    y
}
