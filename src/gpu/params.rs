//! A model's parameters on a device.

use super::device::{Array, Device, Matrix};
use super::rows::Angles;
use crate::Result;
use crate::kernels::rope::RopeTable;
use crate::tensor::{ParamId, Params};
use std::sync::{Arc, Mutex};

/// Parameters on a device, uploaded once. For quantised weights these are the widened values, which the CPU multiplies
/// too.
pub struct DeviceParams<'m> {
    pub(super) device: Device,
    pub(super) params: &'m Params,
    /// By parameter.
    matrices: Mutex<Vec<Matrix>>,
    /// A model makes a new RoPE table only when positions outgrow the old one.
    angles: Latest<RopeTable, Angles>,
    /// The positions of the most recent pass, which all layers read.
    positions: Latest<[u32], Array>,
}

/// The latest of some shared data and its copy on the device.
type Latest<T, C> = Mutex<Option<(Arc<T>, C)>>;

impl<'m> DeviceParams<'m> {
    /// Uploads all parameters.
    ///
    /// # Errors
    /// Returns [`Error::Device`](crate::Error::Device) if the device has failed, or has no room for them.
    pub fn new(device: &Device, params: &'m Params) -> Result<Self> {
        let upload = |id| device.upload_tensor(params.get(id));
        let matrices: Vec<Matrix> = params.ids().map(upload).collect();
        // Uploads return no errors; reading does.
        if let Some(Matrix { array, .. }) = matrices.last() {
            device.read(array, 0..array.len().min(1))?;
        }
        Ok(Self {
            device: device.clone(),
            params,
            matrices: Mutex::new(matrices),
            angles: Mutex::default(),
            positions: Mutex::default(),
        })
    }

    /// Where a parameter lies.
    pub(super) fn matrix(&self, id: ParamId) -> Matrix {
        self.matrices.lock().expect("no thread panicked")[id.index()].clone()
    }

    /// Matrices of one width, stacked in one array, so that one matrix multiplication covers them all. The first call
    /// for these moves them there and releases their old memory.
    pub(super) fn fused(&self, ids: &[ParamId]) -> Matrix {
        if let [id] = ids {
            return self.matrix(*id);
        }
        let mut matrices = self.matrices.lock().expect("no thread panicked");
        let parts: Vec<_> = ids.iter().map(|id| matrices[id.index()].clone()).collect();
        let (rows, cols) = (parts.iter().map(|part| part.rows).sum(), parts[0].cols);
        let offsets = parts.iter().scan(0, |end, part| {
            *end += part.len();
            Some(*end - part.len())
        });
        let offsets: Vec<usize> = offsets.collect();
        let array = &parts[0].array;
        let is_there =
            |(part, offset): (&Matrix, &usize)| part.array.is(array) && part.offset == *offset;
        if parts.iter().zip(&offsets).all(is_there) {
            return Matrix::new(array, 0, rows, cols);
        }
        let all = self.device.matrix(rows, cols);
        for ((id, part), offset) in ids.iter().zip(parts).zip(offsets) {
            self.device
                .copy(&part.array, part.range(), &all.array, offset);
            let array = all.array.clone();
            matrices[id.index()] = Matrix {
                array,
                offset,
                ..part
            };
        }
        self.device.empty_pool();
        all
    }

    /// The table's angles.
    pub(super) fn angles(&self, table: &Arc<RopeTable>) -> Angles {
        latest(&self.angles, table, || Angles::new(&self.device, table))
    }

    /// The positions of a pass.
    pub(super) fn positions(&self, positions: &Arc<[u32]>) -> Array {
        latest(&self.positions, positions, || {
            self.device.upload_u32(positions)
        })
    }
}

fn latest<T: ?Sized, C: Clone>(
    latest: &Latest<T, C>,
    data: &Arc<T>,
    upload: impl FnOnce() -> C,
) -> C {
    let mut latest = latest.lock().expect("no thread panicked");
    match &*latest {
        Some((known, copy)) if Arc::ptr_eq(known, data) => copy.clone(),
        _ => latest.insert((Arc::clone(data), upload())).1.clone(),
    }
}
