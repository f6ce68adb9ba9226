//! Matrix products under rule R1: each output is one chain of fused multiply-adds over k ascending.

use super::device::{Arg, Array, Device};
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

/// Rows that the kernel for few rows takes.
const FEW: usize = 32;
/// Columns of a block of that kernel.
const FEW_COLUMNS: usize = 16;
/// Rows and columns of a block's tile otherwise.
const TILE: usize = 128;
/// Threads of a block in both.
const THREADS: usize = 256;

/// a [M, K], b [K, N] -> c [M, N] = a · b, or c + a · b, by rule R1.
///
/// Few rows are multiplied by a kernel that reads each element of b once, where k are neighbours in memory in both; all
/// else by tiles. Nobody can see it in the result.
///
/// # Panics
/// Where the shapes do not fit, or the columns of c are no neighbours in memory.
#[track_caller]
pub fn matmul(device: &Device, a: Matrix<'_>, b: Matrix<'_>, c: Matrix<'_>, start: Start) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert!(
        b.rows == k && c.rows == m && c.cols == n,
        "product: [{m}, {k}] x [{}, {n}] -> [{}, {}]",
        b.rows,
        c.rows,
        c.cols
    );
    assert!(
        n <= 1 || c.col_stride == 1,
        "product: a result with {} elements from a column to the next",
        c.col_stride
    );
    [a, b, c].iter().for_each(Matrix::check);
    if m <= FEW && a.walks_columns() && b.t().walks_columns() {
        let kernel = match m {
            0..=16 => "product_16_rows",
            _ => "product_32_rows",
        };
        let grid = [n.div_ceil(FEW_COLUMNS), m.min(1), 1];
        let [x, w] = [a, b.t()].map(|x| (x.array.into(), stride(x.row_stride), x.fours()));
        let args = [
            x.0,
            x.1,
            x.2,
            w.0,
            w.1,
            w.2,
            c.array.into(),
            stride(c.row_stride),
            stride(a.at),
            stride(b.at),
            stride(c.at),
            size(m),
            size(k),
            size(n),
            goes_on(start),
        ];
        return device.launch(kernel, grid, THREADS, &args);
    }
    let (a_outer, b_outer) = (!a.walks_columns(), b.walks_columns());
    let kernel = match (a_outer, b_outer) {
        (false, false) => "product_k_k",
        (false, true) => "product_k_col",
        (true, false) => "product_row_k",
        (true, true) => "product_row_col",
    };
    let turned = |x: Matrix<'_>, turn: bool| if turn { x.t() } else { x }.fours();
    let args = [
        a.array.into(),
        stride(a.row_stride),
        stride(a.col_stride),
        turned(a, a_outer),
        b.array.into(),
        stride(b.row_stride),
        stride(b.col_stride),
        turned(b, !b_outer),
        c.array.into(),
        stride(c.row_stride),
        c.fours(),
        stride(a.at),
        stride(b.at),
        stride(c.at),
        size(m),
        size(k),
        size(n),
        goes_on(start),
    ];
    let grid = [m.div_ceil(TILE), n.div_ceil(TILE), 1];
    device.launch(kernel, grid, THREADS, &args);
}

impl Matrix<'_> {
    /// Whether the elements of a row are neighbours in memory, as far as there are two.
    fn walks_columns(&self) -> bool {
        self.cols <= 1 || self.col_stride == 1
    }

    /// Whether four neighbours of a row, from a multiple of four on, are so in memory too. Arrays start at one.
    fn fours(&self) -> Arg<'static> {
        let aligned =
            self.col_stride == 1 && self.row_stride.is_multiple_of(4) && self.at.is_multiple_of(4);
        Arg::U32(u32::from(aligned))
    }

    /// Its last element is in the array.
    #[track_caller]
    fn check(&self) {
        if self.rows > 0 && self.cols > 0 {
            let last =
                self.at + (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride;
            assert!(
                last < self.array.len(),
                "product: element {last} of an array of {}",
                self.array.len()
            );
        }
    }
}

fn stride(x: usize) -> Arg<'static> {
    Arg::U64(x as u64)
}

#[track_caller]
fn size(x: usize) -> Arg<'static> {
    // Room for the size of a tile above it.
    assert!(x < i32::MAX as usize, "product: a side of {x}");
    Arg::U32(x as u32)
}

fn goes_on(start: Start) -> Arg<'static> {
    Arg::U32(u32::from(start == Start::Continue))
}
