//! Operations by their kernels.

use super::device::Array;
use super::exec::Value;
use super::products::{Matrix, matmul};
use super::rows;
use super::weights::Weights;
use crate::kernels::gemm::Start;
use crate::ops::{
    Add, AddBias, Concat, CrossEntropy, Embedding, GatedMlp, Linear, NormedLinear, QkNorm, RmsNorm,
    Rope, SelectRows, Silu,
};
use std::any::Any;

/// Does an operation, where it has kernels.
pub(super) fn run(weights: &Weights<'_>, op: &dyn Any, inputs: &[&Value]) -> Option<Value> {
    let device = &weights.device;
    let x = inputs[0];
    // All but the weights of products have their arrays to themselves.
    let own = match () {
        _ if op.is::<Linear>() => 1,
        _ if op.is::<NormedLinear>() || op.is::<GatedMlp>() => 2,
        _ => inputs.len(),
    };
    assert!(inputs[..own].iter().all(|x| x.at == 0), "a moved array");
    let (n, c) = (x.rows, x.cols);
    let same = |array| Some(Value::new(array, n, c));
    if let Some(Embedding { ids }) = op.downcast_ref() {
        let ids_there = device.upload_u32(ids);
        let y = rows::embedding(device, &x.array, &ids_there, ids.len(), c);
        return Some(Value::new(y, ids.len(), c));
    }
    if let Some(SelectRows { keep }) = op.downcast_ref() {
        let keep_there = device.upload_u32(keep);
        let y = rows::select_rows(device, &x.array, &keep_there, keep.len(), c);
        return Some(Value::new(y, keep.len(), c));
    }
    if op.is::<Linear>() {
        return Some(linear(weights, &x.array, n, c, &inputs[1..]));
    }
    if let Some(NormedLinear { eps }) = op.downcast_ref() {
        let normed = rows::rms_norm(device, &x.array, &inputs[1].array, n, c, *eps);
        return Some(linear(weights, &normed, n, c, &inputs[2..]));
    }
    if let Some(GatedMlp { eps }) = op.downcast_ref() {
        let f = inputs[2].rows;
        let normed = rows::rms_norm(device, &x.array, &inputs[1].array, n, c, *eps);
        let gu = linear(weights, &normed, n, c, &inputs[2..4]);
        let a = rows::swiglu(device, &gu.array, n, f);
        return Some(linear(weights, &a, n, f, &inputs[4..]));
    }
    if let Some(RmsNorm { eps }) = op.downcast_ref() {
        let weight = &inputs[1].array;
        return same(rows::rms_norm(device, &x.array, weight, n, c, *eps));
    }
    if let Some(QkNorm { heads, eps }) = op.downcast_ref() {
        let (q, k) = (&inputs[1].array, &inputs[2].array);
        return same(rows::qk_norm(device, &x.array, q, k, *heads, n, *eps));
    }
    if let Some(rope) = op.downcast_ref::<Rope>() {
        let angles = weights.angles(&rope.table);
        let positions = weights.positions(&rope.positions);
        return same(rows::rope(
            device, &x.array, &angles, rope.heads, &positions, n,
        ));
    }
    if op.is::<Silu>() {
        return same(rows::silu(device, &x.array));
    }
    if op.is::<Add>() {
        return same(rows::add(device, &x.array, &inputs[1].array));
    }
    if op.is::<AddBias>() {
        return same(rows::add_bias(device, &x.array, &inputs[1].array, n, c));
    }
    if op.is::<Concat>() {
        let (other, width) = (&inputs[1].array, inputs[1].cols);
        let y = rows::concat(device, &x.array, other, n, c, width);
        return Some(Value::new(y, n, c + width));
    }
    if let Some(loss) = op.downcast_ref::<CrossEntropy>() {
        let targets = device.upload_u32(&loss.targets);
        let both = rows::cross_entropy(device, &x.array, &targets, n, c);
        // The device keeps what failed. What is computed then is never seen.
        let both = device.read(&both, 0..2 * n);
        let both = both.unwrap_or_else(|_| vec![0.0; 2 * n]);
        let report = loss.report(&both[..n], &both[n..]);
        return Some(Value::of_host(device, report));
    }
    None
}

/// x [rows, cols] times some weights, side by side.
fn linear(weights: &Weights<'_>, x: &Array, rows: usize, cols: usize, ws: &[&Value]) -> Value {
    let device = &weights.device;
    let width = ws.iter().map(|w| w.rows).sum();
    let y = device.empty(rows * width);
    let a = Matrix::new(x, rows, cols);
    let all = Matrix::new(&y, rows, width);
    let b = |array, at, rows| Matrix {
        at,
        ..Matrix::new(array, rows, cols).t()
    };
    let ids: Option<Vec<_>> = ws.iter().map(|w| w.param).collect();
    match ids {
        Some(ids) if ids.len() > 1 => {
            let place = weights.together(&ids);
            matmul(
                device,
                a,
                b(&place.array, place.at, width),
                all,
                Start::Zero,
            );
        }
        _ => {
            let mut from = 0;
            for w in ws {
                let c = all.columns(from, from + w.rows);
                matmul(device, a, b(&w.array, w.at, w.rows), c, Start::Zero);
                from += w.rows;
            }
        }
    }
    Value::new(y, rows, width)
}
