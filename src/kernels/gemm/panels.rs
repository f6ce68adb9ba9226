//! Packing: the right operand in panels of 32 columns, the left one in slivers as high as a tile.
//!
//! Packing moves numbers and computes nothing. Columns past the edge of a panel are zeros that no output sees; k is
//! never padded.

use super::{View, tile};
use crate::kernels::par;
use crate::simd::{self, Kernel, LANES, Simd};
use std::cell::Cell;

/// Columns of a panel: two vectors.
pub const WIDTH: usize = 2 * LANES;

/// One row of a panel. The alignment keeps a vector inside one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct PanelRow(pub [f32; WIDTH]);

/// A matrix [k, n] as ⌈n / 32⌉ panels of [k, 32], each contiguous: what a product streams through.
#[derive(Clone, Debug)]
pub struct Panels {
    rows: Vec<PanelRow>,
    k: usize,
    n: usize,
}

thread_local! {
    /// The memory of the last temporary panels: a training step packs hundreds of matrices of the same few sizes.
    static SPARE: Cell<Vec<PanelRow>> = const { Cell::new(Vec::new()) };
}

impl Panels {
    /// Packs b [k, n].
    pub fn pack(b: View<'_>) -> Self {
        Self::pack_into(Vec::new(), b)
    }

    /// Packs b [k, n] for the time of `f`.
    pub(super) fn with_packed<R>(b: View<'_>, f: impl FnOnce(&Self) -> R) -> R {
        let packed = Self::pack_into(SPARE.take(), b);
        let result = f(&packed);
        SPARE.set(packed.rows);
        result
    }

    fn pack_into(mut rows: Vec<PanelRow>, b: View<'_>) -> Self {
        let (k, n) = (b.rows(), b.cols());
        // What the memory held before does not matter: every row is written below.
        rows.resize(n.div_ceil(WIDTH) * k, PanelRow([0.0; WIDTH]));
        if k > 0 {
            let per_task = par::part(n.div_ceil(WIDTH), 1, 2);
            let tasks = rows.chunks_mut(k * per_task).enumerate().collect();
            par::for_each(tasks, |(task, panels): (usize, &mut [PanelRow])| {
                for (q, panel) in panels.chunks_mut(k).enumerate() {
                    let from = (task * per_task + q) * WIDTH;
                    let columns = b.columns(from, n.min(from + WIDTH));
                    simd::run(PackPanel { b: columns, panel });
                }
            });
        }
        Self { rows, k, n }
    }

    /// Length of the chains.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Number of panels.
    pub fn count(&self) -> usize {
        self.n.div_ceil(WIDTH)
    }

    /// Rows `from..to` of panel `q`.
    #[inline(always)]
    pub fn panel(&self, q: usize, from: usize, to: usize) -> &[PanelRow] {
        &self.rows[q * self.k + from..q * self.k + to]
    }
}

/// b [k, at most 32] -> panel [k, 32]
struct PackPanel<'a> {
    b: View<'a>,
    panel: &'a mut [PanelRow],
}

impl Kernel for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { b, panel } = self;
        let (k, width) = (b.rows(), b.cols());
        if b.col_stride == 1 {
            for (p, row) in panel.iter_mut().enumerate() {
                match b.row_part(p, 0, width).try_into() {
                    Ok(whole) => row.0 = whole,
                    Err(_) => {
                        row.0[..width].copy_from_slice(b.row_part(p, 0, width));
                        row.0[width..].fill(0.0);
                    }
                }
            }
            return;
        }
        // Neighbours in memory run along k: turn blocks of 16 x 16.
        let whole = if width == WIDTH && b.row_stride == 1 {
            k / LANES * LANES
        } else {
            0
        };
        for p in (0..whole).step_by(LANES) {
            for half in 0..2 {
                let mut block = [s.splat(0.0); LANES];
                for (j, v) in block.iter_mut().enumerate() {
                    let part = b.t().row_part(half * LANES + j, p, p + LANES);
                    *v = s.load(part.first_chunk().expect("sixteen elements"));
                }
                for (i, v) in s.transpose(block).into_iter().enumerate() {
                    s.store(v, &mut panel[p + i].0.as_chunks_mut().0[half]);
                }
            }
        }
        for (p, row) in panel.iter_mut().enumerate().skip(whole) {
            for (j, x) in row.0.iter_mut().enumerate() {
                *x = if j < width { b.at(p, j) } else { 0.0 };
            }
        }
    }
}

/// Packs a [height, k] as slivers [k, m] of [`tile::height`] rows each, without padding, one after the other into `to`
/// [height · k].
#[inline(always)]
pub fn pack_left<S: Simd>(s: S, a: View<'_>, most: usize, to: &mut [f32]) {
    let (height, k) = (a.rows(), a.cols());
    let mut next = 0;
    while next < height {
        let (first, m) = (next, tile::height(height - next, most));
        next += m;
        let sliver = &mut to[first * k..(first + m) * k];
        if a.row_stride == 1 {
            for (p, x) in sliver.chunks_exact_mut(m).enumerate() {
                // A copy of a few elements whose number the compiler does not know would be a call.
                let part = a.t().row_part(p, first, first + m);
                s.store_partial(s.load_partial(part, 0.0), x);
            }
            continue;
        }
        let whole = if a.col_stride == 1 {
            k / LANES * LANES
        } else {
            0
        };
        for p in (0..whole).step_by(LANES) {
            let mut block = [s.splat(0.0); LANES];
            for (i, v) in block.iter_mut().enumerate().take(m) {
                let part = a.row_part(first + i, p, p + LANES);
                *v = s.load(part.first_chunk().expect("sixteen elements"));
            }
            for (i, v) in s.transpose(block).into_iter().enumerate() {
                s.store_partial(v, &mut sliver[(p + i) * m..(p + i + 1) * m]);
            }
        }
        for p in whole..k {
            for i in 0..m {
                sliver[p * m + i] = a.at(first + i, p);
            }
        }
    }
}
