//! RMS normalisation of rows (Zhang and Sennrich 2019, equation 4).
//!
//! ```text
//! x [rows, C], gain [C] -> y [rows, C]:   y = x / √(mean x² + ε) · gain
//! ```
//!
//! The sequence of operations and the gradient stand in [`crate::kernels::norm`].

use crate::autograd::{Op, Sink};
use crate::kernels::norm::{self, Segments};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Normalises each row; inputs are x and gain.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm {
    /// ε, added to the mean square.
    pub eps: f32,
}

/// The inputs and 1 / √(mean x² + ε) of each row.
pub struct Saved {
    x: Arc<Tensor>,
    gain: Arc<Tensor>,
    r: Vec<f32>,
}

impl Op<2> for RmsNorm {
    type Saved = Saved;

    fn forward(&self, [x, gain]: [&Arc<Tensor>; 2]) -> (Tensor, Saved) {
        let mut y = Tensor::stale(x.shape());
        let mut r = vec![0.0; x.rows()];
        let at = Segments::row(x.cols());
        norm::forward(at, self.eps, x.data(), gain.data(), y.data_mut(), &mut r);
        let (x, gain) = (Arc::clone(x), Arc::clone(gain));
        (y, Saved { x, gain, r })
    }

    fn backward(&self, saved: Saved, dy: Tensor, sink: &mut Sink<'_, 2>) {
        let Saved { x, gain, r } = saved;
        let mut dx = Tensor::stale(x.shape());
        let at = Segments::row(x.cols());
        let inputs = (x.data(), gain.data(), &*r);
        let dgain = norm::backward(at, inputs, dy.data(), dx.data_mut());
        sink.give(1, Tensor::new(gain.shape(), dgain));
        sink.give(0, dx);
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::laws::{check, paint, rows_alone, slice_rows};

    #[test]
    fn laws() {
        let op = RmsNorm { eps: 1e-3 };
        for (rows, c) in [(1, 1), (3, 15), (33, 16), (65, 17), (2, 70)] {
            let reference = |x: &[Vec<f64>]| {
                let row = |row: &[f64]| {
                    let mean = row.iter().map(|x| x * x).sum::<f64>() / c as f64;
                    let r = 1.0 / (mean + 1e-3).sqrt();
                    row.iter()
                        .zip(&x[1])
                        .map(|(x, g)| x * r * g)
                        .collect::<Vec<_>>()
                };
                x[0].chunks(c).flat_map(row).collect()
            };
            let inputs = [paint(&[rows, c], 1), paint(&[c], 2)];
            check(&op, inputs, [true; 2], &reference);
            let (x, gain) = (paint(&[rows, c], 1), Arc::new(paint(&[c], 2)));
            rows_alone(rows, |r| op.forward([&slice_rows(&x, r), &gain]).0);
        }
    }
}
