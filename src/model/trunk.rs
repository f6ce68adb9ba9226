//! The trunk: embedding, layers and final norm; and the LM head, which the prediction heads share.

use super::block::{Block, linear};
use super::{Config, Find, Model};
use crate::exec::{Exec, Rows};
use crate::ops::Embedding;
use crate::tensor::ParamId;

/// Name of the embedding matrix.
pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";

/// The trunk's parameters.
#[derive(Debug)]
pub(super) struct Ids {
    embedding: ParamId,
    layers: Vec<Block>,
    norm: ParamId,
    lm_head: ParamId,
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
            lm_head: if config.tie_word_embeddings {
                embedding
            } else {
                find("lm_head.weight")
            },
        }
    }
}

impl Model {
    /// tokens `[rows]` -> h^0 [rows, C], the hidden state after the final norm. Uses KV caches 0..L.
    ///
    /// # Panics
    /// Panics if a token is not below V, or if a position is not below the model's positions.
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
        linear(exec, h, self.trunk.lm_head)
    }

    /// The LM head W_out [V, C]; the embedding matrix if the two are tied.
    pub(super) fn lm_head(&self) -> ParamId {
        self.trunk.lm_head
    }

    /// tokens [rows] -> embeddings [rows, C].
    pub(super) fn embed<E: Exec>(&self, exec: &mut E, tokens: &[u32]) -> E::Value {
        let matrix = exec.param(self.trunk.embedding);
        exec.apply(Embedding { ids: tokens.into() }, [&matrix])
    }
}
