//! The values of [`GpuExec`](super::GpuExec).

use super::device::{Device, Matrix};
use super::params::DeviceParams;
use crate::Result;
use crate::tensor::{ParamId, Tensor};
use std::sync::Arc;

/// A matrix on a device.
#[derive(Clone)]
pub struct Value {
    pub(super) matrix: Matrix,
    /// The parameter that this is, if it is one.
    pub(super) param: Option<ParamId>,
    /// The same matrix on the host, if it is there.
    host: Option<Arc<Tensor>>,
}

impl From<Matrix> for Value {
    fn from(matrix: Matrix) -> Self {
        Self {
            matrix,
            param: None,
            host: None,
        }
    }
}

impl Value {
    /// A parameter.
    pub(super) fn of_param(params: &DeviceParams<'_>, id: ParamId) -> Self {
        Self {
            matrix: params.matrix(id),
            param: Some(id),
            host: Some(Arc::clone(params.params.get(id))),
        }
    }

    /// Uploads a result of the CPU.
    pub(super) fn of_host(device: &Device, tensor: Tensor) -> Self {
        Self {
            matrix: device.upload_tensor(&tensor),
            param: None,
            host: Some(Arc::new(tensor)),
        }
    }

    pub(super) fn fetch(&self) -> Result<Arc<Tensor>> {
        if let Some(host) = &self.host {
            return Ok(Arc::clone(host));
        }
        let (matrix, shape) = (&self.matrix, self.matrix.shape());
        let data = matrix.device().read(&matrix.array, matrix.range())?;
        Ok(Arc::new(Tensor::new(&shape, data)))
    }
}
