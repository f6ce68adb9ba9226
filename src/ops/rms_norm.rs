//! RMS normalisation of rows (Zhang and Sennrich 2019, equation 4).
//!
//! ```text
//! x [rows, C], weight [C] -> y [rows, C]:   y = x / √(mean x² + ε) · weight
//! ```
//!
//! [`crate::kernels::norm`] defines the sequence of operations and the gradient.

use crate::autograd::{GradSink, Op};
use crate::kernels::norm::{self, Segments};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Normalises each row; inputs are x [rows, C] and weight `[C]`.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm {
    /// ε, added to the mean square.
    pub eps: f32,
}

/// The inputs and 1 / √(mean x² + ε) of each row.
pub struct Saved {
    x: Arc<Tensor>,
    weight: Arc<Tensor>,
    rstd: Vec<f32>,
}

impl Op<2> for RmsNorm {
    type Saved = Saved;

    fn forward(&self, [x, weight]: [&Arc<Tensor>; 2]) -> (Tensor, Saved) {
        let mut y = Tensor::empty(x.shape());
        let mut rstd = vec![0.0; x.rows()];
        let at = Segments::row(x.cols());
        norm::forward(
            at,
            self.eps,
            x.data(),
            weight.data(),
            y.data_mut(),
            &mut rstd,
        );
        let (x, weight) = (Arc::clone(x), Arc::clone(weight));
        (y, Saved { x, weight, rstd })
    }

    fn backward(&self, saved: Saved, dy: Tensor, sink: &mut GradSink<'_, 2>) {
        let Saved { x, weight, rstd } = saved;
        let mut dx = Tensor::empty(x.shape());
        let at = Segments::row(x.cols());
        let dweight = norm::backward(at, x.data(), weight.data(), &rstd, dy.data(), dx.data_mut());
        sink.add(1, Tensor::new(weight.shape(), dweight));
        sink.add(0, dx);
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{batch_invariant, check, pattern, slice_rows};

    #[test]
    fn laws() {
        let op = RmsNorm { eps: 1e-3 };
        for (rows, c) in [(1, 1), (3, 15), (33, 16), (65, 17), (2, 70)] {
            let reference = |x: &[Vec<f64>]| {
                let row = |row: &[f64]| {
                    let mean = row.iter().map(|x| x * x).sum::<f64>() / c as f64;
                    let rstd = 1.0 / (mean + 1e-3).sqrt();
                    row.iter()
                        .zip(&x[1])
                        .map(|(x, g)| x * rstd * g)
                        .collect::<Vec<_>>()
                };
                x[0].chunks(c).flat_map(row).collect()
            };
            let inputs = [pattern(&[rows, c], 1), pattern(&[c], 2)];
            check(&op, inputs, [true; 2], &reference);
            let (x, weight) = (pattern(&[rows, c], 1), Arc::new(pattern(&[c], 2)));
            batch_invariant(rows, |r| op.forward([&slice_rows(&x, r), &weight]).0);
        }
    }
}
