//! The gated activation SwiGLU (Shazeer 2020, equation 6).
//!
//! ```text
//! gu [rows, 2 F] (gate, then up) -> y [rows, F]:   y = gate · sigmoid(gate) · up
//! ```
//!
//! The sequence of operations and the gradient stand in [`crate::kernels::swiglu`].

use crate::autograd::{GradSink, Op};
use crate::kernels::swiglu;
use crate::tensor::Tensor;
use std::sync::Arc;

/// Gate and up to one activation.
#[derive(Clone, Copy, Debug)]
pub struct SwiGlu;

/// The input.
pub struct Saved {
    gu: Arc<Tensor>,
}

impl Op<1> for SwiGlu {
    type Saved = Saved;

    fn forward(&self, [gu]: [&Arc<Tensor>; 1]) -> (Tensor, Saved) {
        let f = gu.cols() / 2;
        let mut y = Tensor::empty(&[gu.rows(), f]);
        swiglu::forward(gu.data(), f, y.data_mut());
        let gu = Arc::clone(gu);
        (y, Saved { gu })
    }

    fn backward(&self, Saved { gu }: Saved, mut dy: Tensor, sink: &mut GradSink<'_, 1>) {
        // Nobody else holds it, unless a caller kept the value.
        let mut dgu = Arc::unwrap_or_clone(gu);
        let f = dgu.cols() / 2;
        swiglu::backward(dgu.data_mut(), f, dy.data_mut());
        sink.add(0, dgu);
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{check, pattern, rows_alone, slice_rows};

    #[test]
    fn laws() {
        for (rows, f) in [(1, 1), (5, 16), (4, 33)] {
            let reference = |x: &[Vec<f64>]| {
                let row = |row: &[f64]| {
                    let (gate, up) = row.split_at(f);
                    let one = |(g, u): (&f64, &f64)| g / (1.0 + (-g).exp()) * u;
                    gate.iter().zip(up).map(one).collect::<Vec<_>>()
                };
                x[0].chunks(2 * f).flat_map(row).collect()
            };
            check(&SwiGlu, [pattern(&[rows, 2 * f], 1)], [true], &reference);
            let x = pattern(&[rows, 2 * f], 2);
            rows_alone(rows, |r| SwiGlu.forward([&slice_rows(&x, r)]).0);
        }
    }
}
