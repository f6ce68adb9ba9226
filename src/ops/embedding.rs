//! Rows of the embedding matrix.
//!
//! ```text
//! E [V, C], ids [rows] -> y [rows, C]:   y[r] = E[ids[r]]
//! backward: dE[ids[r]] += dy[r], r ascending          (rule R7)
//! ```

use crate::autograd::{GradSink, Op};
use crate::tensor::Tensor;
use std::sync::Arc;

/// E [V, C] -> y [rows, C]: the row of the embedding matrix for each id.
///
/// Panics if an id is not below V.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// One per row.
    pub ids: Arc<[u32]>,
}

/// The embedding matrix's shape.
pub struct Saved {
    shape: [usize; 2],
}

impl Op<1> for Embedding {
    type Saved = Saved;

    fn forward(&self, [e]: [&Arc<Tensor>; 1]) -> (Tensor, Saved) {
        let shape = [e.rows(), e.cols()];
        let mut y = Tensor::empty(&[self.ids.len(), shape[1]]);
        for (y, id) in y.data_mut().chunks_mut(shape[1]).zip(&*self.ids) {
            assert!((*id as usize) < shape[0], "token {id} of {}", shape[0]);
            e.copy_row(*id as usize, y);
        }
        (y, Saved { shape })
    }

    fn backward(&self, saved: Saved, dy: Tensor, sink: &mut GradSink<'_, 1>) {
        let cols = saved.shape[1];
        sink.accumulate(0, &saved.shape, |de| {
            let de = de.data_mut();
            for (dy, id) in dy.data().chunks(cols).zip(&*self.ids) {
                let row = &mut de[*id as usize * cols..][..cols];
                for (sum, d) in row.iter_mut().zip(dy) {
                    *sum += d;
                }
            }
        });
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{batch_invariant, check, pattern};

    fn ids(ids: &[u32]) -> Embedding {
        Embedding { ids: ids.into() }
    }

    #[test]
    fn laws() {
        let rows = [3, 0, 3, 4, 1, 3];
        let reference = |x: &[Vec<f64>]| {
            let row = |id: &u32| x[0][*id as usize * 17..][..17].to_vec();
            rows.iter().flat_map(row).collect()
        };
        check(&ids(&rows), [pattern(&[5, 17], 1)], [true], &reference);
        let e = Arc::new(pattern(&[5, 17], 1));
        batch_invariant(rows.len(), |r| ids(&rows[r]).forward([&e]).0);
    }
}
