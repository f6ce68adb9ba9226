//! How the parts of a model declare their parameters: name, shape and initial value stand where the part is made.

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
pub(super) enum Init {
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

/// Takes the parameters that a part of a model declares, and returns a `T` for each: its place in a model, or nothing
/// when they are only listed.
pub(super) struct Declare<'a, T> {
    prefix: String,
    take: &'a mut dyn FnMut(ParamSpec) -> T,
}

impl<'a, T> Declare<'a, T> {
    pub fn new(take: &'a mut dyn FnMut(ParamSpec) -> T) -> Self {
        let prefix = String::new();
        Self { prefix, take }
    }

    /// For the parameters whose names begin with this prefix.
    pub fn below(&mut self, prefix: &str) -> Declare<'_, T> {
        let prefix = format!("{}{prefix}", self.prefix);
        Declare {
            prefix,
            take: self.take,
        }
    }

    pub fn parameter(&mut self, name: &str, shape: &[usize], init: Init) -> T {
        (self.take)(ParamSpec {
            name: format!("{}{name}", self.prefix),
            shape: shape.to_vec(),
            init,
        })
    }

    /// The weight of a norm.
    pub fn norm(&mut self, name: &str, width: usize) -> T {
        self.parameter(&format!("{name}.weight"), &[width], Init::One)
    }

    /// A matrix whose elements have this standard deviation.
    pub fn matrix(&mut self, name: &str, shape: [usize; 2], deviation: f64) -> T {
        self.parameter(&format!("{name}.weight"), &shape, Init::Normal(deviation))
    }

    /// A matrix that preserves the variance of its input: standard deviation 1 / √inputs.
    pub fn linear(&mut self, name: &str, outputs: usize, inputs: usize) -> T {
        self.matrix(name, [outputs, inputs], 1.0 / (inputs as f64).sqrt())
    }
}
