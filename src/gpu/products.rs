//! Matrix products under rule R1: each output is one chain of fused multiply-adds over k ascending.

use super::device::{Array, Device};
use crate::kernels::gemm::Start;

/// A matrix on a device with any strides, [rows, cols].
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Where it lies.
    pub array: &'a Array,
    /// Index of the first element.
    pub at: usize,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Elements from a row to the next.
    pub row_stride: usize,
    /// Elements from a column to the next.
    pub col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// array [rows, cols], packed; it may be longer.
    ///
    /// # Panics
    /// Where the array is shorter.
    #[track_caller]
    pub fn new(array: &'a Array, rows: usize, cols: usize) -> Self {
        assert!(
            rows * cols <= array.len(),
            "a {rows} x {cols} matrix over {} elements",
            array.len()
        );
        Self {
            array,
            at: 0,
            rows,
            cols,
            row_stride: cols,
            col_stride: 1,
        }
    }

    /// The transposed matrix, [cols, rows].
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Columns `from..to`, [rows, to − from].
    #[track_caller]
    pub fn columns(self, from: usize, to: usize) -> Self {
        assert!(
            from <= to && to <= self.cols,
            "columns {from}..{to} of {}",
            self.cols
        );
        Self {
            at: self.at + from * self.col_stride,
            cols: to - from,
            ..self
        }
    }
}

/// a [M, K], b [K, N] -> c [M, N] = a · b, or c + a · b, by rule R1.
///
/// # Panics
/// Where the shapes do not fit, or the columns of c are no neighbours in memory.
#[track_caller]
pub fn product(device: &Device, a: Matrix<'_>, b: Matrix<'_>, c: Matrix<'_>, start: Start) {
    let _ = (device, a, b, c, start);
    todo!()
}
