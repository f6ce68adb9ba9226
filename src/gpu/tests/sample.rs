//! Sampling tokens: the CPU's choice, and its errors.

use super::devices;
use super::rows::{matrix, numbers};
use crate::gpu::Device;
use crate::gpu::sample::sample;
use crate::infer::{self, SampleRequest, Sampler};

/// The token of each row, (row, token index, sampler).
#[track_caller]
fn sampled(
    device: &Device,
    logits: &[f32],
    v: usize,
    rows: &[(usize, usize, Sampler)],
) -> Vec<crate::Result<u32>> {
    let request = |&(row, token_index, sampler): &(usize, usize, Sampler)| SampleRequest {
        row,
        token_index,
        sampler,
        drafts: Vec::new(),
    };
    let requests: Vec<_> = rows.iter().map(request).collect();
    let sampled = sample(&matrix(device, logits, v), &requests).expect("a device that works");
    let token = |tokens: crate::Result<Vec<u32>>| tokens.map(|tokens| tokens[0]);
    sampled.into_iter().map(token).collect()
}

/// Compares every row's token, or error message, with the CPU's.
#[track_caller]
fn check(device: &Device, logits: &[f32], v: usize, rows: &[(usize, usize, Sampler)]) {
    let got = sampled(device, logits, v, rows);
    assert_eq!(got.len(), rows.len());
    for (got, &(row, token_index, sampler)) in got.into_iter().zip(rows) {
        let expected = infer::sample(&logits[row * v..][..v], token_index, sampler);
        let message = |e: crate::Error| e.to_string();
        assert_eq!(
            got.map_err(message),
            expected.map_err(message),
            "{}: V = {v}, row {row}, token index {token_index}, {sampler:?}",
            device.name()
        );
    }
}

fn noisy(temperature: f32, seed: u64) -> Sampler {
    Sampler {
        temperature,
        seed,
        ..Sampler::GREEDY
    }
}

/// Vocabularies on, below and above the widths of blocks.
const VOCABS: [usize; 12] = [1, 2, 16, 127, 128, 129, 257, 2047, 2048, 2049, 4100, 9000];

#[test]
fn largest_logits() {
    for device in devices() {
        for v in VOCABS {
            let mut logits = numbers(6 * v, v as u32);
            // Ties of all, of the first and the last, of zeros of both signs; −∞ with one number, and −∞ only.
            logits[v..2 * v].fill(-1.5);
            (logits[2 * v], logits[3 * v - 1]) = (70.0, 70.0);
            logits[3 * v..4 * v].fill(-0.0);
            logits[3 * v + v / 2] = 0.0;
            logits[4 * v..].fill(f32::NEG_INFINITY);
            logits[4 * v + v / 2] = -3e38;
            let rows: Vec<_> = (0..6).map(|row| (row, 3, Sampler::GREEDY)).collect();
            check(&device, &logits, v, &rows);
            let noisy: Vec<_> = (0..6).map(|row| (row, 3, noisy(0.7, 5))).collect();
            check(&device, &logits, v, &noisy);
        }
    }
}

#[test]
fn noise() {
    for device in devices() {
        for v in VOCABS {
            // A flat row, in which any token may win with noise, and a peaked one.
            let mut logits = numbers(2 * v, 1 + v as u32);
            logits[v..].iter_mut().for_each(|x| *x *= 40.0);
            let seeds = [0, 1, 77, u64::MAX, 1 << 32, 0x1234_5678_9abc_def0];
            let mut rows = Vec::new();
            for (i, seed) in seeds.into_iter().enumerate() {
                for token_index in [0, 1, 1000 + i, 70_000] {
                    for temperature in [0.0, 0.01, 0.8, 1.0, 50.0] {
                        rows.push((token_index % 2, token_index, noisy(temperature, seed)));
                    }
                }
            }
            check(&device, &logits, v, &rows);
        }
    }
}

/// With equal logits, the noise decides.
#[test]
fn noise_changes_tokens() {
    for device in devices() {
        let rows: Vec<_> = (0..40).map(|i| (0, i, noisy(1.0, 9))).collect();
        let tokens = sampled(&device, &[0.0; 50], 50, &rows);
        let mut tokens: Vec<u32> = tokens.into_iter().flatten().collect();
        assert_eq!(tokens.len(), 40);
        tokens.sort_unstable();
        tokens.dedup();
        assert!(tokens.len() > 10, "{tokens:?}");
    }
}

#[test]
fn filters() {
    for device in devices() {
        let v = 300;
        let logits = numbers(3 * v, 2);
        let filtered = |top_k, top_p, min_p| Sampler {
            top_k,
            top_p,
            min_p,
            ..noisy(0.9, 3)
        };
        let samplers = [
            filtered(5, 1.0, 0.0),
            filtered(0, 0.8, 0.0),
            filtered(0, 1.0, 0.1),
            filtered(40, 0.9, 0.05),
            noisy(0.9, 3),
            Sampler {
                temperature: 0.0,
                ..filtered(5, 0.5, 0.5)
            },
        ];
        // Filtered and unfiltered rows in turn, each row several times.
        let rows: Vec<_> = (0..24).map(|i| (i % 3, i, samplers[i % 6])).collect();
        check(&device, &logits, v, &rows);
        check(&device, &logits, v, &[]);
    }
}

#[test]
fn logits_without_a_choice() {
    for device in devices() {
        for v in VOCABS {
            let mut logits = numbers(5 * v, 8);
            logits[v - 1] = f32::NAN;
            // The error names the first of two.
            (logits[v + v / 3], logits[v + v / 2]) = (f32::NAN, f32::NAN);
            logits[2 * v] = f32::INFINITY;
            logits[3 * v..4 * v].fill(f32::NEG_INFINITY);
            for sampler in [Sampler::GREEDY, noisy(1.0, 4), noisy(f32::INFINITY, 4)] {
                let rows: Vec<_> = (0..5).map(|row| (row, 2 * row, sampler)).collect();
                check(&device, &logits, v, &rows);
            }
        }
    }
}
