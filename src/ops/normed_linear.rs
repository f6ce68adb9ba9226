//! RMS normalisation of rows and then products with several weight matrices: [`RmsNorm`](super::RmsNorm) and
//! [`Linear`](super::Linear) as one operation, so that the normalised rows need not be kept.
//!
//! ```text
//! x [rows, C], weight [C], W_i [N_i, C] -> y [rows, Σ N_i]:   n = RMSNorm(x) · weight;  y = n · [W_0; W_1; ..]ᵀ
//! backward: n once more;  dW_i += dy_iᵀ · n;  dn = dy · [W_0; W_1; ..];  dx and dweight from dn
//! ```
//!
//! Rows are taken some at a time, so that what is between the steps stays in the cache. Chains over rows go on from part
//! to part (rule R7), and shares of dweight are of the same rows as without parts (rule R3). So the result is, to the last
//! bit, that of the two operations one after the other.

use crate::autograd::{GradSink, Op};
use crate::kernels::gemm::{Panels, Right, Start, View, matmul, matmul_many};
use crate::kernels::norm::{self, Segments};
use crate::kernels::reduce::CHUNK_ROWS;
use crate::profile;
use crate::tensor::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// Rows of a part: a multiple of those of a share of dweight.
const PART: usize = 512;
const _: () = assert!(PART.is_multiple_of(CHUNK_ROWS));

/// Norm and N − 2 products; inputs are x, the weight and the weights.
#[derive(Clone, Copy, Debug)]
pub struct NormedLinear {
    /// ε, added to the mean square.
    pub eps: f32,
}

/// The inputs.
pub struct Saved<const N: usize> {
    inputs: [Arc<Tensor>; N],
}

impl<const N: usize> Op<N> for NormedLinear {
    type Saved = Saved<N>;

    fn forward(&self, inputs: [&Arc<Tensor>; N]) -> (Tensor, Saved<N>) {
        let (x, weights) = (inputs[0], &inputs[2..]);
        let width = weights.iter().map(|w| w.rows()).sum();
        let mut y = Tensor::empty(&[x.rows(), width]);
        let columns = Weights::of(weights);
        let mut rest = y.matrix_mut();
        for part in parts(x.rows()) {
            let (n, _) = normed(self.eps, x, inputs[1], &part);
            let (y, below) = rest.split_rows(part.len());
            rest = below;
            matmul_many(n.matrix(), columns.iter(), y);
        }
        let inputs = inputs.map(Arc::clone);
        (y, Saved { inputs })
    }

    fn backward(&self, saved: Saved<N>, dy: Tensor, sink: &mut GradSink<'_, N>) {
        let Saved { inputs } = saved;
        let (x, weight, weights) = (&inputs[0], &inputs[1], &inputs[2..]);
        let mut back = Back::new(x, weight, weights, sink);
        for part in parts(x.rows()) {
            let (n, r) = normed(self.eps, x, weight, &part);
            let dy = dy.matrix().row_range(part.start, part.end);
            back.part(&part, &r, &n, dy);
        }
        back.give(sink);
    }
}

/// Rows of each part.
pub(super) fn parts(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (0..rows).step_by(PART);
    starts.map(move |from| from..rows.min(from + PART))
}

/// Some rows of x, normalised, and 1 / √(mean x² + ε) of each.
pub(super) fn normed(
    eps: f32,
    x: &Tensor,
    weight: &Tensor,
    part: &Range<usize>,
) -> (Tensor, Vec<f32>) {
    let c = x.cols();
    let (mut n, mut r) = (Tensor::empty(&[part.len(), c]), vec![0.0; part.len()]);
    let x = &x.data()[part.start * c..part.end * c];
    let at = Segments::row(c);
    norm::forward(at, eps, x, weight.data(), n.data_mut(), &mut r);
    (n, r)
}

/// Weights, transposed and packed: a frozen model keeps them so, and those of a model in training are packed for a while.
pub(super) enum Weights<'a> {
    Kept(Vec<&'a Panels>),
    Made(Vec<Panels>),
}

impl<'a> Weights<'a> {
    pub fn of(weights: &[&'a Arc<Tensor>]) -> Self {
        let kept = weights.iter().map(|w| w.panels()).collect();
        match kept {
            Some(kept) => Self::Kept(kept),
            None => {
                let made = weights.iter().map(|w| Panels::pack(w.matrix().t()));
                Self::Made(made.collect())
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Right<'_>> + Clone {
        let (kept, made) = match self {
            Self::Kept(kept) => (&kept[..], &[][..]),
            Self::Made(made) => (&[][..], &made[..]),
        };
        let made = made.iter().map(Right::Panels);
        kept.iter().map(|w| Right::Panels(w)).chain(made)
    }
}

/// The backward pass of norm and products, part by part. The first inputs of the operation are x, the weight and the weights.
pub(super) struct Back<'a> {
    x: &'a Tensor,
    weight: &'a Tensor,
    /// Each weight as it is, packed, and its accumulator.
    weights: Vec<(Panels, Option<Tensor>)>,
    dx: Tensor,
    /// Shares of dweight.
    shares: Vec<f32>,
}

impl<'a> Back<'a> {
    pub fn new<const N: usize>(
        x: &'a Tensor,
        weight: &'a Tensor,
        weights: &'a [Arc<Tensor>],
        sink: &mut GradSink<'_, N>,
    ) -> Self {
        let take = |(i, w): (usize, &'a Arc<Tensor>)| {
            (
                Panels::pack(w.matrix()),
                sink.take_accumulator(i + 2, w.shape()),
            )
        };
        let weights = weights.iter().enumerate().map(take).collect();
        let at = Segments::row(x.cols());
        let shares = vec![0.0; norm::partials(at, x.data().len())];
        let dx = Tensor::empty(x.shape());
        Self {
            x,
            weight,
            weights,
            dx,
            shares,
        }
    }

    /// Of some rows: what [`normed`] gives of them, and dy.
    pub fn part(&mut self, part: &Range<usize>, r: &[f32], n: &Tensor, dy: View<'_>) {
        let mut dn = Tensor::empty(n.shape());
        let (mut from, mut start) = (0, Start::Zero);
        let packed = profile::time("Linear", "backward dW", || Panels::pack(n.matrix()));
        for (w, dw) in &mut self.weights {
            let width = w.k();
            let dy = dy.columns(from, from + width);
            from += width;
            profile::time("Linear", "backward dx", || {
                matmul(dy, Right::Panels(w), dn.matrix_mut(), start);
            });
            start = Start::Continue;
            if let Some(dw) = dw {
                profile::time("Linear", "backward dW", || {
                    matmul(
                        dy.t(),
                        Right::Panels(&packed),
                        dw.matrix_mut(),
                        Start::Continue,
                    );
                });
            }
        }
        let c = self.x.cols();
        let at = Segments::row(c);
        let own = part.start * c..part.end * c;
        let shares = norm::partials(at, own.start)..norm::partials(at, own.end);
        let (x, dx) = (&self.x.data()[own.clone()], &mut self.dx.data_mut()[own]);
        let (weight, shares) = (self.weight.data(), &mut self.shares[shares]);
        norm::backward_parts(at, x, weight, r, dn.data(), dx, shares);
    }

    /// Gives all gradients.
    pub fn give<const N: usize>(self, sink: &mut GradSink<'_, N>) {
        let at = Segments::row(self.x.cols());
        for (i, (_, dw)) in self.weights.into_iter().enumerate() {
            sink.put_accumulator(i + 2, dw);
        }
        let dweight = norm::total(at, self.shares);
        sink.add(1, Tensor::new(self.weight.shape(), dweight));
        sink.add(0, self.dx);
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{check, compare, pattern, rows_alone, slice_rows};
    use crate::ops::{Linear, RmsNorm};

    fn reference(x: &[Vec<f64>], c: usize) -> Vec<f64> {
        let mut y = Vec::new();
        for row in x[0].chunks(c) {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / c as f64;
            let r = 1.0 / (mean + 1e-3).sqrt();
            let n: Vec<f64> = row.iter().zip(&x[1]).map(|(x, g)| x * r * g).collect();
            for w in &x[2..] {
                let dot = |w: &[f64]| n.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
                y.extend(w.chunks(c).map(dot));
            }
        }
        y
    }

    #[test]
    fn laws() {
        let op = NormedLinear { eps: 1e-3 };
        let inputs = [
            pattern(&[5, 6], 1),
            pattern(&[6], 5),
            pattern(&[3, 6], 2),
            pattern(&[4, 6], 4),
        ];
        check(&op, inputs, [true; 4], &|x| reference(x, 6));
        let (x, weight, w) = (
            pattern(&[30, 40], 1),
            pattern(&[40], 3),
            pattern(&[50, 40], 2),
        );
        let (weight, w) = (Arc::new(weight), Arc::new(w));
        rows_alone(30, |r| op.forward([&slice_rows(&x, r), &weight, &w]).0);
    }

    #[test]
    fn one_operation_or_two_give_the_same_bits() {
        let eps = 1e-3;
        // Fewer rows than a part, whole parts, and parts with some rows more.
        for rows in [1, 33, PART, 2 * PART + 40] {
            let inputs = [
                pattern(&[rows, 20], 1),
                pattern(&[20], 2),
                pattern(&[17, 20], 3),
                pattern(&[33, 20], 4),
            ];
            compare(
                inputs,
                |tape, x| tape.apply(NormedLinear { eps }, x),
                |tape, [x, weight, a, b]| {
                    let n = tape.apply(RmsNorm { eps }, [x, weight]);
                    tape.apply(Linear, [&n, a, b])
                },
            );
        }
    }
}
