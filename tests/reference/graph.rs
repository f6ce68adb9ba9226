//! Every operation of training, forward and backward, and the order of gradients (R5, R7, R8).

use super::rules::{Mat, chain, dot, ln, matmul, over_rows, sigmoid, softmax};
use foretoken::simd::scalar;
use std::rc::Rc;

/// A value's number.
pub type Id = usize;
type Backward = Box<dyn FnOnce(&Mat, &mut Gradients)>;

/// R7: a parameter's gradient is an accumulator that exists from the start; an activation's first gradient is assigned,
/// and each later one is one addition.
pub struct Gradients(Vec<Option<Mat>>);

impl Gradients {
    /// The accumulator of a parameter.
    pub fn accumulator(&mut self, id: Id) -> &mut Mat {
        self.0[id].as_mut().expect("a parameter")
    }

    fn add(&mut self, id: Id, d: Mat) {
        match &mut self.0[id] {
            Some(sum) => sum.data.iter_mut().zip(d.data).for_each(|(x, d)| *x += d),
            first => *first = Some(d),
        }
    }

    /// The accumulator's chains continue with a · b.
    fn product(&mut self, id: Id, a: &Mat, b: &Mat) {
        self.0[id] = self.0[id].take().map(|sum| matmul(a, b, sum));
    }
}

/// Query heads, key and value heads, elements of a head.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub query: usize,
    pub key_value: usize,
    pub size: usize,
}

impl Heads {
    /// Columns of q, k and v together.
    pub fn width(&self) -> usize {
        (self.query + 2 * self.key_value) * self.size
    }
}

/// Operations in the order they were done.
pub struct Graph {
    values: Vec<Rc<Mat>>,
    backward: Vec<Option<Backward>>,
    gradients: Gradients,
}

impl Graph {
    pub fn new() -> Self {
        Self {
            values: Vec::new(),
            backward: Vec::new(),
            gradients: Gradients(Vec::new()),
        }
    }

    /// A parameter whose gradient continues from `accumulator`.
    pub fn parameter(&mut self, value: Mat, accumulator: Mat) -> Id {
        self.values.push(value.into());
        self.backward.push(None);
        self.gradients.0.push(Some(accumulator));
        self.values.len() - 1
    }

    fn push(&mut self, y: Mat, backward: impl FnOnce(&Mat, &mut Gradients) + 'static) -> Id {
        self.values.push(y.into());
        self.backward.push(Some(Box::new(backward)));
        self.gradients.0.push(None);
        self.values.len() - 1
    }

    pub fn value(&self, id: Id) -> Rc<Mat> {
        Rc::clone(&self.values[id])
    }

    /// Runs all backward passes, last first, from the gradients of some values.
    pub fn backward(self, roots: Vec<(Id, Mat)>) -> Gradients {
        let mut gradients = self.gradients;
        for (id, d) in roots {
            gradients.add(id, d);
        }
        for (id, backward) in self.backward.into_iter().enumerate().rev() {
            if let Some(backward) = backward
                && let Some(dy) = gradients.0[id].take()
            {
                backward(&dy, &mut gradients);
            }
        }
        gradients
    }

    pub fn embedding(&mut self, table: Id, ids: &[u32]) -> Id {
        let (w, ids) = (self.value(table), ids.to_vec());
        let y = Mat::of(w.cols, ids.iter().map(|id| w.row(*id as usize)));
        self.push(y, move |dy, to| {
            for (r, id) in ids.iter().enumerate() {
                let sum = &mut to.accumulator(table).data[*id as usize * dy.cols..];
                sum.iter_mut().zip(dy.row(r)).for_each(|(x, d)| *x += d);
            }
        })
    }

    /// x · [W_0; W_1; ..]ᵀ
    pub fn linear(&mut self, x: Id, weights: &[Id]) -> Id {
        let (v, ids) = (self.value(x), weights.to_vec());
        let each: Vec<_> = ids.iter().map(|w| self.value(*w)).collect();
        let all = Mat::of(v.cols, each.iter().map(|w| &*w.data));
        let y = matmul(&v, &all.t(), Mat::zeros(v.rows(), all.rows()));
        self.push(y, move |dy, to| {
            to.add(x, matmul(dy, &all, Mat::zeros(v.rows(), v.cols)));
            let mut from = 0;
            for (id, w) in ids.into_iter().zip(each) {
                let end = from + w.rows();
                let own = Mat::of(w.rows(), (0..dy.rows()).map(|r| &dy.row(r)[from..end]));
                to.product(id, &own.t(), &v);
                from = end;
            }
        })
    }

    /// RMSNorm of segments of rows: (weight, first column, number of segments), each as wide as its weight. Other
    /// columns pass through.
    pub fn norm(&mut self, x: Id, eps: f32, segments: Vec<(Id, usize, usize)>) -> Id {
        let v = self.value(x);
        let inverse = move |x: &[f32]| 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
        let mut y = Mat::clone(&v);
        let weights: Vec<_> = segments.iter().map(|s| self.value(s.0)).collect();
        let places = segments.into_iter().zip(weights);
        let places: Vec<_> = places
            .map(|((id, start, n), w)| (id, start, n, w))
            .collect();
        for (_, start, n, w) in &places {
            for at in (0..v.rows() * n).map(|s| s / n * v.cols + start + s % n * w.cols) {
                let r = inverse(&v.data[at..at + w.cols]);
                for i in 0..w.cols {
                    y.data[at + i] = (v.data[at + i] * r) * w.data[i];
                }
            }
        }
        self.push(y, move |dy, to| {
            let mut dx = dy.clone();
            for (id, start, n, w) in places {
                // x̂ and dx̂ of each segment.
                let mut normed = Vec::new();
                for at in (0..v.rows() * n).map(|s| s / n * v.cols + start + s % n * w.cols) {
                    let r = inverse(&v.data[at..at + w.cols]);
                    let x: Vec<f32> = (0..w.cols).map(|i| v.data[at + i] * r).collect();
                    let d: Vec<f32> = (0..w.cols).map(|i| dy.data[at + i] * w.data[i]).collect();
                    let mean = dot(&d, &x) / w.cols as f32;
                    for i in 0..w.cols {
                        dx.data[at + i] = r * (d[i] - x[i] * mean);
                    }
                    normed.push((at, x));
                }
                let column = |i: usize| {
                    over_rows(v.rows(), |sum, row| {
                        let own = normed[row * n..(row + 1) * n].iter();
                        own.fold(sum, |sum: f32, (at, x)| dy.data[at + i].mul_add(x[i], sum))
                    })
                };
                to.add(id, w.map(|i, _| column(i)));
            }
            to.add(x, dx);
        })
    }

    /// The first heads turned by the position's angle; each of `lengths` sequences starts at position 0.
    pub fn rope(&mut self, x: Id, heads: Heads, theta: f64, lengths: &[usize]) -> Id {
        let positions: Vec<usize> = lengths.iter().flat_map(|n| 0..*n).collect();
        let turn = move |x: &Mat, sign: f32| {
            let (mut y, d) = (x.clone(), heads.size);
            for (r, p) in positions.iter().enumerate() {
                for h in 0..heads.query + heads.key_value {
                    for i in 0..d / 2 {
                        let angle = *p as f64 * scalar::rope_frequency(theta, i, d);
                        let (sin, cos) = scalar::sin_cos(angle);
                        let (sin, cos) = (sin as f32 * sign, cos as f32);
                        let low = r * x.cols + h * d + i;
                        let (a, b) = (x.data[low], x.data[low + d / 2]);
                        y.data[low] = (-sin).mul_add(b, a * cos);
                        y.data[low + d / 2] = sin.mul_add(a, b * cos);
                    }
                }
            }
            y
        };
        let y = turn(&self.value(x), 1.0);
        self.push(y, move |dy, to| to.add(x, turn(dy, -1.0)))
    }

    /// R5: causal attention within each of `lengths` sequences.
    pub fn attention(&mut self, x: Id, heads: Heads, lengths: &[usize]) -> Id {
        let (qkv, d) = (self.value(x), heads.size);
        // For every query: its place, those of its keys and values, and its place in the output.
        let (mut queries, mut first) = (Vec::new(), 0);
        for len in lengths {
            for (h, t) in (0..heads.query).flat_map(|h| (0..*len).map(move |t| (h, t))) {
                let key = heads.query + h / (heads.query / heads.key_value);
                let at = |row: usize, head: usize| (first + row) * qkv.cols + head * d;
                let keys = (0..=t).map(|j| (at(j, key), at(j, key + heads.key_value)));
                let out = (first + t) * heads.query * d + h * d;
                queries.push((at(t, h), keys.collect::<Vec<_>>(), out));
            }
            first += len;
        }
        let scale = 1.0 / (d as f32).sqrt();
        let scores = move |x: &Mat, q: usize, keys: &[(usize, usize)]| {
            let score = |k: usize| chain(&x.data[q..q + d], &x.data[k..k + d]) * scale;
            let scores: Vec<f32> = keys.iter().map(|(k, _)| score(*k)).collect();
            softmax(&scores)
        };
        let mut y = Mat::zeros(qkv.rows(), heads.query * d);
        for (q, keys, out) in &queries {
            let (_, e, total) = scores(&qkv, *q, keys);
            for i in 0..d {
                let values: Vec<f32> = keys.iter().map(|(_, v)| qkv.data[v + i]).collect();
                y.data[out + i] = chain(&e, &values) / total;
            }
        }
        self.push(y, move |dy, to| {
            let mut dx = Mat::zeros(qkv.rows(), qkv.cols);
            for (q, keys, out) in queries {
                let dout = &dy.data[out..out + d];
                let (_, e, total) = scores(&qkv, q, &keys);
                let p: Vec<f32> = e.iter().map(|e| e / total).collect();
                let dp = keys.iter().map(|(_, v)| chain(dout, &qkv.data[*v..v + d]));
                let dp: Vec<f32> = dp.collect();
                let delta = dot(&p, &dp);
                for (j, (k, v)) in keys.into_iter().enumerate() {
                    let ds = (p[j] * (dp[j] - delta)) * scale;
                    for (i, dout) in dout.iter().enumerate() {
                        dx.data[q + i] = ds.mul_add(qkv.data[k + i], dx.data[q + i]);
                        dx.data[k + i] = ds.mul_add(qkv.data[q + i], dx.data[k + i]);
                        dx.data[v + i] = p[j].mul_add(*dout, dx.data[v + i]);
                    }
                }
            }
            to.add(x, dx);
        })
    }

    /// gate and up [rows, 2 F] -> silu(gate) · up [rows, F]
    pub fn swiglu(&mut self, x: Id) -> Id {
        let v = self.value(x);
        let f = v.cols / 2;
        let gate = move |i: usize| i / f * 2 * f + i % f;
        let mut y = Mat::zeros(v.rows(), f);
        for i in 0..y.data.len() {
            let (g, u) = (v.data[gate(i)], v.data[gate(i) + f]);
            y.data[i] = (g * sigmoid(g)) * u;
        }
        self.push(y, move |dy, to| {
            let mut dx = Mat::zeros(v.rows(), v.cols);
            for (i, d) in dy.data.iter().enumerate() {
                let (g, u) = (v.data[gate(i)], v.data[gate(i) + f]);
                dx.data[gate(i)] = (d * u) * slope(g);
                dx.data[gate(i) + f] = d * (g * sigmoid(g));
            }
            to.add(x, dx);
        })
    }

    pub fn silu(&mut self, x: Id) -> Id {
        let v = self.value(x);
        let y = v.map(|_, x| x * sigmoid(x));
        self.push(y, move |dy, to| {
            to.add(x, dy.map(|i, d| d * slope(v.data[i])))
        })
    }

    pub fn add(&mut self, a: Id, b: Id) -> Id {
        let other = self.value(b);
        let y = self.value(a).map(|i, x| x + other.data[i]);
        self.push(y, move |dy, to| {
            to.add(a, dy.clone());
            to.add(b, dy.clone());
        })
    }

    pub fn add_bias(&mut self, x: Id, b: Id) -> Id {
        let (v, bias) = (self.value(x), self.value(b));
        let y = v.map(|i, x| x + bias.data[i % v.cols]);
        self.push(y, move |dy, to| {
            let column = |i| over_rows(dy.rows(), |sum: f32, r| sum + dy.row(r)[i]);
            to.add(b, bias.map(|i, _| column(i)));
            to.add(x, dy.clone());
        })
    }

    pub fn concat(&mut self, a: Id, b: Id) -> Id {
        let (left, right) = (self.value(a), self.value(b));
        let (n, width) = (left.cols, left.cols + right.cols);
        let rows = (0..left.rows()).flat_map(|r| [left.row(r), right.row(r)]);
        let y = Mat::of(width, rows);
        self.push(y, move |dy, to| {
            to.add(a, Mat::of(n, (0..dy.rows()).map(|r| &dy.row(r)[..n])));
            to.add(
                b,
                Mat::of(width - n, (0..dy.rows()).map(|r| &dy.row(r)[n..])),
            );
        })
    }

    pub fn select_rows(&mut self, x: Id, keep: &[u32]) -> Id {
        let (v, keep) = (self.value(x), keep.to_vec());
        let y = Mat::of(v.cols, keep.iter().map(|r| v.row(*r as usize)));
        self.push(y, move |dy, to| {
            let mut dx = Mat::zeros(v.rows(), v.cols);
            for (i, r) in keep.into_iter().enumerate() {
                dx.data[r as usize * v.cols..][..v.cols].copy_from_slice(dy.row(i));
            }
            to.add(x, dx);
        })
    }
}

/// The derivative of x · sigmoid(x).
fn slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s * x.mul_add(1.0 - s, 1.0)
}

/// R8: each row's loss, whether its target has the largest logit (the first of equals), and the logits' gradient.
pub fn cross_entropy(z: &Mat, targets: &[u32], factor: f32) -> (Vec<f32>, Vec<f32>, Mat) {
    let (mut losses, mut hits, mut dz) = (Vec::new(), Vec::new(), Mat::zeros(z.rows(), z.cols));
    for (r, target) in targets.iter().enumerate() {
        let (row, target) = (z.row(r), *target as usize);
        let (max, e, total) = softmax(row);
        losses.push(ln(total) - (row[target] - max));
        let best = row.iter().position(|x| *x == max);
        hits.push(if best == Some(target) { 1.0 } else { 0.0 });
        for (j, e) in e.into_iter().enumerate() {
            let p = e / total;
            let p = if j == target { p - 1.0 } else { p };
            dz.data[r * z.cols + j] = p * factor;
        }
    }
    (losses, hits, dz)
}

/// The mean of rows' losses: R3 in `f64`.
pub fn total(x: &[f32]) -> f64 {
    over_rows(x.len(), |sum: f64, i| sum + f64::from(x[i]))
}
