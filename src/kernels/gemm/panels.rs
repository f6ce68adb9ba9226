//! Packing: the right operand in panels of 32 columns, the left one in micro-panels as high as a tile.
//!
//! Packing moves numbers, and rounds them where the format is a narrow one. Columns past the edge of a panel are zeros
//! that no output sees; k is never padded.

use super::stored::{self, Bf16Row, Q8Block, Stored};
use super::{View, WeightFormat, tile};
use crate::kernels::par;
use crate::simd::{self, Kernel, LANES, Simd};
use std::cell::Cell;

pub use super::stored::{PanelRow, WIDTH};

/// A matrix [k, n] as ⌈n / 32⌉ panels of [k, 32], each contiguous: what a product streams through.
#[derive(Clone, Debug)]
pub struct Panels {
    rows: Rows,
    k: usize,
    n: usize,
}

/// All panels, one after the other.
#[derive(Clone, Debug)]
enum Rows {
    F32(Vec<PanelRow>),
    Bf16(Vec<Bf16Row>),
    Q8(Vec<Q8Block>),
}

/// [`Panels`] of a known format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Typed<'a, T> {
    rows: &'a [T],
    k: usize,
    n: usize,
}

/// [`Panels`] by format.
pub(super) enum ByFormat<'a> {
    F32(Typed<'a, PanelRow>),
    Bf16(Typed<'a, Bf16Row>),
    Q8(Typed<'a, Q8Block>),
}

thread_local! {
    /// The memory of temporary panels: a training step packs hundreds of matrices of the same few sizes.
    static SPARE: Cell<Vec<Vec<PanelRow>>> = const { Cell::new(Vec::new()) };
}

impl Panels {
    /// Packs b [k, n] as it is.
    pub fn pack(b: View<'_>) -> Self {
        Self::pack_as(b, WeightFormat::F32)
    }

    /// Packs b [k, n], rounded to a format: products then see the widened values ([`Panels::widen`]).
    pub fn pack_as(b: View<'_>, format: WeightFormat) -> Self {
        let rows = match format {
            WeightFormat::F32 => Rows::F32(pack_exactly(Vec::new(), b)),
            WeightFormat::Bf16 => Rows::Bf16(pack_rounded(b)),
            WeightFormat::Q8 => Rows::Q8(pack_rounded(b)),
        };
        let (k, n) = (b.rows(), b.cols());
        Self { rows, k, n }
    }

    /// The widened values of the stored weights, transposed: w [n, k], packed.
    ///
    /// # Panics
    /// Where w has another length.
    #[track_caller]
    pub fn widen(&self, w: &mut [f32]) {
        let (k, n) = (self.k, self.n);
        assert_eq!(w.len(), n * k, "the weights of a {k} x {n} matrix");
        match self.by_format() {
            ByFormat::F32(panels) => panels.widen(w),
            ByFormat::Bf16(panels) => panels.widen(w),
            ByFormat::Q8(panels) => panels.widen(w),
        }
    }

    /// How the weights are stored.
    pub fn format(&self) -> WeightFormat {
        match self.rows {
            Rows::F32(_) => WeightFormat::F32,
            Rows::Bf16(_) => WeightFormat::Bf16,
            Rows::Q8(_) => WeightFormat::Q8,
        }
    }

    /// Bytes of the stored weights with their scales, columns past the edge included.
    pub fn bytes(&self) -> usize {
        match &self.rows {
            Rows::F32(rows) => size_of_val(&rows[..]),
            Rows::Bf16(rows) => size_of_val(&rows[..]),
            Rows::Q8(blocks) => size_of_val(&blocks[..]),
        }
    }

    /// Length of the chains.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of panels.
    pub fn count(&self) -> usize {
        self.n.div_ceil(WIDTH)
    }

    /// Number of columns.
    pub fn n(&self) -> usize {
        self.n
    }

    pub(super) fn by_format(&self) -> ByFormat<'_> {
        let (k, n) = (self.k, self.n);
        match &self.rows {
            Rows::F32(rows) => ByFormat::F32(Typed { rows, k, n }),
            Rows::Bf16(rows) => ByFormat::Bf16(Typed { rows, k, n }),
            Rows::Q8(rows) => ByFormat::Q8(Typed { rows, k, n }),
        }
    }
}

/// Panels packed for a few matrix multiplications. Their memory is reused by the next ones.
#[derive(Debug)]
pub struct ScratchPanels(Panels);

impl ScratchPanels {
    /// Packs b [k, n] as it is.
    pub fn new(b: View<'_>) -> Self {
        let mut spare = SPARE.take();
        let memory = spare.pop().unwrap_or_default();
        SPARE.set(spare);
        Self(Panels {
            rows: Rows::F32(pack_exactly(memory, b)),
            k: b.rows(),
            n: b.cols(),
        })
    }

    /// The panels.
    pub fn panels(&self) -> &Panels {
        &self.0
    }
}

impl Drop for ScratchPanels {
    fn drop(&mut self) {
        if let Rows::F32(rows) = &mut self.0.rows {
            let mut spare = SPARE.take();
            spare.push(std::mem::take(rows));
            SPARE.set(spare);
        }
    }
}

fn pack_exactly(mut rows: Vec<PanelRow>, b: View<'_>) -> Vec<PanelRow> {
    // What the memory held before does not matter: every row is written below.
    rows.resize(b.cols().div_ceil(WIDTH) * b.rows(), PanelRow::ZERO);
    each_panel(b, &mut rows, pack_panel);
    rows
}

fn pack_rounded<T: Stored>(b: View<'_>) -> Vec<T> {
    let mut rows = vec![T::ZERO; b.cols().div_ceil(WIDTH) * b.rows().div_ceil(T::ROWS)];
    each_panel(b, &mut rows, |columns, panel| {
        let mut exact = vec![PanelRow::ZERO; columns.rows()];
        pack_panel(columns, &mut exact);
        for (stored, rows) in panel.iter_mut().zip(exact.chunks(T::ROWS)) {
            *stored = T::round(rows);
        }
    });
    rows
}

/// Calls `f` with the columns of b [k, n] and the place of each panel.
fn each_panel<T: Stored>(b: View<'_>, rows: &mut [T], f: impl Fn(View<'_>, &mut [T]) + Sync) {
    let (n, length) = (b.cols(), b.rows().div_ceil(T::ROWS));
    if length == 0 {
        return;
    }
    let per_task = par::part(n.div_ceil(WIDTH), 1, 2);
    let tasks = rows.chunks_mut(length * per_task).enumerate().collect();
    par::for_each(tasks, |(task, panels): (usize, &mut [T])| {
        for (q, panel) in panels.chunks_mut(length).enumerate() {
            let from = (task * per_task + q) * WIDTH;
            f(b.columns(from, n.min(from + WIDTH)), panel);
        }
    });
}

impl<'a, T: Stored> Typed<'a, T> {
    /// Length of the chains.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Rows `from..to` of panel `q`.
    #[inline(always)]
    pub fn panel(&self, q: usize, from: usize, to: usize) -> T::Part<'a> {
        let length = self.k.div_ceil(T::ROWS);
        T::part(&self.rows[q * length..(q + 1) * length], from, to)
    }

    /// See [`Panels::widen`].
    fn widen(&self, w: &mut [f32]) {
        let k = self.k;
        if k == 0 {
            return;
        }
        let tasks = w.chunks_mut(WIDTH * k).enumerate().collect();
        par::for_each(tasks, |(q, columns): (usize, &mut [f32])| {
            let mut rows = vec![PanelRow::ZERO; k];
            simd::run(Widen {
                part: self.panel(q, 0, k),
                to: &mut rows,
            });
            for (j, column) in columns.chunks_mut(k).enumerate() {
                for (x, row) in column.iter_mut().zip(&rows) {
                    *x = row.0[j];
                }
            }
        });
    }
}

/// See [`stored::widen`].
struct Widen<'a, B> {
    part: B,
    to: &'a mut [PanelRow],
}

impl<B: stored::Part> Kernel for Widen<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        stored::widen(s, self.part, self.to);
    }
}

/// b [k, at most 32] -> panel [k, 32]; columns past the edge become zeros.
pub fn pack_panel(b: View<'_>, panel: &mut [PanelRow]) {
    simd::run(PackPanel { b, panel });
}

/// See [`pack_panel`].
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
                let from = b.row_part(p, 0, width);
                // Rows of a head, or of a wide matrix, lie far apart, where the CPU does not look ahead by itself.
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
        // Neighbours in memory run along k: turn blocks of 16 x 16.
        let turned = width == WIDTH && b.row_stride == 1;
        let whole = if turned { k / LANES * LANES } else { 0 };
        for half in 0..2 {
            // Cut to one length first, so that no check of bounds is left in the loop.
            let mut rows: [&[[f32; LANES]]; LANES] = [&[]; LANES];
            for (j, row) in rows.iter_mut().enumerate() {
                if whole > 0 {
                    let row_of_b = b.t().row_part(half * LANES + j, 0, whole);
                    *row = &row_of_b.as_chunks().0[..whole / LANES];
                }
            }
            for (q, panel) in panel[..whole]
                .as_chunks_mut::<LANES>()
                .0
                .iter_mut()
                .enumerate()
            {
                let mut block = [s.splat(0.0); LANES];
                for (v, row) in block.iter_mut().zip(rows) {
                    // Short rows far apart, as keys are, come from memory too late by themselves.
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

/// Packs a [height, k] as micro-panels [k, m] of [`tile::height`] rows each, without padding, one after the other into `to`
/// [height · k].
#[inline(always)]
pub fn pack_left<S: Simd>(s: S, a: View<'_>, most: usize, to: &mut [f32]) {
    let (height, k) = (a.rows(), a.cols());
    if a.row_stride == 1 {
        return pack_columns(s, a, most, to);
    }
    let mut next = 0;
    while next < height {
        let (first, m) = (next, tile::height(height - next, most));
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

/// How many rows before they are packed their memory is asked for.
const ROWS_AHEAD: usize = 8;

/// [`pack_left`] of a transposed matrix: what is one row in memory goes to all micro-panels, so that memory is read in order.
#[inline(always)]
fn pack_columns<S: Simd>(s: S, a: View<'_>, most: usize, to: &mut [f32]) {
    let (height, k) = (a.rows(), a.cols());
    for p in 0..k {
        let row = a.t().row_part(p, 0, height);
        // Rows may lie pages apart, where the CPU does not look ahead by itself.
        for x in row.iter().step_by(LANES) {
            s.prefetch(x, ROWS_AHEAD * a.col_stride * size_of::<f32>());
        }
        let mut first = 0;
        while first < height {
            let m = tile::height(height - first, most);
            let at = first * k + p * m;
            // Lanes past this row are written again with the rows after it; only a micro-panel's last rows have no room for them.
            match (row[first..].first_chunk(), to[at..].first_chunk_mut()) {
                (Some(from), Some(to)) if (k - p) * m >= LANES => s.store(s.load(from), to),
                _ => to[at..at + m].copy_from_slice(&row[first..first + m]),
            }
            first += m;
        }
    }
}
