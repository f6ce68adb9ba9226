//! The laws that every operation proves, in this crate or outside it.
//!
//! | law | function | what it proves |
//! |---|---|---|
//! | 1 | `forward` | the output is close to that of an independent reference in `f64` |
//! | 2 | `gradient` | each gradient is close to central differences of the reference, element by element, and a second
//! backward pass adds to it |
//! | 2 | `slope` | along one direction, the operation's own output changes as its gradients say |
//! | 3 | `same_bits` | forward and backward have the same bits on every instruction set, for 1, 2, 3 and 8 threads |
//! | 4 | [`batch_invariant`] | a row computed alone is bitwise identical to that row in a batch |
//!
//! [`check`] judges an operation by laws 1 to 3 and reports every one that it breaks. Law 4 has its own call, because
//! only the caller knows which inputs have a row per output row. [`equivalent`] compares a fused operation with the
//! operations that it replaces.
//!
//! The gradients are those of Σ y · dy for a fixed dy. Inputs from [`pattern`] repeat with a prime period, so that
//! swapped blocks show. Sizes belong on the boundaries of lanes and tiles: 1, 15, 16, 17, 31, 32, 33.

use super::{Gradients, Op, Tape, Var};
use crate::kernels::par::Threads;
use crate::simd::Isa;
use crate::tensor::{ParamId, Params, Tensor};
use std::any::type_name_of_val;
use std::ops::Range;
use std::sync::Arc;

/// The operation in `f64`, written without the crate's code: all inputs, each in row-major order -> the output.
pub type Reference<'a> = &'a dyn Fn(&[Vec<f64>]) -> Vec<f64>;

/// Values in about −1..1 with a prime period, different for each `seed`.
pub fn pattern(shape: &[usize], seed: usize) -> Tensor {
    let n = shape.iter().product();
    let value = |i: usize| ((i * 29 + seed * 17) % 241) as f32 / 120.0 - 1.0;
    Tensor::new(shape, (0..n).map(value).collect())
}

/// Rows `range` of a matrix, as an input.
pub fn slice_rows(t: &Tensor, range: Range<usize>) -> Arc<Tensor> {
    let cols = t.cols();
    let data = t.data()[range.start * cols..range.end * cols].to_vec();
    Arc::new(Tensor::new(&[range.len(), cols], data))
}

/// Laws 1 to 3. `differentiable` says which inputs have a gradient.
///
/// # Panics
/// Panics if a law is broken, with the message of each.
#[track_caller]
pub fn check<const N: usize>(
    op: &(impl Op<N> + Clone + Sync + 'static),
    inputs: [Tensor; N],
    differentiable: [bool; N],
    reference: Reference<'_>,
) {
    let trial = Trial {
        op,
        inputs,
        differentiable,
    };
    let verdicts = [
        trial.forward(reference),
        trial.gradient(reference),
        trial.slope(),
        trial.same_bits(),
    ];
    let broken: Vec<_> = verdicts.into_iter().filter_map(Result::err).collect();
    assert!(
        broken.is_empty(),
        "{}\n{}",
        type_name_of_val(op),
        broken.join("\n")
    );
}

/// An operation, and inputs to try it on.
struct Trial<'a, O, const N: usize> {
    op: &'a O,
    inputs: [Tensor; N],
    /// Which inputs have a gradient.
    differentiable: [bool; N],
}

impl<O: Op<N> + Clone + Sync + 'static, const N: usize> Trial<'_, O, N> {
    /// Law 1: the output is within 4e-6 of the reference's largest element (or of 1, if that is larger).
    ///
    /// # Errors
    /// Returns the first element that is not.
    fn forward(&self, reference: Reference<'_>) -> Result<(), String> {
        let y = self.run(&self.inputs, 1).y;
        near(
            "forward",
            y.data(),
            &reference(&widened(&self.inputs)),
            4e-6,
        )
    }

    /// Law 2, against the reference: each gradient is within 1e-5 of central differences, by the same measure as law 1.
    ///
    /// # Errors
    /// Returns the first element of a gradient that is not.
    fn gradient(&self, reference: Reference<'_>) -> Result<(), String> {
        const STEP: f64 = 1e-5;
        let run = self.run(&self.inputs, 2);
        let dy = widen(&run.dy);
        let mut x = widened(&self.inputs);
        for (i, dx) in run.dx.iter().enumerate() {
            let Some(dx) = dx else { continue };
            let mut slopes = Vec::with_capacity(x[i].len());
            for e in 0..x[i].len() {
                let here = x[i][e];
                let [above, below] = [STEP, -STEP].map(|step| {
                    x[i][e] = here + step;
                    dot(&reference(&x), &dy)
                });
                x[i][e] = here;
                // Twice the slope, from two passes.
                slopes.push((above - below) / STEP);
            }
            near(&format!("gradient of input {i}"), dx.data(), &slopes, 1e-5)?;
        }
        Ok(())
    }

    /// Law 2, against the operation itself: when all inputs move a little in one direction, the output changes as the
    /// gradients say, within 5 %. Law 1 compares one point with the reference; this one ties the gradients to what forward
    /// computes near it.
    ///
    /// # Errors
    /// Returns the two slopes if they differ by more.
    fn slope(&self) -> Result<(), String> {
        // A power of two, so that the step is exact; large enough that rounding of the outputs does not show.
        const STEP: f32 = 1.0 / 512.0;
        let here = self.run(&self.inputs, 1);
        let mut moved = self.inputs.clone();
        let mut expected = 0.0;
        for (i, dx) in here.dx.iter().enumerate() {
            let Some(dx) = dx else { continue };
            let direction = pattern(dx.shape(), 57 + i);
            expected += dot(&widen(dx), &widen(&direction));
            for (x, d) in moved[i].data_mut().iter_mut().zip(direction.data()) {
                *x += d * STEP;
            }
        }
        let there = self.run(&moved, 1);
        let (dy, before, after) = (widen(&here.dy), widen(&here.y), widen(&there.y));
        let change: Vec<f64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
        let measured = dot(&change, &dy) / f64::from(STEP);
        if (measured - expected).abs() < 0.05 * expected.abs().max(1.0) {
            Ok(())
        } else {
            Err(format!(
                "slope: {expected} by the gradients, {measured} measured"
            ))
        }
    }

    /// Law 3: output and gradients have the same bits on every instruction set of this CPU, for 1, 2, 3 and 8 threads.
    ///
    /// # Errors
    /// Returns the first instruction set and number of threads that differ from those of the calling thread.
    fn same_bits(&self) -> Result<(), String> {
        everywhere([1, 2, 3, 8], || {
            let Run { y, dx, .. } = self.run(&self.inputs, 1);
            let tensors = std::iter::once(&y).chain(dx.iter().flatten());
            tensors.flat_map(bits).collect()
        })
    }

    /// Forward and backward for `inputs`, `passes` times into the same gradients.
    fn run(&self, inputs: &[Tensor; N], passes: usize) -> Run<N> {
        let (params, ids) = as_params(inputs);
        let vars: [Var; N] = std::array::from_fn(|i| {
            let var = Var::parameter(ids[i], params.get(ids[i]).clone());
            if self.differentiable[i] {
                var
            } else {
                var.detached()
            }
        });
        let mut gradients = Gradients::zeros(&params);
        let mut pass = || {
            let mut tape = Tape::default();
            let y = tape.apply(self.op.clone(), vars.each_ref());
            let dy = pattern(y.value().shape(), 91);
            tape.backward(&[(&y, dy.clone())], &mut gradients);
            (Tensor::clone(y.value()), dy)
        };
        for _ in 1..passes {
            pass();
        }
        let (y, dy) = pass();
        let gradient = |i: usize| gradients.get(ids[i]).clone();
        Run {
            y,
            dy,
            dx: std::array::from_fn(|i| self.differentiable[i].then(|| gradient(i))),
        }
    }
}

/// Law 4: `f` computes the output for a range of rows, and a row computed alone is bitwise identical to that row among
/// all `rows`.
///
/// # Panics
/// Panics if the bits of a row differ.
#[track_caller]
pub fn batch_invariant(rows: usize, f: impl Fn(Range<usize>) -> Tensor) {
    let whole = f(0..rows);
    for r in 0..rows {
        let alone: Vec<u32> = bits(&f(r..r + 1)).collect();
        let among: Vec<u32> = whole.row(r).iter().map(|x| x.to_bits()).collect();
        assert!(
            alone == among,
            "row {r} alone differs from row {r} of {rows}"
        );
    }
}

/// Two ways to compute one output have the same bits: the output, and all gradients, accumulated from two backward
/// passes. The first way is tried on every instruction set, for 1, 2 and 3 threads.
///
/// # Panics
/// Panics if bits differ.
#[track_caller]
pub fn equivalent<const N: usize>(
    inputs: [Tensor; N],
    one: impl Fn(&mut Tape, [&Var; N]) -> Var + Sync,
    other: impl Fn(&mut Tape, [&Var; N]) -> Var + Sync,
) {
    let (params, ids) = as_params(&inputs);
    let all = |way: &(dyn Fn(&mut Tape, [&Var; N]) -> Var + Sync)| -> Vec<u32> {
        let vars = ids.map(|id| Var::parameter(id, params.get(id).clone()));
        let mut gradients = Gradients::zeros(&params);
        let mut all = Vec::new();
        for seed in [91, 92] {
            let mut tape = Tape::default();
            let y = way(&mut tape, vars.each_ref());
            let dy = pattern(y.value().shape(), seed);
            all.extend(bits(y.value()));
            tape.backward(&[(&y, dy)], &mut gradients);
        }
        all.extend(ids.iter().flat_map(|id| bits(gradients.get(*id))));
        all
    };
    assert!(
        all(&one) == all(&other),
        "the two ways have different bits here"
    );
    everywhere([1, 2, 3], || all(&one)).unwrap_or_else(|broken| panic!("{broken}"));
}

/// `f` gives the same bits on every instruction set and for these numbers of threads.
fn everywhere<const T: usize>(
    threads: [usize; T],
    f: impl Fn() -> Vec<u32> + Sync,
) -> Result<(), String> {
    let expected = f();
    for threads in threads {
        let pool = Threads::new(threads).expect("a few threads");
        for isa in Isa::all() {
            if isa.scope(|| pool.scope(&f)) != expected {
                let isa = isa.name();
                return Err(format!("same bits: {isa} with {threads} threads differs"));
            }
        }
    }
    Ok(())
}

/// The inputs as parameters, in their order.
fn as_params<const N: usize>(inputs: &[Tensor; N]) -> (Params, [ParamId; N]) {
    let named = inputs.iter().enumerate();
    let entries = named.map(|(i, t)| (format!("input {i:03}"), t.clone()));
    let params = Params::new(entries.collect());
    let ids: Vec<_> = params.ids().collect();
    let ids = std::array::from_fn(|i| ids[i]);
    (params, ids)
}

/// Forward and backward of an operation.
struct Run<const N: usize> {
    y: Tensor,
    /// The output's gradient that backward started from.
    dy: Tensor,
    /// The gradients of the differentiable inputs.
    dx: [Option<Tensor>; N],
}

fn bits(t: &Tensor) -> impl Iterator<Item = u32> {
    t.data().iter().map(|x| x.to_bits())
}

fn widen(t: &Tensor) -> Vec<f64> {
    t.data().iter().map(|x| f64::from(*x)).collect()
}

fn widened(inputs: &[Tensor]) -> Vec<Vec<f64>> {
    inputs.iter().map(widen).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn near(what: &str, got: &[f32], expected: &[f64], tolerance: f64) -> Result<(), String> {
    if got.len() != expected.len() {
        let (n, m) = (got.len(), expected.len());
        return Err(format!("{what}: {n} elements, the reference has {m}"));
    }
    let size = expected.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
    for (i, (x, y)) in got.iter().zip(expected).enumerate() {
        let close = (f64::from(*x) - y).abs() <= tolerance * size;
        if !close {
            return Err(format!("{what}[{i}]: {x}, the reference has {y}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
