//! The prediction heads. Head k = 1..=K at position i predicts x_{i+k+1}, k tokens beyond the trunk's next one.
//!
//! ```text
//! recursive (one module used K times; Cai et al. 2025, FastMTP) and
//! sequential (K modules; DeepSeek-V3, section 2.2):
//!   u_i   = W_fc [ RMSNorm_e(E[x_{i+k}]) ; RMSNorm_h(h_i^{k-1}) ]     [2C] -> [c]
//!   h_i^k = RMSNorm_out( W_up Block(u_{0..=i}) )                      [c] -> [C]; no W_up if c = C
//! parallel (Gloeckle et al. 2024):
//!   h_i^k = RMSNorm_out( W_up Block_k(W_down h^0_{0..=i}) )           no W_down, W_up if c = C
//! medusa (Cai et al. 2024, Medusa, section 2.1):
//!   h_i^k = h_i^0 + silu( W_k h_i^0 + b_k )                           W_k = W_up W_down if c < C
//! ```
//!
//! Each head of a kind with attention has a KV cache of its own over positions i, with index L + k − 1. A recursive
//! kind has K caches and one set of weights.
//!
//! Heads read the trunk, and the trunk never reads a head: a model without its heads computes the same logits, bit for
//! bit.

use super::block::{Block, linear};
use super::declare::{Declare, Init};
use super::{Config, HeadKind, Model};
use crate::exec::{Exec, NoGrad, Rows};
use crate::ops::{Add, AddBias, Concat, SelectRows, Silu};
use crate::tensor::ParamId;

/// A head's parameters; all heads of the recursive kind have the same.
#[derive(Debug)]
pub(super) enum HeadParams<T = ParamId> {
    /// A transformer layer between projections.
    Layer {
        input: Input<T>,
        block: Box<Block<T>>,
        up: Option<T>,
        norm: T,
    },
    /// A residual SiLU layer.
    Residual { down: Option<T>, up: T, bias: T },
}

/// The input of a head's block.
#[derive(Debug)]
pub(super) enum Input<T> {
    /// The next token's embedding, and the previous head's hidden state.
    TokenAndHidden {
        norm_embedding: T,
        norm_hidden: T,
        fc: T,
    },
    /// The trunk's hidden state.
    Hidden { down: Option<T> },
}

impl<T> HeadParams<T> {
    /// Head k = 1..=K.
    pub fn declare(config: &Config, k: usize, to: &mut Declare<'_, T>) -> Self {
        let (c, width, is_narrow) = (
            config.hidden_size,
            config.mtp_hidden_size,
            config.is_narrow(),
        );
        let to = &mut match config.mtp_kind {
            // All heads share one module.
            HeadKind::Recursive => to.below("mtp."),
            _ => to.below(&format!("mtp.modules.{}.", k - 1)),
        };
        let input = match config.mtp_kind {
            HeadKind::Recursive | HeadKind::Sequential => Input::TokenAndHidden {
                norm_embedding: to.norm("pre_fc_norm_embedding", c),
                norm_hidden: to.norm("pre_fc_norm_hidden", c),
                fc: to.linear("fc", width, 2 * c),
            },
            HeadKind::Parallel => Input::Hidden {
                down: is_narrow.then(|| to.linear("down", width, c)),
            },
            // The layer adds silu(0) = 0 at first, so the head starts as the trunk's hidden state.
            HeadKind::Medusa => {
                let (last, inputs) = if is_narrow {
                    ("up", width)
                } else {
                    ("linear", c)
                };
                return Self::Residual {
                    down: is_narrow.then(|| to.linear("down", width, c)),
                    up: to.parameter(&format!("{last}.weight"), &[c, inputs], Init::Zero),
                    bias: to.parameter(&format!("{last}.bias"), &[c], Init::Zero),
                };
            }
        };
        let shape = (
            width,
            config.mtp_attention_heads(),
            config.mtp_intermediate_size,
        );
        let layer = &mut to.below("layers.0.");
        let block = Block::declare(layer, shape, config.use_qk_norm, 2.0);
        Self::Layer {
            input,
            block: Box::new(block),
            up: is_narrow.then(|| to.linear("up", c, width)),
            norm: to.norm("norm", c),
        }
    }
}

impl Model {
    /// Index of the KV cache of head k = 1..=K. It stays empty if the kind is not [`HeadKind::cached`].
    pub fn head_cache(&self, k: usize) -> usize {
        self.config.num_hidden_layers + k - 1
    }

    /// h^k [rows, C] of head k = 1..=K.
    ///
    /// `h` [rows, C] is h^{k-1} for a chained kind and h^0 for the others; `head_inputs` `[rows]` holds x_{i+k}; only
    /// chained kinds read it.
    ///
    /// # Panics
    /// Panics if there is no head k.
    #[track_caller]
    pub fn head<E: Exec>(
        &self,
        exec: &mut E,
        k: usize,
        h: &E::Value,
        head_inputs: &[u32],
        rows: &Rows,
    ) -> E::Value {
        let depth = self.config.mtp_depth;
        assert!((1..=depth).contains(&k), "Model::head: head {k} of {depth}");
        let chained = self.config.mtp_kind.chained();
        let e = chained.then(|| self.embed(exec, head_inputs));
        self.head_with_embedding(exec, k, e.as_ref(), h, rows)
    }

    /// h^k over whole sequences, with its rows: the positions i of each sequence for which x_{i+k} lies inside it.
    ///
    /// `states` holds h^0, h^1, .. with their rows, at least up to [`HeadKind::source`] of k. `head_inputs` holds
    /// x_{i+k} for the rows of head k; only chained kinds read it. If `embedding_grad` is not set, the embedding gets
    /// no gradient.
    pub fn head_forward_full<E: Exec>(
        &self,
        exec: &mut E,
        k: usize,
        states: &[(E::Value, Rows)],
        head_inputs: &[u32],
        embedding_grad: bool,
    ) -> (E::Value, Rows) {
        let source = self.config.mtp_kind.source(k);
        let (h, rows) = &states[source];
        let (rows, indices) = rows.without_last(k - source);
        let h = exec.apply(SelectRows { indices }, [h]);
        let chained = self.config.mtp_kind.chained();
        let e = chained.then(|| self.embed(&mut NoGrad::when(!embedding_grad, exec), head_inputs));
        let h = self.head_with_embedding(exec, k, e.as_ref(), &h, &rows);
        (h, rows)
    }

    /// [`Model::head`], with the embeddings E[x_{i+k}] [rows, C] for chained kinds.
    fn head_with_embedding<E: Exec>(
        &self,
        exec: &mut E,
        k: usize,
        e: Option<&E::Value>,
        h: &E::Value,
        rows: &Rows,
    ) -> E::Value {
        let (input, block, up, norm) = match &self.heads[k - 1] {
            HeadParams::Residual { down, up, bias } => {
                let narrowed = down.map(|down| linear(exec, h, down));
                let y = linear(exec, narrowed.as_ref().unwrap_or(h), *up);
                let bias = exec.param(*bias);
                let y = exec.apply(AddBias, [&y, &bias]);
                let y = exec.apply(Silu, [&y]);
                return exec.apply(Add, [h, &y]);
            }
            HeadParams::Layer {
                input,
                block,
                up,
                norm,
            } => (input, block, up, norm),
        };
        let context = self.context(rows);
        let u = match input {
            Input::TokenAndHidden {
                norm_embedding,
                norm_hidden,
                fc,
            } => {
                let e = e.expect("a chained kind reads tokens");
                let e = context.norm(exec, e, *norm_embedding);
                let h = context.norm(exec, h, *norm_hidden);
                let both = exec.apply(Concat, [&e, &h]);
                linear(exec, &both, *fc)
            }
            Input::Hidden { down: Some(down) } => linear(exec, h, *down),
            Input::Hidden { down: None } => h.clone(),
        };
        let mut y = block.forward(exec, &context, self.head_cache(k), &u);
        if let Some(up) = up {
            y = linear(exec, &y, *up);
        }
        context.norm(exec, &y, *norm)
    }
}
