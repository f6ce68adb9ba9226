//! The trunk: embedding, layers, final norm; and the output matrix, which the heads share.

use super::block::{Block, linear};
use super::{Config, Find, Model};
use crate::exec::{Exec, Rows};
use crate::ops::Embedding;
use crate::tensor::ParamId;

/// Name of the table of embeddings.
pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";

/// Places of the trunk's parameters.
#[derive(Debug)]
pub(super) struct Ids {
    embedding: ParamId,
    layers: Vec<Block>,
    norm: ParamId,
    output: ParamId,
}

impl Ids {
    pub fn find(config: &Config, find: Find<'_>) -> Self {
        let layer = |l| {
            let prefix = format!("model.layers.{l}.");
            Block::find(&prefix, config.heads(), config.use_qk_norm, find)
        };
        let embedding = find(EMBEDDING);
        Self {
            embedding,
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            norm: find("model.norm.weight"),
            output: match config.tie_word_embeddings {
                true => embedding,
                false => find("lm_head.weight"),
            },
        }
    }
}

impl Model {
    /// tokens `[rows]` -> h⁰ [rows, C], the hidden state after the final norm. Uses caches 0..L.
    pub fn trunk<E: Exec>(&self, exec: &mut E, tokens: &[u32], rows: &Rows) -> E::Value {
        let pass = self.pass(rows);
        let mut x = self.embed(exec, tokens);
        for (l, layer) in self.trunk.layers.iter().enumerate() {
            x = layer.forward(exec, &pass, l, &x);
        }
        pass.norm(exec, &x, self.trunk.norm)
    }

    /// h [rows, C], of the trunk or of a head -> logits [rows, V].
    pub fn logits<E: Exec>(&self, exec: &mut E, h: &E::Value) -> E::Value {
        linear(exec, h, self.trunk.output)
    }

    /// Place of the output matrix W_out [V, C].
    pub(super) fn output(&self) -> ParamId {
        self.trunk.output
    }

    /// tokens [rows] -> embeddings [rows, C].
    pub(super) fn embed<E: Exec>(&self, exec: &mut E, tokens: &[u32]) -> E::Value {
        let table = exec.param(self.trunk.embedding);
        exec.apply(Embedding { ids: tokens.into() }, [&table])
    }
}
