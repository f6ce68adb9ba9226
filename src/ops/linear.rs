//! One product with one or several weight matrices, side by side.
//!
//! ```text
//! x [rows, C], W_i [N_i, C] -> y [rows, Σ N_i]:   y = x · [W_0; W_1; ..]ᵀ        one chain over C each (rule R1)
//! backward: dx = dy · [W_0; W_1; ..]             one chain over all N_i, in the order of the weights
//!           dW_i += dy_iᵀ · x                    the accumulator's chain goes on over the rows (rule R7)
//! ```
//!
//! Queries, keys and values are one such product, and so are gate and up: that fixes the chain of dx.

use crate::autograd::{GradSink, Op};
use crate::kernels::gemm::{Panels, Right, Start, matmul, matmul_many};
use crate::profile;
use crate::tensor::Tensor;
use std::sync::Arc;

/// x times N − 1 weight matrices; inputs are x and then the weights.
#[derive(Clone, Copy, Debug)]
pub struct Linear;

/// x and the weights.
pub struct Saved<const N: usize> {
    inputs: [Arc<Tensor>; N],
}

/// Wᵀ, packed if it is.
fn right(w: &Tensor) -> Right<'_> {
    match w.panels() {
        Some(panels) => Right::Panels(panels),
        None => Right::View(w.matrix().t()),
    }
}

impl<const N: usize> Op<N> for Linear {
    type Saved = Saved<N>;

    fn forward(&self, inputs: [&Arc<Tensor>; N]) -> (Tensor, Saved<N>) {
        let (x, weights) = (inputs[0], &inputs[1..]);
        let width = weights.iter().map(|w| w.rows()).sum();
        let mut y = Tensor::empty(&[x.rows(), width]);
        let weights = weights.iter().map(|w| right(w));
        matmul_many(x.matrix(), weights, y.matrix_mut());
        let inputs = inputs.map(Arc::clone);
        (y, Saved { inputs })
    }

    fn backward(&self, saved: Saved<N>, dy: Tensor, sink: &mut GradSink<'_, N>) {
        let (x, weights) = (&saved.inputs[0], &saved.inputs[1..]);
        let mut parts = Vec::with_capacity(N);
        let mut from = 0;
        for w in weights {
            parts.push((w, dy.matrix().columns(from, from + w.rows())));
            from += w.rows();
        }
        if sink.needs_grad(0) {
            let mut dx = Tensor::empty(x.shape());
            let mut start = Start::Zero;
            for (w, dy) in &parts {
                profile::time("Linear", "backward dx", || {
                    matmul(*dy, Right::View(w.matrix()), dx.matrix_mut(), start);
                });
                start = Start::Continue;
            }
            sink.add(0, dx);
        }
        if (1..N).any(|i| sink.needs_grad(i)) {
            profile::time("Linear", "backward dW", || {
                // Packed once for several weights; for one, a part at a time.
                let packed = (N > 2).then(|| Panels::pack(x.matrix()));
                let right = match &packed {
                    Some(packed) => Right::Panels(packed),
                    None => Right::View(x.matrix()),
                };
                for (i, (w, dy)) in parts.into_iter().enumerate() {
                    sink.accumulate(i + 1, w.shape(), |dw| {
                        matmul(dy.t(), right, dw.matrix_mut(), Start::Continue);
                    });
                }
            });
        }
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{check, pattern, rows_alone, slice_rows};
    use crate::kernels::gemm::WeightFormat;

    fn reference(x: &[Vec<f64>], c: usize) -> Vec<f64> {
        let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
        let mut y = Vec::new();
        for x_row in x[0].chunks(c) {
            for w in &x[1..] {
                y.extend(w.chunks(c).map(|w| dot(x_row, w)));
            }
        }
        y
    }

    #[test]
    fn laws() {
        for (rows, c, n) in [(1, 1, 1), (3, 16, 5), (14, 17, 33)] {
            let (x, w) = (pattern(&[rows, c], 1), pattern(&[n, c], 2));
            check(&Linear, [x, w], [true; 2], &|x| reference(x, c));
        }
        let inputs = [
            pattern(&[5, 6], 1),
            pattern(&[3, 6], 2),
            pattern(&[1, 6], 3),
            pattern(&[4, 6], 4),
        ];
        check(&Linear, inputs, [true; 4], &|x| reference(x, 6));
    }

    #[test]
    fn a_row_alone_and_packed_weights() {
        for format in WeightFormat::ALL {
            let (x, mut w) = (pattern(&[30, 40], 1), pattern(&[50, 40], 2));
            w.pack(format);
            let packed = Arc::new(w.clone());
            // This copy has the widened weights.
            w.unpack();
            let plain = Arc::new(w);
            assert!(plain.panels().is_none() && packed.panels().is_some());
            for w in [&plain, &packed] {
                rows_alone(30, |r| Linear.forward([&slice_rows(&x, r), w]).0);
            }
            let x = Arc::new(x);
            let [a, b] = [&plain, &packed].map(|w| Linear.forward([&x, w]).0);
            assert_eq!(a.data(), b.data(), "{format:?}");
        }
    }
}
