//! RMS normalisation of query and key heads, as in Qwen3 (Dehghani et al. 2023 for the idea).
//!
//! ```text
//! qkv [rows, (H + 2 G) D], weight_q [D], weight_k [D] -> y of the same shape
//! each query head: RMSNorm with weight_q; each key head: RMSNorm with weight_k; values pass through
//! ```

use crate::autograd::{GradSink, Op};
use crate::kernels::attention::AttentionHeads;
use crate::kernels::norm::{self, Segments};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Normalises heads; inputs are qkv [rows, (H + 2 G) D], weight_q `[D]` and weight_k `[D]`.
#[derive(Clone, Copy, Debug)]
pub struct QkNorm {
    /// The layout of qkv.
    pub heads: AttentionHeads,
    /// ε, added to the mean square.
    pub eps: f32,
}

/// The inputs and 1 / √(mean x² + ε) of each query head and of each key head.
pub struct Saved {
    inputs: [Arc<Tensor>; 3],
    rstd: [Vec<f32>; 2],
}

impl QkNorm {
    /// Query heads, then key heads.
    fn segments(&self) -> [Segments; 2] {
        let AttentionHeads {
            num_heads,
            num_kv_heads,
            head_dim,
        } = self.heads;
        [(0, num_heads), (num_heads * head_dim, num_kv_heads)].map(|(start, count)| Segments {
            stride: self.heads.width(),
            start,
            count,
            width: head_dim,
        })
    }
}

impl Op<3> for QkNorm {
    type Saved = Saved;

    fn forward(&self, inputs: [&Arc<Tensor>; 3]) -> (Tensor, Saved) {
        let x = inputs[0];
        let mut y = Tensor::clone(x);
        let segments = self.segments();
        let mut rstd = segments.map(|at| vec![0.0; x.rows() * at.count]);
        for (i, at) in segments.into_iter().enumerate() {
            let weight = inputs[i + 1].data();
            norm::forward(at, self.eps, x.data(), weight, y.data_mut(), &mut rstd[i]);
        }
        let inputs = inputs.map(Arc::clone);
        (y, Saved { inputs, rstd })
    }

    fn backward(&self, saved: Saved, dy: Tensor, sink: &mut GradSink<'_, 3>) {
        let x = &saved.inputs[0];
        let mut dx = dy.clone();
        for (i, at) in self.segments().into_iter().enumerate() {
            let weight = &saved.inputs[i + 1];
            let (w, rstd) = (weight.data(), &saved.rstd[i]);
            let dweight = norm::backward(at, x.data(), w, rstd, dy.data(), dx.data_mut());
            sink.add(i + 1, Tensor::new(weight.shape(), dweight));
        }
        sink.add(0, dx);
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{batch_invariant, check, pattern, slice_rows};

    #[test]
    fn laws() {
        let heads = AttentionHeads {
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 6,
        };
        let op = QkNorm { heads, eps: 1e-3 };
        let reference = |x: &[Vec<f64>]| {
            let head = |(h, head): (usize, &[f64])| {
                let weight = match h % 8 {
                    0..4 => &x[1],
                    4..6 => &x[2],
                    _ => return head.to_vec(),
                };
                let mean = head.iter().map(|x| x * x).sum::<f64>() / 6.0;
                let rstd = 1.0 / (mean + 1e-3).sqrt();
                head.iter().zip(weight).map(|(x, g)| x * rstd * g).collect()
            };
            x[0].chunks(6).enumerate().flat_map(head).collect()
        };
        let inputs = [pattern(&[35, 48], 1), pattern(&[6], 2), pattern(&[6], 3)];
        check(&op, inputs, [true; 3], &reference);
        let (x, q, k) = (
            pattern(&[9, 48], 1),
            Arc::new(pattern(&[6], 2)),
            Arc::new(pattern(&[6], 3)),
        );
        batch_invariant(9, |r| op.forward([&slice_rows(&x, r), &q, &k]).0);
    }
}
