//! Which operation runs which kernels.

use super::device::Matrix;
use super::matmul::matmul_nt;
use super::params::DeviceParams;
use super::rows;
use super::value::Value;
use crate::ops::{
    Add, AddBias, Concat, CrossEntropy, Embedding, Linear, QkNorm, RmsNorm, RmsNormLinear,
    RmsNormMlp, Rope, SelectRows, Silu,
};
use std::any::Any;

/// Runs an operation on the device. Returns `None` if it has no kernels; then the caller runs it on the CPU.
pub(super) fn run(params: &DeviceParams<'_>, op: &dyn Any, inputs: &[&Value]) -> Option<Value> {
    let device = &params.device;
    let input = |i: usize| &inputs[i].matrix;
    let x = input(0);
    let y = if let Some(Embedding { ids }) = op.downcast_ref() {
        rows::embedding(x, &device.upload_u32(ids))
    } else if let Some(SelectRows { indices }) = op.downcast_ref() {
        rows::embedding(x, &device.upload_u32(indices))
    } else if op.is::<Linear>() {
        linear(params, x, &inputs[1..])?
    } else if let Some(RmsNormLinear { eps }) = op.downcast_ref() {
        let normed = rows::rms_norm(x, input(1), *eps);
        linear(params, &normed, &inputs[2..])?
    } else if let Some(RmsNormMlp { eps }) = op.downcast_ref() {
        let normed = rows::rms_norm(x, input(1), *eps);
        let gu = linear(params, &normed, &inputs[2..4])?;
        linear(params, &rows::swiglu(&gu), &inputs[4..])?
    } else if let Some(RmsNorm { eps }) = op.downcast_ref() {
        rows::rms_norm(x, input(1), *eps)
    } else if let Some(QkNorm { heads, eps }) = op.downcast_ref() {
        rows::qk_norm(x, input(1), input(2), *heads, *eps)
    } else if let Some(rope) = op.downcast_ref::<Rope>() {
        let angles = params.angles(&rope.table);
        let positions = params.positions(&rope.positions);
        rows::rope(x, &angles, rope.heads, &positions)
    } else if op.is::<Silu>() {
        rows::silu(x)
    } else if op.is::<Add>() {
        rows::add(x, input(1))
    } else if op.is::<AddBias>() {
        rows::add_bias(x, input(1))
    } else if op.is::<Concat>() {
        rows::concat(x, input(1))
    } else if let Some(loss) = op.downcast_ref::<CrossEntropy>() {
        let both = rows::cross_entropy(x, &device.upload_u32(&loss.targets));
        // After a failure the values do not matter: `Exec::host` returns the error.
        let both = device.download(&both.array);
        let both = both.unwrap_or_else(|_| vec![0.0; 2 * x.rows]);
        let (losses, hits) = both.split_at(x.rows);
        return Some(Value::of_host(device, loss.report(losses, hits)));
    } else {
        return None;
    };
    Some(y.into())
}

/// x times each weight matrix transposed, results side by side. `None` if a weight is no parameter.
fn linear(params: &DeviceParams<'_>, x: &Matrix, weights: &[&Value]) -> Option<Matrix> {
    let ids: Option<Vec<_>> = weights.iter().map(|w| w.param).collect();
    Some(matmul_nt(x, &params.fused(&ids?)))
}
