//! Names, shapes and first values of a model's parameters. Names are those of the public checkpoints.

use super::{Config, HeadKind};
use crate::kernels::attention::Heads;
use crate::tensor::{Tensor, init};

/// A parameter to be.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name in a checkpoint.
    pub name: String,
    /// [outputs, inputs] of a matrix, `[width]` of a gain.
    pub shape: Vec<usize>,
    /// Standard deviation of its first values; `None` for a gain, which starts at 1.
    deviation: Option<f64>,
}

impl Spec {
    /// The first value for a seed.
    pub fn first_value(&self, seed: u64) -> Tensor {
        match self.deviation {
            None => init::ones(&self.shape),
            Some(deviation) => init::normal(seed, &self.name, &self.shape, deviation),
        }
    }
}

/// Whether the tensor of that name belongs to the prediction heads.
pub fn is_head(name: &str) -> bool {
    name.starts_with("mtp.")
}

/// Deviation of the embedding, which is also the output matrix.
const EMBEDDING_DEVIATION: f64 = 0.02;

/// All parameters, in no particular order.
pub fn layout(config: &Config) -> Vec<Spec> {
    let mut list = List(Vec::new());
    let c = config.hidden_size;
    let table = [config.vocab_size, c];
    list.matrix("model.embed_tokens.weight", table, EMBEDDING_DEVIATION);
    if !config.tie_word_embeddings {
        list.matrix("lm_head.weight", table, EMBEDDING_DEVIATION);
    }
    list.gain("model.norm.weight", c);
    // Each layer adds two terms to the residual stream; their variance is shared out.
    let depth = 2.0 * config.num_hidden_layers as f64;
    for l in 0..config.num_hidden_layers {
        let prefix = format!("model.layers.{l}.");
        let shape = (c, config.heads(), config.intermediate_size);
        list.block(&prefix, shape, config.use_qk_norm, depth);
    }
    match config.mtp_kind {
        _ if config.mtp_depth == 0 => {}
        HeadKind::Recursive => {
            list.gain("mtp.pre_fc_norm_embedding.weight", c);
            list.gain("mtp.pre_fc_norm_hidden.weight", c);
            list.linear("mtp.fc.weight", config.mtp_hidden_size, 2 * c);
            list.module(config, "mtp.");
        }
        HeadKind::Parallel => {
            for k in 0..config.mtp_depth {
                let prefix = format!("mtp.modules.{k}.");
                if config.mtp_hidden_size != c {
                    list.linear(&format!("{prefix}down.weight"), config.mtp_hidden_size, c);
                }
                list.module(config, &prefix);
            }
        }
    }
    list.0
}

struct List(Vec<Spec>);

impl List {
    fn gain(&mut self, name: &str, width: usize) {
        self.0.push(Spec {
            name: name.to_owned(),
            shape: vec![width],
            deviation: None,
        });
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2], deviation: f64) {
        self.0.push(Spec {
            name: name.to_owned(),
            shape: shape.to_vec(),
            deviation: Some(deviation),
        });
    }

    /// A matrix that keeps the size of its input: deviation 1 / √inputs.
    fn linear(&mut self, name: &str, outputs: usize, inputs: usize) {
        let deviation = 1.0 / (inputs as f64).sqrt();
        self.matrix(name, [outputs, inputs], deviation);
    }

    /// A head's block with what comes after it.
    fn module(&mut self, config: &Config, prefix: &str) {
        let shape = (
            config.mtp_hidden_size,
            config.mtp_heads(),
            config.mtp_intermediate_size,
        );
        self.block(
            &format!("{prefix}layers.0."),
            shape,
            config.use_qk_norm,
            2.0,
        );
        if config.mtp_hidden_size != config.hidden_size {
            let name = format!("{prefix}up.weight");
            self.linear(&name, config.hidden_size, config.mtp_hidden_size);
        }
        self.gain(&format!("{prefix}norm.weight"), config.hidden_size);
    }

    fn block(
        &mut self,
        prefix: &str,
        (c, heads, f): (usize, Heads, usize),
        qk_norm: bool,
        depth: f64,
    ) {
        let name = |part: &str| format!("{prefix}{part}.weight");
        let (q, kv) = (heads.query * heads.size, heads.key_value * heads.size);
        self.gain(&name("input_layernorm"), c);
        self.gain(&name("post_attention_layernorm"), c);
        if qk_norm {
            self.gain(&name("self_attn.q_norm"), heads.size);
            self.gain(&name("self_attn.k_norm"), heads.size);
        }
        self.linear(&name("self_attn.q_proj"), q, c);
        self.linear(&name("self_attn.k_proj"), kv, c);
        self.linear(&name("self_attn.v_proj"), kv, c);
        self.linear(&name("mlp.gate_proj"), f, c);
        self.linear(&name("mlp.up_proj"), f, c);
        let residual = |inputs: usize| 1.0 / (inputs as f64 * depth).sqrt();
        self.matrix(&name("self_attn.o_proj"), [c, q], residual(q));
        self.matrix(&name("mlp.down_proj"), [c, f], residual(f));
    }
}
