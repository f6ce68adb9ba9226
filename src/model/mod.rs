//! The model: a transformer trunk with K prediction heads, written once against [`crate::exec::Exec`].
//!
//! | file | what |
//! |---|---|
//! | [`config`] | [`Config`]: the sizes; presets |
//! | [`config_keys`] | the file format `config.json`: which keys are used, checked, ignored or refused |
//! | [`kind`] | [`HeadKind`]: what each kind of head reads and caches |
//! | [`declare`] | name, shape and initial value of a parameter |
//! | [`layout`] | the list of all parameters |
//! | [`block`] | one transformer layer |
//! | [`trunk`] | embedding, layers, final norm, LM head |
//! | [`heads`] | the K prediction heads, by kind |
//! | [`loss`] | the joint loss, on any executor |
//! | [`backward`](mod@backward) | the step that trains: the joint loss and its gradient |
//! | [`count`] | numbers of parameters, and of floating-point operations per token |
//! | [`edit_heads`] | removing heads from a model, and adding new ones |
//!
//! This folder opens no files, and knows nothing about optimisers or how tokens are chosen.
//!
//! Rules R1, R2, .. are those of [`crate::manual::one_answer`].

pub mod backward;
pub mod block;
pub mod config;
pub mod config_keys;
pub mod count;
pub mod declare;
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
use crate::tensor::{Params, Tensor};
use declare::{Declare, ParamSpec};
use std::sync::{Arc, Mutex};

/// A transformer trunk with K prediction heads.
#[derive(Debug)]
pub struct Model {
    config: Config,
    params: Params,
    trunk: trunk::TrunkParams,
    heads: Vec<heads::HeadParams>,
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
        Self::build(config, |spec| Ok(spec.init(seed)))
    }

    /// A model whose parameters `take` returns by name and shape.
    ///
    /// # Errors
    /// Returns [`crate::Error::Config`] if `config` is not valid, and the errors of `take`.
    pub fn from_parts(
        config: Config,
        mut take: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        Self::build(config, |spec| {
            Ok(Tensor::new(&spec.shape, take(&spec.name, &spec.shape)?))
        })
    }

    /// A model whose parameters `make` returns.
    fn build(config: Config, mut make: impl FnMut(&ParamSpec) -> Result<Tensor>) -> Result<Self> {
        config.check()?;
        let mut entries = Vec::new();
        for spec in layout::layout(&config) {
            let tensor = make(&spec)?;
            entries.push((spec.name, tensor));
        }
        let params = Params::new(entries);
        let mut find = |spec: ParamSpec| {
            let id = params.find(&spec.name);
            id.expect("a tensor of the layout")
        };
        let mut declare = Declare::new(&mut find);
        let trunk = trunk::TrunkParams::declare(&config, &mut declare);
        let heads = 1..=config.mtp_depth;
        let heads = heads.map(|k| heads::HeadParams::declare(&config, k, &mut declare));
        let heads = heads.collect();
        let table = RopeTable::new(0, config.head_dim, config.rope_theta);
        Ok(Self {
            config,
            params,
            trunk,
            heads,
            rope: Mutex::new(Arc::new(table)),
        })
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
        for id in self.params.ids() {
            if self.params.get(id).shape().len() == 2 {
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
        let read = |(name, t): (&str, &Tensor)| {
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
    fn context<'a>(&self, rows: &'a Rows) -> block::ForwardContext<'a> {
        let ends = rows.spans().iter().map(|s| s.first + s.len);
        let end = ends.max().unwrap_or(0);
        let max = self.config.max_position_embeddings;
        assert!(end <= max, "position {end} of a model with {max}");
        let mut table = self.rope.lock().unwrap_or_else(|e| e.into_inner());
        if table.positions() < end {
            let positions = end.next_power_of_two().max(256).min(max);
            let theta = self.config.rope_theta;
            *table = Arc::new(RopeTable::new(positions, self.config.head_dim, theta));
        }
        block::ForwardContext {
            rows,
            positions: rows.positions(),
            table: Arc::clone(&table),
            eps: self.config.rms_norm_eps as f32,
        }
    }
}
