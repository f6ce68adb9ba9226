//! A model's parameters on a device.

use super::device::{Array, Device};
use super::rows::Angles;
use crate::Result;
use crate::kernels::rope::RopeTable;
use crate::tensor::{ParamId, Params};
use std::sync::Arc;
use std::sync::Mutex;

/// Parameters on a device, uploaded once. For quantised weights these are the widened values, which the CPU multiplies
/// too.
pub struct DeviceParams<'m> {
    pub(super) device: Device,
    pub(super) params: &'m Params,
    /// By parameter.
    locations: Mutex<Vec<Location>>,
    /// The most recent RoPE table and its copy on the device.
    angles: Mutex<Option<(Arc<RopeTable>, Arc<Angles>)>>,
    /// The positions of the most recent pass, which all layers read.
    positions: Mutex<Option<(Arc<[u32]>, Array)>>,
}

/// Where a parameter lies.
#[derive(Clone)]
pub(super) struct Location {
    pub array: Array,
    /// Index of the first element.
    pub offset: usize,
    /// The first parameter in the array.
    first: ParamId,
}

impl<'m> DeviceParams<'m> {
    /// Uploads all parameters.
    ///
    /// # Errors
    /// Returns [`Error::Device`](crate::Error::Device) if the device has failed, or has no room for them.
    pub fn new(device: &Device, params: &'m Params) -> Result<Self> {
        let upload = |id| Location {
            array: device.upload(&params.get(id).values()),
            offset: 0,
            first: id,
        };
        let locations: Vec<Location> = params.ids().map(upload).collect();
        // Uploads return no errors; reading does.
        if let Some(Location { array, .. }) = locations.last() {
            device.read(array, 0..array.len().min(1))?;
        }
        Ok(Self {
            device: device.clone(),
            params,
            locations: Mutex::new(locations),
            angles: Mutex::new(None),
            positions: Mutex::new(None),
        })
    }

    pub(super) fn location(&self, id: ParamId) -> Location {
        self.locations.lock().expect("no thread panicked")[id.index()].clone()
    }

    /// Matrices of one width, stacked in one array, so that one matrix multiplication covers them all. The first call
    /// for these moves them there and releases their old memory.
    pub(super) fn fused(&self, ids: &[ParamId]) -> Location {
        let [first, _, ..] = ids else {
            return self.location(ids[0]);
        };
        let mut locations = self.locations.lock().expect("no thread panicked");
        let len = |id: &ParamId| self.params.get(*id).len();
        let offsets = ids.iter().scan(0, |end, id| {
            *end += len(id);
            Some(*end - len(id))
        });
        let offsets: Vec<usize> = offsets.collect();
        let is_fused = |(id, offset): (&ParamId, &usize)| {
            let location = &locations[id.index()];
            location.first == *first && location.offset == *offset
        };
        if !ids.iter().zip(&offsets).all(is_fused) {
            let array = self.device.empty(ids.iter().map(len).sum());
            for (id, offset) in ids.iter().zip(offsets) {
                let old = locations[id.index()].clone();
                let range = old.offset..old.offset + len(id);
                self.device.copy(&old.array, range, &array, offset);
                locations[id.index()] = Location {
                    array: array.clone(),
                    offset,
                    first: *first,
                };
            }
            self.device.empty_pool();
        }
        locations[first.index()].clone()
    }

    /// The table's angles. A model makes a new table only when positions outgrow the old one.
    pub(super) fn angles(&self, table: &Arc<RopeTable>) -> Arc<Angles> {
        let mut last = self.angles.lock().expect("no thread panicked");
        if let Some((known, angles)) = &*last
            && Arc::ptr_eq(known, table)
        {
            return Arc::clone(angles);
        }
        let angles = Arc::new(Angles::new(&self.device, table));
        *last = Some((Arc::clone(table), Arc::clone(&angles)));
        angles
    }

    /// The positions of a pass.
    pub(super) fn positions(&self, positions: &Arc<[u32]>) -> Array {
        let mut last = self.positions.lock().expect("no thread panicked");
        if let Some((known, array)) = &*last
            && Arc::ptr_eq(known, positions)
        {
            return array.clone();
        }
        let array = self.device.upload_u32(positions);
        *last = Some((Arc::clone(positions), array.clone()));
        array
    }
}
