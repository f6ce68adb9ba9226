//! One transformer layer, in the Qwen3 manner.
//!
//! ```text
//! x += o(attention(rope(qk_norm(qkv(norm(x))))))
//! x += down(silu(gate) · up)        gate, up = one matrix multiplication of norm(x)
//! ```

use super::declare::Declare;
use crate::exec::{Exec, Rows};
use crate::kernels::attention::AttentionHeads;
use crate::kernels::rope::RopeTable;
use crate::ops::{Add, GatedMlp, Linear, NormedLinear, QkNorm, RmsNorm, Rope};
use crate::tensor::ParamId;
use std::sync::Arc;

/// What all layers of a forward pass share.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    pub rows: &'a Rows,
    pub positions: Arc<[u32]>,
    pub table: Arc<RopeTable>,
    pub eps: f32,
}

impl Pass<'_> {
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
    input_norm: T,
    qkv: [T; 3],
    qk_norm: Option<[T; 2]>,
    o: T,
    post_norm: T,
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
        let (q, kv) = (heads.query * heads.size, heads.key_value * heads.size);
        let residual = |inputs: usize| 1.0 / (inputs as f64 * residual_terms).sqrt();
        let mut attention = to.below("self_attn.");
        let qkv = [("q_proj", q), ("k_proj", kv), ("v_proj", kv)];
        let qkv = qkv.map(|(name, outputs)| attention.linear(name, outputs, c));
        let norms = ["q_norm", "k_norm"];
        Self {
            heads,
            qkv,
            qk_norm: qk_norm.then(|| norms.map(|name| attention.norm(name, heads.size))),
            o: attention.matrix("o_proj", [c, q], residual(q)),
            input_norm: to.norm("input_layernorm", c),
            post_norm: to.norm("post_attention_layernorm", c),
            gate: to.linear("mlp.gate_proj", f, c),
            up: to.linear("mlp.up_proj", f, c),
            down: to.matrix("mlp.down_proj", [c, f], residual(f)),
        }
    }
}

impl Block {
    /// x [rows, C] -> [rows, C]; `cache` is the number of this layer's KV cache.
    pub fn forward<E: Exec>(
        &self,
        exec: &mut E,
        pass: &Pass<'_>,
        cache: usize,
        x: &E::Value,
    ) -> E::Value {
        let eps = pass.eps;
        let weight = exec.param(self.input_norm);
        let [q, k, v] = self.qkv.map(|id| exec.param(id));
        let mut qkv = exec.apply(NormedLinear { eps }, [x, &weight, &q, &k, &v]);
        if let Some(weights) = self.qk_norm {
            let [q, k] = weights.map(|id| exec.param(id));
            let op = QkNorm {
                heads: self.heads,
                eps,
            };
            qkv = exec.apply(op, [&qkv, &q, &k]);
        }
        let rope = Rope {
            table: Arc::clone(&pass.table),
            heads: self.heads,
            positions: Arc::clone(&pass.positions),
        };
        let qkv = exec.apply(rope, [&qkv]);
        let attended = exec.attend(cache, self.heads, pass.rows, &qkv);
        let attended = linear(exec, &attended, self.o);
        let x = exec.apply(Add, [x, &attended]);

        let weight = exec.param(self.post_norm);
        let [gate, up, down] = [self.gate, self.up, self.down].map(|id| exec.param(id));
        let gated = exec.apply(GatedMlp { eps }, [&x, &weight, &gate, &up, &down]);
        exec.apply(Add, [&x, &gated])
    }
}
