//! A tensor: `f32` values in row-major order with a shape.

use crate::kernels::elementwise;
use crate::kernels::gemm::{Panels, View, WeightFormat};
use crate::simd::matrix::MatrixMut;
use ndarray::{ArrayD, IxDyn};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Values [.., cols]; all dimensions but the last count as rows.
#[derive(Debug)]
pub struct Tensor {
    array: ArrayD<f32>,
    /// The matrix transposed and packed for products, once a model is frozen for decoding.
    panels: Option<Panels>,
}

thread_local! {
    /// Memory of dropped tensors. A training step makes the same tensors as the step before; taking their memory again
    /// spares the system a page fault for every 4096 bytes.
    static SPARE: RefCell<Spare> = RefCell::default();
}

#[derive(Default)]
struct Spare {
    /// No list is empty.
    by_capacity: BTreeMap<usize, Vec<Vec<f32>>>,
    elements: usize,
}

impl Spare {
    /// The smallest memory for `n` elements that wastes no more than a quarter.
    fn take(&mut self, n: usize) -> Option<Vec<f32>> {
        let (&capacity, all) = self.by_capacity.range_mut(n..=n + n / 4).next()?;
        let data = all.pop()?;
        if all.is_empty() {
            self.by_capacity.remove(&capacity);
        }
        self.elements -= capacity;
        Some(data)
    }

    fn keep(&mut self, data: Vec<f32>) {
        if self.elements + data.capacity() <= MOST_SPARE {
            self.elements += data.capacity();
            let all = self.by_capacity.entry(data.capacity());
            all.or_default().push(data);
        }
    }
}

/// Elements to reserve for a tensor of `n`: at most an eighth more, so that lengths which differ a little have the same.
/// The heads of a model are such: each has a few rows less than the one before.
fn roomy(n: usize) -> usize {
    match n {
        0..WORTH_KEEPING => n,
        _ => n.next_multiple_of(1 << (n.ilog2() - 3)),
    }
}

/// Tensors shorter than this are left to the allocator.
const WORTH_KEEPING: usize = 1 << 10;
/// Elements kept for later use, 1 GiB: a step of a small model fits, and prompts of ever new lengths cannot fill memory.
const MOST_SPARE: usize = 1 << 28;

impl Tensor {
    /// A tensor of these values.
    ///
    /// # Panics
    /// Where the shape does not hold as many elements.
    #[track_caller]
    pub fn new(shape: &[usize], data: Vec<f32>) -> Self {
        let n = data.len();
        let array = ArrayD::from_shape_vec(IxDyn(shape), data)
            .unwrap_or_else(|_| panic!("a tensor of shape {shape:?} from {n} elements"));
        Self {
            array,
            panels: None,
        }
    }

    /// All zero.
    pub fn zeros(shape: &[usize]) -> Self {
        let mut tensor = Self::empty(shape);
        tensor.data_mut().fill(0.0);
        tensor
    }

    /// Some values or other, to be overwritten by the caller; NaN in builds with debug assertions.
    pub fn empty(shape: &[usize]) -> Self {
        let n = shape.iter().product();
        let spare = SPARE.with_borrow_mut(|spare| spare.take(n));
        let mut data = spare.unwrap_or_else(|| Vec::with_capacity(roomy(n)));
        data.resize(n, 0.0);
        if cfg!(debug_assertions) {
            data.fill(f32::NAN);
        }
        Self::new(shape, data)
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        self.array.shape()
    }

    /// Length of the last dimension.
    pub fn cols(&self) -> usize {
        self.shape().last().copied().unwrap_or(1)
    }

    /// Product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        let dims = self.shape();
        dims[..dims.len().saturating_sub(1)].iter().product()
    }

    /// The elements in row-major order.
    pub fn data(&self) -> &[f32] {
        self.array.as_slice().expect("standard layout")
    }

    /// The elements in row-major order, to be written.
    pub fn data_mut(&mut self) -> &mut [f32] {
        self.panels = None;
        self.array.as_slice_mut().expect("standard layout")
    }

    /// Row `r` `[cols]`.
    #[track_caller]
    pub fn row(&self, r: usize) -> &[f32] {
        &self.data()[r * self.cols()..(r + 1) * self.cols()]
    }

    /// The tensor as the matrix [rows, cols].
    pub fn matrix(&self) -> View<'_> {
        View::new(self.data(), self.rows(), self.cols())
    }

    /// The tensor as the matrix [rows, cols], to be written.
    pub fn matrix_mut(&mut self) -> MatrixMut<'_> {
        let (rows, cols) = (self.rows(), self.cols());
        MatrixMut::new(self.data_mut(), rows, cols)
    }

    /// Packs the transposed matrix for products with few rows, which read little else, in a format.
    ///
    /// Under a narrow format the tensor's own elements become the widened values of the stored weights (blocks run along
    /// the last dimension), so that whoever reads the tensor in another way computes with the same numbers. What rounding
    /// took away is lost. A tensor that is packed in this format stays as it is; writing to it undoes the packing, but
    /// not the rounding.
    pub fn pack(&mut self, format: WeightFormat) {
        if self.panels().is_some_and(|p| p.format() == format) {
            return;
        }
        let panels = Panels::pack_as(self.matrix().t(), format);
        if format != WeightFormat::F32 {
            panels.widen(self.data_mut());
        }
        self.panels = Some(panels);
    }

    /// What [`Tensor::pack`] made.
    pub fn panels(&self) -> Option<&Panels> {
        self.panels.as_ref()
    }
}

impl Clone for Tensor {
    fn clone(&self) -> Self {
        let mut copy = Self::empty(self.shape());
        elementwise::copy(self.data(), copy.data_mut());
        copy
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        let array = std::mem::take(&mut self.array);
        if array.len() < WORTH_KEEPING {
            return;
        }
        let (data, _) = array.into_raw_vec_and_offset();
        // A thread that ends has no use for spare memory.
        let _ = SPARE.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut() {
                spare.keep(data);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_all_but_the_last_dimension() {
        let t = Tensor::new(&[2, 3, 4], (0..24).map(|x| x as f32).collect());
        assert_eq!((t.rows(), t.cols()), (6, 4));
        assert_eq!(t.row(5), [20.0, 21.0, 22.0, 23.0]);
        assert_eq!(Tensor::zeros(&[7]).rows(), 1);
    }

    #[test]
    fn used_memory_comes_back_clean() {
        let n = WORTH_KEEPING + 3;
        drop(Tensor::new(&[n], vec![5.0; n]));
        assert!(Tensor::zeros(&[n]).data().iter().all(|x| *x == 0.0));
    }

    #[test]
    fn memory_serves_tensors_of_nearly_its_length() {
        let n = 100 * WORTH_KEEPING;
        let address = |t: &Tensor| t.data().as_ptr();
        let first = Tensor::empty(&[n]);
        let place = address(&first);
        drop(first);
        let shorter = Tensor::empty(&[n - n / 10]);
        assert_eq!(
            (address(&shorter), shorter.data().len()),
            (place, n - n / 10)
        );
        drop(shorter);
        // In whatever order they come, lengths that differ a little share a place.
        let short = Tensor::empty(&[51 * WORTH_KEEPING]);
        let place_of_short = address(&short);
        drop(short);
        let longer = Tensor::empty(&[51 * WORTH_KEEPING + 700]);
        assert_eq!(address(&longer), place_of_short);
        drop(longer);
        let much_shorter = Tensor::empty(&[n / 2]);
        assert_ne!(address(&much_shorter), place);
        // Its whole capacity is still there.
        assert_eq!(address(&Tensor::empty(&[n])), place);
    }

    #[test]
    fn writing_undoes_packing() {
        let mut t = Tensor::zeros(&[4, 4]);
        for format in WeightFormat::ALL {
            t.pack(format);
            assert_eq!(t.panels().map(Panels::format), Some(format));
            t.data_mut()[0] = 1.0;
            assert!(t.panels().is_none());
        }
    }

    #[test]
    fn the_elements_are_those_that_products_see() {
        for format in WeightFormat::ALL {
            let w: Vec<f32> = (0..35 * 70)
                .map(|i| (i % 241) as f32 / 77.0 - 1.5)
                .collect();
            let mut t = Tensor::new(&[5, 7, 70], w.clone());
            t.pack(format);
            assert_eq!(t.data() == w, format == WeightFormat::F32, "{format:?}");
            let mut widened = vec![0.0; w.len()];
            t.panels().expect("packed").widen(&mut widened);
            assert_eq!(t.data(), widened, "{format:?}");
            // A scale of widened weights need not be the scale they were widened with.
            let before = t.data().to_vec();
            t.pack(format);
            assert_eq!(t.data(), before, "{format:?} twice");
        }
    }

    #[test]
    #[should_panic(expected = "shape [2, 2] from 3 elements")]
    fn a_wrong_length_panics() {
        Tensor::new(&[2, 2], vec![0.0; 3]);
    }
}
