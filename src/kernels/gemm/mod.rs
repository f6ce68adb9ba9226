//! Matrix products under rule R1: each output is one chain of fused multiply-adds over k ascending.
//!
//! ```text
//! for i, j:  c[i, j] = chain over k = 0, 1, ..  of  fma(a[i, k], b[k, j], ·)      from +0, or from c[i, j]
//! ```
//!
//! | form | a | b | c |
//! |---|---|---|---|
//! | forward y = x Wᵀ | x [rows, C] | Wᵀ [C, N] | y [rows, N] |
//! | gradient of the input dx = dy W | dy [rows, N] | W [N, C] | dx [rows, C] |
//! | gradient of the weight dW += dyᵀ x | dyᵀ [N, rows] | x [rows, C] | dW [N, C] |
//!
//! All three are one function over strided views. The right operand is packed in panels of 32 columns ([`Panels`]),
//! the left one in micro-panels as high as a tile; a tile of c stays in registers while k runs. Blocking over k continues
//! the chain by loading c again. Threads split rows, or columns where there are few rows. None of it can be seen in
//! the result, because no split touches the order of k.
//!
//! Panels may hold their weights in a narrow format ([`WeightFormat`]). A tile widens them as it reads them, and the
//! product is, to the last bit, that of the widened weights.
//!
//! Files: [`format`](mod@format) (how weights are rounded), `stored` (rows of a panel in each format), [`panels`]
//! (packing), [`tile`] (the register tile), [`matmul`](mod@matmul) (the loops around it), [`matmul_many`](mod@matmul_many) (several
//! products of one left operand).

pub mod format;
pub mod matmul;
pub mod matmul_many;
pub mod panels;
mod stored;
pub mod tile;

pub use format::WeightFormat;
pub use matmul::{Right, Start, matmul};
pub use matmul_many::matmul_many;
pub use panels::{Panels, ScratchPanels};

/// A read-only matrix with any strides, [rows, cols].
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// data [rows, cols], packed.
    ///
    /// # Panics
    /// Where the slice has another length.
    #[track_caller]
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(
            data.len(),
            rows * cols,
            "a {rows} x {cols} matrix over {} elements",
            data.len()
        );
        Self {
            data,
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
            data: &self.data[(from * self.col_stride).min(self.data.len())..],
            cols: to - from,
            ..self
        }
    }

    /// Rows `from..to`, [to − from, cols].
    #[track_caller]
    pub fn row_range(self, from: usize, to: usize) -> Self {
        self.t().columns(from, to).t()
    }

    /// Row `i`, where its elements are neighbours in memory.
    #[inline(always)]
    pub fn row(&self, i: usize) -> &'a [f32] {
        self.row_part(i, 0, self.cols)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The elements from the first on, and how far apart rows and columns lie among them.
    pub fn elements(&self) -> (&'a [f32], [usize; 2]) {
        (self.data, [self.row_stride, self.col_stride])
    }

    /// The element at row `i`, column `j`.
    #[inline(always)]
    fn at(&self, i: usize, j: usize) -> f32 {
        self.data[i * self.row_stride + j * self.col_stride]
    }

    /// The elements of row `i` from column `from` to `to`, where columns are neighbours in memory.
    #[inline(always)]
    fn row_part(&self, i: usize, from: usize, to: usize) -> &'a [f32] {
        debug_assert_eq!(self.col_stride, 1);
        &self.data[i * self.row_stride + from..i * self.row_stride + to]
    }
}

#[cfg(test)]
mod tests;
