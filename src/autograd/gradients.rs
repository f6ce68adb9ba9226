//! The gradients of parameters, and how an operation hands over the gradients of its inputs (rule R7).
//!
//! A parameter's gradient is an accumulator: it starts at +0, uses arrive in reverse forward order, and a matrix
//! multiplication continues the accumulator's FMA chains. An activation's first gradient is assigned and each later one
//! is one addition.

use super::tape::NodeId;
use crate::kernels::elementwise;
use crate::tensor::{ParamId, Params, Tensor};

/// One gradient for each trainable parameter. It outlives the tape, so that several batches can be added up.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// By [`ParamId::index`]; of shape `[0]` for a parameter that is not trained.
    tensors: Vec<Tensor>,
}

impl Gradients {
    /// All +0.
    pub fn zeros(params: &Params) -> Self {
        Self::zeros_of(params, &|_| true)
    }

    /// +0 for the parameters whose name `trains` accepts. The others take no memory, and a gradient that arrives for
    /// one of them is a panic.
    pub fn zeros_of(params: &Params, trains: &dyn Fn(&str) -> bool) -> Self {
        let zeros = |(name, t): (&str, &Tensor)| {
            let shape = if trains(name) { t.shape() } else { &[0] };
            Tensor::zeros(shape)
        };
        Self {
            tensors: params.iter().map(zeros).collect(),
        }
    }

    /// Number of elements of all gradients.
    pub fn elements(&self) -> usize {
        self.tensors.iter().map(|t| t.data().len()).sum()
    }

    /// Sets every gradient back to +0.
    pub fn clear(&mut self) {
        for t in &mut self.tensors {
            t.data_mut().fill(0.0);
        }
    }

    /// The parameter's gradient, of its shape; of shape `[0]` if the parameter is not trained.
    pub fn get(&self, id: ParamId) -> &Tensor {
        &self.tensors[id.index()]
    }

    /// Mutable access to the parameter's gradient accumulator.
    pub fn get_mut(&mut self, id: ParamId) -> &mut Tensor {
        &mut self.tensors[id.index()]
    }
}

/// The destination of a value's gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GradSlot {
    /// No gradient is computed.
    Constant,
    /// To the operation on a tape that made the value, or to the tape's leaf.
    Node(NodeId),
    /// To a parameter's accumulator.
    Parameter(ParamId),
}

/// The gradient of a value on the tape.
pub(super) struct Activation {
    /// The value's shape.
    pub shape: Box<[usize]>,
    /// What has arrived so far.
    pub gradient: Option<Tensor>,
}

/// Takes the gradients of one operation's N inputs.
pub struct GradSink<'a, const N: usize> {
    pub(super) slots: [GradSlot; N],
    pub(super) activations: &'a mut [Activation],
    pub(super) parameters: &'a mut Gradients,
}

impl<const N: usize> GradSink<'_, N> {
    /// Whether input `i` needs a gradient. A gradient for an input that does not need one is dropped.
    pub fn needs_grad(&self, i: usize) -> bool {
        self.slots[i] != GradSlot::Constant
    }

    /// Takes the finished gradient of input `i`: added to a parameter's accumulator, or to what has arrived for an
    /// activation; assigned if it is an activation's first.
    ///
    /// # Panics
    /// Panics if the gradient's shape is not the input's.
    #[track_caller]
    pub fn add(&mut self, i: usize, d: Tensor) {
        match self.slots[i] {
            GradSlot::Constant => {}
            GradSlot::Parameter(id) => {
                let sum = &mut self.parameters.tensors[id.index()];
                assert_eq!(d.shape(), sum.shape(), "input {i}: gradient and parameter");
                elementwise::accumulate(sum.data_mut(), d.data());
            }
            GradSlot::Node(node) => {
                let Activation { shape, gradient } = &mut self.activations[node.index];
                assert_eq!(d.shape(), &**shape, "input {i}: gradient and value");
                match gradient {
                    Some(sum) => elementwise::accumulate(sum.data_mut(), d.data()),
                    first => *first = Some(d),
                }
            }
        }
    }

    /// Lends the accumulator of input `i`'s gradient, of this shape, until it is
    /// [put back](Self::put_accumulator): a parameter's own, or +0 for an activation. `None` if the input needs no
    /// gradient.
    ///
    /// # Panics
    /// Panics if the shape is not the parameter's, or the accumulator is lent already: one parameter cannot be two
    /// inputs of an operation that takes both accumulators at once.
    #[track_caller]
    pub fn take_accumulator(&mut self, i: usize, shape: &[usize]) -> Option<Tensor> {
        match self.slots[i] {
            GradSlot::Constant => None,
            GradSlot::Parameter(id) => {
                let own = &mut self.parameters.tensors[id.index()];
                assert_eq!(own.shape(), shape, "input {i}: accumulator and gradient");
                Some(std::mem::replace(own, Tensor::zeros(&[0])))
            }
            GradSlot::Node(_) => Some(Tensor::zeros(shape)),
        }
    }

    /// Takes back what [`GradSink::take_accumulator`] lent.
    ///
    /// # Panics
    /// Panics if the shape is not the input's.
    #[track_caller]
    pub fn put_accumulator(&mut self, i: usize, accumulator: Option<Tensor>) {
        match (self.slots[i], accumulator) {
            (GradSlot::Parameter(id), Some(d)) => self.parameters.tensors[id.index()] = d,
            (_, Some(d)) => self.add(i, d),
            (_, None) => {}
        }
    }

    /// Lets `f` accumulate into input `i`'s gradient, of this shape, in place. `f` is not called if the input needs no
    /// gradient.
    ///
    /// # Panics
    /// Panics if the shape is not the input's.
    #[track_caller]
    pub fn accumulate(&mut self, i: usize, shape: &[usize], f: impl FnOnce(&mut Tensor)) {
        if let Some(mut d) = self.take_accumulator(i, shape) {
            f(&mut d);
            self.put_accumulator(i, Some(d));
        }
    }
}
