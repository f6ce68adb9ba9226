//! The loops around the micro-tile.

use super::View;
use super::format::BLOCK;
use super::panels::{Panels, Typed, WIDTH, pack_left, with_format};
use super::stored::Stored;
use super::tile::{self, MicroPanel};
use crate::kernels::par;
use crate::kernels::scratch::Scratch;
use crate::profile;
use crate::simd::matrix::MatrixMut;
use crate::simd::{self, Kernel, Simd};
use std::ops::Range;

/// What a multiplication adds to: BLAS's β, restricted to 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beta {
    /// c is overwritten; the accumulation starts at +0.
    Zero,
    /// The accumulation starts at the elements of c.
    One,
}

/// The right operand.
#[derive(Clone, Copy, Debug)]
pub enum Rhs<'a> {
    /// A matrix, which is packed for this one multiplication.
    View(View<'a>),
    /// A matrix that is packed already.
    Panels(&'a Panels),
}

impl Rhs<'_> {
    /// Number of rows: the length of the chains.
    pub fn k(&self) -> usize {
        match self {
            Self::View(b) => b.rows(),
            Self::Panels(b) => b.k(),
        }
    }

    /// Number of columns.
    pub fn n(&self) -> usize {
        match self {
            Self::View(b) => b.cols(),
            Self::Panels(b) => b.n(),
        }
    }
}

/// Micro-panels of the left operand that are packed together (BLIS's m_c in tiles): this many, times [`KC`] elements,
/// stay in the second-level cache.
const TILES_PER_BLOCK: usize = 16;
/// Longest block of a chain (BLIS's k_c). Longer ones spare loads and stores of c; a panel's block, 64 KiB, comes from
/// the second-level cache as fast as a tile needs it. 512 was the fastest of 192, 256, 384 and 512.
const KC: usize = 512;
/// Rows of the right operand that are packed at a time: few enough that a narrow matrix is still in the cache when it
/// is used, and two blocks, because the threads meet after each part.
const ROWS_PER_PART: usize = 2 * KC;
/// Up to this many rows, threads split columns: the time goes into reading the panels, and each is read once.
pub(super) const FEW_ROWS: usize = 48;

/// a [m, k], b [k, n] -> c [m, n] = a · b, all row-major: the exact kernel alone.
///
/// Each element is one chain (rule R1), so its bits do not depend on m, n, the threads or the instruction set. For
/// strided views, packed weights or c + a · b see [`matmul`].
///
/// ```
/// use foretoken::kernels::gemm::gemm;
///
/// let a = [1.0, 2.0, 3.0, 4.0]; // 2 x 2
/// let b = [5.0, 6.0, 7.0, 8.0, 9.0, 10.0]; // 2 x 3
/// let mut c = [0.0; 6];
/// gemm(2, 2, 3, &a, &b, &mut c);
/// assert_eq!(c, [21.0, 24.0, 27.0, 47.0, 54.0, 61.0]);
/// ```
///
/// # Panics
/// Panics if a slice does not have the length of its matrix.
#[track_caller]
pub fn gemm(m: usize, k: usize, n: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    let (a, b) = (View::new(a, m, k), View::new(b, k, n));
    matmul(a, Rhs::View(b), MatrixMut::new(c, m, n), Beta::Zero);
}

/// a [M, K], b [K, N] -> c [M, N] = a · b, or c + a · b, by rule R1.
///
/// # Panics
/// Panics if the shapes do not fit.
#[track_caller]
pub fn matmul(a: View<'_>, b: Rhs<'_>, mut c: MatrixMut<'_>, mut beta: Beta) {
    let (k, n) = (b.k(), b.n());
    assert!(
        a.cols() == k && a.rows() == c.rows() && n == c.cols(),
        "matmul: [{}, {}] x [{k}, {n}] -> [{}, {}]",
        a.rows(),
        a.cols(),
        c.rows(),
        c.cols()
    );
    profile::matmul(a.rows(), n, k);
    match b {
        Rhs::Panels(panels) => split(a, panels, c, beta),
        Rhs::View(b) => {
            for part in parts(k) {
                let a = a.columns(part.start, part.end);
                let b = Panels::pack(b.row_range(part.start, part.end));
                split(a, &b, c.reborrow(), beta);
                beta = Beta::One;
            }
        }
    }
}

/// Parts of the right operand's rows that are packed and used one after the other. There is at least one.
fn parts(k: usize) -> impl Iterator<Item = Range<usize>> {
    let length = k.div_ceil(k.div_ceil(ROWS_PER_PART).max(1)).max(1);
    let starts = (0..k.max(1)).step_by(length);
    starts.map(move |from| from..k.min(from + length))
}

/// Divides the work over threads.
fn split(a: View<'_>, b: &Panels, c: MatrixMut<'_>, beta: Beta) {
    let (m, n) = (a.rows(), b.n());
    let threads = par::count();
    let block = |first_row: usize, first_panel: usize, c: MatrixMut<'_>| {
        let a = a.row_range(first_row, first_row + c.rows());
        block(a, b, first_panel, c, beta);
    };
    if m == 0 || n == 0 {
        return;
    }
    if threads == 1 || m * n * b.k() < par::WORTH_SPLITTING {
        block(0, 0, c);
    } else if m <= FEW_ROWS {
        let width = par::part(n, WIDTH, 1);
        let tasks = c.into_col_blocks(width).into_iter().enumerate();
        par::for_each(tasks, |(i, c)| block(0, i * width / WIDTH, c));
    } else {
        // Whole tiles of every backend; two parts per thread, so that a slow thread does not keep the others waiting.
        let (mut tasks, mut rest, mut first) = (Vec::new(), c, 0);
        for end in par::ends(m, 12, 2) {
            let (part, below) = rest.split_rows(end - first);
            tasks.push((first, part));
            (rest, first) = (below, end);
        }
        par::for_each(tasks, |(first, c)| block(first, 0, c));
    }
}

/// a [m, K], panels of b from `first_panel` on -> c [m, n]: the work of one thread.
pub(super) fn block(a: View<'_>, b: &Panels, first_panel: usize, c: MatrixMut<'_>, beta: Beta) {
    with_format!(b, panels => simd::run(Block { a, panels, first_panel, c, beta }));
}

/// See [`block`].
struct Block<'a, T> {
    a: View<'a>,
    panels: Typed<'a, T>,
    first_panel: usize,
    c: MatrixMut<'a>,
    beta: Beta,
}

impl<T: Stored> Kernel for Block<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (m, k) = (self.a.rows(), self.panels.k);
        let height = TILES_PER_BLOCK * S::TILE_ROWS;
        // Few rows are one block: the left operand is small, and c would be loaded again for nothing. Otherwise blocks
        // have nearly equal lengths and are whole blocks of a format. The memory is always as long, to be the same each
        // time.
        let (depth, length) = if m <= S::TILE_ROWS {
            (k.max(1), m * k)
        } else {
            let even = k.div_ceil(k.div_ceil(KC).max(1)).max(1);
            (even.next_multiple_of(BLOCK), height * KC)
        };
        let mut packed = Scratch::<f32>::new(length);
        if k == 0 && self.beta == Beta::Zero {
            for i in 0..m {
                self.c.row_mut(i).fill(0.0);
            }
        }
        for first in (0..m).step_by(height) {
            let last = m.min(first + height);
            for from in (0..k).step_by(depth) {
                let to = k.min(from + depth);
                let a = self.a.row_range(first, last).columns(from, to);
                let packed = &mut packed[..(last - first) * (to - from)];
                pack_left(s, a, S::TILE_ROWS, packed);
                self.sweep(s, packed, (first, last), (from, to));
            }
        }
    }
}

impl<T: Stored> Block<'_, T> {
    /// All panels against one packed block of a.
    #[inline(always)]
    fn sweep<S: Simd>(
        &mut self,
        s: S,
        packed: &[f32],
        (first, last): (usize, usize),
        (from, to): (usize, usize),
    ) {
        let count = self.c.cols().div_ceil(WIDTH);
        let mut q = 0;
        while q < count {
            // The chains of one or two rows over one panel are too few to keep the multipliers busy.
            let together = if last - first <= S::TWO_PANEL_ROWS && q + 2 <= count {
                2
            } else {
                1
            };
            let mut top = first;
            while top < last {
                let m = tile::micro_panel_rows(last - top, S::TILE_ROWS);
                let a = &packed[(top - first) * (to - from)..(top - first + m) * (to - from)];
                macro_rules! heights {
                    ($($height:literal)*) => {
                        match m {
                            $($height => self.columns::<S, $height>(s, a, top, q, together, (from, to)),)*
                            _ => unreachable!("a tile of {m} rows"),
                        }
                    };
                }
                heights!(1 2 3 4 5 6 7 8 12);
                top += m;
            }
            q += together;
        }
    }

    /// The tiles of M rows from `top` over `together` panels from `q`.
    #[inline(always)]
    fn columns<S: Simd, const M: usize>(
        &mut self,
        s: S,
        a: &[f32],
        top: usize,
        q: usize,
        together: usize,
        (from, to): (usize, usize),
    ) {
        if M > S::TILE_ROWS {
            // Decided at compile time: no code is made for heights that this backend never has.
            unreachable!("a tile of {M} rows");
        }
        let left = MicroPanel::<M>::new(a, to - from);
        let fresh = from == 0 && self.beta == Beta::Zero;
        let panels = self.panels;
        let first = self.first_panel + q;
        let panel = panels.panel(first, from, to);
        let at = (top, q * WIDTH);
        if M <= S::TWO_PANEL_ROWS && together == 2 {
            let second = panels.panel(first + 1, from, to);
            tile::tile_of_two(s, left, [panel, second], &mut self.c, at, fresh);
        } else {
            tile::tile(s, left, panel, &mut self.c, at, fresh);
        }
    }
}
