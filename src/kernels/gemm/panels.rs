//! Packing: the right operand in panels of 32 columns, the left one in micro-panels as high as a micro-tile.
//!
//! Packing moves numbers, and rounds them if the format is a narrow one. Columns past the edge of a panel are zeros
//! that no output sees; p, the index of the chain, is never padded.

use super::stored::{Bf16Row, Part, Q8Block, Stored};
use super::tile::micro_panel_rows;
use super::{View, WeightFormat};
use crate::kernels::par;
use crate::kernels::scratch::Scratch;
use crate::simd::{self, Kernel, LANES, Simd};

pub use super::stored::{PanelRow, WIDTH};

/// A matrix [K, N] packed as ⌈N / 32⌉ panels of [K, 32], each contiguous: what a matrix multiplication streams through.
#[derive(Clone, Debug)]
pub struct Panels {
    pub(super) data: PanelData,
    k: usize,
    n: usize,
}

/// All panels, one after the other.
#[derive(Clone, Debug)]
pub(super) enum PanelData {
    F32(Scratch<PanelRow>),
    Bf16(Vec<Bf16Row>),
    Q8(Vec<Q8Block>),
}

/// [`Panels`] of a known format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Typed<'a, T> {
    data: &'a [T],
    /// Length of the chains.
    pub k: usize,
}

/// Does `$go` with the [`Typed`] panels of whatever format `$panels` have.
macro_rules! with_format {
    ($panels:expr, $typed:ident => $go:expr) => {
        $crate::kernels::gemm::panels::with_format!($panels, $typed => $go, F32 Bf16 Q8)
    };
    ($panels:expr, $typed:ident => $go:expr, $($format:ident)*) => {
        match &$panels.data {
            $($crate::kernels::gemm::panels::PanelData::$format(data) => {
                let $typed = $panels.typed(data);
                $go
            })*
        }
    };
}
pub(super) use with_format;

impl Panels {
    /// Packs b [K, N] for a few matrix multiplications, in memory that later ones use again.
    pub fn pack(b: View<'_>) -> Self {
        // What the memory held before does not matter: every row is written.
        let mut rows = Scratch::new(b.cols().div_ceil(WIDTH) * b.rows());
        each_panel(b, &mut rows, pack_panel);
        Self::new(PanelData::F32(rows), b)
    }

    /// Packs b [K, N] for good, rounded to a format: matrix multiplications then see the widened values
    /// ([`Panels::widen`]).
    pub fn pack_as(b: View<'_>, format: WeightFormat) -> Self {
        let data = match format {
            WeightFormat::F32 => PanelData::F32(pack_rounded(b).into()),
            WeightFormat::Bf16 => PanelData::Bf16(pack_rounded(b)),
            WeightFormat::Q8 => PanelData::Q8(pack_rounded(b)),
        };
        Self::new(data, b)
    }

    fn new(data: PanelData, b: View<'_>) -> Self {
        let (k, n) = (b.rows(), b.cols());
        Self { data, k, n }
    }

    /// The widened values of the stored weights, transposed and row by row: w [N, K].
    ///
    /// # Panics
    /// Panics if w has the wrong length.
    #[track_caller]
    pub fn widen(&self, w: &mut [f32]) {
        let (k, n) = (self.k, self.n);
        assert_eq!(w.len(), n * k, "Panels::widen: a {k} x {n} matrix");
        with_format!(self, panels => panels.widen(w));
    }

    /// The widened values of column `j`, `[K]`: row j of the matrix whose transposed was packed.
    ///
    /// # Panics
    /// Panics if there is no such column, or `column` has the wrong length.
    #[track_caller]
    pub fn column(&self, j: usize, column: &mut [f32]) {
        assert!(j < self.n, "Panels::column: column {j} of {}", self.n);
        assert_eq!(column.len(), self.k, "Panels::column: {} elements", self.k);
        with_format!(self, panels => panels.column(j, column));
    }

    /// How the weights are stored.
    pub fn format(&self) -> WeightFormat {
        match self.data {
            PanelData::F32(_) => WeightFormat::F32,
            PanelData::Bf16(_) => WeightFormat::Bf16,
            PanelData::Q8(_) => WeightFormat::Q8,
        }
    }

    /// Bytes of the stored weights with their scales, columns past the edge included.
    pub fn bytes(&self) -> usize {
        with_format!(self, panels => size_of_val(panels.data))
    }

    /// Number of rows: the length of the chains.
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

    pub(super) fn typed<'a, T>(&self, data: &'a [T]) -> Typed<'a, T> {
        Typed { data, k: self.k }
    }
}

fn pack_rounded<T: Stored>(b: View<'_>) -> Vec<T> {
    let mut rows = vec![T::default(); b.cols().div_ceil(WIDTH) * b.rows().div_ceil(T::ROWS)];
    each_panel(b, &mut rows, |columns, panel| {
        let mut exact = vec![PanelRow::default(); columns.rows()];
        pack_panel(columns, &mut exact);
        for (stored, rows) in panel.iter_mut().zip(exact.chunks(T::ROWS)) {
            *stored = T::round(rows);
        }
    });
    rows
}

/// Calls `f` with the columns of b [K, N] and the place of each panel.
fn each_panel<T: Stored>(b: View<'_>, rows: &mut [T], f: impl Fn(View<'_>, &mut [T]) + Sync) {
    let (n, length) = (b.cols(), b.rows().div_ceil(T::ROWS));
    if length == 0 {
        return;
    }
    let per_task = par::part(n.div_ceil(WIDTH), 1, 2);
    let tasks = rows.chunks_mut(length * per_task).enumerate();
    par::for_each(tasks, |(task, panels)| {
        for (q, panel) in panels.chunks_mut(length).enumerate() {
            let from = (task * per_task + q) * WIDTH;
            f(b.columns(from, n.min(from + WIDTH)), panel);
        }
    });
}

impl<'a, T: Stored> Typed<'a, T> {
    /// Rows `from..to` of panel `q`.
    #[inline(always)]
    pub fn panel(&self, q: usize, from: usize, to: usize) -> T::Part<'a> {
        T::part(self.stored(q), from, to)
    }

    /// All of panel `q`.
    #[inline(always)]
    fn stored(&self, q: usize) -> &'a [T] {
        let length = self.k.div_ceil(T::ROWS);
        &self.data[q * length..(q + 1) * length]
    }

    /// See [`Panels::column`].
    fn column(&self, j: usize, column: &mut [f32]) {
        let panel = self.stored(j / WIDTH);
        for (p, x) in column.iter_mut().enumerate() {
            *x = T::weight(panel, p, j % WIDTH);
        }
    }

    /// See [`Panels::widen`].
    fn widen(&self, w: &mut [f32]) {
        let k = self.k;
        if k == 0 {
            return;
        }
        par::for_each(w.chunks_mut(WIDTH * k).enumerate(), |(q, columns)| {
            let mut rows = vec![PanelRow::default(); k];
            let (part, to) = (self.panel(q, 0, k), &mut rows[..]);
            simd::run(Widen { part, to });
            for (j, column) in columns.chunks_mut(k).enumerate() {
                for (x, row) in column.iter_mut().zip(&rows) {
                    *x = row.0[j];
                }
            }
        });
    }
}

/// Widens part [k, 32] -> to [k, 32].
struct Widen<'a, B> {
    part: B,
    to: &'a mut [PanelRow],
}

impl<B: Part> Kernel for Widen<'_, B> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let k = self.part.k();
        let mut from = 0;
        while from < k {
            let end = from + B::RUN.min(k - from);
            let run = self.part.run(s, from, end);
            for (p, row) in self.to[from..end].iter_mut().enumerate() {
                for (v, to) in row.0.as_chunks_mut().0.iter_mut().enumerate() {
                    s.store(B::vector(s, &run, p, v), to);
                }
            }
            from = end;
        }
    }
}

/// b [K, at most 32] -> panel [K, 32]; columns past the edge become zeros.
pub fn pack_panel(b: View<'_>, panel: &mut [PanelRow]) {
    simd::run(PackPanel { b, panel });
}

/// See [`pack_panel`].
struct PackPanel<'a> {
    b: View<'a>,
    panel: &'a mut [PanelRow],
}

impl Kernel for PackPanel<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { b, panel } = self;
        let (k, width) = (b.rows(), b.cols());
        if b.col_stride == 1 {
            for (p, row) in panel.iter_mut().enumerate() {
                let from = b.row_part(p, 0, width);
                // Rows of a head, or of a wide matrix, lie far apart, and the CPU does not prefetch them by itself.
                for x in from.iter().step_by(LANES) {
                    s.prefetch(x, ROWS_AHEAD * b.row_stride * size_of::<f32>());
                }
                match from.try_into() {
                    Ok(whole) => row.0 = whole,
                    Err(_) => {
                        row.0[..width].copy_from_slice(from);
                        row.0[width..].fill(0.0);
                    }
                }
            }
            return;
        }
        // Neighbours in memory run along the chain: transpose blocks of 16 x 16.
        let turned = width == WIDTH && b.row_stride == 1;
        let whole = if turned { k / LANES * LANES } else { 0 };
        for half in 0..2 {
            // Cut to one length first, so that no bounds check is left in the loop.
            let mut rows: [&[[f32; LANES]]; LANES] = [&[]; LANES];
            for (j, row) in rows.iter_mut().enumerate() {
                if whole > 0 {
                    let row_of_b = b.t().row_part(half * LANES + j, 0, whole);
                    *row = &row_of_b.as_chunks().0[..whole / LANES];
                }
            }
            let (blocks, _) = panel[..whole].as_chunks_mut::<LANES>();
            for (q, panel) in blocks.iter_mut().enumerate() {
                let mut block = [s.splat(0.0); LANES];
                for (v, row) in block.iter_mut().zip(rows) {
                    // Short rows far apart, such as keys, arrive from memory too late without a prefetch.
                    s.prefetch(&row[q], WIDTH * b.col_stride * size_of::<f32>());
                    *v = s.load(&row[q]);
                }
                for (v, row) in s.transpose(block).into_iter().zip(panel) {
                    s.store(v, &mut row.0.as_chunks_mut().0[half]);
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

/// Packs a [height, k] as micro-panels [k, m] of [`micro_panel_rows`] rows each, without padding, one after the other
/// into `to` [height · k].
#[inline(always)]
pub fn pack_left<S: Simd>(s: S, a: View<'_>, max: usize, to: &mut [f32]) {
    let (height, k) = (a.rows(), a.cols());
    if a.row_stride == 1 {
        return pack_columns(s, a, max, to);
    }
    let mut next = 0;
    while next < height {
        let (first, m) = (next, micro_panel_rows(height - next, max));
        next += m;
        let micro_panel = &mut to[first * k..(first + m) * k];
        let turned = a.col_stride == 1;
        let whole = if turned { k / LANES * LANES } else { 0 };
        for p in (0..whole).step_by(LANES) {
            let mut block = [s.splat(0.0); LANES];
            for (i, v) in block.iter_mut().enumerate().take(m) {
                let part = a.row_part(first + i, p, p + LANES);
                *v = s.load(part.first_chunk().expect("sixteen elements"));
            }
            for (i, v) in s.transpose(block).into_iter().enumerate() {
                s.store_partial(v, &mut micro_panel[(p + i) * m..(p + i + 1) * m]);
            }
        }
        for p in whole..k {
            for i in 0..m {
                micro_panel[p * m + i] = a.at(first + i, p);
            }
        }
    }
}

/// Rows ahead of the one being packed that are prefetched: about the latency of memory at the speed of packing.
const ROWS_AHEAD: usize = 8;

/// [`pack_left`] of a transposed matrix: one row in memory goes to all micro-panels, so that memory is read in order.
#[inline(always)]
fn pack_columns<S: Simd>(s: S, a: View<'_>, max: usize, to: &mut [f32]) {
    let (height, k) = (a.rows(), a.cols());
    for p in 0..k {
        let row = a.t().row_part(p, 0, height);
        // Rows may lie pages apart, and the CPU does not prefetch across pages.
        for x in row.iter().step_by(LANES) {
            s.prefetch(x, ROWS_AHEAD * a.col_stride * size_of::<f32>());
        }
        let mut first = 0;
        while first < height {
            let m = micro_panel_rows(height - first, max);
            let at = first * k + p * m;
            // Lanes past this row are overwritten by the rows after it; only a micro-panel's last rows have no room for
            // them.
            match (row[first..].first_chunk(), to[at..].first_chunk_mut()) {
                (Some(from), Some(to)) if (k - p) * m >= LANES => s.store(s.load(from), to),
                _ => to[at..at + m].copy_from_slice(&row[first..first + m]),
            }
            first += m;
        }
    }
}
