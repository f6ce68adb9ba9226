//! The trunk: embedding, layers and final norm; and the LM head, which the prediction heads share.

use super::block::{Block, linear};
use super::declare::Declare;
use super::{Config, Model};
use crate::exec::{Exec, Rows};
use crate::ops::Embedding;
use crate::tensor::ParamId;

/// Standard deviation of the embedding matrix and the LM head.
const EMBEDDING_DEVIATION: f64 = 0.02;

/// Name of the embedding matrix.
pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";

/// The trunk's parameters.
#[derive(Debug)]
pub(super) struct TrunkParams<T = ParamId> {
    embedding: T,
    layers: Vec<Block<T>>,
    norm: T,
    lm_head: T,
}

impl<T: Copy> TrunkParams<T> {
    pub fn declare(config: &Config, to: &mut Declare<'_, T>) -> Self {
        let c = config.hidden_size;
        let mut matrix = |name| to.matrix(name, [config.vocab_size, c], EMBEDDING_DEVIATION);
        let embedding = matrix("model.embed_tokens");
        let lm_head = if config.tie_word_embeddings {
            embedding
        } else {
            matrix("lm_head")
        };
        let shape = (c, config.attention_heads(), config.intermediate_size);
        let terms = 2.0 * config.num_hidden_layers as f64;
        let layer = |l| {
            let to = &mut to.below(&format!("model.layers.{l}."));
            Block::declare(to, shape, config.use_qk_norm, terms)
        };
        Self {
            embedding,
            lm_head,
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            norm: to.norm("model.norm", c),
        }
    }
}

impl Model {
    /// tokens `[rows]` -> h^0 [rows, C], the hidden state after the final norm. Uses KV caches 0..L.
    ///
    /// # Panics
    /// Panics if a token is not below V, or if a position is not below the model's positions.
    pub fn trunk<E: Exec>(&self, exec: &mut E, tokens: &[u32], rows: &Rows) -> E::Value {
        let context = self.context(rows);
        let mut x = self.embed(exec, tokens);
        for (l, layer) in self.trunk.layers.iter().enumerate() {
            x = layer.forward(exec, &context, l, &x);
        }
        context.norm(exec, &x, self.trunk.norm)
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
