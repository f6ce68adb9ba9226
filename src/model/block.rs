//! One transformer layer, as in Qwen3.
//!
//! ```text
//! x += o(attention(rope(qk_norm(qkv(norm(x))))))
//! x += down(silu(gate) · up)        gate, up = one matrix multiplication of norm(x)
//! ```

use super::declare::Declare;
use crate::exec::{Exec, Rows};
use crate::kernels::attention::AttentionHeads;
use crate::kernels::rope::RopeTable;
use crate::ops::{Add, Linear, QkNorm, RmsNorm, RmsNormLinear, RmsNormMlp, Rope};
use crate::tensor::ParamId;
use std::sync::Arc;

/// What all layers of a forward pass share.
#[derive(Debug)]
pub(super) struct ForwardContext<'a> {
    pub rows: &'a Rows,
    pub positions: Arc<[u32]>,
    pub table: Arc<RopeTable>,
    pub eps: f32,
}

impl ForwardContext<'_> {
    /// RMSNorm with that weight.
    pub fn norm<E: Exec>(&self, exec: &mut E, x: &E::Value, weight: ParamId) -> E::Value {
        let weight = exec.param(weight);
        exec.apply(RmsNorm { eps: self.eps }, [x, &weight])
    }
}

/// y = x Wᵀ
pub(super) fn linear<E: Exec>(exec: &mut E, x: &E::Value, w: ParamId) -> E::Value {
    let w = exec.param(w);
    exec.apply(Linear, [x, &w])
}

/// A layer's parameters.
#[derive(Debug)]
pub(super) struct Block<T = ParamId> {
    heads: AttentionHeads,
    attn_norm: T,
    qkv: [T; 3],
    qk_norm: Option<[T; 2]>,
    o: T,
    mlp_norm: T,
    gate: T,
    up: T,
    down: T,
}

impl<T> Block<T> {
    /// A layer of width c whose MLP has width f. Each layer adds two terms to the residual stream, whose variances sum to
    /// one over all `residual_terms`.
    pub fn declare(
        to: &mut Declare<'_, T>,
        (c, heads, f): (usize, AttentionHeads, usize),
        qk_norm: bool,
        residual_terms: f64,
    ) -> Self {
        let (q, kv) = (
            heads.num_heads * heads.head_dim,
            heads.num_kv_heads * heads.head_dim,
        );
        let residual = |inputs: usize| 1.0 / (inputs as f64 * residual_terms).sqrt();
        let mut attention = to.below("self_attn.");
        let qkv = [("q_proj", q), ("k_proj", kv), ("v_proj", kv)];
        let qkv = qkv.map(|(name, outputs)| attention.linear(name, outputs, c));
        let norms = ["q_norm", "k_norm"];
        Self {
            heads,
            qkv,
            qk_norm: qk_norm.then(|| norms.map(|name| attention.norm(name, heads.head_dim))),
            o: attention.matrix("o_proj", [c, q], residual(q)),
            attn_norm: to.norm("input_layernorm", c),
            mlp_norm: to.norm("post_attention_layernorm", c),
            gate: to.linear("mlp.gate_proj", f, c),
            up: to.linear("mlp.up_proj", f, c),
            down: to.matrix("mlp.down_proj", [c, f], residual(f)),
        }
    }
}

impl Block {
    /// x [rows, C] -> [rows, C]; `cache` is the index of this layer's KV cache.
    pub fn forward<E: Exec>(
        &self,
        exec: &mut E,
        context: &ForwardContext<'_>,
        cache: usize,
        x: &E::Value,
    ) -> E::Value {
        let eps = context.eps;
        let weight = exec.param(self.attn_norm);
        let [q, k, v] = self.qkv.map(|id| exec.param(id));
        let mut qkv = exec.apply(RmsNormLinear { eps }, [x, &weight, &q, &k, &v]);
        if let Some(weights) = self.qk_norm {
            let [q, k] = weights.map(|id| exec.param(id));
            let op = QkNorm {
                heads: self.heads,
                eps,
            };
            qkv = exec.apply(op, [&qkv, &q, &k]);
        }
        let rope = Rope {
            table: Arc::clone(&context.table),
            heads: self.heads,
            positions: Arc::clone(&context.positions),
        };
        let qkv = exec.apply(rope, [&qkv]);
        let attended = exec.attend(cache, self.heads, context.rows, &qkv);
        let attended = linear(exec, &attended, self.o);
        let x = exec.apply(Add, [x, &attended]);

        let weight = exec.param(self.mlp_norm);
        let [gate, up, down] = [self.gate, self.up, self.down].map(|id| exec.param(id));
        let gated = exec.apply(RmsNormMlp { eps }, [&x, &weight, &gate, &up, &down]);
        exec.apply(Add, [&x, &gated])
    }
}
