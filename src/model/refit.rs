//! Heads taken off a trunk, and put on it. The trunk's parameters stay as they are, to the bit.

use super::{Config, Model, layout};
use crate::{Error, Result};

impl Model {
    /// A copy with the first `depth` of K heads; 0 leaves the trunk alone.
    ///
    /// What remains computes what it computed before: a recursive head keeps its one module, other kinds lose the
    /// modules of the depths that are cut.
    ///
    /// # Errors
    /// [`Error::Config`] for more heads than there are.
    pub fn cut_heads(&self, depth: usize) -> Result<Self> {
        let most = self.config.mtp_depth;
        if depth > most {
            return Err(Error::Config {
                field: "mtp_depth",
                expected: format!("0 to the model's {most} heads"),
                found: depth.to_string(),
            });
        }
        let config = Config {
            mtp_depth: depth,
            ..self.config.clone()
        };
        self.rebuilt(config)
    }

    /// A copy with other sizes that change no tensor which remains: fewer heads, or more positions.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes that no model can have.
    ///
    /// # Panics
    /// Where `config` wants a tensor that this model does not have.
    pub fn rebuilt(&self, config: Config) -> Result<Self> {
        Self::from_parts(config, |name, _| Ok(self.copy(name)))
    }

    /// A copy of the trunk with new heads as `config` says, which has the trunk's sizes; their first values depend on
    /// (seed, tensor name) only.
    ///
    /// # Errors
    /// [`Error::Config`] for heads that no model can have.
    ///
    /// # Panics
    /// Where a tensor of the trunk would have another shape.
    pub fn with_heads(&self, config: Config, seed: u64) -> Result<Self> {
        config.check()?;
        let specs = layout::layout(&config);
        Self::from_parts(config, |name, _| match layout::is_head(name) {
            false => Ok(self.copy(name)),
            true => {
                let spec = specs.iter().find(|s| s.name == name);
                let first = spec.expect("a tensor of the layout").first_value(seed);
                Ok(first.data().to_vec())
            }
        })
    }

    /// The elements of a parameter that this model has.
    fn copy(&self, name: &str) -> Vec<f32> {
        let id = self.params.find(name);
        let id = id.unwrap_or_else(|| panic!("the model has a tensor `{name}`"));
        self.params.get(id).values().into_owned()
    }
}
