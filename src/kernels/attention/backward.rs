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
use super::{Heads, height, with_rows};
use crate::kernels::gemm::View;
use crate::kernels::gemm::panels::WIDTH;
use crate::kernels::gemm::tile::{Columns, Triangle, tile, triangle};
use crate::kernels::par;
use crate::simd::matrix::MatrixMut;
use crate::simd::{self, Kernel, LANES, Simd, math};

/// Queries of a block: the chains of dk and dv are loaded and stored once a block.
const BLOCK: usize = 32;

/// qkv [rows, (H + 2 G) D], stats [rows, 2 H] of the forward pass, dout [rows, H D] -> dqkv [rows, (H + 2 G) D].
pub fn backward(
    heads: Heads,
    lengths: &[usize],
    (qkv, stats): (&[f32], &[f32]),
    dout: &[f32],
    dqkv: &mut [f32],
) {
    let rows = lengths.iter().sum();
    let d = heads.size;
    let qkv = View::new(qkv, rows, heads.width());
    let stats = View::new(stats, rows, 2 * heads.query);
    let dout = View::new(dout, rows, heads.query * d);
    let mut dqkv = MatrixMut::new(dqkv, rows, heads.width());
    let (mut tasks, mut from) = (Vec::new(), 0);
    for &len in lengths {
        let (part, below) = dqkv.split_rows(len);
        dqkv = below;
        let (dq, rest) = part.split_cols(heads.query * d);
        let (dk, dv) = rest.split_cols(heads.key_value * d);
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
            q: rows.columns(first * d, last * d),
            dout: dout.row_range(from, to).columns(first * d, last * d),
            stats: stats.row_range(from, to).columns(first * 2, last * 2),
            key_value: pair(d, k, v),
            value_key: pair(d, v, k),
            dq,
            dk,
            dv,
        });
    });
}

fn pair(size: usize, k: View<'_>, v: View<'_>) -> KeyValues {
    let mut pair = KeyValues::new(size);
    pair.extend(k, v);
    pair
}

/// The query heads of one key head in one sequence of T rows.
struct Group<'a> {
    heads: Heads,
    /// [T, group · D]
    q: View<'a>,
    /// [T, group · D]
    dout: View<'a>,
    /// [T, group · 2]
    stats: View<'a>,
    key_value: KeyValues,
    /// The same with the parts exchanged: products with values as keys give dp, weighted keys give dq.
    value_key: KeyValues,
    dq: MatrixMut<'a>,
    dk: MatrixMut<'a>,
    dv: MatrixMut<'a>,
}

impl Kernel for Group<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (rows, d) = (self.q.rows(), self.heads.size);
        for t in 0..rows {
            self.dk.row_mut(t).fill(0.0);
            self.dv.row_mut(t).fill(0.0);
        }
        let stride = rows.next_multiple_of(WIDTH);
        let mut p = vec![0.0; BLOCK.min(rows) * stride];
        let mut ds = p.clone();
        let mut packed = vec![0.0; height(8, S::TILE_ROWS) * d];
        for h in 0..self.heads.group() {
            let q = self.q.columns(h * d, (h + 1) * d);
            let dout = self.dout.columns(h * d, (h + 1) * d);
            // As values: what dk and dv are weighted sums of.
            let queries = KeyValues::of_values(q);
            let douts = KeyValues::of_values(dout);
            for top in (0..rows).step_by(BLOCK) {
                let m = BLOCK.min(rows - top);
                let mut sub = 0;
                while sub < m {
                    let height = height(m - sub, S::TILE_ROWS);
                    let part = sub * stride..(sub + height) * stride;
                    let (p, ds) = (&mut p[part.clone()], &mut ds[part]);
                    with_rows!(S, height, M => {
                        self.scores::<S, M>(s, h, (q, dout), top + sub, (&mut packed, p, ds));
                    });
                    sub += height;
                }
                let mut key = 0;
                while key < top + m {
                    let height = height(top + m - key, S::TILE_ROWS);
                    let at = (top, m, key);
                    with_rows!(S, height, M => {
                        down_columns::<S, M>(s, &ds, stride, &queries, at, &mut self.dk);
                        down_columns::<S, M>(s, &p, stride, &douts, at, &mut self.dv);
                    });
                    key += height;
                }
            }
        }
    }
}

impl Group<'_> {
    /// p, ds [M, stride] and dq of queries `top..top + M` of head `h`.
    #[inline(always)]
    fn scores<S: Simd, const M: usize>(
        &mut self,
        s: S,
        h: usize,
        (q, dout): (View<'_>, View<'_>),
        top: usize,
        (packed, p, ds): (&mut [f32], &mut [f32], &mut [f32]),
    ) {
        let (stride, d) = (p.len() / M, self.heads.size);
        let (q, dout) = (q.row_range(top, top + M), dout.row_range(top, top + M));
        products_with_keys::<S, M>(s, q, &self.key_value, top + M, packed, p);
        products_with_keys::<S, M>(s, dout, &self.value_key, top + M, packed, ds);
        for i in 0..M {
            let own = i * stride..i * stride + top + i + 1;
            let stats = &self.stats.row(top + i)[2 * h..2 * h + 2];
            softmax_backward(
                s,
                self.heads.scale(),
                (stats[0], stats[1]),
                &mut p[own.clone()],
                &mut ds[own],
            );
        }
        let (_, right) = self.dq.reborrow().split_cols(h * d);
        let (mut dq, _) = right.split_cols(d);
        weighted_values::<S, M>(s, &self.value_key, ds, top, &mut dq, top);
    }
}

/// Products q · k become p; products do · v become ds.
#[inline(always)]
fn softmax_backward<S: Simd>(
    s: S,
    scale: f32,
    (max, total): (f32, f32),
    p: &mut [f32],
    ds: &mut [f32],
) {
    let n = p.len();
    let (scale, max, total) = (s.splat(scale), s.splat(max), s.splat(total));
    let mut delta = s.splat(0.0);
    for from in (0..n).step_by(LANES) {
        let part = from..n.min(from + LANES);
        // Absent keys have p = +0 and dp = +0: fma leaves their lane as it was.
        let score = s.mul(s.load_partial(&p[part.clone()], f32::NEG_INFINITY), scale);
        let x = s.div(math::exp(s, s.sub(score, max)), total);
        delta = s.fma(x, s.load_partial(&ds[part.clone()], 0.0), delta);
        s.store_partial(x, &mut p[part]);
    }
    let delta = s.splat(s.sum(delta));
    for from in (0..n).step_by(LANES) {
        let part = from..n.min(from + LANES);
        let dp = s.load_partial(&ds[part.clone()], 0.0);
        let x = s.load_partial(&p[part.clone()], 0.0);
        s.store_partial(s.mul(s.mul(x, s.sub(dp, delta)), scale), &mut ds[part]);
    }
}

/// Rows `key..key + M` of out go on with their chains over queries t = top..top + m, t ≥ j: weights[t][j] · rows[t].
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
        let left = Columns::new(weights, stride, 0, key);
        for q in 0..columns {
            let panel = rows.value_panel(q, top, top + m);
            tile::<S, M>(s, left, panel, out, (key, q * WIDTH), false);
        }
        return;
    }
    // Blocks and tiles both start at multiples of a tile's height, so the diagonal starts at the tile's first key.
    debug_assert!(key >= top && key + M <= top + m);
    let left = Columns::new(weights, stride, key - top, key);
    for q in 0..columns {
        let panel = rows.value_panel(q, key, top + m);
        let at = (key, q * WIDTH);
        triangle::<S, M>(s, Triangle::StartsLate, left, panel, out, at, false);
    }
}
