//! One vector added to every row: the bias of a linear layer.
//!
//! ```text
//! x [rows, C], b [C] -> y [rows, C]:   y = x + b        one addition after the chain of x (rule R1)
//! backward: dx = dy;   db = Σ over rows of dy           chunks of rows, then a tree (rule R3), then rule R7
//! ```

use crate::autograd::{GradSink, Op};
use crate::kernels::bias;
use crate::tensor::Tensor;
use std::sync::Arc;

/// x [rows, C], b `[C]` -> x + b, for every row.
#[derive(Clone, Copy, Debug)]
pub struct AddBias;

/// C.
pub struct Saved {
    cols: usize,
}

impl Op<2> for AddBias {
    type Saved = Saved;

    fn forward(&self, [x, b]: [&Arc<Tensor>; 2]) -> (Tensor, Saved) {
        let cols = x.cols();
        let mut y = Tensor::empty(x.shape());
        bias::forward(x.data(), b.data(), y.data_mut());
        (y, Saved { cols })
    }

    fn backward(&self, Saved { cols }: Saved, dy: Tensor, sink: &mut GradSink<'_, 2>) {
        if sink.needs_grad(1) {
            let db = bias::backward(dy.data(), cols);
            sink.add(1, Tensor::new(&[cols], db));
        }
        sink.add(0, dy);
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{batch_invariant, check, pattern, slice_rows};

    #[test]
    fn laws() {
        for (rows, c) in [(1, 1), (3, 15), (32, 16), (33, 17), (70, 5)] {
            let reference = |x: &[Vec<f64>]| {
                let row = |row: &[f64]| row.iter().zip(&x[1]).map(|(x, b)| x + b).collect();
                x[0].chunks(c)
                    .flat_map(|x| -> Vec<f64> { row(x) })
                    .collect()
            };
            let inputs = [pattern(&[rows, c], 1), pattern(&[c], 2)];
            check(&AddBias, inputs, [true; 2], &reference);
            let (x, b) = (pattern(&[rows, c], 1), Arc::new(pattern(&[c], 2)));
            batch_invariant(rows, |r| AddBias.forward([&slice_rows(&x, r), &b]).0);
        }
    }
}
