//! Matrix multiplication by other libraries, behind safe functions.

use ndarray::{ArrayView2, ArrayViewMut2, linalg::general_mat_mul};

/// c [m, n] = a [m, k] · b [k, n], each row by row without gaps; a or b may be stored transposed.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    /// Whether a is kept as [k, m] and b as [n, k].
    pub transposed: [bool; 2],
}

/// matrixmultiply. ndarray hands `f32` matrices of more than a few elements to it as they are, transposed or not.
pub fn matrixmultiply(sizes: Sizes, a: &[f32], b: &[f32], c: &mut [f32]) {
    let Sizes {
        m,
        k,
        n,
        transposed,
    } = sizes;
    let view = |data, rows, cols, transposed| match transposed {
        false => ArrayView2::from_shape((rows, cols), data).expect("the matrix"),
        true => ArrayView2::from_shape((cols, rows), data)
            .expect("the matrix")
            .reversed_axes(),
    };
    let (a, b) = (view(a, m, k, transposed[0]), view(b, k, n, transposed[1]));
    let mut c = ArrayViewMut2::from_shape((m, n), c).expect("m x n");
    general_mat_mul(1.0, &a, &b, 0.0, &mut c);
}

/// The crate `gemm`, on this many threads of the current pool.
pub fn gemm(sizes: Sizes, a: &[f32], b: &[f32], c: &mut [f32], threads: usize) {
    let Sizes {
        m,
        k,
        n,
        transposed,
    } = sizes;
    assert!(a.len() == m * k && b.len() == n * k && c.len() == m * n);
    let parallelism = match threads {
        1 => gemm::Parallelism::None,
        n => gemm::Parallelism::Rayon(n),
    };
    // Column stride, then row stride.
    let strides = |rows: usize, cols: usize, transposed| match transposed {
        false => (1, cols as isize),
        true => (rows as isize, 1),
    };
    let (ac, ar) = strides(m, k, transposed[0]);
    let (bc, br) = strides(k, n, transposed[1]);
    let (c, a, b) = (c.as_mut_ptr(), a.as_ptr(), b.as_ptr());
    // SAFETY: strides are those of row-major matrices without gaps, exchanged if one is stored transposed, and the
    // lengths were compared above; c is borrowed mutably, so it overlaps neither of the others.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
            1,
            n as isize,
            false,
            a,
            ac,
            ar,
            b,
            bc,
            br,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
