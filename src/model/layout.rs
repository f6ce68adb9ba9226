//! Names, shapes and initial values of a model's parameters. The names are those of the public checkpoints.
//!
//! Heads are numbered k = 1..=K here as everywhere; in the names of tensors, modules are numbered from 0.

use super::{Config, HeadKind};
use crate::kernels::attention::AttentionHeads;
use crate::tensor::{Tensor, init};

/// A parameter's specification.
#[derive(Clone, Debug)]
pub struct ParamSpec {
    /// Its name in a checkpoint.
    pub name: String,
    /// [outputs, inputs] of a matrix, `[width]` of a norm weight or a bias.
    pub shape: Vec<usize>,
    init: Init,
}

/// Initial values.
#[derive(Clone, Copy, Debug)]
enum Init {
    /// Normally distributed, with this standard deviation.
    Normal(f64),
    /// One: a norm weight.
    One,
    /// Zero: a bias, or a layer that starts as a no-op.
    Zero,
}

impl ParamSpec {
    /// The initial value. It depends on the seed and the tensor's name only.
    pub fn init(&self, seed: u64) -> Tensor {
        match self.init {
            Init::Normal(deviation) => init::normal(seed, &self.name, &self.shape, deviation),
            Init::One => init::ones(&self.shape),
            Init::Zero => Tensor::zeros(&self.shape),
        }
    }
}

/// Whether the tensor of that name belongs to the prediction heads.
pub fn is_head(name: &str) -> bool {
    name.starts_with("mtp.")
}

/// The first head k = 1..=K that uses the tensor of that name; none for a tensor of the trunk.
pub fn first_head(name: &str) -> Option<usize> {
    let module = name.strip_prefix("mtp.")?.strip_prefix("modules.");
    let number = module.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    Some(number.map_or(1, |k| k + 1))
}

/// Standard deviation of the embedding matrix and the LM head.
const EMBEDDING_DEVIATION: f64 = 0.02;

/// All parameters, in no particular order.
pub fn layout(config: &Config) -> Vec<ParamSpec> {
    let mut list = List(Vec::new());
    let c = config.hidden_size;
    let embedding = [config.vocab_size, c];
    list.matrix("model.embed_tokens.weight", embedding, EMBEDDING_DEVIATION);
    if !config.tie_word_embeddings {
        list.matrix("lm_head.weight", embedding, EMBEDDING_DEVIATION);
    }
    list.weight("model.norm.weight", c);
    // Each layer adds two terms to the residual stream. Their variances sum to one.
    let terms = 2.0 * config.num_hidden_layers as f64;
    for l in 0..config.num_hidden_layers {
        let prefix = format!("model.layers.{l}.");
        let shape = (c, config.heads(), config.intermediate_size);
        list.block(&prefix, shape, config.use_qk_norm, terms);
    }
    let modules = match config.mtp_kind {
        HeadKind::Recursive => config.mtp_depth.min(1),
        _ => config.mtp_depth,
    };
    for k in 1..=modules {
        list.head(config, &head_prefix(config.mtp_kind, k));
    }
    list.0
}

/// Prefix of the names of head k's parameters, k = 1..=K. All heads of the recursive kind share one module.
pub(super) fn head_prefix(kind: HeadKind, k: usize) -> String {
    match kind {
        HeadKind::Recursive => "mtp.".to_owned(),
        _ => format!("mtp.modules.{}.", k - 1),
    }
}

struct List(Vec<ParamSpec>);

impl List {
    fn push(&mut self, name: &str, shape: &[usize], init: Init) {
        self.0.push(ParamSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
            init,
        });
    }

    fn weight(&mut self, name: &str, width: usize) {
        self.push(name, &[width], Init::One);
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2], deviation: f64) {
        self.push(name, &shape, Init::Normal(deviation));
    }

    /// A matrix that preserves the variance of its input: standard deviation 1 / √inputs.
    fn linear(&mut self, name: &str, outputs: usize, inputs: usize) {
        let deviation = 1.0 / (inputs as f64).sqrt();
        self.matrix(name, [outputs, inputs], deviation);
    }

    /// One head's module.
    fn head(&mut self, config: &Config, prefix: &str) {
        let (c, narrow) = (config.hidden_size, config.mtp_hidden_size);
        let name = |part: &str| format!("{prefix}{part}");
        match config.mtp_kind {
            HeadKind::Recursive | HeadKind::Sequential => {
                self.weight(&name("pre_fc_norm_embedding.weight"), c);
                self.weight(&name("pre_fc_norm_hidden.weight"), c);
                self.linear(&name("fc.weight"), narrow, 2 * c);
                self.module(config, prefix);
            }
            HeadKind::Parallel => {
                if config.slim() {
                    self.linear(&name("down.weight"), narrow, c);
                }
                self.module(config, prefix);
            }
            // The layer adds silu(0) = 0 at first, so the head starts as the trunk's hidden state.
            HeadKind::Medusa if config.slim() => {
                self.linear(&name("down.weight"), narrow, c);
                self.push(&name("up.weight"), &[c, narrow], Init::Zero);
                self.push(&name("up.bias"), &[c], Init::Zero);
            }
            HeadKind::Medusa => {
                self.push(&name("linear.weight"), &[c, c], Init::Zero);
                self.push(&name("linear.bias"), &[c], Init::Zero);
            }
        }
    }

    /// A head's block, its up projection and its final norm.
    fn module(&mut self, config: &Config, prefix: &str) {
        let shape = (
            config.mtp_hidden_size,
            config.head_attention(),
            config.mtp_intermediate_size,
        );
        self.block(
            &format!("{prefix}layers.0."),
            shape,
            config.use_qk_norm,
            2.0,
        );
        if config.slim() {
            let name = format!("{prefix}up.weight");
            self.linear(&name, config.hidden_size, config.mtp_hidden_size);
        }
        self.weight(&format!("{prefix}norm.weight"), config.hidden_size);
    }

    fn block(
        &mut self,
        prefix: &str,
        (c, heads, f): (usize, AttentionHeads, usize),
        qk_norm: bool,
        residual_terms: f64,
    ) {
        let name = |part: &str| format!("{prefix}{part}.weight");
        let (q, kv) = (heads.query * heads.size, heads.key_value * heads.size);
        self.weight(&name("input_layernorm"), c);
        self.weight(&name("post_attention_layernorm"), c);
        if qk_norm {
            self.weight(&name("self_attn.q_norm"), heads.size);
            self.weight(&name("self_attn.k_norm"), heads.size);
        }
        self.linear(&name("self_attn.q_proj"), q, c);
        self.linear(&name("self_attn.k_proj"), kv, c);
        self.linear(&name("self_attn.v_proj"), kv, c);
        self.linear(&name("mlp.gate_proj"), f, c);
        self.linear(&name("mlp.up_proj"), f, c);
        let residual = |inputs: usize| 1.0 / (inputs as f64 * residual_terms).sqrt();
        self.matrix(&name("self_attn.o_proj"), [c, q], residual(q));
        self.matrix(&name("mlp.down_proj"), [c, f], residual(f));
    }
}
