//! The values of [`GpuExec`](super::GpuExec).

use super::device::{Array, Device};
use super::params::DeviceParams;
use crate::Result;
use crate::tensor::{ParamId, Tensor};
use std::sync::Arc;

/// A matrix on a device.
#[derive(Clone)]
pub struct Value {
    pub(super) array: Array,
    /// Index of the first element; 0 unless this is a parameter that was fused with others.
    pub(super) offset: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// The parameter that this is, if it is one.
    pub(super) param: Option<ParamId>,
    /// The same matrix on the host, if it is there.
    host: Option<Arc<Tensor>>,
}

impl Value {
    /// array [rows, cols]
    pub(super) fn new(array: Array, rows: usize, cols: usize) -> Self {
        Self {
            array,
            offset: 0,
            rows,
            cols,
            param: None,
            host: None,
        }
    }

    /// A parameter.
    pub(super) fn of_param(params: &DeviceParams<'_>, id: ParamId) -> Self {
        let (tensor, location) = (params.params.get(id), params.location(id));
        Self {
            offset: location.offset,
            param: Some(id),
            host: Some(Arc::clone(tensor)),
            ..Self::new(location.array, tensor.rows(), tensor.cols())
        }
    }

    /// Uploads a result of the CPU.
    pub(super) fn of_host(device: &Device, tensor: Tensor) -> Self {
        let array = device.upload(&tensor.values());
        let value = Self::new(array, tensor.rows(), tensor.cols());
        Self {
            host: Some(Arc::new(tensor)),
            ..value
        }
    }

    pub(super) fn fetch(&self, device: &Device) -> Result<Arc<Tensor>> {
        if let Some(host) = &self.host {
            return Ok(Arc::clone(host));
        }
        let n = self.rows * self.cols;
        let data = device.read(&self.array, 0..n)?;
        Ok(Arc::new(Tensor::new(&[self.rows, self.cols], data)))
    }
}
