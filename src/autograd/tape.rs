//! The tape: a list of the operations that ran, each with what its backward pass needs.

use super::gradients::{Activation, GradSlot};
use super::{GradSink, Gradients, Op};
use crate::profile;
use crate::tensor::{ParamId, Tensor};
use std::any::type_name;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A value with the destination of its gradient: a parameter, the operation on a tape that made it, or none.
#[derive(Clone, Debug)]
pub struct Var {
    value: Arc<Tensor>,
    slot: GradSlot,
}

impl Var {
    /// A value without a gradient.
    pub fn constant(value: impl Into<Arc<Tensor>>) -> Self {
        Self {
            value: value.into(),
            slot: GradSlot::Constant,
        }
    }

    /// A parameter.
    pub fn parameter(id: ParamId, value: Arc<Tensor>) -> Self {
        Self {
            value,
            slot: GradSlot::Parameter(id),
        }
    }

    /// The same value without a gradient.
    pub fn detached(&self) -> Self {
        Self::constant(Arc::clone(&self.value))
    }

    /// The value.
    pub fn value(&self) -> &Arc<Tensor> {
        &self.value
    }
}

/// A value on a tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeId {
    tape: u64,
    pub(super) index: usize,
}

/// Names a leaf of a tape for [`Tape::backward_to`]. It does not keep the leaf's value in memory.
#[derive(Clone, Copy, Debug)]
pub struct Leaf(NodeId);

/// The backward pass of a recorded operation, given the output's gradient.
type Node = Box<dyn FnOnce(Tensor, &mut [Activation], &mut Gradients)>;

/// Operations in the order they ran.
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
pub struct Tape {
    /// Different for every tape of the process.
    id: u64,
    /// `None` stands for a leaf.
    nodes: Vec<Option<Node>>,
    /// The nodes' outputs.
    activations: Vec<Activation>,
}

impl Default for Tape {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            nodes: Vec::new(),
            activations: Vec::new(),
        }
    }
}

impl Tape {
    /// Runs an operation and records it, unless none of its inputs needs a gradient.
    ///
    /// # Panics
    /// Panics if an input was made by another tape. [`Tape::leaf`] and [`Var::detached`] carry a value over.
    #[track_caller]
    pub fn apply<O, const N: usize>(&mut self, op: O, inputs: [&Var; N]) -> Var
    where
        O: Op<N> + 'static,
    {
        let slots = inputs.map(|v| v.slot);
        slots.iter().for_each(|slot| self.check_own(*slot));
        let values = inputs.map(Var::value);
        let (y, saved) = profile::time(type_name::<O>(), "forward", || op.forward(values));
        if slots.iter().all(|slot| *slot == GradSlot::Constant) {
            return Var::constant(y);
        }
        let backward = move |dy: Tensor, activations: &mut [_], parameters: &mut _| {
            let mut sink = GradSink {
                slots,
                activations,
                parameters,
            };
            profile::time(type_name::<O>(), "backward", || {
                op.backward(saved, dy, &mut sink);
            });
        };
        self.record(y.into(), Some(Box::new(backward))).0
    }

    /// Imports a value, usually from another tape. Its gradient is what [`Tape::backward_to`] returns for the
    /// [`Leaf`].
    pub fn leaf(&mut self, value: impl Into<Arc<Tensor>>) -> (Var, Leaf) {
        let (var, id) = self.record(value.into(), None);
        (var, Leaf(id))
    }

    fn record(&mut self, value: Arc<Tensor>, node: Option<Node>) -> (Var, NodeId) {
        let id = NodeId {
            tape: self.id,
            index: self.nodes.len(),
        };
        self.nodes.push(node);
        self.activations.push(Activation {
            shape: value.shape().into(),
            gradient: None,
        });
        let slot = GradSlot::Node(id);
        (Var { value, slot }, id)
    }

    /// Number of operations and leaves recorded.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Runs every operation's backward pass, last first, from some outputs and the gradient of each. The gradients of
    /// parameters are added to `gradients`.
    ///
    /// # Panics
    /// Panics if an output's gradient does not have the output's shape, or an output was made by another tape.
    #[track_caller]
    pub fn backward(self, outputs: &[(&Var, Tensor)], gradients: &mut Gradients) {
        let outputs = outputs
            .iter()
            .map(|(output, d)| (Var::clone(output), d.clone()))
            .collect();
        self.backward_to(outputs, None, gradients);
    }

    /// Does the same and returns the gradient of a leaf, or `None` if none arrived there.
    ///
    /// An output may be given several times. Its gradients are added in that order, before those from operations that
    /// used it. Outputs are moved in, so that a value with no other owner is freed before the first backward pass.
    ///
    /// # Panics
    /// Panics if an output's gradient does not have the output's shape, or if an output or the leaf belongs to another
    /// tape.
    #[track_caller]
    pub fn backward_to(
        mut self,
        outputs: Vec<(Var, Tensor)>,
        leaf: Option<Leaf>,
        gradients: &mut Gradients,
    ) -> Option<Tensor> {
        if let Some(Leaf(node)) = leaf {
            self.check_own(GradSlot::Node(node));
        }
        for (output, d) in outputs {
            self.check_own(output.slot);
            assert_eq!(d.shape(), output.value.shape(), "gradient and output");
            let mut sink = GradSink {
                slots: [output.slot],
                activations: &mut self.activations,
                parameters: gradients,
            };
            sink.add(0, d);
        }
        for (i, node) in self.nodes.into_iter().enumerate().rev() {
            // A leaf keeps its gradient.
            let Some(backward) = node else { continue };
            // Without a gradient, none of the given outputs depends on this node.
            if let Some(dy) = self.activations[i].gradient.take() {
                backward(dy, &mut self.activations, gradients);
            }
        }
        self.activations[leaf?.0.index].gradient.take()
    }

    /// A node of another tape would send its gradient to an unrelated node of this one.
    #[track_caller]
    fn check_own(&self, slot: GradSlot) {
        if let GradSlot::Node(node) = slot {
            assert!(node.tape == self.id, "a value recorded on another tape");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Params;

    /// Copies a [1, 2] matrix. Backward gives a gradient of this shape.
    struct Copy([usize; 2]);

    impl Op<1> for Copy {
        type Saved = ();

        fn forward(&self, [x]: [&Arc<Tensor>; 1]) -> (Tensor, ()) {
            (Tensor::clone(x), ())
        }

        fn backward(&self, (): (), dy: Tensor, sink: &mut GradSink<'_, 1>) {
            sink.add(0, Tensor::new(&self.0, dy.data().to_vec()));
        }
    }

    fn row() -> Tensor {
        Tensor::new(&[1, 2], vec![1.0, 2.0])
    }

    fn no_parameters() -> Gradients {
        Gradients::zeros(&Params::new(Vec::new()))
    }

    #[test]
    fn a_computation_in_two_pieces() {
        let (mut first, mut second) = (Tape::default(), Tape::default());
        let (x, x_leaf) = first.leaf(row());
        let y = first.apply(Copy([1, 2]), [&x]);
        let (y_there, y_leaf) = second.leaf(Arc::clone(y.value()));
        let z = second.apply(Copy([1, 2]), [&y_there]);
        let dy = second.backward_to(vec![(z, row())], Some(y_leaf), &mut no_parameters());
        let dy = dy.expect("z depends on y");
        let dx = first.backward_to(vec![(y, dy)], Some(x_leaf), &mut no_parameters());
        assert_eq!(dx.expect("y depends on x").data(), row().data());
    }

    #[test]
    #[should_panic(expected = "another tape")]
    fn an_input_of_another_tape() {
        let (x, _) = Tape::default().leaf(row());
        Tape::default().apply(Copy([1, 2]), [&x]);
    }

    #[test]
    #[should_panic(expected = "another tape")]
    fn an_output_of_another_tape() {
        let (x, _) = Tape::default().leaf(row());
        let mut tape = Tape::default();
        tape.leaf(row());
        tape.backward(&[(&x, row())], &mut no_parameters());
    }

    #[test]
    #[should_panic(expected = "another tape")]
    fn a_leaf_of_another_tape() {
        let (_, leaf) = Tape::default().leaf(row());
        let mut tape = Tape::default();
        tape.leaf(row());
        tape.backward_to(Vec::new(), Some(leaf), &mut no_parameters());
    }

    #[test]
    #[should_panic(expected = "gradient and value")]
    fn a_gradient_of_another_shape() {
        let mut tape = Tape::default();
        let (x, _) = tape.leaf(row());
        let y = tape.apply(Copy([2, 1]), [&x]);
        tape.backward(&[(&y, row())], &mut no_parameters());
    }
}
