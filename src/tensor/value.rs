//! A tensor: `f32` values in row-major order with a shape.

use crate::kernels::elementwise;
use crate::kernels::gemm::{Panels, View, WeightFormat};
use crate::kernels::scratch::Scratch;
use crate::simd::matrix::MatrixMut;
use std::borrow::Cow;

/// Values [.., cols]; all dimensions but the last count as rows.
///
/// A tensor holds either its elements or, after [`Tensor::pack`], the panels that matrix multiplications read. Each is
/// the only copy, so that a packed model takes the memory of its format.
#[derive(Debug)]
pub struct Tensor {
    shape: Vec<usize>,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    Elements(Scratch<f32>),
    /// The transposed matrix, packed.
    Panels(Panels),
}

impl Tensor {
    /// A tensor of these values.
    ///
    /// # Panics
    /// Panics if the number of elements is not that of the shape.
    #[track_caller]
    pub fn new(shape: &[usize], data: Vec<f32>) -> Self {
        let n = data.len();
        assert!(
            shape.iter().product::<usize>() == n,
            "a tensor of shape {shape:?} from {n} elements"
        );
        Self::of(shape, data.into())
    }

    /// All zero.
    pub fn zeros(shape: &[usize]) -> Self {
        let mut tensor = Self::empty(shape);
        tensor.data_mut().fill(0.0);
        tensor
    }

    /// Unspecified contents, which the caller must overwrite; NaN in builds with debug assertions.
    pub fn empty(shape: &[usize]) -> Self {
        let mut data = Scratch::new(shape.iter().product());
        if cfg!(debug_assertions) {
            data.fill(f32::NAN);
        }
        Self::of(shape, data)
    }

    fn of(shape: &[usize], data: Scratch<f32>) -> Self {
        Self {
            shape: shape.to_vec(),
            storage: Storage::Elements(data),
        }
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of the last dimension.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        let dims = &self.shape;
        dims[..dims.len().saturating_sub(1)].iter().product()
    }

    /// The elements in row-major order.
    ///
    /// # Panics
    /// Panics if the tensor is packed; [`Tensor::values`] and [`Tensor::copy_row`] read such a tensor too.
    #[track_caller]
    pub fn data(&self) -> &[f32] {
        match &self.storage {
            Storage::Elements(data) => data,
            Storage::Panels(_) => panic!(
                "the elements of a packed tensor of shape {:?}; Tensor::unpack brings them back",
                self.shape
            ),
        }
    }

    /// The elements in row-major order, for writing. A packed tensor is unpacked first.
    pub fn data_mut(&mut self) -> &mut [f32] {
        self.unpack();
        match &mut self.storage {
            Storage::Elements(data) => data,
            Storage::Panels(_) => unreachable!("it was unpacked"),
        }
    }

    /// The elements in row-major order, computed from the panels if the tensor is packed.
    pub fn values(&self) -> Cow<'_, [f32]> {
        match &self.storage {
            Storage::Elements(data) => Cow::Borrowed(data),
            Storage::Panels(panels) => {
                let mut data = vec![0.0; self.len()];
                panels.widen(&mut data);
                Cow::Owned(data)
            }
        }
    }

    /// Row `r` `[cols]`.
    ///
    /// # Panics
    /// Panics if there is no such row or the tensor is packed.
    #[track_caller]
    pub fn row(&self, r: usize) -> &[f32] {
        &self.data()[r * self.cols()..(r + 1) * self.cols()]
    }

    /// Copies row `r` `[cols]`, of a packed tensor too.
    ///
    /// # Panics
    /// Panics if there is no such row or `to` has the wrong length.
    #[track_caller]
    pub fn copy_row(&self, r: usize, to: &mut [f32]) {
        match &self.storage {
            Storage::Elements(_) => to.copy_from_slice(self.row(r)),
            Storage::Panels(panels) => panels.column(r, to),
        }
    }

    /// The tensor as the matrix [rows, cols].
    ///
    /// # Panics
    /// Panics if the tensor is packed.
    #[track_caller]
    pub fn matrix(&self) -> View<'_> {
        View::new(self.data(), self.rows(), self.cols())
    }

    /// The tensor as the matrix [rows, cols], for writing. A packed tensor is unpacked first.
    pub fn matrix_mut(&mut self) -> MatrixMut<'_> {
        let (rows, cols) = (self.rows(), self.cols());
        MatrixMut::new(self.data_mut(), rows, cols)
    }

    /// Replaces the elements by panels of the transposed matrix, in a format. Multiplications with few rows read little
    /// but panels and are several times faster.
    ///
    /// A narrow format rounds the elements (its blocks run along the last dimension), and what rounding took away is
    /// lost: from then on the tensor stands for the widened values of the stored weights, however it is read. A tensor
    /// that is packed in this format stays as it is.
    pub fn pack(&mut self, format: WeightFormat) {
        if self.panels().is_some_and(|p| p.format() == format) {
            return;
        }
        self.unpack();
        let panels = Panels::pack_as(self.matrix().t(), format);
        let unpacked = std::mem::replace(&mut self.storage, Storage::Panels(panels));
        if let Storage::Elements(data) = unpacked {
            // Weights are not packed again and again, so their memory is not kept for later use.
            data.free();
        }
    }

    /// Replaces the panels by elements, if the tensor is packed: those of before, or what rounding left of them.
    pub fn unpack(&mut self) {
        if let Storage::Panels(panels) = &self.storage {
            let mut data = Scratch::from(vec![0.0; self.len()]);
            panels.widen(&mut data);
            self.storage = Storage::Elements(data);
        }
    }

    /// The panels, if the tensor is packed.
    pub fn panels(&self) -> Option<&Panels> {
        match &self.storage {
            Storage::Elements(_) => None,
            Storage::Panels(panels) => Some(panels),
        }
    }
}

impl Clone for Tensor {
    fn clone(&self) -> Self {
        let storage = match &self.storage {
            Storage::Elements(data) => {
                let mut copy = Scratch::new(data.len());
                elementwise::copy(data, &mut copy);
                Storage::Elements(copy)
            }
            Storage::Panels(panels) => Storage::Panels(panels.clone()),
        };
        Self {
            shape: self.shape.clone(),
            storage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_all_but_the_last_dimension() {
        let t = Tensor::new(&[2, 3, 4], (0..24).map(|x| x as f32).collect());
        assert_eq!((t.rows(), t.cols(), t.len()), (6, 4, 24));
        assert_eq!(t.row(5), [20.0, 21.0, 22.0, 23.0]);
        assert_eq!(Tensor::zeros(&[7]).rows(), 1);
    }

    #[test]
    fn used_memory_comes_back_clean() {
        let n = 5000;
        drop(Tensor::new(&[n], vec![5.0; n]));
        assert!(Tensor::zeros(&[n]).data().iter().all(|x| *x == 0.0));
    }

    #[test]
    fn writing_unpacks() {
        let mut t = Tensor::zeros(&[4, 4]);
        for format in WeightFormat::ALL {
            t.pack(format);
            assert_eq!(t.panels().map(Panels::format), Some(format));
            t.data_mut()[0] = 1.0;
            assert!(t.panels().is_none());
        }
    }

    #[test]
    fn a_packed_tensor_is_one_set_of_values() {
        for format in WeightFormat::ALL {
            let w: Vec<f32> = (0..35 * 70)
                .map(|i| (i % 241) as f32 / 77.0 - 1.5)
                .collect();
            let mut t = Tensor::new(&[5, 7, 70], w.clone());
            t.pack(format);
            let values = t.values().into_owned();
            assert_eq!(values == w, format == WeightFormat::F32, "{format:?}");
            let mut widened = vec![0.0; w.len()];
            t.panels().expect("packed").widen(&mut widened);
            assert_eq!(values, widened, "{format:?}");
            for (r, expected) in values.chunks(70).enumerate() {
                let mut row = [f32::NAN; 70];
                t.copy_row(r, &mut row);
                assert_eq!(row, expected, "{format:?}, row {r}");
            }
            let mut copy = t.clone();
            assert_eq!(copy.panels().map(Panels::format), Some(format));
            copy.unpack();
            assert_eq!((copy.shape(), copy.data()), (t.shape(), &values[..]));
            // The scale of widened weights need not be the scale they were widened with.
            t.pack(format);
            assert_eq!(&*t.values(), values, "{format:?} twice");
        }
    }

    #[test]
    #[should_panic(expected = "shape [2, 2] from 3 elements")]
    fn a_wrong_length_panics() {
        Tensor::new(&[2, 2], vec![0.0; 3]);
    }

    #[test]
    #[should_panic(expected = "a packed tensor of shape [2, 2]")]
    fn the_elements_of_a_packed_tensor_panic() {
        let mut t = Tensor::zeros(&[2, 2]);
        t.pack(WeightFormat::Q8);
        t.data();
    }
}
