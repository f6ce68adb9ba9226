//! Floor 6: the model, written once against [`crate::exec::Exec`].
//!
//! | file | what |
//! |---|---|
//! | [`config`] | [`Config`]: sizes, checked once; presets |
//! | [`kind`] | [`HeadKind`]: what each kind of head reads and keeps |
//! | [`layout`] | names, shapes and first values of all parameters |
//! | [`block`] | one transformer layer |
//! | [`trunk`] | embedding, layers, final norm, output matrix |
//! | [`heads`] | the K prediction heads, by kind |
//! | [`loss`] | the joint loss |
//! | [`backward`](mod@backward) | the joint loss with its gradient, in the memory of one head |
//! | [`count`] | parameters, bytes and floating-point operations |
//! | [`refit`] | heads taken off a trunk and put on it |
//!
//! This folder never knows files, optimisers, or how tokens are chosen.

pub mod backward;
pub mod block;
pub mod config;
pub mod count;
pub mod heads;
pub mod kind;
pub mod layout;
pub mod loss;
pub mod refit;
pub mod trunk;

pub use crate::kernels::gemm::WeightFormat;
pub use config::{Config, Preset};
pub use count::{Counts, Flops};
pub use kind::HeadKind;
pub use loss::{GradFlow, JointLoss, LossReport, Objective};

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
    /// cos and sin for the positions met so far.
    table: Mutex<Arc<RopeTable>>,
}

impl Model {
    /// A model with first values that depend on (seed, tensor name) only.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for sizes that no model can have.
    pub fn new(config: Config, seed: u64) -> Result<Self> {
        config.check()?;
        let first = |spec: layout::Spec| {
            let tensor = spec.first_value(seed);
            (spec.name, tensor)
        };
        let entries = layout::layout(&config).into_iter().map(first).collect();
        Ok(Self::assemble(config, Params::new(entries)))
    }

    /// A model of given parameters, which `take` hands over by name and shape.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for sizes that no model can have, and what `take` returns.
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
        let heads = (0..config.mtp_depth)
            .map(|k| heads::Ids::find(&config, k, &find))
            .collect();
        Self {
            table: Mutex::new(Arc::new(RopeTable::new(
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

    /// The sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The parameters, to be changed between steps.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// Packs every matrix, of trunk and heads, for products with few rows. Decoding the same model is several times
    /// faster afterwards.
    ///
    /// In [`WeightFormat::F32`] it has the same bits. A narrow format rounds the parameters, for good: the model is
    /// another one then, and that model has one answer like any other ([`crate::tensor::Tensor::pack`]).
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

    /// Bytes of weights that a decoding step of the trunk reads, logits included and heads not.
    ///
    /// A step reads every weight once, however many rows it has up to some dozens, except for a table of embeddings that
    /// is not the output matrix: of that one it reads a row for each token, which is not counted.
    pub fn weight_bytes(&self) -> usize {
        let read = |(name, t): (&str, &crate::tensor::Tensor)| {
            let table = name == trunk::EMBEDDING && !self.config.tie_word_embeddings;
            match t.panels() {
                _ if table || layout::is_head(name) => 0,
                Some(panels) => panels.bytes(),
                None => size_of_val(t.data()),
            }
        };
        self.params.iter().map(read).sum()
    }

    /// What a pass over these rows needs.
    fn pass<'a>(&self, rows: &'a Rows) -> block::Pass<'a> {
        let end = rows
            .spans()
            .iter()
            .map(|s| s.first + s.len)
            .max()
            .unwrap_or(0);
        let most = self.config.max_position_embeddings;
        assert!(end <= most, "position {end} of a model with {most}");
        let mut table = self.table.lock().unwrap_or_else(|e| e.into_inner());
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
