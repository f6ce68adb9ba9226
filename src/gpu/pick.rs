//! Choosing tokens where the logits are.

use super::device::{Array, Device, elements};
use super::rows::{THREADS, word};
use crate::Result;
use crate::infer::{self, Sampler};

/// `TOKENS`, `ENTRY` and `NO_TOKEN` of `kernels/pick.cu`.
const TOKENS: usize = 2048;
const ENTRY: usize = 4;
const NO_TOKEN: u32 = u32::MAX;
/// Rows of one launch: the limit of a grid's second dimension.
const ROWS: usize = 65_535;

/// The tokens that [`infer::pick`](crate::infer::pick()) chooses from rows of logits [.., V]. `rows` holds each row's
/// index, the token's position and the sampler.
///
/// Rows whose sampler filters tokens are downloaded for the CPU to decide. So are rows with NaN or an infinite maximum,
/// for which the CPU returns its error.
///
/// # Errors
/// Returns the device's first failure.
///
/// # Panics
/// Panics if the logits have no such row.
#[track_caller]
pub fn pick(
    device: &Device,
    logits: &Array,
    v: usize,
    rows: &[(usize, usize, Sampler)],
) -> Result<Vec<Result<u32>>> {
    for (row, ..) in rows {
        let there = v == 0 || *row < logits.len() / v;
        assert!(there, "row {row} of {} logits, {v} each", logits.len());
    }
    let requests: Vec<_> = rows.iter().copied().filter(|x| plain(x.2)).collect();
    let mut decided = Vec::new();
    if v > 0 {
        for requests in requests.chunks(ROWS) {
            decided.extend(decide(device, logits, v, requests)?);
        }
    }
    let mut decided = decided.into_iter();
    let decide = |&(row, position, sampler): &(usize, usize, Sampler)| {
        let token = if plain(sampler) {
            decided.next().unwrap_or(NO_TOKEN)
        } else {
            NO_TOKEN
        };
        if token != NO_TOKEN {
            return Ok(Ok(token));
        }
        let z = device.read(logits, row * v..(row + 1) * v)?;
        Ok(infer::pick(&z, position, sampler))
    };
    rows.iter().map(decide).collect()
}

/// Whether the sampler is greedy, or samples from the whole vocabulary.
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
    let request = |&(row, position, sampler): &(usize, usize, Sampler)| {
        let [low, high] = words(position as u64);
        let [seed_low, seed_high] = words(sampler.seed);
        let temperature = sampler.temperature.to_bits();
        let row = u32::try_from(row).expect("a row of 32 bits");
        [row, low, high, temperature, seed_low, seed_high]
    };
    let requests: Vec<u32> = rows.iter().flat_map(request).collect();
    let requests = device.upload_u32(&requests);
    let (n, blocks) = (rows.len(), v.div_ceil(TOKENS));
    let size = elements(&[n, blocks, ENTRY]);
    // The kernels index entries in 32 bits.
    word(size);
    let entries = device.empty(size);
    let args = [
        logits.into(),
        (&requests).into(),
        (&entries).into(),
        word(v),
    ];
    // SAFETY: the kernel's parameters; `pick` checked the rows, and each block of a row has an entry.
    unsafe { device.launch("pick_largest", [blocks, n, 1], THREADS, &args) };
    let mut perturbed = entries.clone();
    if rows.iter().any(|x| x.2.temperature != 0.0) {
        perturbed = device.empty(size);
        let args = [
            logits.into(),
            (&requests).into(),
            (&entries).into(),
            (&perturbed).into(),
            word(v),
        ];
        // SAFETY: as above.
        unsafe { device.launch("pick_perturbed", [blocks, n, 1], THREADS, &args) };
    }
    let tokens = device.empty(n);
    let args = [
        (&requests).into(),
        (&entries).into(),
        (&perturbed).into(),
        (&tokens).into(),
        word(blocks),
    ];
    // SAFETY: the kernel's parameters; `n` rows of requests, of entries and of tokens.
    unsafe { device.launch("pick_token", [n, 1, 1], THREADS, &args) };
    device.download_u32(&tokens)
}
