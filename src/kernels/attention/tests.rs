//! Rule R5 written out with scalars, against the kernels: same bits for every size, chunking and instruction set.

use super::*;
use crate::kernels::gemm::View;
use crate::kernels::par::Threads;
use crate::simd::{self, Isa, Kernel, LANES, Simd, math};

struct Exp(f32);

impl Kernel<f32> for Exp {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut lanes = [0.0; LANES];
        s.store(math::exp(s, s.splat(self.0)), &mut lanes);
        lanes[0]
    }
}

/// Lanes i mod 16, then the fold of rule R2.
fn by_lanes(terms: impl Iterator<Item = (f32, f32)>) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (i, (x, y)) in terms.enumerate() {
        lanes[i % LANES] = x.mul_add(y, lanes[i % LANES]);
    }
    for w in [8, 4, 2, 1] {
        for j in 0..w {
            lanes[j] += lanes[j + w];
        }
    }
    lanes[0]
}

fn chain(terms: impl Iterator<Item = (f32, f32)>) -> f32 {
    terms.fold(0.0, |sum, (x, y)| x.mul_add(y, sum))
}

fn pattern(n: usize, seed: usize) -> Vec<f32> {
    (0..n)
        .map(|i| (((i * 7 + seed * 31) % 127) as f32 - 63.0) / 41.0)
        .collect()
}

struct Written {
    out: Vec<f32>,
    dqkv: Vec<f32>,
}

/// One sequence, forward and backward.
fn written(heads: AttentionHeads, rows: usize, qkv: &[f32], dout: &[f32]) -> Written {
    let (d, width, o_width) = (
        heads.head_dim,
        heads.width(),
        heads.num_heads * heads.head_dim,
    );
    let scale = heads.scale();
    let mut out = vec![0.0; rows * o_width];
    let mut dqkv = vec![0.0; rows * width];
    for h in 0..heads.num_heads {
        let g = h / heads.group();
        let q = |t: usize| &qkv[t * width + h * d..][..d];
        let k = |t: usize| &qkv[t * width + (heads.num_heads + g) * heads.head_dim..][..d];
        let v = |t: usize| {
            &qkv[t * width + (heads.num_heads + heads.num_kv_heads + g) * heads.head_dim..][..d]
        };
        let pairs = |x: &[f32], y: &[f32]| x.iter().copied().zip(y.to_vec()).collect::<Vec<_>>();
        for t in 0..rows {
            let product = |j| chain(pairs(q(t), k(j)).into_iter());
            let s: Vec<f32> = (0..=t).map(|j| product(j) * scale).collect();
            let m = s.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let e: Vec<f32> = s.iter().map(|s| simd::run(Exp(s - m))).collect();
            let z = by_lanes(e.iter().map(|e| (*e, 1.0)));
            let dout = &dout[t * o_width + h * d..][..d];
            for c in 0..d {
                out[t * o_width + h * d + c] = chain((0..=t).map(|j| (e[j], v(j)[c]))) / z;
            }
            let p: Vec<f32> = e.iter().map(|e| e / z).collect();
            let dp: Vec<f32> = (0..=t)
                .map(|j| chain(pairs(dout, v(j)).into_iter()))
                .collect();
            let delta = by_lanes(p.iter().copied().zip(dp.clone()));
            let ds: Vec<f32> = (0..=t).map(|j| (p[j] * (dp[j] - delta)) * scale).collect();
            for c in 0..d {
                dqkv[t * width + h * d + c] = chain((0..=t).map(|j| (ds[j], k(j)[c])));
                for j in 0..=t {
                    let dk = &mut dqkv[j * width + (heads.num_heads + g) * heads.head_dim + c];
                    *dk = ds[j].mul_add(q(t)[c], *dk);
                    let dv = &mut dqkv[j * width
                        + (heads.num_heads + heads.num_kv_heads + g) * heads.head_dim
                        + c];
                    *dv = p[j].mul_add(dout[c], *dv);
                }
            }
        }
    }
    Written { out, dqkv }
}

#[track_caller]
fn same(name: &str, got: &[f32], expected: &[f32]) {
    let first = got
        .iter()
        .zip(expected)
        .position(|(x, y)| x.to_bits() != y.to_bits());
    assert_eq!(first, None, "{name}: first difference");
}

fn cases() -> Vec<(AttentionHeads, Vec<usize>)> {
    let heads = |num_heads, num_kv_heads, head_dim| AttentionHeads {
        num_heads,
        num_kv_heads,
        head_dim,
    };
    vec![
        (heads(1, 1, 4), vec![1, 2, 3]),
        (heads(4, 2, 16), vec![7, 8, 9, 33]),
        (heads(6, 2, 20), vec![31, 40]),
        (heads(2, 1, 48), vec![65, 17]),
        (heads(2, 2, 32), vec![32, 64]),
        (heads(1, 1, 40), vec![33]),
    ]
}

/// Leaves NaN in all memory that is used again.
fn poison() {
    let heads = AttentionHeads {
        num_heads: 2,
        num_kv_heads: 1,
        head_dim: 50,
    };
    let rows = 100;
    let qkv = vec![f32::NAN; rows * heads.width()];
    let dout = vec![f32::NAN; rows * heads.num_heads * heads.head_dim];
    let (mut out, mut stats) = (dout.clone(), vec![0.0; rows * 2 * heads.num_heads]);
    let mut dqkv = qkv.clone();
    forward(heads, &[rows], &qkv, &mut out, &mut stats);
    backward(heads, &[rows], &qkv, &stats, &dout, &mut dqkv);
    assert!(dqkv.iter().all(|x| x.is_nan()));
}

#[test]
fn forward_and_backward_are_the_written_rule() {
    for isa in Isa::all() {
        for (heads, lengths) in cases() {
            let rows: usize = lengths.iter().sum();
            let qkv = pattern(rows * heads.width(), 1);
            let dout = pattern(rows * heads.num_heads * heads.head_dim, 2);
            let mut out = vec![f32::NAN; dout.len()];
            let mut stats = vec![f32::NAN; rows * 2 * heads.num_heads];
            let mut dqkv = vec![f32::NAN; qkv.len()];
            let pool = Threads::new(1).expect("a small pool");
            isa.scope(|| {
                pool.scope(|| {
                    poison();
                    forward(heads, &lengths, &qkv, &mut out, &mut stats);
                    poison();
                    backward(heads, &lengths, &qkv, &stats, &dout, &mut dqkv);
                });
            });
            let mut from = 0;
            for len in lengths {
                let part = |width| from * width..(from + len) * width;
                let (o, w) = (part(heads.num_heads * heads.head_dim), part(heads.width()));
                let expected = written(heads, len, &qkv[w.clone()], &dout[o.clone()]);
                let name = format!("{} {heads:?} {len} rows", isa.name());
                same(&format!("{name}, out"), &out[o], &expected.out);
                same(&format!("{name}, dqkv"), &dqkv[w], &expected.dqkv);
                from += len;
            }
        }
    }
}

#[test]
fn cached_rows_in_any_chunks_are_the_whole_sequence() {
    for (heads, lengths) in cases() {
        let rows = lengths[lengths.len() - 1];
        let qkv = pattern(rows * heads.width(), 5);
        let width = heads.num_heads * heads.head_dim;
        let (mut whole, mut stats) = (
            vec![0.0; rows * width],
            vec![0.0; rows * 2 * heads.num_heads],
        );
        forward(heads, &[rows], &qkv, &mut whole, &mut stats);
        for chunk in [1, 2, 5, 8, 13, rows] {
            let mut cache = vec![KeyValues::new(heads.head_dim); heads.num_kv_heads];
            let mut first = 0;
            while first < rows {
                let len = chunk.min(rows - first);
                let part = &qkv[first * heads.width()..(first + len) * heads.width()];
                let view = View::new(part, len, heads.width());
                let fill = |cache: &mut [KeyValues]| {
                    for (g, kv) in cache.iter_mut().enumerate() {
                        kv.extend(heads.keys(view, g), heads.values(view, g));
                    }
                };
                // Written, forgotten and written again: rollback must not show.
                fill(&mut cache);
                cache.iter_mut().for_each(|kv| kv.truncate(first));
                fill(&mut cache);
                let mut out = vec![f32::NAN; len * width];
                let sequence = CachedSequence {
                    first,
                    len,
                    cache: &cache,
                };
                cached(heads, &[sequence], part, &mut out);
                same("cached", &out, &whole[first * width..(first + len) * width]);
                first += len;
            }
        }
    }
}
