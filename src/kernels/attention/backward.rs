//! Backward: the softmax is computed again from the saved m and Z, a block of queries at a time.
//!
//! ```text
//! p[j]  = e[j] / Z
//! dp[j] = chain over D of do · v[j]
//! Δ     = Σ p[j] dp[j]                                 rule R2, own keys only
//! ds[j] = (p[j] · (dp[j] − Δ)) · scale
//! dq    = chain over j ascending of ds[j] k[j]
//! dk[j] = chain over (query head of the group, then t ≥ j) ascending of ds[t, j] q[t]
//! dv[j] = the same chain of p[t, j] do[t]
//! ```

use super::forward::{products_with_keys, weighted_values};
use super::keys::KeyValues;
use super::{AttentionHeads, tile_rows, with_rows};
use crate::kernels::gemm::View;
use crate::kernels::gemm::panels::WIDTH;
use crate::kernels::gemm::tile::{ColumnMajor, Triangle, tile, triangle};
use crate::kernels::par;
use crate::kernels::scratch::Scratch;
use crate::simd::matrix::MatrixMut;
use crate::simd::{self, Kernel, LANES, Simd, math};

/// Queries of a block: the chains of dk and dv are loaded and stored once per block.
const BLOCK: usize = 32;

/// Memory of a task, which is one key head of one sequence.
struct Memory {
    keys: KeyValues,
    /// Values as keys and keys as values: dp is do times the former, dq a weighted sum of the latter.
    exchanged: KeyValues,
    /// p, ds: [BLOCK, stride]
    scores: [Scratch<f32>; 2],
    packed: Scratch<f32>,
}

/// qkv [rows, (H + 2 G) D], stats [rows, 2 H] of the forward pass, dout [rows, H D] -> dqkv [rows, (H + 2 G) D].
/// `lengths` are the rows of each sequence.
///
/// # Panics
/// Panics if the shapes do not fit.
#[track_caller]
pub fn backward(
    heads: AttentionHeads,
    lengths: &[usize],
    qkv: &[f32],
    stats: &[f32],
    dout: &[f32],
    dqkv: &mut [f32],
) {
    let rows = lengths.iter().sum();
    let d = heads.head_dim;
    let qkv = View::new(qkv, rows, heads.width());
    let stats = View::new(stats, rows, 2 * heads.num_heads);
    let dout = View::new(dout, rows, heads.num_heads * d);
    let mut dqkv = MatrixMut::new(dqkv, rows, heads.width());
    let (mut tasks, mut from) = (Vec::new(), 0);
    for &len in lengths {
        let (part, below) = dqkv.split_rows(len);
        dqkv = below;
        let (dq, rest) = part.split_cols(heads.num_heads * d);
        let (dk, dv) = rest.split_cols(heads.num_kv_heads * d);
        let dq = dq.into_col_blocks(heads.group() * d).into_iter();
        let dkv = dk.into_col_blocks(d).into_iter().zip(dv.into_col_blocks(d));
        let at = (from, from + len);
        tasks.extend(dq.zip(dkv).enumerate().map(|(g, x)| (g, at, x)));
        from += len;
    }
    par::for_each(tasks, |(g, (from, to), (dq, (dk, dv)))| {
        let rows = qkv.row_range(from, to);
        let (k, v) = (heads.keys(rows, g), heads.values(rows, g));
        let first = g * heads.group();
        let last = first + heads.group();
        simd::run(Group {
            heads,
            k,
            v,
            q: rows.columns(first * d, last * d),
            dout: dout.row_range(from, to).columns(first * d, last * d),
            stats: stats.row_range(from, to).columns(first * 2, last * 2),
            dq,
            dk,
            dv,
        });
    });
}

/// The query heads of one key head in one sequence of T rows.
struct Group<'a> {
    heads: AttentionHeads,
    /// [T, D]
    k: View<'a>,
    /// [T, D]
    v: View<'a>,
    /// [T, group · D]
    q: View<'a>,
    /// [T, group · D]
    dout: View<'a>,
    /// [T, group · 2]
    stats: View<'a>,
    dq: MatrixMut<'a>,
    dk: MatrixMut<'a>,
    dv: MatrixMut<'a>,
}

impl Kernel for Group<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (rows, d) = (self.q.rows(), self.heads.head_dim);
        // Rows that begin an odd number of lines apart do not compete for the same places in the cache.
        let stride = rows.next_multiple_of(WIDTH) + LANES;
        let mut memory = Memory {
            keys: KeyValues::of(Some(self.k), None),
            exchanged: KeyValues::of(Some(self.v), Some(self.k)),
            scores: [Scratch::new(BLOCK * stride), Scratch::new(BLOCK * stride)],
            packed: Scratch::new(tile_rows(8, S::TILE_ROWS) * d),
        };
        // dk, dv: [T, D], rows one after the other; in dqkv they lie a whole row of qkv apart.
        let mut gradients = [Scratch::<f32>::new(rows * d), Scratch::new(rows * d)];
        for gradient in &mut gradients {
            gradient.fill(0.0);
        }
        for h in 0..self.heads.group() {
            let q = self.q.columns(h * d, (h + 1) * d);
            let dout = self.dout.columns(h * d, (h + 1) * d);
            // As values: dk and dv are weighted sums of their rows.
            let queries = KeyValues::of(None, Some(q));
            let douts = KeyValues::of(None, Some(dout));
            for top in (0..rows).step_by(BLOCK) {
                let m = BLOCK.min(rows - top);
                let mut sub = 0;
                while sub < m {
                    let height = tile_rows(m - sub, S::TILE_ROWS);
                    with_rows!(S, height, M => {
                        self.scores::<S, M>(s, &mut memory, h, (q, dout), (top, sub), stride);
                    });
                    sub += height;
                }
                let [p, ds] = &memory.scores;
                let [dk, dv] = gradients.each_mut();
                let mut dk = MatrixMut::new(dk, rows, d);
                let mut dv = MatrixMut::new(dv, rows, d);
                let mut key = 0;
                while key < top + m {
                    let height = tile_rows(top + m - key, S::TILE_ROWS);
                    let at = (top, m, key);
                    with_rows!(S, height, M => {
                        down_columns::<S, M>(s, ds, stride, &queries, at, &mut dk);
                        down_columns::<S, M>(s, p, stride, &douts, at, &mut dv);
                    });
                    key += height;
                }
            }
        }
        let [dk, dv] = &gradients;
        for (to, from) in [(&mut self.dk, dk), (&mut self.dv, dv)] {
            for (t, row) in from.chunks(d).enumerate() {
                to.row_mut(t).copy_from_slice(row);
            }
        }
    }
}

impl Group<'_> {
    /// p, ds [M, stride] and dq of queries `top + sub..top + sub + M` of head `h`, in the block that begins at `top`.
    #[inline(always)]
    fn scores<S: Simd, const M: usize>(
        &mut self,
        s: S,
        memory: &mut Memory,
        h: usize,
        (q, dout): (View<'_>, View<'_>),
        (top, sub): (usize, usize),
        stride: usize,
    ) {
        let d = self.heads.head_dim;
        let [p, ds] = memory
            .scores
            .each_mut()
            .map(|scores| &mut scores[sub * stride..(sub + M) * stride]);
        let top = top + sub;
        let (q, dout) = (q.row_range(top, top + M), dout.row_range(top, top + M));
        let packed = &mut memory.packed;
        products_with_keys::<S, M>(s, q, &memory.keys, top + M, packed, p);
        products_with_keys::<S, M>(s, dout, &memory.exchanged, top + M, packed, ds);
        for i in 0..M {
            let own = i * stride..i * stride + top + i + 1;
            let stats = &self.stats.row(top + i)[2 * h..2 * h + 2];
            let stats = (stats[0], stats[1]);
            let scale = self.heads.scale();
            softmax_backward(s, scale, stats, &mut p[own.clone()], &mut ds[own]);
        }
        let (_, right) = self.dq.reborrow().split_cols(h * d);
        let (mut dq, _) = right.split_cols(d);
        weighted_values::<S, M>(s, &memory.exchanged, ds, top, &mut dq, top);
    }
}

/// q · k becomes p, and do · v becomes ds. Both have one element for each of the query's own keys.
#[inline(always)]
fn softmax_backward<S: Simd>(
    s: S,
    scale: f32,
    (max, total): (f32, f32),
    p: &mut [f32],
    ds: &mut [f32],
) {
    let [scale, max, total] = [s.splat(scale), s.splat(max), s.splat(total)];
    let mut delta = s.splat(0.0);
    // Absent keys have p = +0 and dp = +0, and fma leaves their lane as it was.
    for (p, dp) in p.chunks_mut(LANES).zip(ds.chunks(LANES)) {
        let score = s.mul(s.load_partial(p, f32::NEG_INFINITY), scale);
        let x = s.div(math::exp(s, s.sub(score, max)), total);
        delta = s.fma(x, s.load_partial(dp, 0.0), delta);
        s.store_partial(x, p);
    }
    let delta = s.splat(s.sum(delta));
    for (p, ds) in p.chunks(LANES).zip(ds.chunks_mut(LANES)) {
        let (p, dp) = (s.load_partial(p, 0.0), s.load_partial(ds, 0.0));
        let d = s.mul(p, s.sub(dp, delta));
        s.store_partial(s.mul(d, scale), ds);
    }
}

/// Continues the chains of rows j = key..key + M of out over queries t = top..top + m, t ≥ j: weights[t][j] · rows[t].
#[inline(always)]
fn down_columns<S: Simd, const M: usize>(
    s: S,
    weights: &[f32],
    stride: usize,
    rows: &KeyValues,
    (top, m, key): (usize, usize, usize),
    out: &mut MatrixMut<'_>,
) {
    let columns = out.cols().div_ceil(WIDTH);
    if key + M <= top + 1 {
        // Every query of the block sees every key of the tile.
        let left = ColumnMajor::new(weights, stride, 0, key);
        for q in 0..columns {
            let panel = rows.value_panel(q, top, top + m);
            tile::<S, M>(s, left, panel, out, (key, q * WIDTH), false);
        }
        return;
    }
    // Blocks and tiles both start at multiples of a tile's height, so the diagonal starts at the tile's first key.
    debug_assert!(key >= top && key + M <= top + m);
    let left = ColumnMajor::new(weights, stride, key - top, key);
    for q in 0..columns {
        let panel = rows.value_panel(q, key, top + m);
        let at = (key, q * WIDTH);
        triangle::<S, M>(s, Triangle::Upper, left, panel, out, at, false);
    }
}
