//! One transformer layer, in the Qwen3 manner.
//!
//! ```text
//! x += o(attention(rope(qk_norm(qkv(norm(x))))))
//! x += down(silu(gate) · up)        gate, up = one matrix multiplication of norm(x)
//! ```

use super::Find;
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
pub(super) struct Block {
    heads: AttentionHeads,
    input_norm: ParamId,
    qkv: [ParamId; 3],
    qk_norm: Option<[ParamId; 2]>,
    o: ParamId,
    post_norm: ParamId,
    gate: ParamId,
    up: ParamId,
    down: ParamId,
}

impl Block {
    pub fn find(prefix: &str, heads: AttentionHeads, qk_norm: bool, find: Find<'_>) -> Self {
        let find = |part: &str| find(&format!("{prefix}{part}.weight"));
        Self {
            heads,
            input_norm: find("input_layernorm"),
            qkv: ["q", "k", "v"].map(|x| find(&format!("self_attn.{x}_proj"))),
            qk_norm: qk_norm.then(|| ["q", "k"].map(|x| find(&format!("self_attn.{x}_norm")))),
            o: find("self_attn.o_proj"),
            post_norm: find("post_attention_layernorm"),
            gate: find("mlp.gate_proj"),
            up: find("mlp.up_proj"),
            down: find("mlp.down_proj"),
        }
    }

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
