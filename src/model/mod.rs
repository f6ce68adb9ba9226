//! The model: a transformer trunk with K prediction heads, written once against [`crate::exec::Exec`].
//!
//! | file | what |
//! |---|---|
//! | [`config`] | [`Config`]: the sizes; presets |
//! | [`config_keys`] | the keys of a public `config.json`: used, harmless or refused |
//! | [`kind`] | [`HeadKind`]: what each kind of head reads and caches |
//! | [`layout`] | names, shapes and initial values of all parameters |
//! | [`block`] | one transformer layer |
//! | [`trunk`] | embedding, layers, final norm, LM head |
//! | [`heads`] | the K prediction heads, by kind |
//! | [`loss`] | the joint loss, on any executor |
//! | [`backward`](mod@backward) | the step that trains: the joint loss and its gradient, in the memory of one head |
//! | [`count`] | parameters, bytes and floating-point operations |
//! | [`edit_heads`] | removing heads from a trunk, and adding new ones |
//!
//! This folder knows nothing about files, optimisers, or how tokens are chosen.

pub mod backward;
pub mod block;
pub mod config;
pub mod config_keys;
pub mod count;
pub mod edit_heads;
pub mod heads;
pub mod kind;
pub mod layout;
pub mod loss;
pub mod trunk;

pub use crate::kernels::gemm::WeightFormat;
pub use config::{Config, Preset};
pub use count::{Flops, ParameterCounts};
pub use kind::HeadKind;
pub use loss::{GradFlow, JointLoss, LossReport};

use crate::Result;
use crate::exec::Rows;
use crate::kernels::rope::RopeTable;
use crate::tensor::{ParamId, Params};
use std::sync::{Arc, Mutex};

/// A transformer trunk with K prediction heads.
#[derive(Debug)]
pub struct Model {
    config: Config,
    params: Params,
    trunk: trunk::Ids,
    heads: Vec<heads::Ids>,
    /// cos and sin of RoPE for the positions used so far. It is computed on demand, because a model may allow a million
    /// positions. The lock is held to look at the table, not while a pass uses it; entries never change, so a longer
    /// table gives the same bits.
    rope: Mutex<Arc<RopeTable>>,
}

impl Model {
    /// A new model. Its initial values depend on (seed, tensor name) only.
    ///
    /// # Errors
    /// Returns [`crate::Error::Config`] if `config` is not valid.
    pub fn new(config: Config, seed: u64) -> Result<Self> {
        config.check()?;
        let init = |spec: layout::ParamSpec| {
            let tensor = spec.init(seed);
            (spec.name, tensor)
        };
        let entries = layout::layout(&config).into_iter().map(init).collect();
        Ok(Self::assemble(config, Params::new(entries)))
    }

    /// A model whose parameters `take` returns by name and shape.
    ///
    /// # Errors
    /// Returns [`crate::Error::Config`] if `config` is not valid, and the errors of `take`.
    pub fn from_parts(
        config: Config,
        mut take: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        config.check()?;
        let mut entries = Vec::new();
        for spec in layout::layout(&config) {
            let data = take(&spec.name, &spec.shape)?;
            entries.push((spec.name, crate::tensor::Tensor::new(&spec.shape, data)));
        }
        Ok(Self::assemble(config, Params::new(entries)))
    }

    fn assemble(config: Config, params: Params) -> Self {
        let find = |name: &str| {
            let id = params.find(name);
            id.unwrap_or_else(|| panic!("the layout has a tensor `{name}`"))
        };
        let trunk = trunk::Ids::find(&config, &find);
        let heads = (1..=config.mtp_depth)
            .map(|k| heads::Ids::find(&config, k, &find))
            .collect();
        Self {
            rope: Mutex::new(Arc::new(RopeTable::new(
                0,
                config.head_dim,
                config.rope_theta,
            ))),
            config,
            params,
            trunk,
            heads,
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The parameters, mutably.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// Packs every matrix of trunk and heads for matrix multiplication with few rows, which makes decoding several
    /// times faster.
    ///
    /// [`WeightFormat::F32`] changes no bit. The other formats quantise the parameters for good: the result is a
    /// different model, which has one answer like any other ([`crate::tensor::Tensor::pack`]).
    pub fn pack(&mut self, format: WeightFormat) {
        for spec in layout::layout(&self.config) {
            if spec.shape.len() == 2 {
                let id = self
                    .params
                    .find(&spec.name)
                    .expect("a tensor of the layout");
                self.params.get_mut(id).pack(format);
            }
        }
    }

    /// Unpacks every matrix, as training needs them.
    pub fn unpack(&mut self) {
        for id in self.params.ids() {
            self.params.get_mut(id).unpack();
        }
    }

    /// Bytes of weights that a decoding step reads: the trunk's and the LM head's, without the prediction heads.
    ///
    /// A step of up to some dozens of rows reads every weight once. An embedding matrix that is not the LM head is left
    /// out, because a step reads only one row of it per token.
    pub fn weight_bytes(&self) -> usize {
        let read = |(name, t): (&str, &crate::tensor::Tensor)| {
            let looked_up = name == trunk::EMBEDDING && !self.config.tie_word_embeddings;
            match t.panels() {
                _ if looked_up || layout::is_head(name) => 0,
                Some(panels) => panels.bytes(),
                None => size_of_val(t.data()),
            }
        };
        self.params.iter().map(read).sum()
    }

    /// What the layers of a pass over these rows share.
    ///
    /// # Panics
    /// Panics if a position is not below the model's positions.
    fn pass<'a>(&self, rows: &'a Rows) -> block::Pass<'a> {
        let end = rows
            .spans()
            .iter()
            .map(|s| s.first + s.len)
            .max()
            .unwrap_or(0);
        let most = self.config.max_position_embeddings;
        assert!(end <= most, "position {end} of a model with {most}");
        let mut table = self.rope.lock().unwrap_or_else(|e| e.into_inner());
        if table.positions() < end {
            let positions = end.next_power_of_two().max(256).min(most);
            let theta = self.config.rope_theta;
            *table = Arc::new(RopeTable::new(positions, self.config.head_dim, theta));
        }
        block::Pass {
            rows,
            positions: rows.positions(),
            table: Arc::clone(&table),
            eps: self.config.rms_norm_eps as f32,
        }
    }
}

/// Finds a parameter by name.
type Find<'a> = &'a dyn Fn(&str) -> ParamId;
