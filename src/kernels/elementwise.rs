//! Element by element: the loop of all kernels that treat every element alike, additions and copies.

use super::par;
use crate::simd::{self, Kernel, LANES, Simd};

/// What happens to every element of N slices, given those of M others.
pub(super) trait Elementwise<const N: usize, const M: usize>: Copy + Sync {
    /// New elements of the N slices from their old ones y, and from the elements x of the M others.
    fn lanes<S: Simd>(self, s: S, y: [S::V; N], x: [S::V; M]) -> [S::V; N];
}

/// Does `f` to y, given x, on all threads.
///
/// # Panics
/// Panics, with the name of the caller, if the lengths differ.
#[track_caller]
pub(super) fn update<const N: usize, const M: usize>(
    name: &str,
    f: impl Elementwise<N, M>,
    y: [&mut [f32]; N],
    x: [&[f32]; M],
) {
    let lengths = y.iter().map(|y| y.len()).chain(x.map(<[f32]>::len));
    let lengths: Vec<usize> = lengths.collect();
    let n = lengths[0];
    assert!(
        lengths.iter().all(|other| *other == n),
        "{name}: slices of {lengths:?} elements"
    );
    let part = par::elements_per_task(n);
    let (mut y, mut x) = (y.map(|y| y.chunks_mut(part)), x.map(|x| x.chunks(part)));
    let tasks = (0..n.div_ceil(part)).map(|_| {
        let y = y.each_mut().map(|y| y.next().expect("as many parts"));
        let x = x.each_mut().map(|x| x.next().expect("as many parts"));
        (y, x)
    });
    par::for_each(tasks, |(y, x)| update_here(f, y, x));
}

/// Does `f` to y, given x, on this thread. The lengths are the same.
pub(super) fn update_here<const N: usize, const M: usize>(
    f: impl Elementwise<N, M>,
    y: [&mut [f32]; N],
    x: [&[f32]; M],
) {
    simd::run(Update { f, y, x });
}

struct Update<'a, F, const N: usize, const M: usize> {
    f: F,
    y: [&'a mut [f32]; N],
    x: [&'a [f32]; M],
}

impl<F: Elementwise<N, M>, const N: usize, const M: usize> Kernel for Update<'_, F, N, M> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { f, mut y, x } = self;
        let n = y[0].len();
        for from in (0..n).step_by(LANES) {
            let part = from..n.min(from + LANES);
            let (mut old, mut given) = ([s.splat(0.0); N], [s.splat(0.0); M]);
            for (v, y) in old.iter_mut().zip(&y) {
                *v = s.load_partial(&y[part.clone()], 0.0);
            }
            for (v, x) in given.iter_mut().zip(x) {
                *v = s.load_partial(&x[part.clone()], 0.0);
            }
            for (v, y) in f.lanes(s, old, given).into_iter().zip(&mut y) {
                s.store_partial(v, &mut y[part.clone()]);
            }
        }
    }
}

/// Addition: of one slice to y, or of two, with the sum in y.
#[derive(Clone, Copy)]
pub(super) struct Add;

impl Elementwise<1, 1> for Add {
    #[inline(always)]
    fn lanes<S: Simd>(self, s: S, [y]: [S::V; 1], [x]: [S::V; 1]) -> [S::V; 1] {
        [s.add(y, x)]
    }
}

impl Elementwise<1, 2> for Add {
    #[inline(always)]
    fn lanes<S: Simd>(self, s: S, _: [S::V; 1], [a, b]: [S::V; 2]) -> [S::V; 1] {
        [s.add(a, b)]
    }
}

/// y = a + b, element by element.
///
/// # Panics
/// Panics if the lengths differ.
#[track_caller]
pub fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
    update("elementwise::add", Add, [y], [a, b]);
}

/// y = x
///
/// # Panics
/// Panics if the lengths differ.
#[track_caller]
pub fn copy(x: &[f32], y: &mut [f32]) {
    let (x_len, y_len) = (x.len(), y.len());
    assert_eq!(x_len, y_len, "elementwise::copy: [{x_len}] -> [{y_len}]");
    let part = par::elements_per_task(y_len);
    par::for_each(y.chunks_mut(part).zip(x.chunks(part)), |(y, x)| {
        y.copy_from_slice(x);
    });
}

/// x += d, element by element.
///
/// # Panics
/// Panics if the lengths differ.
#[track_caller]
pub fn accumulate(x: &mut [f32], d: &[f32]) {
    update("elementwise::accumulate", Add, [x], [d]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "elementwise::add: slices of [3, 3, 2] elements")]
    fn a_short_operand_panics() {
        add(&[1.0; 3], &[1.0; 2], &mut [0.0; 3]);
    }

    #[test]
    #[should_panic(expected = "elementwise::accumulate: slices of [3, 4] elements")]
    fn a_long_operand_panics() {
        accumulate(&mut [1.0; 3], &[1.0; 4]);
    }
}
