//! A mutable matrix view that splits by rows and by columns, so that threads can write disjoint parts of one matrix.
//!
//! A slice can be split by rows only. The columns of a row-major matrix interleave in memory, so the borrow checker
//! cannot see that two blocks of columns are disjoint; a view gives access to its own columns only.

use std::marker::PhantomData;

/// A view of `rows` × `cols` elements of a row-major matrix; rows lie `stride` elements apart.
///
/// Invariant: `start` is `owner`'s first element, moved by whole rows and columns inside the matrix, and `cols` ≤
/// `stride`. So if the view has rows, row r starts inside the slice, or one element past its end if the view has no
/// columns and lies at the right edge; and all `cols` elements of each row lie inside.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    start: *mut f32,
    rows: usize,
    cols: usize,
    stride: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: a view is an exclusive borrow of its elements, like `&mut [f32]`, and no two views share an element.
unsafe impl Send for MatrixMut<'_> {}

impl<'a> MatrixMut<'a> {
    /// data [rows, cols], row by row without gaps.
    ///
    /// # Panics
    /// Panics if the slice has the wrong length.
    #[track_caller]
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(
            Some(data.len()),
            rows.checked_mul(cols),
            "MatrixMut::new: a {rows} x {cols} matrix over {} elements",
            data.len()
        );
        Self {
            start: data.as_mut_ptr(),
            rows,
            cols,
            stride: cols,
            owner: PhantomData,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Row `r` `[cols]`.
    ///
    /// # Panics
    /// Panics if there is no such row.
    #[track_caller]
    #[inline(always)]
    pub fn row(&self, r: usize) -> &[f32] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        // SAFETY: row r is inside the view, so by the invariant its start is inside the slice or, for a row of no
        // elements at the right edge, one past its end, which `add` allows; its `cols` elements are inside,
        // initialised, and belong to the view alone; `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.start.add(r * self.stride), self.cols) }
    }

    /// Row `r` `[cols]`, for writing.
    ///
    /// # Panics
    /// Panics if there is no such row.
    #[track_caller]
    #[inline(always)]
    pub fn row_mut(&mut self, r: usize) -> &mut [f32] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        // SAFETY: as in `row`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(r * self.stride), self.cols) }
    }

    /// The same view with a shorter lifetime.
    pub fn reborrow(&mut self) -> MatrixMut<'_> {
        MatrixMut {
            owner: PhantomData,
            ..*self
        }
    }

    /// Rows 0..at and rows at.. as two views.
    #[track_caller]
    pub fn split_rows(self, at: usize) -> (MatrixMut<'a>, MatrixMut<'a>) {
        assert!(at <= self.rows, "split at row {at} of {}", self.rows);
        let below = MatrixMut {
            // Wrapping, because the start of a part without rows may lie past the slice; no row of it is ever formed.
            start: self.start.wrapping_add(at * self.stride),
            rows: self.rows - at,
            ..self
        };
        (MatrixMut { rows: at, ..self }, below)
    }

    /// Columns 0..at and columns at.. as two views.
    #[track_caller]
    pub fn split_cols(self, at: usize) -> (MatrixMut<'a>, MatrixMut<'a>) {
        assert!(at <= self.cols, "split at column {at} of {}", self.cols);
        let right = MatrixMut {
            start: self.start.wrapping_add(at),
            cols: self.cols - at,
            ..self
        };
        (MatrixMut { cols: at, ..self }, right)
    }

    /// Blocks of at most `width` columns, from the left.
    #[track_caller]
    pub fn into_col_blocks(mut self, width: usize) -> Vec<MatrixMut<'a>> {
        assert!(width > 0, "blocks of no columns");
        let mut blocks = Vec::with_capacity(self.cols.div_ceil(width));
        while self.cols > width {
            let (block, rest) = self.split_cols(width);
            blocks.push(block);
            self = rest;
        }
        blocks.push(self);
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_matrix_once() {
        let (rows, cols) = (7, 11);
        for height in 0..=rows {
            for width in 1..=cols + 1 {
                let mut data = vec![0.0; rows * cols];
                let (above, below) = MatrixMut::new(&mut data, rows, cols).split_rows(height);
                for band in [above, below] {
                    for mut block in band.into_col_blocks(width) {
                        for r in 0..block.rows() {
                            block.row_mut(r).iter_mut().for_each(|x| *x += 1.0);
                        }
                    }
                }
                assert!(data.iter().all(|x| *x == 1.0), "{height} x {width}");
            }
        }
    }

    #[test]
    fn a_part_sees_its_own_elements() {
        let mut data: Vec<f32> = (0..12).map(|x| x as f32).collect();
        let (_, below) = MatrixMut::new(&mut data, 3, 4).split_rows(1);
        let (left, right) = below.split_cols(3);
        assert_eq!(left.row(1), [8.0, 9.0, 10.0]);
        assert_eq!(right.row(0), [7.0]);
    }

    #[test]
    fn parts_without_columns_or_rows_are_empty() {
        let mut data = vec![1.0; 12];
        let (left, mut right) = MatrixMut::new(&mut data, 3, 4).split_cols(4);
        assert_eq!((left.row(2), right.cols()), (&[1.0; 4][..], 0));
        for r in 0..3 {
            assert!(right.row(r).is_empty() && right.row_mut(r).is_empty());
        }
        let (_, mut corner) = right.split_rows(2);
        assert!(corner.row_mut(0).is_empty());
        let (_, below) = left.split_rows(3);
        let (_, below) = below.split_cols(4);
        assert_eq!((below.rows(), below.cols()), (0, 0));
        assert!(MatrixMut::new(&mut [], 2, 0).row(1).is_empty());
    }

    #[test]
    #[should_panic(expected = "row 2 of 2")]
    fn a_row_outside_panics() {
        let mut data = vec![0.0; 4];
        MatrixMut::new(&mut data, 2, 2).row(2);
    }
}
