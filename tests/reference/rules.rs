//! The rules of arithmetic, one function each: R1 matrix multiplication, R2 reductions along a row, R3 reductions over
//! rows, R4 functions, R9 the optimiser's step, R10 initial values.

use foretoken::simd::portable::Portable;
use foretoken::simd::{Simd, math, scalar};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use std::ops::Add;

/// A matrix [rows, cols], row by row. A vector is a matrix of one row.
#[derive(Clone, Debug)]
pub struct Mat {
    pub cols: usize,
    pub data: Vec<f32>,
}

impl Mat {
    pub fn zeros(rows: usize, cols: usize) -> Self {
        let data = vec![0.0; rows * cols];
        Self { cols, data }
    }

    pub fn rows(&self) -> usize {
        self.data.len() / self.cols
    }

    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// A matrix of these rows.
    pub fn of<'a>(cols: usize, rows: impl Iterator<Item = &'a [f32]>) -> Self {
        let data = rows.flatten().copied().collect();
        Self { cols, data }
    }

    pub fn t(&self) -> Self {
        let (rows, cols) = (self.rows(), self.cols);
        let data = (0..self.data.len()).map(|i| self.data[i % rows * cols + i / rows]);
        Self {
            cols: rows,
            data: data.collect(),
        }
    }

    pub fn map(&self, f: impl Fn(usize, f32) -> f32) -> Self {
        let data = { self.data.iter().enumerate() }.map(|(i, x)| f(i, *x));
        Self {
            cols: self.cols,
            data: data.collect(),
        }
    }
}

/// R1: a [M, K] · b [K, N] + c [M, N]. Each element is one chain over k ascending, from the element of c.
pub fn matmul(a: &Mat, b: &Mat, mut c: Mat) -> Mat {
    assert!(a.cols == b.rows() && a.rows() == c.rows() && b.cols == c.cols);
    for i in 0..a.rows() {
        for (k, a) in a.row(i).iter().enumerate() {
            for (c, b) in c.data[i * b.cols..].iter_mut().zip(b.row(k)) {
                *c = a.mul_add(*b, *c);
            }
        }
    }
    c
}

/// One chain of products from +0.
pub fn chain(x: &[f32], y: &[f32]) -> f32 {
    x.iter().zip(y).fold(0.0, |sum, (x, y)| x.mul_add(*y, sum))
}

/// R2: element i goes to lane i mod 16, the row is padded with the identity, and the lanes fold.
fn lanes(n: usize, identity: f32, take: impl Fn(f32, Option<usize>) -> f32, fold: Fold) -> f32 {
    let mut p = [identity; 16];
    for i in 0..n.next_multiple_of(16) {
        p[i % 16] = take(p[i % 16], (i < n).then_some(i));
    }
    for w in [8, 4, 2, 1] {
        for j in 0..w {
            p[j] = fold(p[j], p[j + w]);
        }
    }
    p[0]
}

type Fold = fn(f32, f32) -> f32;

/// Σ x y by R2.
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    let at = |i| (x[i], y[i]);
    let take = |sum, i: Option<usize>| {
        let (x, y) = i.map_or((0.0, 0.0), at);
        f32::mul_add(x, y, sum)
    };
    lanes(x.len(), 0.0, take, Add::add)
}

/// max x, e = exp(x − max) and Σ e by R2.
pub fn softmax(x: &[f32]) -> (f32, Vec<f32>, f32) {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let lowest = f32::NEG_INFINITY;
    let take = |max, i: Option<usize>| larger(max, i.map_or(lowest, |i| x[i]));
    let max = lanes(x.len(), lowest, take, larger);
    let e: Vec<f32> = x.iter().map(|x| exp(x - max)).collect();
    let take = |sum, i: Option<usize>| sum + i.map_or(0.0, |i| e[i]);
    let total = lanes(x.len(), 0.0, take, Add::add);
    (max, e, total)
}

/// R3: chunks of 32 rows, each ascending from zero, then a tree of neighbours. `add` adds one row's terms.
pub fn over_rows<T>(rows: usize, add: impl Fn(T, usize) -> T) -> T
where
    T: Copy + Default + Add<Output = T>,
{
    let chunk = |from: usize| (from..rows.min(from + 32)).fold(T::default(), &add);
    let mut partials: Vec<T> = (0..rows).step_by(32).map(chunk).collect();
    while partials.len() > 1 {
        let pairs = partials.chunks(2);
        let sums = pairs.map(|p| p.iter().copied().reduce(T::add).unwrap());
        partials = sums.collect();
    }
    partials.pop().unwrap_or_default()
}

type V = <Portable as Simd>::V;

/// R4: one of the crate's own functions, by its definition.
fn function(f: fn(Portable, V) -> V, x: f32) -> f32 {
    let mut y = [0.0; 16];
    Portable.store(f(Portable, Portable.splat(x)), &mut y);
    y[0]
}

pub fn exp(x: f32) -> f32 {
    function(math::exp, x)
}

pub fn ln(x: f32) -> f32 {
    math::ln(x)
}

pub fn sigmoid(x: f32) -> f32 {
    function(math::sigmoid, x)
}

/// R9: chunks of 4,096 elements by R2, added in `f64` in order.
pub fn squared_norm(x: &[f32]) -> f64 {
    let chunks = x.chunks(4096).map(|x| f64::from(dot(x, x)));
    chunks.fold(0.0, |sum, x| sum + x)
}

/// The numbers of a step of AdamW, in `f64`.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    pub rate: f64,
    pub betas: [f64; 2],
    pub eps: f64,
    pub clip: f64,
    pub decay: f64,
    /// t = 1, 2, ..
    pub step: u64,
}

impl AdamW {
    pub fn update(&self, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
        let [beta1, beta2] = self.betas.map(|b| b as f32);
        let [rest1, rest2] = self.betas.map(|b| (1.0 - b) as f32);
        let unbias = |b| (1.0 / (1.0 - scalar::powi(b, self.step))) as f32;
        let [unbias1, unbias2] = self.betas.map(unbias);
        for i in 0..w.len() {
            let g = g[i] * self.clip as f32;
            m[i] = beta1.mul_add(m[i], rest1 * g);
            v[i] = beta2.mul_add(v[i], rest2 * (g * g));
            let u = (m[i] * unbias1) / ((v[i] * unbias2).sqrt() + self.eps as f32);
            w[i] = descend(self.rate, self.decay, w[i], u);
        }
    }
}

/// w − rate · (decay · w + u), both fused.
fn descend(rate: f64, decay: f64, w: f32, u: f32) -> f32 {
    (-rate as f32).mul_add((decay as f32).mul_add(w, u), w)
}

/// The numbers of a step of Muon, in `f64`.
#[derive(Clone, Copy, Debug)]
pub struct Muon {
    pub rate: f64,
    pub momentum: f64,
    pub clip: f64,
    pub decay: f64,
}

impl Muon {
    pub fn update(&self, w: &mut Mat, m: &mut [f32], g: &[f32]) {
        let momentum = self.momentum as f32;
        let mut x = w.clone();
        for i in 0..g.len() {
            let g = g[i] * self.clip as f32;
            m[i] = momentum.mul_add(m[i], g);
            x.data[i] = momentum.mul_add(m[i], g);
        }
        let norm = squared_norm(&x.data).sqrt() + 1e-7;
        x = x.map(|_, u| u * (1.0 / norm) as f32);
        let (rows, cols) = (w.rows(), w.cols);
        let zeros = || Mat::zeros(rows.min(cols), rows.min(cols));
        for _ in 0..5 {
            let a = match rows <= cols {
                true => matmul(&x, &x.t(), zeros()),
                false => matmul(&x.t(), &x, zeros()),
            };
            let square = matmul(&a, &a, zeros());
            let b = a.map(|i, a| 2.0315f32.mul_add(square.data[i], -4.775 * a));
            let start = x.map(|_, x| 3.4445 * x);
            x = match rows <= cols {
                true => matmul(&b, &x, start),
                false => matmul(&x, &b, start),
            };
        }
        let scale = (0.2 * (rows.max(cols) as f64).sqrt()) as f32;
        *w = w.map(|i, w| descend(self.rate, self.decay, w, scale * x.data[i]));
    }
}

/// The factor that brings a gradient of this norm to 1, if it is longer.
pub fn clip(norm: f64) -> f64 {
    if norm > 1.0 { 1.0 / norm } else { 1.0 }
}

/// R10: n normal values that depend on seed and name only.
pub fn normal(seed: u64, name: &str, n: usize, deviation: f64) -> Vec<f32> {
    let key = [&seed.to_le_bytes(), name.as_bytes()].concat();
    let mut chacha = ChaCha8Rng::from_seed(Sha256::digest(key).into());
    let value = |_| scalar::standard_normal([chacha.next_u64(), chacha.next_u64()]) * deviation;
    (0..n).map(value).map(|x| x as f32).collect()
}

/// The learning rate of step 0, 1, .. of `steps`: a straight line up over the warm-up, then down to a tenth of the
/// peak, by half a cosine or (`wsd`) by 1 − √x over the last fifth.
pub fn rate(peak: f64, step: u64, warmup: u64, steps: u64, wsd: bool) -> f64 {
    if step < warmup {
        return peak * ((step + 1) as f64 / warmup as f64);
    }
    let decay = if wsd {
        warmup.max(steps - steps / 5)
    } else {
        warmup
    };
    let span = steps.saturating_sub(decay).max(1);
    let done = step.saturating_sub(decay);
    let x = (done as f64 / span as f64).min(1.0);
    let share = match wsd {
        true => 1.0 - x.sqrt(),
        false => (1.0 + scalar::sin_cos(std::f64::consts::PI * x).1) / 2.0,
    };
    peak * (0.1 + (1.0 - 0.1) * share)
}
