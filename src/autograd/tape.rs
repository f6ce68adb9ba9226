//! The tape: a list of operations done, each with what its backward pass needs.

use super::gradients::GradSlot;
use super::{GradSink, Gradients, Op};
use crate::profile;
use crate::tensor::{ParamId, Tensor};
use std::any::type_name;
use std::sync::Arc;

/// A value that a computation made, with the place its gradient belongs to.
#[derive(Clone, Debug)]
pub struct Var {
    value: Arc<Tensor>,
    place: GradSlot,
}

impl Var {
    /// A value whose gradient nobody wants.
    pub fn constant(value: impl Into<Arc<Tensor>>) -> Self {
        Self {
            value: value.into(),
            place: GradSlot::Constant,
        }
    }

    /// A parameter.
    pub fn parameter(id: ParamId, value: Arc<Tensor>) -> Self {
        Self {
            value,
            place: GradSlot::Parameter(id),
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

/// The place of a leaf on its tape. It does not keep the leaf's value in memory.
#[derive(Clone, Copy, Debug)]
pub struct Leaf(usize);

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
    /// `None` stands for a leaf.
    nodes: Vec<Option<Box<dyn Node>>>,
}

impl Tape {
    /// Does an operation and records it, unless no gradient can pass through it.
    pub fn apply<O, const N: usize>(&mut self, op: O, inputs: [&Var; N]) -> Var
    where
        O: Op<N> + 'static,
        O::Saved: 'static,
    {
        let values = inputs.map(Var::value);
        let (y, saved) = profile::time(type_name::<O>(), "forward", || op.forward(values));
        let places = inputs.map(|v| v.place);
        if places.iter().all(|p| *p == GradSlot::Constant) {
            return Var::constant(y);
        }
        let place = GradSlot::Node(self.nodes.len());
        self.nodes
            .push(Some(Box::new(Recorded { op, saved, places })));
        Var {
            value: Arc::new(y),
            place,
        }
    }

    /// A value from elsewhere whose gradient [`Tape::backward_to`] returns, and its place, which outlives the value.
    pub fn leaf(&mut self, value: impl Into<Arc<Tensor>>) -> (Var, Leaf) {
        let leaf = Leaf(self.nodes.len());
        self.nodes.push(None);
        let var = Var {
            value: value.into(),
            place: GradSlot::Node(leaf.0),
        };
        (var, leaf)
    }

    /// Number of operations and leaves recorded.
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
        let roots = roots
            .iter()
            .map(|(root, d)| (Var::clone(root), d.clone()))
            .collect();
        self.backward_to(roots, None, gradients);
    }

    /// The same, and the gradient of a leaf, if one arrives there. A root that is named several times takes its
    /// gradients in that order, before those of operations that used it. Roots are values to be given away: what nobody
    /// else holds is freed before the first backward pass.
    ///
    /// # Panics
    /// Where a root's gradient has another shape than the root.
    #[track_caller]
    pub fn backward_to(
        self,
        roots: Vec<(Var, Tensor)>,
        leaf: Option<Leaf>,
        gradients: &mut Gradients,
    ) -> Option<Tensor> {
        let mut activations: Vec<Option<Tensor>> = Vec::new();
        activations.resize_with(self.nodes.len(), || None);
        for (root, d) in roots {
            assert_eq!(root.value.shape(), d.shape(), "backward: a root's gradient");
            let mut sink = GradSink {
                places: [root.place],
                activations: &mut activations,
                parameters: gradients,
            };
            sink.add(0, d);
        }
        for (i, node) in self.nodes.into_iter().enumerate().rev() {
            // A leaf keeps its gradient.
            let Some(node) = node else { continue };
            // No gradient arrived: nothing that was asked for depends on this output.
            if let Some(dy) = activations[i].take() {
                node.backward(dy, &mut activations, gradients);
            }
        }
        activations[leaf?.0].take()
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
    places: [GradSlot; N],
}

impl<O: Op<N>, const N: usize> Node for Recorded<O, N> {
    fn backward(
        self: Box<Self>,
        dy: Tensor,
        activations: &mut [Option<Tensor>],
        parameters: &mut Gradients,
    ) {
        let mut sink = GradSink {
            places: self.places,
            activations,
            parameters,
        };
        profile::time(type_name::<O>(), "backward", || {
            self.op.backward(self.saved, dy, &mut sink);
        });
    }
}
