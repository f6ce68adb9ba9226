//! The activation SiLU (Elfwing et al. 2018; Ramachandran et al. 2017, where it is called Swish).
//!
//! ```text
//! x [rows, C] -> y [rows, C]:   y = x · sigmoid(x)
//! dx = dy · σ · (1 + x · (1 − σ))               with σ = sigmoid(x)
//! ```
//!
//! [`crate::kernels::silu`] defines the sequence of operations.

use crate::autograd::{GradSink, Op};
use crate::kernels::silu;
use crate::tensor::Tensor;
use std::sync::Arc;

/// x · sigmoid(x), element by element; x [rows, C].
#[derive(Clone, Copy, Debug)]
pub struct Silu;

/// The input.
pub struct Saved {
    x: Arc<Tensor>,
}

impl Op<1> for Silu {
    type Saved = Saved;

    fn forward(&self, [x]: [&Arc<Tensor>; 1]) -> (Tensor, Saved) {
        let mut y = Tensor::empty(x.shape());
        silu::forward(x.data(), y.data_mut());
        let x = Arc::clone(x);
        (y, Saved { x })
    }

    fn backward(&self, Saved { x }: Saved, dy: Tensor, sink: &mut GradSink<'_, 1>) {
        let mut dx = Tensor::empty(x.shape());
        silu::backward(x.data(), dy.data(), dx.data_mut());
        sink.add(0, dx);
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{batch_invariant, check, pattern, slice_rows};

    #[test]
    fn laws() {
        for (rows, c) in [(1, 1), (3, 15), (5, 16), (4, 33)] {
            let reference = |x: &[Vec<f64>]| x[0].iter().map(|x| x / (1.0 + (-x).exp())).collect();
            // Values to ±4, where the slope is no longer near a half.
            let mut x = pattern(&[rows, c], 1);
            x.data_mut().iter_mut().for_each(|x| *x *= 4.0);
            batch_invariant(rows, |r| Silu.forward([&slice_rows(&x, r)]).0);
            check(&Silu, [x], [true], &reference);
        }
    }
}
