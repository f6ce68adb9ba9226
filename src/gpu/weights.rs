//! A model's parameters on a device.

use super::device::{Array, Device};
use super::rows::{self, Angles};
use crate::Result;
use crate::kernels::rope::RopeTable;
use crate::tensor::{ParamId, Params};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Parameters on a device, sent once. Of a model packed in a narrow format these are the widened values, which is what
/// its products see on the CPU too.
pub struct Weights<'m> {
    pub(super) device: Device,
    pub(super) params: &'m Params,
    /// By parameter.
    places: RefCell<Vec<GradSlot>>,
    /// The last rotation table that was met, and its angles on the device.
    angles: RefCell<Option<(Arc<RopeTable>, Rc<Angles>)>>,
    /// The positions of the last pass, which all layers read.
    positions: RefCell<Option<(Arc<[u32]>, Array)>>,
}

/// Where a parameter lies.
#[derive(Clone)]
pub(super) struct GradSlot {
    pub array: Array,
    /// Index of the first element.
    pub at: usize,
    /// The parameter whose array it was at first, or the first of those that share the array.
    owner: ParamId,
}

impl<'m> Weights<'m> {
    /// Sends all parameters.
    ///
    /// # Errors
    /// Where the device has failed, or has no room for them.
    pub fn new(device: &Device, params: &'m Params) -> Result<Self> {
        let send = |id| GradSlot {
            array: device.upload(&params.get(id).values()),
            at: 0,
            owner: id,
        };
        let places: Vec<GradSlot> = params.ids().map(send).collect();
        // Sending says nothing by itself; fetching does.
        if let Some(GradSlot { array, .. }) = places.last() {
            device.read(array, 0..array.len().min(1))?;
        }
        Ok(Self {
            device: device.clone(),
            params,
            places: RefCell::new(places),
            angles: RefCell::new(None),
            positions: RefCell::new(None),
        })
    }

    /// Where the parameter lies.
    pub(super) fn place(&self, id: ParamId) -> GradSlot {
        self.places.borrow()[id.index()].clone()
    }

    /// Where matrices of one width lie, one below the other, so that a product with all of them is one. The first time
    /// they are moved together, and where they lay before is given back.
    pub(super) fn together(&self, ids: &[ParamId]) -> GradSlot {
        let mut places = self.places.borrow_mut();
        let len = |id: &ParamId| self.params.get(*id).len();
        let starts = ids.iter().scan(0, |end, id| {
            *end += len(id);
            Some(*end - len(id))
        });
        let starts: Vec<usize> = starts.collect();
        let is_there = |(id, at): (&ParamId, &usize)| {
            let place = &places[id.index()];
            place.owner == ids[0] && place.at == *at
        };
        if !ids.iter().zip(&starts).all(is_there) {
            let array = self.device.empty(ids.iter().map(len).sum());
            for (id, at) in ids.iter().zip(starts) {
                let old = places[id.index()].clone();
                let range = old.at..old.at + len(id);
                self.device.copy(&old.array, range, &array, at);
                places[id.index()] = GradSlot {
                    array: array.clone(),
                    at,
                    owner: ids[0],
                };
            }
            self.device.free_spare();
        }
        places[ids[0].index()].clone()
    }

    /// The angles of a table. A model makes a new table only when it meets later positions.
    pub(super) fn angles(&self, table: &Arc<RopeTable>) -> Rc<Angles> {
        let mut last = self.angles.borrow_mut();
        if let Some((known, angles)) = &*last
            && Arc::ptr_eq(known, table)
        {
            return Rc::clone(angles);
        }
        let angles = Rc::new(rows::angles(&self.device, table));
        *last = Some((Arc::clone(table), Rc::clone(&angles)));
        angles
    }

    /// The positions of a pass.
    pub(super) fn positions(&self, positions: &Arc<[u32]>) -> Array {
        let mut last = self.positions.borrow_mut();
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
