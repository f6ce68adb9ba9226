//! Products of training on a device.
//!
//! Weights lie on the device, and are sent anew where they may have changed. The other operands are sent with each
//! product, and its result is fetched. Where the device fails, the CPU goes on to the end of the scope, and the scope
//! gives the error.

use super::device::{Array, Device};
use super::products::{Matrix, matmul};
use crate::kernels::gemm::{Start, View, offload};
use crate::simd::matrix::MatrixMut;
use crate::tensor::{Params, Tensor};
use crate::{Error, Result, train};
use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Multiply-adds of the smallest product that is worth sending. A guess, never measured: what is right depends on the bus
/// and the CPU.
const WORTH_SENDING: usize = 1 << 24;

/// Computes the products of a trainer on a device.
pub struct Offload {
    device: Device,
    fewest: usize,
    resident: Vec<Resident>,
    fresh: bool,
    computed: Arc<AtomicU64>,
}

/// A parameter on the device. While a scope is open nothing else can be at its address.
#[derive(Clone)]
struct Resident {
    address: usize,
    len: usize,
    array: Array,
}

impl Offload {
    /// Sends products that are large enough.
    pub fn new(device: &Device) -> Self {
        Self::from_size(device, WORTH_SENDING)
    }

    /// Sends products of at least so many multiply-adds.
    pub fn from_size(device: &Device, fewest: usize) -> Self {
        Self {
            device: device.clone(),
            fewest,
            resident: Vec::new(),
            fresh: false,
            computed: Arc::default(),
        }
    }

    /// Products computed on the device so far; it goes on counting.
    pub fn computed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.computed)
    }

    /// Makes the arrays those of these parameters.
    fn send(&mut self, params: &Params) {
        let matrices = params.iter().map(|(_, t)| t);
        let matrices: Vec<_> = matrices.filter(|t| t.shape().len() == 2).collect();
        let fits = |(r, t): (&Resident, &&Tensor)| r.len == t.data().len();
        if self.resident.len() != matrices.len() || !self.resident.iter().zip(&matrices).all(fits) {
            let make = |t: &&Tensor| Resident {
                address: 0,
                len: t.data().len(),
                array: self.device.empty(t.data().len()),
            };
            self.resident = matrices.iter().map(make).collect();
        }
        for (resident, tensor) in self.resident.iter_mut().zip(matrices) {
            self.device.write(tensor.data(), &resident.array, 0);
            resident.address = tensor.data().as_ptr().addr();
        }
        self.fresh = true;
    }
}

impl train::Offload for Offload {
    fn scope(&mut self, params: &Params, f: &mut dyn FnMut()) -> Result<()> {
        if !self.fresh {
            self.send(params);
        }
        let open = Rc::new(Open {
            device: self.device.clone(),
            fewest: self.fewest,
            resident: self.resident.clone(),
            computed: Arc::clone(&self.computed),
            error: RefCell::new(None),
        });
        offload::scope(open.clone(), f);
        open.error.take().map_or(Ok(()), Err)
    }

    fn changed(&mut self) {
        self.fresh = false;
    }
}

/// A scope that is open.
struct Open {
    device: Device,
    fewest: usize,
    resident: Vec<Resident>,
    computed: Arc<AtomicU64>,
    error: RefCell<Option<Error>>,
}

/// A matrix that lies on the device.
struct Operand {
    array: Array,
    /// Index of the first element.
    at: usize,
    strides: [usize; 2],
}

impl Operand {
    /// The matrix, of the size of `x`.
    fn matrix(&self, x: View<'_>) -> Matrix<'_> {
        Matrix {
            array: &self.array,
            at: self.at,
            rows: x.rows(),
            cols: x.cols(),
            row_stride: self.strides[0],
            col_stride: self.strides[1],
        }
    }
}

impl offload::Products for Open {
    fn matmul(&self, a: View<'_>, b: View<'_>, c: &mut MatrixMut<'_>, start: Start) -> bool {
        let work = a.rows() * a.cols() * b.cols();
        if work == 0 || work < self.fewest || self.error.borrow().is_some() {
            return false;
        }
        match self.compute(a, b, c, start) {
            Ok(()) => {
                self.computed.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(error) => {
                *self.error.borrow_mut() = Some(error);
                false
            }
        }
    }
}

impl Open {
    fn compute(&self, a: View<'_>, b: View<'_>, c: &mut MatrixMut<'_>, start: Start) -> Result<()> {
        let (m, n) = (c.rows(), c.cols());
        let (a_there, b_there) = (self.operand(a), self.operand(b));
        let to = match start {
            Start::Zero => self.device.empty(m * n),
            Start::Continue => {
                let rows: Vec<f32> = (0..m).flat_map(|i| c.row(i)).copied().collect();
                self.device.upload(&rows)
            }
        };
        let to_matrix = Matrix::new(&to, m, n);
        matmul(
            &self.device,
            a_there.matrix(a),
            b_there.matrix(b),
            to_matrix,
            start,
        );
        let result = self.device.read(&to, 0..m * n)?;
        for (i, row) in result.chunks(n).enumerate() {
            c.row_mut(i).copy_from_slice(row);
        }
        Ok(())
    }

    /// The matrix on the device, sent if it is not a part of a parameter.
    fn operand(&self, x: View<'_>) -> Operand {
        let (data, strides) = x.elements();
        let address = data.as_ptr().addr();
        let holds = |r: &&Resident| {
            let end = r.address + r.len * size_of::<f32>();
            (r.address..end).contains(&address)
        };
        if let Some(found) = self.resident.iter().find(holds) {
            return Operand {
                array: found.array.clone(),
                at: (address - found.address) / size_of::<f32>(),
                strides,
            };
        }
        // Rows of the matrix, or of its transposed form, lie one by one in memory, with gaps where it is part of another.
        let turned = strides[1] != 1;
        let rows = if turned { x.t() } else { x };
        let (data, [stride, _]) = rows.elements();
        let (count, width) = (rows.rows(), rows.cols());
        let dense = match stride == width {
            true => Cow::Borrowed(&data[..count * width]),
            false => {
                let row = |i| &data[i * stride..][..width];
                Cow::Owned((0..count).flat_map(row).copied().collect())
            }
        };
        Operand {
            array: self.device.upload(&dense),
            at: 0,
            strides: if turned { [1, width] } else { [width, 1] },
        }
    }
}
