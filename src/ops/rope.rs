//! Rotary position embedding (Su et al. 2021) of query and key heads, half-split form.
//!
//! ```text
//! qkv [rows, (H + 2 G) D] -> y of the same shape: the H + G query and key heads rotated by the row's position
//! backward: rotated the other way
//! ```
//!
//! [`crate::kernels::rope`] defines the rotation and its table of cos and sin.

use crate::autograd::{GradSink, Op};
use crate::kernels::attention::AttentionHeads;
use crate::kernels::rope::{Direction, RopeTable, rotate};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Rotates the query and key heads of qkv [rows, (H + 2 G) D] by position.
#[derive(Clone, Debug)]
pub struct Rope {
    /// cos and sin.
    pub table: Arc<RopeTable>,
    /// The layout of qkv.
    pub heads: AttentionHeads,
    /// Position of each row.
    pub positions: Arc<[u32]>,
}

/// Nothing: the gradient needs positions only.
pub struct Saved;

impl Rope {
    fn apply(&self, direction: Direction, from: Option<&[f32]>, x: &mut Tensor) {
        let heads = self.heads.num_heads + self.heads.num_kv_heads;
        let (stride, x) = (self.heads.width(), x.data_mut());
        let positions = &self.positions;
        rotate(&self.table, heads, stride, positions, direction, from, x);
    }
}

impl Op<1> for Rope {
    type Saved = Saved;

    fn forward(&self, [x]: [&Arc<Tensor>; 1]) -> (Tensor, Saved) {
        let mut y = Tensor::empty(x.shape());
        self.apply(Direction::Forward, Some(x.data()), &mut y);
        (y, Saved)
    }

    fn backward(&self, Saved: Saved, mut dy: Tensor, sink: &mut GradSink<'_, 1>) {
        self.apply(Direction::Backward, None, &mut dy);
        sink.add(0, dy);
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{batch_invariant, check, pattern, slice_rows};

    #[test]
    fn laws() {
        let heads = AttentionHeads {
            num_heads: 2,
            num_kv_heads: 1,
            head_dim: 6,
        };
        let positions = [0u32, 1, 2, 7, 300, 4095];
        let op = |range: std::ops::Range<usize>| Rope {
            table: Arc::new(RopeTable::new(4096, 6, 10_000.0)),
            heads,
            positions: positions[range].into(),
        };
        let reference = |x: &[Vec<f64>]| {
            let mut y = x[0].clone();
            for (head, x) in x[0].chunks(6).enumerate() {
                let (row, head_of_row) = (head / 4, head % 4);
                for i in 0..3 {
                    // The table's angles are rounded to f32 after cos and sin, so plain f64 is the exact value.
                    let angle = f64::from(positions[row]) * 10_000f64.powf(-2.0 * i as f64 / 6.0);
                    if head_of_row < 3 {
                        y[head * 6 + i] = x[i] * angle.cos() - x[i + 3] * angle.sin();
                        y[head * 6 + i + 3] = x[i + 3] * angle.cos() + x[i] * angle.sin();
                    }
                }
            }
            y
        };
        check(&op(0..6), [pattern(&[6, 24], 1)], [true], &reference);
        let x = pattern(&[6, 24], 2);
        batch_invariant(6, |r| op(r.clone()).forward([&slice_rows(&x, r)]).0);
    }
}
