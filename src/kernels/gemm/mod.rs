//! Matrix multiplication under rule R1: each output is one chain of fused multiply-adds.
//!
//! ```text
//! for i, j:  x = +0, or c[i, j];   for p = 0, 1, .. K−1:  x = fma(a[i, p], b[p, j], x);   c[i, j] = x
//! ```
//!
//! **Chain** is the word for that inner loop everywhere in this crate: fused multiply-adds one after the other, each
//! rounded once, over the contraction index p in ascending order. A blocked loop over p continues the chain from the
//! unfinished c.
//!
//! | form | a | b | c |
//! |---|---|---|---|
//! | forward y = x Wᵀ | x [rows, C] | Wᵀ [C, N] | y [rows, N] |
//! | gradient of the input dx = dy W | dy [rows, N] | W [N, C] | dx [rows, C] |
//! | gradient of the weight dW += dyᵀ x | dyᵀ [N, rows] | x [rows, C] | dW [N, C] |
//!
//! All three are one function over strided views, built like BLIS: the right operand is packed in panels of 32 columns
//! ([`Panels`]), the left one in micro-panels as high as a micro-tile, and a micro-tile of c stays in registers while p
//! runs. Threads split rows, or columns if there are few rows. The result does not show how the work was divided,
//! because no division touches the order of p.
//!
//! Panels may hold their weights in a narrow format ([`WeightFormat`]). A micro-tile widens them as it reads them, and
//! the result is, to the last bit, that of the widened weights.
//!
//! [`gemm`](fn@gemm) is the kernel alone, for three slices.
//!
//! Files, each using only those above it: `view` (strided views), `format` (how weights are rounded), `stored` (rows of
//! a panel in each format), `tile` (the micro-tile), `panels` (packing), `matmul` (the loops around the micro-tile),
//! `matmul_many` (several multiplications of one left operand).

mod format;
mod matmul;
mod matmul_many;
pub(super) mod panels;
mod stored;
pub(super) mod tile;
mod view;

pub use format::WeightFormat;
pub use matmul::{Beta, Rhs, gemm, matmul};
pub use matmul_many::matmul_many;
pub use panels::Panels;
pub use view::View;

#[cfg(test)]
mod tests;
