//! RMS normalisation of rows, then matrix multiplication with one or more weights: [`RmsNorm`](super::RmsNorm) and
//! [`Linear`](super::Linear) as one operation, so that the normalised rows need not be saved.
//!
//! ```text
//! x [rows, C], norm_weight [C], W_i [N_i, C] -> y [rows, Σ N_i]
//! n = RMSNorm(x) · norm_weight;  y = n · [W_0; W_1; ..]ᵀ
//! backward: recompute n;  dW_i += dy_iᵀ · n;  dn = dy · [W_0; W_1; ..];  dx and d_norm_weight from dn
//! ```
//!
//! Both passes work on one block of rows at a time, so that intermediate results stay in the cache. Chains over rows
//! continue from block to block (rule R7), and blocks consist of whole chunks of d_norm_weight's sum (rule R3). So the
//! result is bitwise identical to that of the two operations one after the other.

use super::linear::{WeightGradients, backward_dx};
use crate::autograd::{GradSink, Op};
use crate::kernels::gemm::{Panels, Rhs, View, matmul_many};
use crate::kernels::norm::{self, Segments};
use crate::kernels::reduce::{self, CHUNK_ROWS};
use crate::tensor::Tensor;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Rows of a block: whole chunks of the sum over rows.
const BLOCK_ROWS: usize = 512;
const _: () = assert!(BLOCK_ROWS.is_multiple_of(CHUNK_ROWS));

/// Norm and matrix multiplication: x [rows, C] -> y [rows, Σ N_i]; inputs are x, the norm weight `[C]` and the N − 2
/// weights [N_i, C].
#[derive(Clone, Copy, Debug)]
pub struct RmsNormLinear {
    /// ε, added to the mean square.
    pub eps: f32,
}

/// The inputs.
pub struct Saved<const N: usize> {
    inputs: [Arc<Tensor>; N],
}

impl<const N: usize> Op<N> for RmsNormLinear {
    type Saved = Saved<N>;

    fn forward(&self, inputs: [&Arc<Tensor>; N]) -> (Tensor, Saved<N>) {
        let (x, weights) = (inputs[0], &inputs[2..]);
        let width = weights.iter().map(|w| w.rows()).sum();
        let mut y = Tensor::empty(&[x.rows(), width]);
        let packed = packed(weights);
        let mut rest = y.matrix_mut();
        for block in row_blocks(x.rows()) {
            let (n, _) = normed(self.eps, x, inputs[1], &block);
            let (y, below) = rest.split_rows(block.len());
            rest = below;
            let weights = packed.iter().map(|w| Rhs::Panels(w));
            matmul_many(n.matrix(), weights, y);
        }
        let inputs = inputs.map(Arc::clone);
        (y, Saved { inputs })
    }

    fn backward(&self, saved: Saved<N>, dy: Tensor, sink: &mut GradSink<'_, N>) {
        let Saved { inputs } = saved;
        let (x, norm_weight, weights) = (&inputs[0], &inputs[1], &inputs[2..]);
        let mut backward = BlockedBackward::new(x, norm_weight, weights, sink);
        for block in row_blocks(x.rows()) {
            let (n, rstd) = normed(self.eps, x, norm_weight, &block);
            let dy = dy.matrix().row_range(block.start, block.end);
            backward.block(&block, &rstd, &n, dy);
        }
        backward.finish(sink);
    }
}

/// The rows of each block.
pub(super) fn row_blocks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (0..rows).step_by(BLOCK_ROWS);
    starts.map(move |from| from..rows.min(from + BLOCK_ROWS))
}

/// A block of x, normalised, and 1 / √(mean x² + ε) of each of its rows.
pub(super) fn normed(
    eps: f32,
    x: &Tensor,
    norm_weight: &Tensor,
    block: &Range<usize>,
) -> (Tensor, Vec<f32>) {
    let c = x.cols();
    let (mut n, mut rstd) = (Tensor::empty(&[block.len(), c]), vec![0.0; block.len()]);
    let x = &x.data()[block.start * c..block.end * c];
    let at = Segments::row(c);
    norm::forward(at, eps, x, norm_weight.data(), n.data_mut(), &mut rstd);
    (n, rstd)
}

/// Weights, transposed and packed: as the model holds them once it is packed for decoding, or in temporary panels.
pub(super) fn packed<'a>(weights: &[&'a Arc<Tensor>]) -> Vec<Cow<'a, Panels>> {
    let pack = |w: &&'a Arc<Tensor>| match w.panels() {
        Some(panels) => Cow::Borrowed(panels),
        None => Cow::Owned(Panels::pack(w.matrix().t())),
    };
    weights.iter().map(pack).collect()
}

/// The backward pass of norm and matrix multiplication, block by block. The operation's first inputs are x, the norm
/// weight and the weights.
pub(super) struct BlockedBackward<'a> {
    x: &'a Tensor,
    norm_weight: &'a Tensor,
    /// Each W_i [N_i, C].
    packed: Vec<Panels>,
    dw: WeightGradients,
    dx: Tensor,
    /// The sums of d_norm_weight's chunks of rows.
    partials: Vec<f32>,
}

impl<'a> BlockedBackward<'a> {
    pub fn new<const N: usize>(
        x: &'a Tensor,
        norm_weight: &'a Tensor,
        weights: &[Arc<Tensor>],
        sink: &mut GradSink<'_, N>,
    ) -> Self {
        let packed = weights.iter().map(|w| Panels::pack(w.matrix()));
        let at = Segments::row(x.cols());
        Self {
            x,
            norm_weight,
            packed: packed.collect(),
            dw: WeightGradients::take(sink, 2, weights),
            dx: Tensor::empty(x.shape()),
            partials: vec![0.0; norm::partials(at, x.data().len())],
        }
    }

    /// One block: `rstd` and `n` as [`normed`] returns them, and dy [block, Σ N_i].
    pub fn block(&mut self, block: &Range<usize>, rstd: &[f32], n: &Tensor, dy: View<'_>) {
        let mut dn = Tensor::empty(n.shape());
        backward_dx(dy, self.packed.iter().map(Rhs::Panels), &mut dn);
        self.dw.add(dy, n.matrix());
        let c = self.x.cols();
        let at = Segments::row(c);
        let own = block.start * c..block.end * c;
        let partials = norm::partials(at, own.start)..norm::partials(at, own.end);
        let (x, dx) = (&self.x.data()[own.clone()], &mut self.dx.data_mut()[own]);
        let (norm_weight, partials) = (self.norm_weight.data(), &mut self.partials[partials]);
        norm::backward_parts(at, x, norm_weight, rstd, dn.data(), dx, partials);
    }

    /// Hands all gradients to the sink.
    pub fn finish<const N: usize>(self, sink: &mut GradSink<'_, N>) {
        self.dw.put(sink);
        let d_norm_weight = reduce::fold_tree(self.partials, self.x.cols());
        sink.add(1, Tensor::new(self.norm_weight.shape(), d_norm_weight));
        sink.add(0, self.dx);
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{batch_invariant, check, equivalent, pattern, slice_rows};
    use crate::ops::{Linear, RmsNorm};

    fn reference(x: &[Vec<f64>], c: usize) -> Vec<f64> {
        let mut y = Vec::new();
        for row in x[0].chunks(c) {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / c as f64;
            let rstd = 1.0 / (mean + 1e-3).sqrt();
            let n: Vec<f64> = row.iter().zip(&x[1]).map(|(x, g)| x * rstd * g).collect();
            for w in &x[2..] {
                let dot = |w: &[f64]| n.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
                y.extend(w.chunks(c).map(dot));
            }
        }
        y
    }

    #[test]
    fn laws() {
        let op = RmsNormLinear { eps: 1e-3 };
        let inputs = [
            pattern(&[5, 6], 1),
            pattern(&[6], 5),
            pattern(&[3, 6], 2),
            pattern(&[4, 6], 4),
        ];
        check(&op, inputs, [true; 4], &|x| reference(x, 6));
        let (x, norm_weight, w) = (
            pattern(&[30, 40], 1),
            pattern(&[40], 3),
            pattern(&[50, 40], 2),
        );
        let (norm_weight, w) = (Arc::new(norm_weight), Arc::new(w));
        batch_invariant(30, |r| op.forward([&slice_rows(&x, r), &norm_weight, &w]).0);
    }

    #[test]
    fn one_operation_or_two_give_the_same_bits() {
        let eps = 1e-3;
        // Less than a block, whole blocks, and a last block of a different size.
        for rows in [1, 33, BLOCK_ROWS, 2 * BLOCK_ROWS + 40] {
            let inputs = [
                pattern(&[rows, 20], 1),
                pattern(&[20], 2),
                pattern(&[17, 20], 3),
                pattern(&[33, 20], 4),
            ];
            equivalent(
                inputs,
                |tape, x| tape.apply(RmsNormLinear { eps }, x),
                |tape, [x, norm_weight, a, b]| {
                    let n = tape.apply(RmsNorm { eps }, [x, norm_weight]);
                    tape.apply(Linear, [&n, a, b])
                },
            );
        }
    }
}
