//! The products of other libraries, behind safe functions.

use ndarray::{ArrayView2, ArrayViewMut2, linalg::general_mat_mul};

/// matrixmultiply: x [m, k] · Wᵀ with w [n, k] -> y [m, n].
///
/// ndarray hands `f32` matrices of more than a few elements to it as they are, transposed or not.
pub fn matrixmultiply([m, k, n]: [usize; 3], x: &[f32], w: &[f32], y: &mut [f32]) {
    let x = ArrayView2::from_shape((m, k), x).expect("m x k");
    let w = ArrayView2::from_shape((n, k), w).expect("n x k");
    let mut y = ArrayViewMut2::from_shape((m, n), y).expect("m x n");
    general_mat_mul(1.0, &x, &w.t(), 0.0, &mut y);
}

/// The crate `gemm`, on so many threads of the current pool: the same product.
pub fn gemm([m, k, n]: [usize; 3], x: &[f32], w: &[f32], y: &mut [f32], threads: usize) {
    assert!(x.len() == m * k && w.len() == n * k && y.len() == m * n);
    let parallelism = match threads {
        1 => gemm::Parallelism::None,
        n => gemm::Parallelism::Rayon(n),
    };
    let (y, x, w) = (y.as_mut_ptr(), x.as_ptr(), w.as_ptr());
    // SAFETY: strides are those of packed row-major matrices (w's are exchanged, which transposes it), and the lengths
    // were compared above; y is borrowed mutably, so it overlaps neither of the others.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y,
            1,
            n as isize,
            false,
            x,
            1,
            k as isize,
            w,
            k as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
