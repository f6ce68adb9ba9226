//! Which operation runs which kernels.

use super::device::Array;
use super::matmul::{Matrix, matmul_nt};
use super::params::DeviceParams;
use super::rows;
use super::value::Value;
use crate::ops::{
    Add, AddBias, Concat, CrossEntropy, Embedding, GatedMlp, Linear, NormedLinear, QkNorm, RmsNorm,
    Rope, SelectRows, Silu,
};
use std::any::Any;

/// Runs an operation on the device. Returns `None` if it has no kernels; then the caller runs it on the CPU.
pub(super) fn run(params: &DeviceParams<'_>, op: &dyn Any, inputs: &[&Value]) -> Option<Value> {
    let device = &params.device;
    let x = inputs[0];
    // Only weights of matrix multiplications are fused with others; `linear` looks up where these are.
    let others = if op.is::<Linear>() {
        &inputs[..1]
    } else if op.is::<NormedLinear>() || op.is::<GatedMlp>() {
        &inputs[..2]
    } else {
        inputs
    };
    let unfused = others.iter().all(|x| x.offset == 0);
    assert!(unfused, "a fused parameter outside matrix multiplications");
    let (n, c) = (x.rows, x.cols);
    let same = |array| Some(Value::new(array, n, c));
    if let Some(Embedding { ids }) = op.downcast_ref() {
        let indices = device.upload_u32(ids);
        let y = rows::embedding(device, &x.array, &indices, ids.len(), c);
        return Some(Value::new(y, ids.len(), c));
    }
    if let Some(SelectRows { keep }) = op.downcast_ref() {
        let indices = device.upload_u32(keep);
        let y = rows::embedding(device, &x.array, &indices, keep.len(), c);
        return Some(Value::new(y, keep.len(), c));
    }
    if op.is::<Linear>() {
        return linear(params, &x.array, n, c, &inputs[1..]);
    }
    if let Some(NormedLinear { eps }) = op.downcast_ref() {
        let normed = rows::rms_norm(device, &x.array, &inputs[1].array, n, c, *eps);
        return linear(params, &normed, n, c, &inputs[2..]);
    }
    if let Some(GatedMlp { eps }) = op.downcast_ref() {
        let f = inputs[2].rows;
        let normed = rows::rms_norm(device, &x.array, &inputs[1].array, n, c, *eps);
        let gu = linear(params, &normed, n, c, &inputs[2..4])?;
        let a = rows::swiglu(device, &gu.array, n, f);
        return linear(params, &a, n, f, &inputs[4..]);
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
        let angles = params.angles(&rope.table);
        let positions = params.positions(&rope.positions);
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
        // After a failure the values do not matter: `Exec::host` returns the error.
        let both = device.read(&both, 0..2 * n);
        let both = both.unwrap_or_else(|_| vec![0.0; 2 * n]);
        let report = loss.report(&both[..n], &both[n..]);
        return Some(Value::of_host(device, report));
    }
    None
}

/// x [rows, cols] times each weight matrix transposed, results side by side. `None` if a weight is no parameter.
fn linear(
    params: &DeviceParams<'_>,
    x: &Array,
    rows: usize,
    cols: usize,
    weights: &[&Value],
) -> Option<Value> {
    let ids: Option<Vec<_>> = weights.iter().map(|w| w.param).collect();
    let fused = params.fused(&ids?);
    let width = weights.iter().map(|w| w.rows).sum();
    let y = matmul_nt(
        &params.device,
        Matrix::new(x, 0, rows, cols),
        Matrix::new(&fused.array, fused.offset, width, cols),
    );
    Some(Value::new(y, rows, width))
}
