//! Matrix multiplication under rule R1: each output is one chain of fused multiply-adds over k ascending.

use super::device::{Array, Device, elements};
use super::rows::word;

/// A contiguous matrix inside an array, [rows, cols].
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    array: &'a Array,
    offset: usize,
    rows: usize,
    cols: usize,
}

impl<'a> Matrix<'a> {
    /// The matrix [rows, cols] whose first element is element `offset` of the array.
    ///
    /// # Panics
    /// Panics if the array ends before the matrix does.
    #[track_caller]
    pub fn new(array: &'a Array, offset: usize, rows: usize, cols: usize) -> Self {
        let end = elements(&[rows, cols]).checked_add(offset);
        assert!(
            end.is_some_and(|end| end <= array.len()),
            "a {rows} x {cols} matrix from element {offset} of {}",
            array.len()
        );
        Self {
            array,
            offset,
            rows,
            cols,
        }
    }
}

/// The most rows that the kernel for few rows takes, and the columns that one of its blocks computes.
const FEW_ROWS: usize = 32;
const FEW_ROWS_COLUMNS: usize = 16;
/// Rows and columns of a block's tile in the kernel for many rows.
const TILE: usize = 128;
/// Threads of a block in both.
const THREADS: usize = 256;

/// x [M, K], w [N, K] -> y [M, N] = x · wᵀ, by rule R1.
///
/// Few rows use a kernel that reads each element of w once, many rows use tiles; both give the same bits.
///
/// # Panics
/// Panics if the shapes do not fit.
#[track_caller]
pub fn matmul_nt(device: &Device, x: Matrix<'_>, w: Matrix<'_>) -> Array {
    let (m, k, n) = (x.rows, x.cols, w.rows);
    assert_eq!(w.cols, k, "matmul_nt: [{m}, {k}] x [{n}, {}]ᵀ", w.cols);
    // The kernels add the size of a tile to indices.
    let side = |n: usize| {
        assert!(n < i32::MAX as usize, "matmul_nt: a side of {n}");
        word(n)
    };
    let y = device.empty(elements(&[m, n]));
    let args = [
        x.array.pointer(x.offset),
        w.array.pointer(w.offset),
        (&y).into(),
        side(m),
        side(k),
        side(n),
    ];
    let few = [n.div_ceil(FEW_ROWS_COLUMNS), m.min(1), 1];
    let (kernel, grid) = match m {
        0..=16 => ("matmul_16_rows", few),
        17..=FEW_ROWS => ("matmul_32_rows", few),
        _ => ("matmul_tiles", [m.div_ceil(TILE), n.div_ceil(TILE), 1]),
    };
    // SAFETY: the kernels' parameters; x and w lie inside their arrays, and y has M N elements.
    unsafe { device.launch(kernel, grid, THREADS, &args) };
    y
}
