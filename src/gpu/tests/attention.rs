//! Attention over caches: every element is bitwise identical to the CPU's.

use super::devices;
use super::rows::{HEADS, assert_same, matrix, numbers};
use crate::exec::Span;
use crate::gpu::Device;
use crate::gpu::attention::{Cache, attend};
use crate::kernels::attention::{self, AttentionHeads, KeyValues};
use crate::kernels::gemm::View;

/// Sequences on a device and on the CPU.
struct Both<'d> {
    device: &'d Device,
    heads: AttentionHeads,
    there: Vec<Cache>,
    here: Vec<Vec<KeyValues>>,
}

impl<'d> Both<'d> {
    fn new(device: &'d Device, heads: AttentionHeads, sequences: usize) -> Self {
        Self {
            device,
            heads,
            there: vec![Cache::new(heads.num_kv_heads * heads.head_dim); sequences],
            here: vec![vec![KeyValues::new(heads.head_dim); heads.num_kv_heads]; sequences],
        }
    }

    /// Appends and attends with rows of some sequences, (sequence, rows) each.
    #[track_caller]
    fn pass(&mut self, parts: &[(usize, usize)], qkv: &[f32]) -> Vec<f32> {
        let (device, heads) = (self.device, self.heads);
        let rows = parts.iter().map(|part| part.1).sum();
        let there = matrix(device, qkv, heads.width());
        let mut from = 0;
        for &(sequence, len) in parts {
            self.there[sequence].append(heads, &there, from, len);
            let rows = View::new(qkv, rows, heads.width()).row_range(from, from + len);
            for (g, kv) in self.here[sequence].iter_mut().enumerate() {
                kv.extend(heads.keys(rows, g), heads.values(rows, g));
            }
            from += len;
        }
        let span = |&(slot, len): &(usize, usize)| {
            let cache = &self.there[slot];
            let first = cache.len - len;
            let span = Span { slot, first, len };
            (span, cache)
        };
        let spans: Vec<_> = parts.iter().map(span).collect();
        let got = attend(heads, &spans, &there);
        let got = device.download(&got.array).expect("a device that works");
        let span = |&(sequence, len): &(usize, usize)| attention::CachedSequence {
            first: self.here[sequence][0].len() - len,
            len,
            cache: &self.here[sequence],
        };
        let spans: Vec<_> = parts.iter().map(span).collect();
        let mut expected = vec![0.0; rows * heads.num_heads * heads.head_dim];
        attention::cached(heads, &spans, qkv, &mut expected);
        let what = format!("{}, {heads:?}, {parts:?}", device.name());
        assert_same(&what, &got, &expected);
        got
    }

    fn truncate(&mut self, sequence: usize, len: usize) {
        self.there[sequence].len = len;
        self.here[sequence]
            .iter_mut()
            .for_each(|kv| kv.truncate(len));
    }

    fn numbers(&self, rows: usize, seed: u32) -> Vec<f32> {
        numbers(rows * self.heads.width(), seed)
    }
}

/// Caches whose lengths exceed the widths of lanes, of tiles, and the first capacity.
#[test]
fn lengths_of_caches() {
    for device in devices() {
        for heads in HEADS {
            let mut both = Both::new(&device, heads, 1);
            let steps = [
                1, 14, 1, 1, 13, 1, 1, 1, 30, 1, 1, 1, 61, 1, 1, 1, 5, 130, 1,
            ];
            for (i, rows) in steps.into_iter().enumerate() {
                let qkv = both.numbers(rows, i as u32);
                both.pass(&[(0, rows)], &qkv);
            }
        }
    }
}

/// More sequences than one launch takes, of different lengths, some truncated in between.
#[test]
fn several_sequences() {
    for device in devices() {
        for heads in HEADS {
            let mut both = Both::new(&device, heads, 6);
            let passes: [&[(usize, usize)]; 5] = [
                &[(0, 7), (1, 1), (2, 33), (3, 4), (4, 9), (5, 2)],
                &[(5, 1), (1, 5), (0, 1)],
                &[(2, 40), (4, 1), (3, 3), (0, 2), (1, 90)],
                &[(0, 1), (1, 1), (2, 1), (3, 1)],
                &[(3, 6)],
            ];
            for (i, parts) in passes.into_iter().enumerate() {
                let rows = parts.iter().map(|part| part.1).sum();
                let qkv = both.numbers(rows, 40 + i as u32);
                both.pass(parts, &qkv);
                both.truncate(0, both.there[0].len.min(5));
                both.truncate(2, both.there[2].len.min(31));
            }
        }
    }
}

/// So many scores that the rows are divided among launches.
#[test]
fn many_scores() {
    for device in devices() {
        let heads = AttentionHeads {
            num_heads: 8,
            num_kv_heads: 2,
            head_dim: 2,
        };
        let mut both = Both::new(&device, heads, 3);
        let qkv = both.numbers(1540, 6);
        both.pass(&[(0, 20), (1, 1500), (2, 20)], &qkv);
        let qkv = both.numbers(3, 7);
        both.pass(&[(1, 3)], &qkv);
    }
}

/// A row's result does not depend on the other rows.
#[test]
fn rows_alone() {
    for device in devices() {
        let heads = HEADS[1];
        let (mut whole, mut alone) = (Both::new(&device, heads, 1), Both::new(&device, heads, 1));
        let qkv = whole.numbers(70, 3);
        let expected = whole.pass(&[(0, 70)], &qkv);
        let rows = qkv.chunks(heads.width());
        let got: Vec<f32> = rows.flat_map(|row| alone.pass(&[(0, 1)], row)).collect();
        assert_same("rows alone", &got, &expected);
    }
}

/// Keys and queries that are not finite, or so large that scores overflow; values that are not finite.
#[test]
fn numbers_out_of_range() {
    let strange = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        3e38,
        -0.0,
        1e-40,
    ];
    for device in devices() {
        for heads in [HEADS[1], HEADS[4]] {
            for x in strange {
                let mut both = Both::new(&device, heads, 1);
                let (d, key) = (heads.head_dim, heads.num_heads * heads.head_dim);
                // In a query, in a key, in a value, in rows that later rows attend to.
                for (row, column) in [(3, 1), (20, key + d - 1), (9, heads.width() - 1)] {
                    let mut qkv = both.numbers(35, 5);
                    qkv[row * heads.width() + column] = x;
                    both.pass(&[(0, 35)], &qkv);
                    both.truncate(0, 0);
                }
                let qkv = vec![x; 2 * heads.width()];
                both.pass(&[(0, 2)], &qkv);
            }
        }
    }
}
