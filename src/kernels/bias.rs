//! A vector added to every row, and the sum over rows that is its gradient (rule R3).

use super::elementwise::{self, Add};
use super::{par, reduce};

/// x [rows, C], b `[C]` -> y [rows, C], y = x + b.
///
/// # Panics
/// Panics if b is empty or the shapes do not fit.
#[track_caller]
pub fn forward(x: &[f32], b: &[f32], y: &mut [f32]) {
    let (cols, x_len, y_len) = (b.len(), x.len(), y.len());
    assert!(
        cols > 0 && x_len == y_len && x_len.is_multiple_of(cols),
        "bias::forward: [{x_len}] + rows of [{cols}] -> [{y_len}]"
    );
    let rows = par::rows_per_task(y_len, cols);
    let tasks = x.chunks(rows * cols).zip(y.chunks_mut(rows * cols));
    par::for_each(tasks, |(x, y)| {
        for (x, y) in x.chunks(cols).zip(y.chunks_mut(cols)) {
            elementwise::update_here(Add, [y], [x, b]);
        }
    });
}

/// dy [rows, C] -> db `[C]`: chunks of [`reduce::CHUNK_ROWS`] rows ascending from +0, then the tree.
///
/// # Panics
/// Panics if `cols` is 0 or dy is not made of such rows.
#[track_caller]
pub fn backward(dy: &[f32], cols: usize) -> Vec<f32> {
    assert!(
        cols > 0 && dy.len().is_multiple_of(cols),
        "bias::backward: [{}] in rows of [{cols}]",
        dy.len()
    );
    let chunk = reduce::CHUNK_ROWS * cols;
    let mut partials = vec![0.0; dy.len().div_ceil(chunk) * cols];
    let tasks = dy.chunks(chunk).zip(partials.chunks_mut(cols));
    par::for_each(tasks, |(dy, partial)| {
        for dy in dy.chunks(cols) {
            elementwise::update_here(Add, [&mut *partial], [dy]);
        }
    });
    reduce::fold_tree(partials, cols)
}
