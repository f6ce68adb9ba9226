//! The gated layer of a block on normalised rows, as one operation (Shazeer 2020, section 2).
//!
//! ```text
//! x [rows, C], weight [C], W_g, W_u [F, C], W_d [C, F] -> y [rows, C]
//! n = RMSNorm(x) · weight;   g, u = n W_gᵀ, n W_uᵀ;   a = silu(g) · u;   y = a W_dᵀ
//! backward: da = dy W_d;  a once more;  dW_d += dyᵀ a;  dg, du from da;  then as the norm and its products
//! ```
//!
//! It is [`NormedLinear`](super::NormedLinear), [`SwiGlu`](super::SwiGlu) and [`Linear`](super::Linear) with the same
//! bits. Beside the inputs only g and u are kept for the backward pass. Rows are taken some at a time, so that what is between the steps
//! stays in the cache.

use super::normed_linear::{Back, Weights, normed, parts};
use crate::autograd::{GradSink, Op};
use crate::kernels::gemm::{Panels, Right, Start, matmul, matmul_many};
use crate::kernels::swiglu;
use crate::profile;
use crate::simd::matrix::MatrixMut;
use crate::tensor::Tensor;
use std::sync::Arc;

/// Norm, gate, up and down; inputs are x, the weight and the three weights in this order.
#[derive(Clone, Copy, Debug)]
pub struct GatedMlp {
    /// ε, added to the mean square.
    pub eps: f32,
}

/// The inputs, and gate and up [rows, 2 F].
pub struct Saved {
    inputs: [Arc<Tensor>; 5],
    gu: Tensor,
}

impl Op<5> for GatedMlp {
    type Saved = Saved;

    fn forward(&self, inputs: [&Arc<Tensor>; 5]) -> (Tensor, Saved) {
        let [x, weight, gate, up, down] = inputs;
        let f = gate.rows();
        let mut gu = Tensor::empty(&[x.rows(), 2 * f]);
        let mut y = Tensor::empty(x.shape());
        let (inner, outer) = (Weights::of(&[gate, up]), Weights::of(&[down]));
        let mut rest = y.matrix_mut();
        for part in parts(x.rows()) {
            let (n, _) = normed(self.eps, x, weight, &part);
            let own = &mut gu.data_mut()[part.start * 2 * f..part.end * 2 * f];
            let to = MatrixMut::new(own, part.len(), 2 * f);
            matmul_many(n.matrix(), inner.iter(), to);
            let mut a = Tensor::empty(&[part.len(), f]);
            profile::time("SwiGlu", "forward", || {
                swiglu::forward(own, f, a.data_mut())
            });
            let (y, below) = rest.split_rows(part.len());
            rest = below;
            matmul_many(a.matrix(), outer.iter(), y);
        }
        let inputs = inputs.map(Arc::clone);
        (y, Saved { inputs, gu })
    }

    fn backward(&self, saved: Saved, dy: Tensor, sink: &mut GradSink<'_, 5>) {
        let Saved {
            inputs: [x, weight, gate, up, down],
            mut gu,
        } = saved;
        let f = gate.rows();
        let mut ddown = sink.take_accumulator(4, down.shape());
        let rows_of_down = Panels::pack(down.matrix());
        let inner = [gate, up];
        let mut back = Back::new(&x, &weight, &inner, sink);
        for part in parts(x.rows()) {
            let dy = dy.matrix().row_range(part.start, part.end);
            let mut a = Tensor::empty(&[part.len(), f]);
            profile::time("Linear", "backward dx", || {
                matmul(
                    dy,
                    Right::Panels(&rows_of_down),
                    a.matrix_mut(),
                    Start::Zero,
                );
            });
            let own = &mut gu.data_mut()[part.start * 2 * f..part.end * 2 * f];
            // g and u become their gradients, and da becomes a.
            profile::time("SwiGlu", "backward", || {
                swiglu::backward(own, f, a.data_mut())
            });
            if let Some(ddown) = &mut ddown {
                profile::time("Linear", "backward dW", || {
                    matmul(
                        dy.t(),
                        Right::View(a.matrix()),
                        ddown.matrix_mut(),
                        Start::Continue,
                    );
                });
            }
            let (n, r) = normed(self.eps, &x, &weight, &part);
            let dgu = gu.matrix().row_range(part.start, part.end);
            back.part(&part, &r, &n, dgu);
        }
        sink.put_accumulator(4, ddown);
        back.give(sink);
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{check, compare, pattern, rows_alone, slice_rows};
    use crate::ops::{Linear, NormedLinear, SwiGlu};

    const C: usize = 6;
    const F: usize = 5;

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
            let r = 1.0 / (dot(row, row) / C as f64 + 1e-3).sqrt();
            let n: Vec<f64> = row.iter().zip(&x[1]).map(|(x, g)| x * r * g).collect();
            let gate = x[2].chunks(C).map(|w| dot(&n, w));
            let up = x[3].chunks(C).map(|w| dot(&n, w));
            let a: Vec<f64> = gate
                .zip(up)
                .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                .collect();
            y.extend(x[4].chunks(F).map(|w| dot(&a, w)));
        }
        y
    }

    #[test]
    fn laws() {
        let op = GatedMlp { eps: 1e-3 };
        check(&op, inputs(4), [true; 5], &reference);
        let [x, weight, gate, up, down] = inputs(30);
        let rest = [weight, gate, up, down].map(Arc::new);
        let [weight, gate, up, down] = rest.each_ref();
        rows_alone(30, |r| {
            op.forward([&slice_rows(&x, r), weight, gate, up, down]).0
        });
    }

    #[test]
    fn one_operation_or_three_give_the_same_bits() {
        let eps = 1e-3;
        for rows in [1, 33, 512, 1100] {
            compare(
                inputs(rows),
                |tape, x| tape.apply(GatedMlp { eps }, x),
                |tape, [x, weight, gate, up, down]| {
                    let gu = tape.apply(NormedLinear { eps }, [x, weight, gate, up]);
                    let a = tape.apply(SwiGlu, [&gu]);
                    tape.apply(Linear, [&a, down])
                },
            );
        }
    }
}
