//! A read-only matrix over a slice: transposed, cut by rows and by columns without copying.

/// A read-only matrix with any strides, [rows, cols].
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a> View<'a> {
    /// data [rows, cols], row by row without gaps.
    ///
    /// # Panics
    /// Panics if the slice has the wrong length.
    #[track_caller]
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(
            Some(data.len()),
            rows.checked_mul(cols),
            "View::new: a {rows} x {cols} matrix over {} elements",
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
    ///
    /// # Panics
    /// Panics if there are fewer columns.
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
    ///
    /// # Panics
    /// Panics if there are fewer rows.
    #[track_caller]
    pub fn row_range(self, from: usize, to: usize) -> Self {
        self.t().columns(from, to).t()
    }

    /// Row `i` of a view whose rows are contiguous in memory.
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

    /// The elements from the first on, and the distances of neighbouring rows and of neighbouring columns.
    pub fn elements(&self) -> (&'a [f32], [usize; 2]) {
        (self.data, [self.row_stride, self.col_stride])
    }

    /// The element at row `i`, column `j`.
    #[inline(always)]
    pub(super) fn at(&self, i: usize, j: usize) -> f32 {
        self.data[i * self.row_stride + j * self.col_stride]
    }

    /// Columns `from..to` of row `i` of a view whose rows are contiguous in memory.
    #[inline(always)]
    pub(super) fn row_part(&self, i: usize, from: usize, to: usize) -> &'a [f32] {
        debug_assert_eq!(self.col_stride, 1);
        &self.data[i * self.row_stride + from..i * self.row_stride + to]
    }
}
