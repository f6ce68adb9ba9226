//! Residual addition.
//!
//! ```text
//! a [rows, C], b [rows, C] -> y = a + b;   da = dy, db = dy
//! ```

use crate::autograd::{GradSink, Op};
use crate::kernels::elementwise;
use crate::tensor::Tensor;
use std::sync::Arc;

/// a [rows, C], b [rows, C] -> a + b.
#[derive(Clone, Copy, Debug)]
pub struct Add;

/// Nothing: the gradient is dy.
pub struct Saved;

impl Op<2> for Add {
    type Saved = Saved;

    fn forward(&self, [a, b]: [&Arc<Tensor>; 2]) -> (Tensor, Saved) {
        let mut y = Tensor::empty(a.shape());
        elementwise::add(a.data(), b.data(), y.data_mut());
        (y, Saved)
    }

    fn backward(&self, Saved: Saved, dy: Tensor, sink: &mut GradSink<'_, 2>) {
        if sink.needs_grad(0) {
            sink.add(0, dy.clone());
        }
        sink.add(1, dy);
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{batch_invariant, check, pattern, slice_rows};

    #[test]
    fn laws() {
        let inputs = [pattern(&[3, 17], 1), pattern(&[3, 17], 2)];
        let reference = |x: &[Vec<f64>]| x[0].iter().zip(&x[1]).map(|(a, b)| a + b).collect();
        check(&Add, inputs, [true; 2], &reference);
        let (a, b) = (pattern(&[3, 17], 1), pattern(&[3, 17], 2));
        batch_invariant(3, |r| {
            Add.forward([&slice_rows(&a, r.clone()), &slice_rows(&b, r)])
                .0
        });
    }
}
