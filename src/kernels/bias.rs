//! A vector added to every row, and the sum over rows that is its gradient (rule R3).

use super::{par, reduce};

/// Elements that one task handles at least; fewer are not worth another thread.
const WORTH: usize = 1 << 14;

/// x [rows, C], b `[C]` -> y [rows, C], y = x + b.
pub fn forward(x: &[f32], b: &[f32], y: &mut [f32]) {
    let cols = b.len().max(1);
    let rows = par::part(y.len() / cols, 1, 1).max(WORTH / cols + 1);
    let tasks = x.chunks(rows * cols).zip(y.chunks_mut(rows * cols));
    par::for_each(tasks.collect(), |(x, y): (&[f32], &mut [f32])| {
        for (x, y) in x.chunks(cols).zip(y.chunks_mut(cols)) {
            for ((y, x), b) in y.iter_mut().zip(x).zip(b) {
                *y = x + b;
            }
        }
    });
}

/// dy [rows, C] -> db `[C]`: chunks of [`reduce::CHUNK_ROWS`] rows ascending from +0, then the tree.
pub fn backward(dy: &[f32], cols: usize) -> Vec<f32> {
    let chunk = reduce::CHUNK_ROWS * cols;
    let mut partials = vec![0.0; dy.len().div_ceil(chunk) * cols];
    let tasks = dy.chunks(chunk).zip(partials.chunks_mut(cols)).collect();
    par::for_each(tasks, |(dy, partial): (&[f32], &mut [f32])| {
        for dy in dy.chunks(cols) {
            for (sum, d) in partial.iter_mut().zip(dy) {
                *sum += d;
            }
        }
    });
    reduce::fold_tree(&mut partials, cols);
    partials.resize(cols, 0.0);
    partials
}
