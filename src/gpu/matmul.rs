//! Matrix multiplication under rule R1: each output is one chain of fused multiply-adds over k ascending.

use super::device::{Matrix, args};

/// The maximum number of rows that the kernel for few rows takes, and the columns that one of its blocks computes.
const FEW_ROWS: usize = 32;
const FEW_ROWS_COLUMNS: usize = 16;
/// Rows and columns of a block's tile in the kernel for many rows.
const TILE: usize = 128;
/// Threads of a block in both.
const THREADS: usize = 256;

/// x [M, K], w [N, K] -> [M, N] = x · wᵀ, by rule R1.
///
/// Few rows use a kernel that reads each element of w once, many rows use tiles; both give the same bits.
///
/// # Panics
/// Panics if the shapes do not fit.
#[track_caller]
pub fn matmul_nt(x: &Matrix, w: &Matrix) -> Matrix {
    let (m, k, n) = (x.rows, x.cols, w.rows);
    assert_eq!(w.cols, k, "matmul_nt: [{m}, {k}] x [{n}, {}]ᵀ", w.cols);
    for side in [m, k, n] {
        // The kernels add the size of a tile to indices.
        assert!(side < i32::MAX as usize, "matmul_nt: a side of {side}");
    }
    let y = x.device().matrix(m, n);
    let few = [n.div_ceil(FEW_ROWS_COLUMNS), m.min(1), 1];
    let (kernel, grid) = match m {
        0..=16 => ("matmul_16_rows", few),
        17..=FEW_ROWS => ("matmul_32_rows", few),
        _ => ("matmul_tiles", [m.div_ceil(TILE), n.div_ceil(TILE), 1]),
    };
    let args = args![x, w, &y, m, k, n];
    // SAFETY: the kernels' parameters; x, w and y lie inside their arrays.
    unsafe { x.device().launch(kernel, grid, THREADS, &args) };
    y
}
