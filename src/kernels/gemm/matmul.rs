//! The loops around the tile.

use super::View;
use super::format::BLOCK;
use super::panels::{ByFormat, Panels, ScratchPanels, Typed, WIDTH, pack_left};
use super::stored::Stored;
use super::tile::{self, MicroPanel};
use crate::kernels::par;
use crate::profile;
use crate::simd::matrix::MatrixMut;
use crate::simd::{self, Kernel, Simd};
use std::cell::Cell;
use std::ops::Range;

/// Where the chains start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At +0: c is overwritten.
    Zero,
    /// At the elements of c: its chains go on.
    Continue,
}

/// The right operand.
#[derive(Clone, Copy, Debug)]
pub enum Right<'a> {
    /// A matrix, packed for this one product.
    View(View<'a>),
    /// A matrix packed before, for good.
    Panels(&'a Panels),
    /// A matrix packed for a few products.
    Scratch(&'a ScratchPanels),
}

impl Right<'_> {
    /// Length of the chains.
    pub fn k(&self) -> usize {
        match self {
            Self::View(b) => b.rows(),
            Self::Panels(b) => b.k(),
            Self::Scratch(b) => b.panels().k(),
        }
    }

    /// Number of columns.
    pub fn n(&self) -> usize {
        match self {
            Self::View(b) => b.cols(),
            Self::Panels(b) => b.n(),
            Self::Scratch(b) => b.panels().n(),
        }
    }
}

/// Rows of the left operand packed at a time, in tiles: a block of them stays in the second-level cache.
const TILES_A_BLOCK: usize = 16;
/// Longest block of k. Longer ones spare loads and stores of c; a panel's block, 64 KiB, comes from the second-level
/// cache as fast as a tile needs it. 512 did best of 192, 256, 384 and 512.
const BLOCK_K: usize = 512;
/// k packed at a time: few enough that a narrow matrix is still in the cache when it is used, and two blocks, because the
/// threads meet after each part.
const PART_K: usize = 2 * BLOCK_K;
/// With so few rows threads split columns: the time goes into reading the panels, and each is read once.
pub(super) const FEW_ROWS: usize = 48;
/// Products of fewer multiply-adds are done by one thread; waking another costs more.
pub(super) const WORTH_SPLITTING: usize = 1 << 14;

thread_local! {
    static SPARE: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// a [M, K], b [K, N] -> c [M, N] = a · b, or c + a · b, by rule R1.
///
/// # Panics
/// Where the shapes do not fit.
#[track_caller]
pub fn matmul(a: View<'_>, b: Right<'_>, mut c: MatrixMut<'_>, mut start: Start) {
    let (k, n) = (b.k(), b.n());
    assert!(
        a.cols() == k && a.rows() == c.rows() && n == c.cols(),
        "product: [{}, {}] x [{k}, {n}] -> [{}, {}]",
        a.rows(),
        a.cols(),
        c.rows(),
        c.cols()
    );
    profile::matmul(a.rows(), n, k);
    match b {
        Right::Panels(panels) => packed(a, panels, c, start),
        Right::Scratch(b) => packed(a, b.panels(), c, start),
        Right::View(b) => {
            for part in parts(k) {
                let a = a.columns(part.start, part.end);
                let b = ScratchPanels::new(b.row_range(part.start, part.end));
                packed(a, b.panels(), c.reborrow(), start);
                start = Start::Continue;
            }
        }
    }
}

/// Parts of k that are packed and used one after the other. There is one at least.
fn parts(k: usize) -> impl Iterator<Item = Range<usize>> {
    let length = k.div_ceil(k.div_ceil(PART_K).max(1)).max(1);
    let starts = (0..k.max(1)).step_by(length);
    starts.map(move |from| from..k.min(from + length))
}

fn packed(a: View<'_>, b: &Panels, c: MatrixMut<'_>, start: Start) {
    match b.by_format() {
        ByFormat::F32(panels) => split(a, panels, c, start),
        ByFormat::Bf16(panels) => split(a, panels, c, start),
        ByFormat::Q8(panels) => split(a, panels, c, start),
    }
}

fn split<T: Stored>(a: View<'_>, panels: Typed<'_, T>, c: MatrixMut<'_>, start: Start) {
    let (m, n) = (a.rows(), panels.n());
    let threads = par::count();
    let block = |first_row: usize, first_panel: usize, c: MatrixMut<'_>| {
        let a = a.row_range(first_row, first_row + c.rows());
        simd::run(Block::new(a, panels, first_panel, c, start));
    };
    if m == 0 || n == 0 {
        return;
    }
    if threads == 1 || m * n * panels.k() < WORTH_SPLITTING {
        block(0, 0, c);
    } else if m <= FEW_ROWS {
        let width = par::part(n, WIDTH, 1);
        let tasks = c.into_col_blocks(width).into_iter().enumerate().collect();
        par::for_each(tasks, |(i, c)| block(0, i * width / WIDTH, c));
    } else {
        // Whole tiles of every backend; a few parts a thread, so that a slow thread does not keep the other waiting.
        let (mut tasks, mut rest, mut first) = (Vec::new(), c, 0);
        for end in par::ends(m, 12, 2) {
            let (part, below) = rest.split_rows(end - first);
            tasks.push((first, part));
            (rest, first) = (below, end);
        }
        par::for_each(tasks, |(first, c)| block(first, 0, c));
    }
}

/// a [m, k], panels from `first_panel` on -> c [m, n]: what one thread does.
pub(super) struct Block<'a, T> {
    a: View<'a>,
    panels: Typed<'a, T>,
    first_panel: usize,
    c: MatrixMut<'a>,
    start: Start,
}

impl<'a, T> Block<'a, T> {
    pub fn new(
        a: View<'a>,
        panels: Typed<'a, T>,
        first_panel: usize,
        c: MatrixMut<'a>,
        start: Start,
    ) -> Self {
        Self {
            a,
            panels,
            first_panel,
            c,
            start,
        }
    }
}

impl<T: Stored> Kernel for Block<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (m, k) = (self.a.rows(), self.panels.k());
        let height = TILES_A_BLOCK * S::TILE_ROWS;
        // Few rows: the left operand is small and c would be loaded again for nothing.
        let depth = match m <= S::TILE_ROWS {
            true => k.max(1),
            // Blocks of nearly equal length, whole blocks of a format.
            false => {
                let even = k.div_ceil(k.div_ceil(BLOCK_K).max(1)).max(1);
                even.next_multiple_of(BLOCK)
            }
        };
        let mut packed = SPARE.take();
        packed.resize(height.min(m) * depth.min(k), 0.0);
        if k == 0 && self.start == Start::Zero {
            for i in 0..m {
                self.c.row_mut(i).fill(0.0);
            }
        }
        for first in (0..m).step_by(height) {
            let last = m.min(first + height);
            for from in (0..k).step_by(depth) {
                let to = k.min(from + depth);
                let a = self.a.row_range(first, last).columns(from, to);
                pack_left(
                    s,
                    a,
                    S::TILE_ROWS,
                    &mut packed[..(last - first) * (to - from)],
                );
                self.sweep(s, &packed, (first, last), (from, to));
            }
        }
        SPARE.set(packed);
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
            // One or two rows need the chains of two panels to keep the multipliers busy.
            let together = if last - first <= 2 && q + 2 <= count {
                2
            } else {
                1
            };
            let mut top = first;
            while top < last {
                let m = tile::height(last - top, S::TILE_ROWS);
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
            // Decided when compiled: no code is made for heights that this backend never asks for.
            unreachable!("a tile of {M} rows");
        }
        let left = MicroPanel::<M>::new(a, to - from);
        let fresh = from == 0 && self.start == Start::Zero;
        let panels = self.panels;
        let first = self.first_panel + q;
        let panel = panels.panel(first, from, to);
        let at = (top, q * WIDTH);
        if M <= 2 && together == 2 {
            let second = panels.panel(first + 1, from, to);
            tile::tile_of_two(s, left, [panel, second], &mut self.c, at, fresh);
        } else {
            tile::tile(s, left, panel, &mut self.c, at, fresh);
        }
    }
}
