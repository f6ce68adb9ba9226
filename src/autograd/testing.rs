//! What every operation proves, in the file that defines it.
//!
//! 1. Forward is near an independent reference in `f64`.
//! 2. Backward is near the gradient of that reference (central differences in `f64`, one element at a time), and near
//!    a finite difference of the operation's own forward pass along one direction.
//! 3. Forward and backward have the same bits on every instruction set and for 1, 2, 3 and 8 threads.
//! 4. A row computed alone has the bits it has in a batch ([`rows_alone`]).

use super::{Gradients, Op, Tape, Var};
use crate::kernels::par::Threads;
use crate::simd::Isa;
use crate::tensor::{Params, Tensor};

/// Values in about −1..1 with a prime period, different for each `seed`.
pub fn pattern(shape: &[usize], seed: usize) -> Tensor {
    let n = shape.iter().product();
    let value = |i: usize| ((i * 29 + seed * 17) % 241) as f32 / 120.0 - 1.0;
    Tensor::new(shape, (0..n).map(value).collect())
}

/// Inputs and output in `f64`.
pub type Reference<'a> = &'a dyn Fn(&[Vec<f64>]) -> Vec<f64>;

struct Run {
    y: Tensor,
    /// One for each input that wants one.
    dx: Vec<Tensor>,
}

/// Forward and backward on a tape, with inputs that want a gradient as parameters.
fn run<O, const N: usize>(
    op: &O,
    inputs: &[Tensor; N],
    wants: [bool; N],
    dy: Option<&Tensor>,
) -> Run
where
    O: Op<N> + Clone + 'static,
{
    let named = inputs.iter().enumerate();
    let entries = named.map(|(i, t)| (format!("{i}"), t.clone())).collect();
    let params = Params::new(entries);
    let ids: Vec<_> = params.ids().collect();
    let vars: [Var; N] = std::array::from_fn(|i| match wants[i] {
        true => Var::parameter(ids[i], params.get(ids[i]).clone()),
        false => Var::constant(params.get(ids[i]).clone()),
    });
    let mut tape = Tape::default();
    let y = tape.apply(op.clone(), vars.each_ref());
    let mut gradients = Gradients::zeros(&params);
    if let Some(dy) = dy {
        tape.backward(&[(&y, dy.clone())], &mut gradients);
    }
    let wanted = ids.iter().zip(wants).filter(|(_, wants)| *wants);
    Run {
        y: Tensor::clone(y.value()),
        dx: wanted.map(|(id, _)| gradients.get(*id).clone()).collect(),
    }
}

/// Two ways to the same output: that and all gradients have the same bits, on every instruction set, for 1, 2 and 3
/// threads, and where the gradients go on from what is there.
#[track_caller]
pub fn compare<const N: usize>(
    inputs: [Tensor; N],
    one: impl Fn(&mut Tape, [&Var; N]) -> Var + Sync,
    other: impl Fn(&mut Tape, [&Var; N]) -> Var + Sync,
) {
    let entries = inputs.into_iter().enumerate();
    let params = Params::new(entries.map(|(i, t)| (format!("{i}"), t)).collect());
    let ids: Vec<_> = params.ids().collect();
    let all = |way: &(dyn Fn(&mut Tape, [&Var; N]) -> Var + Sync)| {
        let vars: [Var; N] =
            std::array::from_fn(|i| Var::parameter(ids[i], params.get(ids[i]).clone()));
        let mut gradients = Gradients::zeros(&params);
        let mut all = Vec::new();
        for seed in [91, 92] {
            let mut tape = Tape::default();
            let y = way(&mut tape, vars.each_ref());
            let dy = pattern(y.value().shape(), seed);
            all.extend(y.value().data().iter().map(|x| x.to_bits()));
            tape.backward(&[(&y, dy)], &mut gradients);
        }
        for id in &ids {
            all.extend(gradients.get(*id).data().iter().map(|x| x.to_bits()));
        }
        all
    };
    let expected = all(&other);
    for isa in Isa::all() {
        for threads in [1, 2, 3] {
            let pool = Threads::new(threads).expect("a small pool");
            let got = isa.scope(|| pool.scope(|| all(&one)));
            assert!(got == expected, "{}, {threads} threads", isa.name());
        }
    }
}

fn wide(t: &Tensor) -> Vec<f64> {
    t.data().iter().map(|x| f64::from(*x)).collect()
}

#[track_caller]
fn near(what: &str, got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let size = expected.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
    for (i, (x, y)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*x) - y).abs();
        assert!(error <= tolerance * size, "{what}[{i}]: {x}, expected {y}");
    }
}

/// Laws 1 to 3. `wants` says which inputs are differentiable; `reference` takes all of them.
#[track_caller]
pub fn check<O, const N: usize>(
    op: &O,
    inputs: [Tensor; N],
    wants: [bool; N],
    reference: Reference<'_>,
) where
    O: Op<N> + Clone + Sync + 'static,
{
    let y = run(op, &inputs, wants, None).y;
    let exact: Vec<Vec<f64>> = inputs.iter().map(wide).collect();
    near("forward", y.data(), &reference(&exact), 4e-6);

    let dy = pattern(y.shape(), 91);
    let base = run(op, &inputs, wants, Some(&dy));
    let project = |x: &[Vec<f64>]| -> f64 {
        let y = reference(x);
        y.iter()
            .zip(dy.data())
            .map(|(y, d)| y * f64::from(*d))
            .sum()
    };
    let mut slope = 0.0;
    let mut moved = inputs.each_ref().map(Tensor::clone);
    let wanted = (0..N).filter(|i| wants[*i]);
    for (i, dx) in wanted.zip(&base.dx) {
        let gradient: Vec<f64> = (0..exact[i].len())
            .map(|e| {
                let step = 1e-5;
                let at = |sign: f64| {
                    let mut x = exact.clone();
                    x[i][e] += sign * step;
                    project(&x)
                };
                (at(1.0) - at(-1.0)) / (2.0 * step)
            })
            .collect();
        near(
            &format!("gradient of input {i}"),
            dx.data(),
            &gradient,
            1e-5,
        );
        let direction = pattern(inputs[i].shape(), 57 + i);
        for (e, d) in direction.data().iter().enumerate() {
            slope += f64::from(dx.data()[e]) * f64::from(*d);
            moved[i].data_mut()[e] += d * 2f32.powi(-9);
        }
    }
    let change: f64 = wide(&run(op, &moved, wants, None).y)
        .iter()
        .zip(wide(&y))
        .zip(dy.data())
        .map(|((a, b), d)| (a - b) * f64::from(*d))
        .sum();
    let measured = change * 2f64.powi(9);
    let size = slope.abs().max(1.0);
    assert!(
        (measured - slope).abs() < 0.05 * size,
        "slope {slope}, measured {measured}"
    );

    for isa in Isa::all() {
        for threads in [1, 2, 3, 8] {
            let pool = Threads::new(threads).expect("a small pool");
            let again = isa.scope(|| pool.scope(|| bits(&run(op, &inputs, wants, Some(&dy)))));
            assert_eq!(again, bits(&base), "{}, {threads} threads", isa.name());
        }
    }
}

fn bits(run: &Run) -> Vec<Vec<u32>> {
    let bits = |t: &Tensor| t.data().iter().map(|x| x.to_bits()).collect();
    std::iter::once(&run.y).chain(&run.dx).map(bits).collect()
}

/// Law 4: `f` computes the output for a range of rows.
#[track_caller]
pub fn rows_alone(rows: usize, f: impl Fn(std::ops::Range<usize>) -> Tensor) {
    let whole = f(0..rows);
    for r in 0..rows {
        let alone = f(r..r + 1);
        let same = alone.data().iter().zip(whole.row(r));
        assert!(
            alone.data().len() == whole.cols()
                && same.clone().all(|(a, b)| a.to_bits() == b.to_bits()),
            "row {r} alone differs from the row in a batch"
        );
    }
}

/// Rows `range` of a matrix as a tensor.
pub fn slice_rows(t: &Tensor, range: std::ops::Range<usize>) -> std::sync::Arc<Tensor> {
    let cols = t.cols();
    let data = t.data()[range.start * cols..range.end * cols].to_vec();
    std::sync::Arc::new(Tensor::new(&[range.len(), cols], data))
}
