//! Causal grouped-query attention (Vaswani et al. 2017, section 3.2; Ainslie et al. 2023) over whole sequences.
//!
//! ```text
//! qkv [rows, (H + 2 G) D] -> y [rows, H D]
//! for query head h of the row at position t, key/value head g = h / (H / G):
//! y = Σ_{j ≤ t} softmax_j(q · k_j / √D) v_j
//! ```
//!
//! [`crate::kernels::attention`] defines the order of every sum and the gradient (rule R5). During decoding the same
//! kernels run in the executor, which owns the KV cache.

use crate::autograd::{GradSink, Op};
use crate::kernels::attention::{self, AttentionHeads};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Attention within each sequence: qkv [rows, (H + 2 G) D] -> y [rows, H D].
#[derive(Clone, Debug)]
pub struct Attention {
    /// The layout of qkv.
    pub heads: AttentionHeads,
    /// Number of rows of each sequence, from position 0.
    pub lengths: Arc<[usize]>,
}

/// qkv, and for each query its largest score and its sum of exponentials [rows, 2 H].
pub struct Saved {
    qkv: Arc<Tensor>,
    stats: Tensor,
}

impl Op<1> for Attention {
    type Saved = Saved;

    fn forward(&self, [qkv]: [&Arc<Tensor>; 1]) -> (Tensor, Saved) {
        let heads = self.heads;
        let mut y = Tensor::empty(&[qkv.rows(), heads.num_heads * heads.head_dim]);
        let mut stats = Tensor::empty(&[qkv.rows(), 2 * heads.num_heads]);
        let (out, parts) = (y.data_mut(), stats.data_mut());
        attention::forward(heads, &self.lengths, qkv.data(), out, parts);
        let qkv = Arc::clone(qkv);
        (y, Saved { qkv, stats })
    }

    fn backward(&self, saved: Saved, dy: Tensor, sink: &mut GradSink<'_, 1>) {
        let mut dqkv = Tensor::empty(saved.qkv.shape());
        attention::backward(
            self.heads,
            &self.lengths,
            saved.qkv.data(),
            saved.stats.data(),
            dy.data(),
            dqkv.data_mut(),
        );
        sink.add(0, dqkv);
    }
}

#[cfg(test)]
mod laws {
    use super::*;
    use crate::autograd::testing::{batch_invariant, check, pattern};

    fn reference(heads: AttentionHeads, lengths: &[usize], qkv: &[f64]) -> Vec<f64> {
        let (d, width) = (heads.head_dim, heads.width());
        let mut y = Vec::new();
        let mut from = 0;
        for len in lengths {
            for t in 0..*len {
                for h in 0..heads.num_heads {
                    let key = heads.num_heads + h / heads.group();
                    let part =
                        |row: usize, head: usize| &qkv[(from + row) * width + head * d..][..d];
                    let dot = |j| -> f64 {
                        part(t, h)
                            .iter()
                            .zip(part(j, key))
                            .map(|(q, k)| q * k)
                            .sum()
                    };
                    let e: Vec<f64> = (0..=t)
                        .map(|j| (dot(j) / (d as f64).sqrt()).exp())
                        .collect();
                    let total: f64 = e.iter().sum();
                    let value = |j| part(j, key + heads.num_kv_heads);
                    y.extend(
                        (0..d).map(|c| (0..=t).map(|j| e[j] * value(j)[c]).sum::<f64>() / total),
                    );
                }
            }
            from += len;
        }
        y
    }

    #[test]
    fn laws() {
        let heads = AttentionHeads {
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 6,
        };
        let lengths: Arc<[usize]> = [1, 9, 3].into();
        let op = Attention {
            heads,
            lengths: lengths.clone(),
        };
        let qkv = pattern(&[13, heads.width()], 1);
        check(&op, [qkv], [true], &|x| reference(heads, &lengths, &x[0]));
    }

    #[test]
    fn a_sequence_alone_and_a_row_without_its_future() {
        let heads = AttentionHeads {
            num_heads: 2,
            num_kv_heads: 1,
            head_dim: 16,
        };
        let attend = |rows: &Tensor, lengths: &[usize]| {
            let op = Attention {
                heads,
                lengths: lengths.into(),
            };
            op.forward([&Arc::new(rows.clone())]).0
        };
        let qkv = pattern(&[40, heads.width()], 3);
        let part = |from: usize, to: usize| {
            let width = heads.width();
            Tensor::new(
                &[to - from, width],
                qkv.data()[from * width..to * width].to_vec(),
            )
        };
        // The last row of every prefix is bitwise identical to that row among all.
        batch_invariant(40, |r| {
            if r.len() == 40 {
                return attend(&qkv, &[40]);
            }
            let y = attend(&part(0, r.end), &[r.end]);
            Tensor::new(&[1, y.cols()], y.row(r.start).to_vec())
        });
        let (both, alone) = (attend(&qkv, &[17, 23]), attend(&part(17, 40), &[23]));
        assert_eq!(&both.data()[17 * 32..], alone.data());
    }
}
