//! The tape: a list of operations done, each with what its backward pass needs.

use super::gradients::Place;
use super::{Gradients, Op, Sink};
use crate::tensor::{ParamId, Tensor};
use std::sync::Arc;

/// A value that a computation made, with the place its gradient belongs to.
#[derive(Clone, Debug)]
pub struct Var {
    value: Arc<Tensor>,
    place: Place,
}

impl Var {
    /// A value whose gradient nobody wants.
    pub fn constant(value: impl Into<Arc<Tensor>>) -> Self {
        Self {
            value: value.into(),
            place: Place::Constant,
        }
    }

    /// A parameter.
    pub fn parameter(id: ParamId, value: Arc<Tensor>) -> Self {
        Self {
            value,
            place: Place::Parameter(id),
        }
    }

    /// The same value, whose gradient nobody wants.
    pub fn detached(&self) -> Self {
        Self::constant(Arc::clone(&self.value))
    }

    /// The value.
    pub fn value(&self) -> &Arc<Tensor> {
        &self.value
    }
}

/// Operations in the order they were done.
///
/// `backward` consumes the tape, so it cannot run twice:
///
/// ```compile_fail
/// # use foretoken::{autograd::{Gradients, Tape}, tensor::Params};
/// let mut gradients = Gradients::zeros(&Params::new(Vec::new()));
/// let tape = Tape::default();
/// tape.backward(&[], &mut gradients);
/// tape.backward(&[], &mut gradients); // use of moved value
/// ```
#[derive(Default)]
pub struct Tape {
    nodes: Vec<Box<dyn Node>>,
}

impl Tape {
    /// Does an operation and records it, unless no gradient can pass through it.
    pub fn apply<O, const N: usize>(&mut self, op: O, inputs: [&Var; N]) -> Var
    where
        O: Op<N> + 'static,
        O::Saved: 'static,
    {
        let (y, saved) = op.forward(inputs.map(Var::value));
        let places = inputs.map(|v| v.place);
        if places.iter().all(|p| *p == Place::Constant) {
            return Var::constant(y);
        }
        let place = Place::Node(self.nodes.len());
        self.nodes.push(Box::new(Recorded { op, saved, places }));
        Var {
            value: Arc::new(y),
            place,
        }
    }

    /// Number of operations recorded.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Runs every operation's backward pass, last first, from the given gradients of some outputs; the gradients of
    /// parameters are added to `gradients`.
    ///
    /// # Panics
    /// Where a root's gradient has another shape than the root.
    #[track_caller]
    pub fn backward(self, roots: &[(&Var, Tensor)], gradients: &mut Gradients) {
        let mut activations: Vec<Option<Tensor>> = Vec::new();
        activations.resize_with(self.nodes.len(), || None);
        for (root, d) in roots {
            assert_eq!(root.value.shape(), d.shape(), "backward: a root's gradient");
            let mut sink = Sink {
                places: [root.place],
                activations: &mut activations,
                parameters: gradients,
            };
            sink.give(0, d.clone());
        }
        for (i, node) in self.nodes.into_iter().enumerate().rev() {
            // No gradient arrived: nothing that was asked for depends on this output.
            if let Some(dy) = activations[i].take() {
                node.backward(dy, &mut activations, gradients);
            }
        }
    }
}

/// A recorded operation with its type forgotten.
trait Node {
    fn backward(
        self: Box<Self>,
        dy: Tensor,
        activations: &mut [Option<Tensor>],
        parameters: &mut Gradients,
    );
}

struct Recorded<O: Op<N>, const N: usize> {
    op: O,
    saved: O::Saved,
    places: [Place; N],
}

impl<O: Op<N>, const N: usize> Node for Recorded<O, N> {
    fn backward(
        self: Box<Self>,
        dy: Tensor,
        activations: &mut [Option<Tensor>],
        parameters: &mut Gradients,
    ) {
        let mut sink = Sink {
            places: self.places,
            activations,
            parameters,
        };
        self.op.backward(self.saved, dy, &mut sink);
    }
}
