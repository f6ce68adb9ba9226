//! Removing heads from a model, and adding new ones. The trunk's parameters stay unchanged bit for bit.
//!
//! Heads read the trunk, and the trunk never reads a head. So removing heads changes no logit of what remains; what
//! joint training did to the trunk's weights stays.

use super::{Config, Model, layout};
use crate::tensor::Tensor;
use crate::{Error, Result};

impl Model {
    /// A copy with only the first `num_heads` of the K heads; with 0 it is the trunk alone.
    ///
    /// What remains computes bitwise identical results. The recursive kind keeps its one module; the other kinds lose
    /// the modules of the heads that are cut.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the model has fewer heads.
    pub fn keep_heads(&self, num_heads: usize) -> Result<Self> {
        let max = self.config.mtp_depth;
        if num_heads > max {
            return Err(Error::Config {
                field: "mtp_depth".to_owned(),
                expected: format!("0 to the model's {max} heads"),
                found: num_heads.to_string(),
            });
        }
        let config = Config {
            mtp_depth: num_heads,
            ..self.config.clone()
        };
        self.with_config(config)
    }

    /// A copy with a configuration that changes no remaining tensor: fewer heads, or more positions.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if `config` is not valid.
    ///
    /// # Panics
    /// Panics if `config` needs a tensor that this model does not have, or has with a different shape.
    pub fn with_config(&self, config: Config) -> Result<Self> {
        Self::from_parts(config, |name, _| Ok(self.copy(name)))
    }

    /// A copy of the trunk with the heads of `config`, newly initialised from (seed, tensor name).
    ///
    /// # Errors
    /// Returns [`Error::Config`] if `config` is not valid.
    ///
    /// # Panics
    /// Panics if `config` gives a tensor of the trunk a different shape.
    pub fn with_heads(&self, config: Config, seed: u64) -> Result<Self> {
        Self::build(config, |spec| {
            Ok(if layout::is_head(&spec.name) {
                spec.init(seed)
            } else {
                Tensor::new(&spec.shape, self.copy(&spec.name))
            })
        })
    }

    /// The elements of a parameter of this model.
    fn copy(&self, name: &str) -> Vec<f32> {
        let id = self.params.find(name);
        let id = id.unwrap_or_else(|| panic!("the model has a tensor `{name}`"));
        self.params.get(id).values().into_owned()
    }
}
