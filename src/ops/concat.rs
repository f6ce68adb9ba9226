//! Two matrices side by side: the input of a prediction head, embedding first, then hidden state.
//!
//! ```text
//! a [rows, A], b [rows, B] -> y [rows, A + B];   da, db are the columns of dy
//! ```

use crate::autograd::{GradSink, Op};
use crate::tensor::Tensor;
use std::sync::Arc;

/// a [rows, A], b [rows, B] -> y [rows, A + B]: the columns of a, then those of b.
#[derive(Clone, Copy, Debug)]
pub struct Concat;

/// A and B.
pub struct Saved {
    widths: [usize; 2],
}

impl Op<2> for Concat {
    type Saved = Saved;

    fn forward(&self, [a, b]: [&Arc<Tensor>; 2]) -> (Tensor, Saved) {
        let widths = [a.cols(), b.cols()];
        let mut y = Tensor::empty(&[a.rows(), widths[0] + widths[1]]);
        for (r, y) in y.data_mut().chunks_mut(widths[0] + widths[1]).enumerate() {
            let (left, right) = y.split_at_mut(widths[0]);
            left.copy_from_slice(a.row(r));
            right.copy_from_slice(b.row(r));
        }
        (y, Saved { widths })
    }

    fn backward(&self, Saved { widths }: Saved, dy: Tensor, sink: &mut GradSink<'_, 2>) {
        let mut from = 0;
        for (i, width) in widths.into_iter().enumerate() {
            let mut d = Tensor::empty(&[dy.rows(), width]);
            for (r, d) in d.data_mut().chunks_mut(width).enumerate() {
                d.copy_from_slice(&dy.row(r)[from..from + width]);
            }
            sink.add(i, d);
            from += width;
        }
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{batch_invariant, check, pattern, slice_rows};

    #[test]
    fn laws() {
        let inputs = [pattern(&[3, 17], 1), pattern(&[3, 5], 2)];
        let reference = |x: &[Vec<f64>]| {
            let rows = x[0].chunks(17).zip(x[1].chunks(5));
            rows.flat_map(|(a, b)| [a, b].concat()).collect()
        };
        check(&Concat, inputs, [true; 2], &reference);
        let (a, b) = (pattern(&[3, 17], 1), pattern(&[3, 5], 2));
        batch_invariant(3, |r| {
            Concat
                .forward([&slice_rows(&a, r.clone()), &slice_rows(&b, r)])
                .0
        });
    }
}
