//! The laws find what is broken.

use super::*;
use crate::autograd::GradSink;
use crate::kernels::par;
use std::panic::catch_unwind;

/// y = 2 x, unless broken.
#[derive(Clone)]
struct Double {
    forward: fn() -> f32,
    backward: f32,
}

const DOUBLE: Double = Double {
    forward: || 2.0,
    backward: 2.0,
};

/// Off by one unit in the last place for each thread but the first.
fn by_threads() -> f32 {
    2.0 + (par::count() - 1) as f32 * 2.0 * f32::EPSILON
}

fn scaled(x: &Tensor, by: f32) -> Tensor {
    Tensor::new(x.shape(), x.data().iter().map(|x| x * by).collect())
}

impl Op<1> for Double {
    type Saved = ();

    fn forward(&self, [x]: [&Arc<Tensor>; 1]) -> (Tensor, ()) {
        (scaled(x, (self.forward)()), ())
    }

    fn backward(&self, (): (), dy: Tensor, sink: &mut GradSink<'_, 1>) {
        sink.add(0, scaled(&dy, self.backward));
    }
}

fn reference(x: &[Vec<f64>]) -> Vec<f64> {
    x[0].iter().map(|x| 2.0 * x).collect()
}

/// The laws that an operation breaks, by the message of [`check`].
fn broken(op: Double) -> Vec<&'static str> {
    let inputs = [pattern(&[3, 17], 1)];
    let verdict = catch_unwind(|| check(&op, inputs, [true], &reference));
    let message = verdict.map_or_else(
        |panic| *panic.downcast::<String>().expect("a message"),
        |()| String::new(),
    );
    let laws = ["\nforward[", "\ngradient of", "\nslope:", "\nsame bits:"];
    laws.into_iter()
        .filter(|law| message.contains(law))
        .collect()
}

#[test]
fn each_law_catches_its_breach_and_hides_no_other() {
    assert_eq!(broken(DOUBLE), [""; 0]);
    let forward = || 2.5;
    let op = Double { forward, ..DOUBLE };
    assert_eq!(broken(op), ["\nforward[", "\nslope:"]);
    let backward = 2.5;
    let op = Double { backward, ..DOUBLE };
    assert_eq!(broken(op), ["\ngradient of", "\nslope:"]);
    let forward = by_threads;
    let op = Double { forward, ..DOUBLE };
    assert_eq!(broken(op), ["\nsame bits:"]);
    let op = Double { forward, backward };
    assert_eq!(broken(op), ["\ngradient of", "\nslope:", "\nsame bits:"]);
}

/// y = x, whose gradient replaces what was accumulated before.
#[derive(Clone)]
struct Overwrites;

impl Op<1> for Overwrites {
    type Saved = ();

    fn forward(&self, [x]: [&Arc<Tensor>; 1]) -> (Tensor, ()) {
        (scaled(x, 1.0), ())
    }

    fn backward(&self, (): (), dy: Tensor, sink: &mut GradSink<'_, 1>) {
        sink.accumulate(0, dy.shape(), |dx| dx.data_mut().copy_from_slice(dy.data()));
    }
}

#[test]
#[should_panic(expected = "gradient of input 0")]
fn a_gradient_that_is_not_added() {
    check(&Overwrites, [pattern(&[3, 17], 1)], [true], &|x| {
        x[0].clone()
    });
}

#[test]
#[should_panic(expected = "row 0 alone")]
fn a_row_that_depends_on_its_batch() {
    batch_invariant(2, |r| scaled(&pattern(&[r.len(), 3], 1), r.len() as f32));
}

#[test]
#[should_panic(expected = "different bits")]
fn two_ways_that_differ() {
    let backward = 2.5;
    equivalent(
        [pattern(&[3, 17], 1)],
        |tape, x| tape.apply(DOUBLE, x),
        |tape, x| tape.apply(Double { backward, ..DOUBLE }, x),
    );
}
