//! Sampling tokens where the logits are.

use super::device::{Matrix, THREADS, args, elements, word};
use crate::Result;
use crate::infer::{self, SampleRequest, Sampler};

/// `TOKENS`, `ENTRY` and `NO_TOKEN` of `kernels/sample.cu`.
const TOKENS: usize = 2048;
const ENTRY: usize = 4;
const NO_TOKEN: u32 = u32::MAX;
/// Rows of one launch: the limit of a grid's second dimension.
const ROWS: usize = 65_535;

/// The accepted drafts of each request and one more token, as [`SampleRequest::verify_drafts`] gives them with
/// [`infer::sample`](crate::infer::sample()); logits [rows, V].
///
/// Rows whose sampler filters tokens are downloaded for the CPU to decide, if they are reached. So are rows with NaN or
/// an infinite maximum, for which the CPU returns its error.
///
/// # Errors
/// Returns the device's first failure.
///
/// # Panics
/// Panics if the logits have no such row.
pub fn sample(logits: &Matrix, requests: &[SampleRequest]) -> Result<Vec<Result<Vec<u32>>>> {
    let mut rows = Vec::new();
    for request in requests.iter().filter(|x| is_plain(x.sampler)) {
        rows.extend((0..=request.drafts.len()).map(|i| (request, i)));
    }
    let mut decided = Vec::with_capacity(rows.len());
    for rows in rows.chunks(ROWS) {
        decided.extend(decide(logits, rows)?);
    }
    let mut decided = &decided[..];
    let mut sampled = Vec::with_capacity(requests.len());
    for request in requests {
        let mut own: &[u32] = &[];
        if is_plain(request.sampler) {
            (own, decided) = decided.split_at(1 + request.drafts.len());
        }
        sampled.push(
            request.verify_drafts(|row, token_index| match own.get(row - request.row) {
                Some(&token) if token != NO_TOKEN => Ok(token),
                _ => infer::sample(&logits.read_row(row)?, token_index, request.sampler),
            }),
        );
    }
    logits.device().working()?;
    Ok(sampled)
}

/// Whether the sampler is greedy, or samples from the whole vocabulary.
fn is_plain(sampler: Sampler) -> bool {
    let temperature = sampler.temperature;
    temperature == 0.0 || (sampler.keeps_all() && temperature > 0.0 && temperature.is_finite())
}

/// A token for row i of each request, or [`NO_TOKEN`].
fn decide(logits: &Matrix, rows: &[(&SampleRequest, usize)]) -> Result<Vec<u32>> {
    let (device, v) = (logits.device(), logits.cols);
    let words = |n: u64| [n as u32, (n >> 32) as u32];
    let request = |&(request, i): &(&SampleRequest, usize)| {
        let (row, sampler) = (request.row + i, request.sampler);
        assert!(row < logits.rows, "row {row} of {} rows", logits.rows);
        let [low, high] = words((request.token_index + i) as u64);
        let [seed_low, seed_high] = words(sampler.seed);
        let temperature = sampler.temperature.to_bits();
        [word(row), low, high, temperature, seed_low, seed_high]
    };
    let requests: Vec<u32> = rows.iter().flat_map(request).collect();
    let requests = device.upload_u32(&requests);
    let (n, blocks) = (rows.len(), v.div_ceil(TOKENS));
    let size = elements(&[n, blocks, ENTRY]);
    // The kernels index entries in 32 bits.
    word(size);
    let entries = device.empty(size);
    let args = args![logits, &requests, &entries, v];
    // SAFETY: the kernel's parameters; the logits have the rows, and each block of a row has an entry.
    unsafe { device.launch("sample_largest", [blocks, n, 1], THREADS, &args) };
    let mut perturbed = entries.clone();
    if rows.iter().any(|(x, _)| x.sampler.temperature != 0.0) {
        perturbed = device.empty(size);
        let args = args![logits, &requests, &entries, &perturbed, v];
        // SAFETY: as above.
        unsafe { device.launch("sample_perturbed", [blocks, n, 1], THREADS, &args) };
    }
    let tokens = device.empty(n);
    let args = args![&requests, &entries, &perturbed, &tokens, blocks];
    // SAFETY: the kernel's parameters; `n` rows of requests, of entries and of tokens.
    unsafe { device.launch("sample_token", [n, 1, 1], THREADS, &args) };
    device.read_u32(&tokens, 0..n)
}
