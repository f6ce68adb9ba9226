//! Where gradients go (rule R7).
//!
//! A parameter's gradient is an accumulator: it starts at +0, uses arrive in reverse forward order, and a product goes
//! on with the accumulator's chain. An activation's first gradient is assigned and each later one is one addition.

use crate::kernels::elementwise;
use crate::tensor::{ParamId, Params, Tensor};

/// One gradient for each parameter that learns.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// By place; without elements for a parameter that does not learn.
    tensors: Vec<Tensor>,
}

impl Gradients {
    /// All +0.
    pub fn zeros(params: &Params) -> Self {
        Self::zeros_of(params, &|_| true)
    }

    /// +0 for the parameters whose name learns. The others have no memory here, and nothing may send them a gradient.
    pub fn zeros_of(params: &Params, learns: &dyn Fn(&str) -> bool) -> Self {
        let zeros = |(name, t): (&str, &Tensor)| match learns(name) {
            true => Tensor::zeros(t.shape()),
            false => Tensor::zeros(&[0]),
        };
        Self {
            tensors: params.iter().map(zeros).collect(),
        }
    }

    /// Number of elements of all gradients.
    pub fn elements(&self) -> usize {
        self.tensors.iter().map(|t| t.data().len()).sum()
    }

    /// Back to +0.
    pub fn clear(&mut self) {
        for t in &mut self.tensors {
            t.data_mut().fill(0.0);
        }
    }

    /// The parameter's gradient, of its shape; of shape `[0]` where the parameter does not learn.
    pub fn get(&self, id: ParamId) -> &Tensor {
        &self.tensors[id.index()]
    }

    /// The parameter's accumulator, to be gone on with.
    pub fn get_mut(&mut self, id: ParamId) -> &mut Tensor {
        &mut self.tensors[id.index()]
    }
}

/// Where an input came from, and so where its gradient goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GradSlot {
    /// Nobody wants the gradient.
    Constant,
    /// The output of an operation on the tape.
    Node(usize),
    /// A parameter.
    Parameter(ParamId),
}

/// Takes the gradients of one operation's N inputs.
pub struct GradSink<'a, const N: usize> {
    pub(super) places: [GradSlot; N],
    pub(super) activations: &'a mut [Option<Tensor>],
    pub(super) parameters: &'a mut Gradients,
}

impl<const N: usize> GradSink<'_, N> {
    /// Whether input `i` wants a gradient.
    pub fn needs_grad(&self, i: usize) -> bool {
        self.places[i] != GradSlot::Constant
    }

    /// Gives input `i` a finished gradient: assigned if it is an activation's first, else added.
    pub fn add(&mut self, i: usize, d: Tensor) {
        match self.places[i] {
            GradSlot::Constant => {}
            GradSlot::Parameter(id) => {
                let sum = &mut self.parameters.tensors[id.index()];
                assert_eq!(sum.shape(), d.shape(), "the gradient of a parameter");
                elementwise::accumulate(sum.data_mut(), d.data());
            }
            GradSlot::Node(node) => match &mut self.activations[node] {
                Some(sum) => elementwise::accumulate(sum.data_mut(), d.data()),
                slot => *slot = Some(d),
            },
        }
    }

    /// The accumulator of input `i`'s gradient, of this shape, to be gone on with and then [put back](Self::put_accumulator): a
    /// parameter's own, +0 for an activation. `None` where nobody wants it.
    ///
    /// # Panics
    /// Where it is taken already: one parameter cannot be two inputs of an operation that takes.
    pub fn take_accumulator(&mut self, i: usize, shape: &[usize]) -> Option<Tensor> {
        match self.places[i] {
            GradSlot::Constant => None,
            GradSlot::Parameter(id) => {
                let own = &mut self.parameters.tensors[id.index()];
                assert_eq!(own.shape(), shape, "an accumulator is taken once");
                Some(std::mem::replace(own, Tensor::zeros(&[0])))
            }
            GradSlot::Node(_) => Some(Tensor::zeros(shape)),
        }
    }

    /// Puts back what was taken.
    pub fn put_accumulator(&mut self, i: usize, accumulator: Option<Tensor>) {
        match (self.places[i], accumulator) {
            (GradSlot::Parameter(id), Some(d)) => self.parameters.tensors[id.index()] = d,
            (_, Some(d)) => self.add(i, d),
            (_, None) => {}
        }
    }

    /// Lets `f` go on with the chains of input `i`'s gradient, of this shape: a parameter's accumulator itself, +0 for
    /// an activation.
    pub fn accumulate(&mut self, i: usize, shape: &[usize], f: impl FnOnce(&mut Tensor)) {
        match self.places[i] {
            GradSlot::Constant => {}
            GradSlot::Parameter(id) => {
                let sum = &mut self.parameters.tensors[id.index()];
                assert_eq!(sum.shape(), shape, "the gradient of a parameter");
                f(sum);
            }
            GradSlot::Node(_) => {
                let mut d = Tensor::zeros(shape);
                f(&mut d);
                self.add(i, d);
            }
        }
    }
}
