//! Forward: scores, softmax and weighted values, a few queries at a time.

use super::keys::KeyValues;
use super::{AttentionHeads, tile_rows, with_rows};
use crate::kernels::gemm::View;
use crate::kernels::gemm::panels::{WIDTH, pack_left};
use crate::kernels::gemm::tile::{MicroPanel, RowMajor, Triangle, tile, triangle};
use crate::kernels::scratch::Scratch;
use crate::kernels::{par, reduce};
use crate::simd::matrix::MatrixMut;
use crate::simd::{self, Kernel, LANES, Simd};

/// Consecutive rows of one sequence, and the KV cache that holds their keys and values.
#[derive(Clone, Copy, Debug)]
pub struct CachedSequence<'a> {
    /// Position of the first row.
    pub first: usize,
    /// Number of rows.
    pub len: usize,
    /// One for each key head; they hold at least positions 0..first + len.
    pub cache: &'a [KeyValues],
}

/// Whole sequences from position 0: qkv [rows, (H + 2 G) D] -> out [rows, H D], stats [rows, 2 H] (m and Z of each
/// query head). `lengths` are the rows of each sequence.
///
/// # Panics
/// Panics if the shapes do not fit.
#[track_caller]
pub fn forward(
    heads: AttentionHeads,
    lengths: &[usize],
    qkv: &[f32],
    out: &mut [f32],
    stats: &mut [f32],
) {
    let rows = lengths.iter().sum();
    let qkv = View::new(qkv, rows, heads.width());
    let mut out = MatrixMut::new(out, rows, heads.num_heads * heads.head_dim);
    let mut stats = MatrixMut::new(stats, rows, 2 * heads.num_heads);
    let mut tasks = Vec::new();
    let mut from = 0;
    for &len in lengths {
        let (o, below) = out.split_rows(len);
        let (s, stats_below) = stats.split_rows(len);
        (out, stats) = (below, stats_below);
        let rows = qkv.row_range(from, from + len);
        let o = o.into_col_blocks(heads.group() * heads.head_dim);
        let s = s.into_col_blocks(2 * heads.group());
        tasks.extend(o.into_iter().zip(s).enumerate().map(|(g, x)| (g, rows, x)));
        from += len;
    }
    par::for_each(tasks, |(g, rows, (out, stats))| {
        let (k, v) = (heads.keys(rows, g), heads.values(rows, g));
        let kv = KeyValues::of(Some(k), Some(v));
        group(heads, g, rows, &kv, 0, out, Some(stats));
    });
}

/// Rows whose keys and values are already in a KV cache: qkv [rows, (H + 2 G) D] -> out [rows, H D].
///
/// # Panics
/// Panics if the shapes do not fit.
#[track_caller]
pub fn cached(
    heads: AttentionHeads,
    sequences: &[CachedSequence<'_>],
    qkv: &[f32],
    out: &mut [f32],
) {
    let total = sequences.iter().map(|s| s.len).sum();
    let qkv = View::new(qkv, total, heads.width());
    let mut out = MatrixMut::new(out, total, heads.num_heads * heads.head_dim);
    let (mut tasks, mut from, mut work) = (Vec::new(), 0, 0);
    for span in sequences {
        let fits = span
            .cache
            .iter()
            .all(|cache| cache.size() == heads.head_dim);
        assert!(
            fits && span.cache.len() == heads.num_kv_heads,
            "attention::cached: {} caches for {heads:?}",
            span.cache.len()
        );
        let (o, below) = out.split_rows(span.len);
        out = below;
        let rows = qkv.row_range(from, from + span.len);
        from += span.len;
        work += span.len * (span.first + span.len) * heads.num_heads * heads.head_dim;
        let blocks = o.into_col_blocks(heads.group() * heads.head_dim);
        tasks.extend(
            blocks
                .into_iter()
                .enumerate()
                .map(|(g, o)| (span, g, rows, o)),
        );
    }
    let attend = |(span, g, rows, out): (&CachedSequence<'_>, usize, _, _)| {
        group(heads, g, rows, &span.cache[g], span.first, out, None);
    };
    // Only the multiply-adds of the scores are counted, and the exponentials cost more: four times the usual limit.
    if work < 4 * par::WORTH_SPLITTING {
        tasks.into_iter().for_each(attend);
    } else {
        par::for_each(tasks, attend);
    }
}

/// The query heads of key head `g`.
fn group(
    heads: AttentionHeads,
    g: usize,
    rows: View<'_>,
    kv: &KeyValues,
    first: usize,
    out: MatrixMut<'_>,
    stats: Option<MatrixMut<'_>>,
) {
    let mut stats = stats.map(|s| s.into_col_blocks(2).into_iter());
    for (h, out) in out.into_col_blocks(heads.head_dim).into_iter().enumerate() {
        simd::run(Attend {
            q: heads.queries(rows, g * heads.group() + h),
            kv,
            first,
            scale: heads.scale(),
            out,
            stats: stats.as_mut().and_then(Iterator::next),
        });
    }
}

/// One query head: q [rows, D] at positions `first`.. -> out [rows, D].
struct Attend<'a> {
    q: View<'a>,
    kv: &'a KeyValues,
    first: usize,
    scale: f32,
    out: MatrixMut<'a>,
    stats: Option<MatrixMut<'a>>,
}

impl Kernel for Attend<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let rows = self.q.rows();
        let block = tile_rows(rows.max(1), S::TILE_ROWS);
        let stride = (self.first + rows).next_multiple_of(WIDTH);
        // What it held before does not matter: no element is read that was not written for its row.
        let mut memory = Scratch::<f32>::new(block * (stride + self.q.cols()));
        let (scores, packed) = memory.split_at_mut(block * stride);
        let mut top = 0;
        while top < rows {
            let m = tile_rows(rows - top, S::TILE_ROWS);
            with_rows!(S, m, M => {
                self.block::<S, M>(s, top, packed, &mut scores[..M * stride]);
            });
            top += m;
        }
    }
}

impl Attend<'_> {
    #[inline(always)]
    fn block<S: Simd, const M: usize>(
        &mut self,
        s: S,
        top: usize,
        packed: &mut [f32],
        scores: &mut [f32],
    ) {
        let stride = scores.len() / M;
        let first = self.first + top;
        let q = self.q.row_range(top, top + M);
        products_with_keys::<S, M>(s, q, self.kv, first + M, packed, scores);
        let mut totals = [0.0; M];
        for (i, total) in totals.iter_mut().enumerate() {
            let row = &mut scores[i * stride..][..first + i + 1];
            let max;
            (max, *total) = softmax_parts(s, row, self.scale);
            if let Some(stats) = &mut self.stats {
                stats.row_mut(top + i).copy_from_slice(&[max, *total]);
            }
        }
        weighted_values::<S, M>(s, self.kv, scores, first, &mut self.out, top);
        for (i, total) in totals.into_iter().enumerate() {
            divide(s, self.out.row_mut(top + i), total);
        }
    }
}

/// x / total
#[inline(always)]
fn divide<S: Simd>(s: S, x: &mut [f32], total: f32) {
    let total = s.splat(total);
    for x in x.chunks_mut(LANES) {
        s.store_partial(s.div(s.load_partial(x, 0.0), total), x);
    }
}

/// q [M, D] -> scores [M, stride]: the chain over D with every key below `keys`, and with some that are not read.
#[inline(always)]
pub(super) fn products_with_keys<S: Simd, const M: usize>(
    s: S,
    q: View<'_>,
    kv: &KeyValues,
    keys: usize,
    packed: &mut [f32],
    scores: &mut [f32],
) {
    let stride = scores.len() / M;
    pack_left(s, q, M, &mut packed[..M * q.cols()]);
    let left = MicroPanel::<M>::new(packed, q.cols());
    let mut c = MatrixMut::new(scores, M, stride);
    for panel in 0..keys.div_ceil(WIDTH) {
        let at = (0, panel * WIDTH);
        tile::<S, M>(s, left, kv.key_panel(panel), &mut c, at, true);
    }
}

/// q · k of one query and its own keys becomes e; returns m and Z.
#[inline(always)]
pub(super) fn softmax_parts<S: Simd>(s: S, row: &mut [f32], scale: f32) -> (f32, f32) {
    let scale = s.splat(scale);
    let mut max = s.splat(f32::NEG_INFINITY);
    for x in row.chunks_mut(LANES) {
        let score = s.mul(s.load_partial(x, f32::NEG_INFINITY), scale);
        max = s.max(max, score);
        s.store_partial(score, x);
    }
    let max = s.maximum(max);
    (max, reduce::exponentials(s, row, max))
}

/// Rows `top..top + M` of out become the chains over j ascending of weights[i][j] · value[j], j = 0..=first + i.
#[inline(always)]
pub(super) fn weighted_values<S: Simd, const M: usize>(
    s: S,
    kv: &KeyValues,
    weights: &[f32],
    first: usize,
    out: &mut MatrixMut<'_>,
    top: usize,
) {
    let stride = weights.len() / M;
    let common = first + 1;
    for q in 0..out.cols().div_ceil(WIDTH) {
        // Later queries have a few keys more. What lies behind a query's own weights is never used.
        let left = RowMajor::<M>::new(weights, stride, 0, 0, common + M - 1);
        let panel = kv.value_panel(q, 0, common + M - 1);
        let at = (top, q * WIDTH);
        triangle::<S, M>(s, Triangle::Lower, left, panel, out, at, true);
    }
}
