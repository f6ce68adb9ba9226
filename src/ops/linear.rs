//! Matrix multiplication with one or more weights, side by side.
//!
//! ```text
//! x [rows, C], W_i [N_i, C] -> y [rows, Σ N_i]:   y = x · [W_0; W_1; ..]ᵀ        one chain over C each (rule R1)
//! backward: dx = dy · [W_0; W_1; ..]             one chain over all N_i, in the order of the weights
//!           dW_i += dy_iᵀ · x                    continues the accumulator's chains over the rows (rule R7)
//! ```
//!
//! Q, K and V are computed by one such multiplication, and so are gate and up: that fixes the chain of dx.

use crate::autograd::{GradSink, Op};
use crate::kernels::gemm::{Beta, Panels, Rhs, View, matmul, matmul_many};
use crate::profile;
use crate::tensor::Tensor;
use std::sync::Arc;

/// x [rows, C] times weights W_i [N_i, C] -> y [rows, Σ N_i]; inputs are x and then the N − 1 weights.
#[derive(Clone, Copy, Debug)]
pub struct Linear;

/// x and the weights.
pub struct Saved<const N: usize> {
    inputs: [Arc<Tensor>; N],
}

/// Wᵀ, from its panels if it has them.
fn transposed(w: &Tensor) -> Rhs<'_> {
    match w.panels() {
        Some(panels) => Rhs::Panels(panels),
        None => Rhs::View(w.matrix().t()),
    }
}

impl<const N: usize> Op<N> for Linear {
    type Saved = Saved<N>;

    fn forward(&self, inputs: [&Arc<Tensor>; N]) -> (Tensor, Saved<N>) {
        let (x, weights) = (inputs[0], &inputs[1..]);
        let width = weights.iter().map(|w| w.rows()).sum();
        let mut y = Tensor::empty(&[x.rows(), width]);
        let weights = weights.iter().map(|w| transposed(w));
        matmul_many(x.matrix(), weights, y.matrix_mut());
        let inputs = inputs.map(Arc::clone);
        (y, Saved { inputs })
    }

    fn backward(&self, saved: Saved<N>, dy: Tensor, sink: &mut GradSink<'_, N>) {
        let (x, weights) = (&saved.inputs[0], &saved.inputs[1..]);
        if sink.needs_grad(0) {
            let mut dx = Tensor::empty(x.shape());
            let weights = weights.iter().map(|w| Rhs::View(w.matrix()));
            backward_dx(dy.matrix(), weights, &mut dx);
            sink.add(0, dx);
        }
        let mut dw = WeightGradients::take(sink, 1, weights);
        dw.add(dy.matrix(), x.matrix());
        dw.put(sink);
    }
}

/// dy [rows, Σ N_i], W_i [N_i, C] -> dx [rows, C]
pub(super) fn backward_dx<'w>(
    dy: View<'_>,
    weights: impl IntoIterator<Item = Rhs<'w>>,
    dx: &mut Tensor,
) {
    let _scope = profile::scope("Linear", "backward dx");
    let (mut from, mut beta) = (0, Beta::Zero);
    for w in weights {
        let dy = dy.columns(from, from + w.k());
        from += w.k();
        matmul(dy, w, dx.matrix_mut(), beta);
        beta = Beta::One;
    }
}

/// The gradients of an operation's weights, accumulated over blocks of rows.
pub(super) struct WeightGradients {
    /// The operation's input that is the first weight.
    first: usize,
    /// N_i, and the accumulator if the weight needs a gradient.
    weights: Vec<(usize, Option<Tensor>)>,
}

impl WeightGradients {
    /// Borrows the accumulators of inputs `first`.. from the sink.
    pub fn take<const N: usize>(
        sink: &mut GradSink<'_, N>,
        first: usize,
        weights: &[Arc<Tensor>],
    ) -> Self {
        let take =
            |(i, w): (usize, &Arc<Tensor>)| (w.rows(), sink.take_accumulator(first + i, w.shape()));
        let weights = weights.iter().enumerate().map(take).collect();
        Self { first, weights }
    }

    /// dW_i += dy_iᵀ · x for dy [rows, Σ N_i] and x [rows, C]
    pub fn add(&mut self, dy: View<'_>, x: View<'_>) {
        let _scope = profile::scope("Linear", "backward dW");
        // Several weights share one packed copy; for a single one a part at a time is packed, which takes less memory.
        let several = self.weights.iter().filter(|(_, dw)| dw.is_some()).count() > 1;
        let packed = several.then(|| Panels::pack(x));
        let x = packed.as_ref().map_or(Rhs::View(x), Rhs::Panels);
        let mut from = 0;
        for (n, dw) in &mut self.weights {
            let dy = dy.columns(from, from + *n);
            from += *n;
            if let Some(dw) = dw {
                matmul(dy.t(), x, dw.matrix_mut(), Beta::One);
            }
        }
    }

    /// Returns the accumulators.
    pub fn put<const N: usize>(self, sink: &mut GradSink<'_, N>) {
        for (i, (_, dw)) in self.weights.into_iter().enumerate() {
            sink.put_accumulator(self.first + i, dw);
        }
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{batch_invariant, check, pattern, slice_rows};
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
    fn a_row_alone_and_weights_in_panels() {
        for format in WeightFormat::ALL {
            let (x, mut w) = (pattern(&[30, 40], 1), pattern(&[50, 40], 2));
            w.pack(format);
            let packed = Arc::new(w.clone());
            // This copy has the widened weights.
            w.unpack();
            let plain = Arc::new(w);
            assert!(plain.panels().is_none() && packed.panels().is_some());
            for w in [&plain, &packed] {
                batch_invariant(30, |r| Linear.forward([&slice_rows(&x, r), w]).0);
            }
            let x = Arc::new(x);
            let [a, b] = [&plain, &packed].map(|w| Linear.forward([&x, w]).0);
            assert_eq!(a.data(), b.data(), "{format:?}");
        }
    }
}
