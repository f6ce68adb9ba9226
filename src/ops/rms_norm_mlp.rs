//! The gated MLP of a layer with its norm, as one operation (Shazeer 2020, section 2).
//!
//! ```text
//! x [rows, C], norm_weight [C], W_g, W_u [F, C], W_d [C, F] -> y [rows, C]
//! n = RMSNorm(x) · norm_weight;   g, u = n W_gᵀ, n W_uᵀ;   a = silu(g) · u;   y = a W_dᵀ
//! backward: da = dy W_d;  recompute a;  dW_d += dyᵀ a;  dg, du from da;  then as RmsNormLinear
//! ```
//!
//! It is bitwise identical to [`RmsNormLinear`](super::RmsNormLinear), SwiGLU and [`Linear`](super::Linear) one after
//! the other. Besides the inputs, only g and u are saved. Both passes work on one block of rows at a time, so that
//! intermediate results stay in the cache.

use super::linear::{WeightGradients, backward_dx};
use super::rms_norm_linear::{BlockedBackward, normed, packed, row_blocks};
use crate::autograd::{GradSink, Op};
use crate::kernels::gemm::{Panels, Rhs, matmul_many};
use crate::kernels::swiglu;
use crate::profile;
use crate::simd::matrix::MatrixMut;
use crate::tensor::Tensor;
use std::slice;
use std::sync::Arc;

/// Norm, gate, up and down: x [rows, C] -> y [rows, C]; inputs are x, the norm weight, W_g, W_u and W_d.
#[derive(Clone, Copy, Debug)]
pub struct RmsNormMlp {
    /// ε, added to the mean square.
    pub eps: f32,
}

/// The inputs, and gate and up [rows, 2 F].
pub struct Saved {
    inputs: [Arc<Tensor>; 5],
    gu: Tensor,
}

impl Op<5> for RmsNormMlp {
    type Saved = Saved;

    fn forward(&self, inputs: [&Arc<Tensor>; 5]) -> (Tensor, Saved) {
        let [x, norm_weight, gate, up, down] = inputs;
        let f = gate.rows();
        let mut gu = Tensor::empty(&[x.rows(), 2 * f]);
        let mut y = Tensor::empty(x.shape());
        let (inner, outer) = (packed(&[gate, up]), packed(&[down]));
        let mut rest = y.matrix_mut();
        for block in row_blocks(x.rows()) {
            let (n, _) = normed(self.eps, x, norm_weight, &block);
            let gu = &mut gu.data_mut()[block.start * 2 * f..block.end * 2 * f];
            let to = MatrixMut::new(gu, block.len(), 2 * f);
            matmul_many(n.matrix(), inner.iter().map(|w| Rhs::Panels(w)), to);
            let mut a = Tensor::empty(&[block.len(), f]);
            profile::time("SwiGLU", "forward", || swiglu::forward(gu, f, a.data_mut()));
            let (y, below) = rest.split_rows(block.len());
            rest = below;
            matmul_many(a.matrix(), outer.iter().map(|w| Rhs::Panels(w)), y);
        }
        let inputs = inputs.map(Arc::clone);
        (y, Saved { inputs, gu })
    }

    fn backward(&self, saved: Saved, dy: Tensor, sink: &mut GradSink<'_, 5>) {
        let Saved { inputs, mut gu } = saved;
        let [x, norm_weight, inner @ .., down] = &inputs;
        let f = down.cols();
        let packed_down = Panels::pack(down.matrix());
        let mut ddown = WeightGradients::take(sink, 4, slice::from_ref(down));
        let mut backward = BlockedBackward::new(x, norm_weight, inner, sink);
        for block in row_blocks(x.rows()) {
            let dy = dy.matrix().row_range(block.start, block.end);
            let mut da = Tensor::empty(&[block.len(), f]);
            backward_dx(dy, [Rhs::Panels(&packed_down)], &mut da);
            // In place: g and u become dg and du, da becomes a.
            let own = &mut gu.data_mut()[block.start * 2 * f..block.end * 2 * f];
            profile::time("SwiGLU", "backward", || {
                swiglu::backward(own, f, da.data_mut())
            });
            let (a, dgu) = (da, gu.matrix().row_range(block.start, block.end));
            ddown.add(dy, a.matrix());
            let (n, rstd) = normed(self.eps, x, norm_weight, &block);
            backward.block(&block, &rstd, &n, dgu);
        }
        ddown.put(sink);
        backward.finish(sink);
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{batch_invariant, check, equivalent, pattern, slice_rows};
    use crate::ops::{Linear, RmsNormLinear};

    const C: usize = 6;
    const F: usize = 5;

    /// gu [rows, 2 F] -> y [rows, F] = silu(g) · u
    #[derive(Clone)]
    struct SwiGlu;

    impl Op<1> for SwiGlu {
        type Saved = Tensor;

        fn forward(&self, [gu]: [&Arc<Tensor>; 1]) -> (Tensor, Tensor) {
            let f = gu.cols() / 2;
            let mut y = Tensor::empty(&[gu.rows(), f]);
            swiglu::forward(gu.data(), f, y.data_mut());
            (y, Tensor::clone(gu))
        }

        fn backward(&self, mut gu: Tensor, mut dy: Tensor, sink: &mut GradSink<'_, 1>) {
            let f = dy.cols();
            swiglu::backward(gu.data_mut(), f, dy.data_mut());
            sink.add(0, gu);
        }
    }

    fn silu(x: f64) -> f64 {
        x / (1.0 + (-x).exp())
    }

    #[test]
    fn laws_of_the_activation() {
        for (rows, f) in [(1, 1), (5, 16), (4, 33)] {
            let reference = |x: &[Vec<f64>]| {
                let row = |row: &[f64]| {
                    let (gate, up) = row.split_at(f);
                    let one = |(g, u): (&f64, &f64)| silu(*g) * u;
                    gate.iter().zip(up).map(one).collect::<Vec<_>>()
                };
                x[0].chunks(2 * f).flat_map(row).collect()
            };
            check(&SwiGlu, [pattern(&[rows, 2 * f], 1)], [true], &reference);
            let x = pattern(&[rows, 2 * f], 2);
            batch_invariant(rows, |r| SwiGlu.forward([&slice_rows(&x, r)]).0);
        }
    }

    fn inputs(rows: usize) -> [Tensor; 5] {
        [
            pattern(&[rows, C], 1),
            pattern(&[C], 2),
            pattern(&[F, C], 3),
            pattern(&[F, C], 4),
            pattern(&[C, F], 5),
        ]
    }

    fn reference(x: &[Vec<f64>]) -> Vec<f64> {
        let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
        let mut y = Vec::new();
        for row in x[0].chunks(C) {
            let rstd = 1.0 / (dot(row, row) / C as f64 + 1e-3).sqrt();
            let n: Vec<f64> = row.iter().zip(&x[1]).map(|(x, g)| x * rstd * g).collect();
            let gate = x[2].chunks(C).map(|w| dot(&n, w));
            let up = x[3].chunks(C).map(|w| dot(&n, w));
            let a: Vec<f64> = gate.zip(up).map(|(g, u)| silu(g) * u).collect();
            y.extend(x[4].chunks(F).map(|w| dot(&a, w)));
        }
        y
    }

    #[test]
    fn laws() {
        let op = RmsNormMlp { eps: 1e-3 };
        check(&op, inputs(4), [true; 5], &reference);
        let [x, norm_weight, gate, up, down] = inputs(30);
        let rest = [norm_weight, gate, up, down].map(Arc::new);
        let [norm_weight, gate, up, down] = rest.each_ref();
        batch_invariant(30, |r| {
            op.forward([&slice_rows(&x, r), norm_weight, gate, up, down])
                .0
        });
    }

    #[test]
    fn one_operation_or_three_give_the_same_bits() {
        let eps = 1e-3;
        for rows in [1, 33, 512, 1100] {
            equivalent(
                inputs(rows),
                |tape, x| tape.apply(RmsNormMlp { eps }, x),
                |tape, [x, norm_weight, gate, up, down]| {
                    let gu = tape.apply(RmsNormLinear { eps }, [x, norm_weight, gate, up]);
                    let a = tape.apply(SwiGlu, [&gu]);
                    tape.apply(Linear, [&a, down])
                },
            );
        }
    }
}
