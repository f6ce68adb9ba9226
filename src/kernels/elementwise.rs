//! Additions and copies, element by element.

use super::par;
use crate::simd::LANES;

/// Elements that one task handles at least; fewer are not worth another thread.
const WORTH: usize = 1 << 14;

/// y = a + b, element by element.
pub fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
    let part = par::part(y.len(), LANES, 1).max(WORTH);
    let tasks = a.chunks(part).zip(b.chunks(part)).zip(y.chunks_mut(part));
    par::for_each(tasks.collect(), |((a, b), y)| {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = a + b;
        }
    });
}

/// y = x
pub fn copy(x: &[f32], y: &mut [f32]) {
    let part = par::part(y.len(), LANES, 1).max(WORTH);
    let tasks = y.chunks_mut(part).zip(x.chunks(part)).collect();
    par::for_each(tasks, |(y, x): (&mut [f32], &[f32])| y.copy_from_slice(x));
}

/// x += d, element by element.
pub fn accumulate(x: &mut [f32], d: &[f32]) {
    let part = par::part(x.len(), LANES, 1).max(WORTH);
    let tasks = x.chunks_mut(part).zip(d.chunks(part)).collect();
    par::for_each(tasks, |(x, d): (&mut [f32], &[f32])| {
        for (x, d) in x.iter_mut().zip(d) {
            *x += d;
        }
    });
}
