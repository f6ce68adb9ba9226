//! Some of the rows: positions that have a target, or rows whose logits are needed.
//!
//! ```text
//! x [rows, C], indices [n] ascending -> y [n, C]:   y[i] = x[indices[i]]
//! backward: dx[indices[i]] = dy[i], other rows +0
//! ```

use crate::autograd::{GradSink, Op};
use crate::tensor::Tensor;
use std::sync::Arc;

/// x [rows, C] -> y [n, C]: the rows `indices`.
#[derive(Clone, Debug)]
pub struct SelectRows {
    /// Indices of the rows, strictly ascending.
    pub indices: Arc<[u32]>,
}

/// The input's shape.
pub struct Saved {
    shape: [usize; 2],
}

impl Op<1> for SelectRows {
    type Saved = Saved;

    fn forward(&self, [x]: [&Arc<Tensor>; 1]) -> (Tensor, Saved) {
        let shape = [x.rows(), x.cols()];
        let mut y = Tensor::empty(&[self.indices.len(), shape[1]]);
        for (y, r) in y.data_mut().chunks_mut(shape[1]).zip(&*self.indices) {
            y.copy_from_slice(x.row(*r as usize));
        }
        (y, Saved { shape })
    }

    fn backward(&self, Saved { shape }: Saved, dy: Tensor, sink: &mut GradSink<'_, 1>) {
        let mut dx = Tensor::zeros(&shape);
        let rows = dx.data_mut();
        for (i, r) in self.indices.iter().enumerate() {
            rows[*r as usize * shape[1]..][..shape[1]].copy_from_slice(dy.row(i));
        }
        sink.add(0, dx);
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{batch_invariant, check, pattern};

    #[test]
    fn laws() {
        let indices = [0u32, 2, 3, 6];
        let op = |indices: &[u32]| SelectRows {
            indices: indices.into(),
        };
        let reference = |x: &[Vec<f64>]| {
            let row = |r: &u32| x[0][*r as usize * 5..][..5].to_vec();
            indices.iter().flat_map(row).collect()
        };
        check(&op(&indices), [pattern(&[7, 5], 1)], [true], &reference);
        let x = Arc::new(pattern(&[7, 5], 1));
        batch_invariant(4, |r| op(&indices[r]).forward([&x]).0);
    }
}
