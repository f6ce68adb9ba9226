//! The prediction heads. Head k = 1..=K at position i predicts x_{i+k+1}, k tokens beyond the trunk's next one.
//!
//! ```text
//! recursive (one module used K times; Cai et al. 2025, FastMTP):
//!   u_i   = W_fc [ RMSNorm_e(E[x_{i+k}]) ; RMSNorm_h(h_i^{k-1}) ]     [2C] -> [c]
//!   h_i^k = RMSNorm_out( W_up Block(u_{0..=i}) )                      c -> C; no W_up where c = C
//! parallel (Gloeckle et al. 2024):
//!   h_i^k = RMSNorm_out( W_up Block_k(W_down h^0_{0..=i}) )           no W_down, W_up where c = C
//! ```
//!
//! Each depth has a cache of its own over positions i, number L + k − 1.

use super::block::{Block, linear};
use super::{Config, Find, HeadKind, Model};
use crate::autograd::Var;
use crate::exec::{Exec, Rows};
use crate::ops::Concat;
use crate::tensor::ParamId;

/// Places of a head's parameters; the same for every depth of a recursive head.
#[derive(Debug)]
pub(super) struct Ids {
    input: Input,
    block: Block,
    up: Option<ParamId>,
    norm: ParamId,
}

/// What a head's block is fed.
#[derive(Debug)]
enum Input {
    /// The next token's embedding and the previous depth's hidden state.
    TokenAndHidden {
        norm_embedding: ParamId,
        norm_hidden: ParamId,
        fc: ParamId,
    },
    /// The trunk's hidden state.
    Hidden { down: Option<ParamId> },
}

impl Ids {
    /// Head `k` = 0..K.
    pub fn find(config: &Config, k: usize, find: Find<'_>) -> Self {
        let slim = config.mtp_hidden_size != config.hidden_size;
        let (prefix, input) = match config.mtp_kind {
            HeadKind::Recursive => {
                let input = Input::TokenAndHidden {
                    norm_embedding: find("mtp.pre_fc_norm_embedding.weight"),
                    norm_hidden: find("mtp.pre_fc_norm_hidden.weight"),
                    fc: find("mtp.fc.weight"),
                };
                ("mtp.".to_owned(), input)
            }
            HeadKind::Parallel => {
                let prefix = format!("mtp.modules.{k}.");
                let down = slim.then(|| find(&format!("{prefix}down.weight")));
                (prefix, Input::Hidden { down })
            }
        };
        let block = format!("{prefix}layers.0.");
        Self {
            input,
            block: Block::find(&block, config.mtp_heads(), config.use_qk_norm, find),
            up: slim.then(|| find(&format!("{prefix}up.weight"))),
            norm: find(&format!("{prefix}norm.weight")),
        }
    }
}

impl HeadKind {
    /// Whether a head reads the token it follows, and the previous depth's hidden state instead of the trunk's.
    pub fn chained(self) -> bool {
        match self {
            Self::Recursive => true,
            Self::Parallel => false,
        }
    }

    /// Whether a depth keeps keys and values of its own.
    pub fn cached(self) -> bool {
        match self {
            Self::Recursive | Self::Parallel => true,
        }
    }

    /// Entries of depth k that were computed from tokens before position `p` only, where the trunk has seen positions
    /// 0..`p`: entry i of a chained kind reads tokens up to x_{i+k}, of the others up to x_i.
    pub fn settled(self, k: usize, p: usize) -> usize {
        match self.chained() {
            true => p.saturating_sub(k),
            false => p,
        }
    }
}

impl Model {
    /// Number of the cache of head k = 1..=K.
    pub fn head_cache(&self, k: usize) -> usize {
        self.config.num_hidden_layers + k - 1
    }

    /// h^k [rows, C] of head k = 1..=K.
    ///
    /// `h` [rows, C] is h^{k-1} for a chained kind and h^0 for the others; `following` `[rows]` holds x_{i+k} and is read
    /// by chained kinds only.
    pub fn head<E: Exec>(
        &self,
        exec: &mut E,
        k: usize,
        h: &Var,
        following: &[u32],
        rows: &Rows,
    ) -> Var {
        let ids = &self.heads[k - 1];
        let pass = self.pass(rows);
        let u = match &ids.input {
            Input::TokenAndHidden {
                norm_embedding,
                norm_hidden,
                fc,
            } => {
                let e = self.embed(exec, following);
                let e = pass.norm(exec, &e, *norm_embedding);
                let h = pass.norm(exec, h, *norm_hidden);
                let both = exec.apply(Concat, [&e, &h]);
                linear(exec, &both, *fc)
            }
            Input::Hidden { down: Some(down) } => linear(exec, h, *down),
            Input::Hidden { down: None } => h.clone(),
        };
        let mut y = ids.block.forward(exec, &pass, self.head_cache(k), &u);
        if let Some(up) = ids.up {
            y = linear(exec, &y, up);
        }
        pass.norm(exec, &y, ids.norm)
    }
}
