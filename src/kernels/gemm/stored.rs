//! What panels are made of: rows of 32 weights in one of the formats, and how a tile reads them.

use super::format::{self, BLOCK};
use crate::simd::{LANES, Simd};

/// Columns of a panel: two vectors.
pub const WIDTH: usize = 2 * LANES;

/// Bytes ahead of a tile for which it asks. Panels are read once from end to end, and the loads of a tile of many rows
/// are not far enough ahead of its arithmetic to keep the memory busy. 8192 did better than 4096 for several rows; 16384 and
/// 32768 slowed a single row down.
pub const AHEAD: usize = 8192;

/// One or more rows of a panel, as they are stored.
pub trait Stored: Copy + Send + Sync {
    /// Rows in each; the last one of a panel may be filled in part.
    const ROWS: usize;
    /// All weights zero.
    const ZERO: Self;
    /// Some rows of a panel, for a tile.
    type Part<'a>: Part
    where
        Self: 'a;

    /// Rows `from..to` of a panel [k, 32]; `from` is a multiple of [`Stored::ROWS`].
    fn part(panel: &[Self], from: usize, to: usize) -> Self::Part<'_>;

    /// Rounds at most [`Stored::ROWS`] rows.
    fn round(rows: &[PanelRow]) -> Self;
}

/// The right operand of a tile: rows of 32 weights for k ascending.
pub trait Part: Copy {
    /// Rows that are read with one [`Part::Run`].
    const RUN: usize;
    /// What a tile holds in registers, or keeps at hand, while it reads these rows.
    type Run<V: Copy>: Copy;

    /// Bytes of a row, with its share of what rows have in common.
    const ROW_BYTES: usize;

    /// Number of rows.
    fn k(&self) -> usize;

    /// Rows `from..to`, at most [`Part::RUN`] of them; `from` is a multiple of that.
    fn run<S: Simd>(self, s: S, from: usize, to: usize) -> Self::Run<S::V>;

    /// Asks for the memory `bytes` bytes behind row `p` of a run.
    fn ahead<S: Simd>(s: S, run: &Self::Run<S::V>, p: usize, bytes: usize);

    /// Weights 16 v..16 v + 16 of row `p` of a run, widened.
    fn vector<S: Simd>(s: S, run: &Self::Run<S::V>, p: usize, v: usize) -> S::V;
}

/// One row of a panel. The alignment keeps a vector inside one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct PanelRow(pub [f32; WIDTH]);

impl Stored for PanelRow {
    const ROWS: usize = 1;
    const ZERO: Self = Self([0.0; WIDTH]);
    type Part<'a> = &'a [Self];

    #[inline(always)]
    fn part(panel: &[Self], from: usize, to: usize) -> &[Self] {
        &panel[from..to]
    }

    fn round(rows: &[PanelRow]) -> Self {
        rows[0]
    }
}

impl<'a> Part for &'a [PanelRow] {
    const RUN: usize = usize::MAX;
    type Run<V: Copy> = &'a [PanelRow];
    const ROW_BYTES: usize = size_of::<PanelRow>();

    #[inline(always)]
    fn k(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn run<S: Simd>(self, _: S, from: usize, to: usize) -> &'a [PanelRow] {
        &self[from..to]
    }

    #[inline(always)]
    fn ahead<S: Simd>(s: S, run: &&'a [PanelRow], p: usize, bytes: usize) {
        // A row is two cache lines.
        s.prefetch(&run[p], bytes);
        s.prefetch(&run[p], bytes + 64);
    }

    #[inline(always)]
    fn vector<S: Simd>(s: S, run: &&'a [PanelRow], p: usize, v: usize) -> S::V {
        s.load(&run[p].0.as_chunks().0[v])
    }
}

/// One row of a panel in bfloat16: one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Bf16Row([u16; WIDTH]);

impl Stored for Bf16Row {
    const ROWS: usize = 1;
    const ZERO: Self = Self([0; WIDTH]);
    type Part<'a> = &'a [Self];

    #[inline(always)]
    fn part(panel: &[Self], from: usize, to: usize) -> &[Self] {
        &panel[from..to]
    }

    fn round(rows: &[PanelRow]) -> Self {
        Self(rows[0].0.map(format::to_bf16))
    }
}

impl<'a> Part for &'a [Bf16Row] {
    const RUN: usize = usize::MAX;
    type Run<V: Copy> = &'a [Bf16Row];
    const ROW_BYTES: usize = size_of::<Bf16Row>();

    #[inline(always)]
    fn k(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn run<S: Simd>(self, _: S, from: usize, to: usize) -> &'a [Bf16Row] {
        &self[from..to]
    }

    #[inline(always)]
    fn ahead<S: Simd>(s: S, run: &&'a [Bf16Row], p: usize, bytes: usize) {
        s.prefetch(&run[p], bytes);
    }

    #[inline(always)]
    fn vector<S: Simd>(s: S, run: &&'a [Bf16Row], p: usize, v: usize) -> S::V {
        s.load_bf16(&run[p].0.as_chunks().0[v])
    }
}

/// 32 rows of a panel in eight bits, behind their scales: one stream of memory.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Q8Block {
    scales: [f32; WIDTH],
    rows: [[i8; WIDTH]; BLOCK],
}

impl Stored for Q8Block {
    const ROWS: usize = BLOCK;
    const ZERO: Self = Self {
        scales: [0.0; WIDTH],
        rows: [[0; WIDTH]; BLOCK],
    };
    type Part<'a> = Q8Part<'a>;

    #[inline(always)]
    fn part(panel: &[Self], from: usize, to: usize) -> Q8Part<'_> {
        debug_assert_eq!(from % BLOCK, 0, "a part begins with a block");
        Q8Part {
            blocks: &panel[from / BLOCK..to.div_ceil(BLOCK)],
            k: to - from,
        }
    }

    fn round(rows: &[PanelRow]) -> Self {
        let mut block = Self::ZERO;
        format::to_q8(rows, &mut block.rows, &mut block.scales);
        block
    }
}

/// Blocks of a panel; of the last one k may leave rows unused.
#[derive(Clone, Copy, Debug)]
pub struct Q8Part<'a> {
    blocks: &'a [Q8Block],
    k: usize,
}

/// Rows of one block.
#[derive(Clone, Copy, Debug)]
pub struct Scaled<'a, V> {
    block: &'a Q8Block,
    rows: &'a [[i8; WIDTH]],
    scales: [V; 2],
}

impl<'a> Part for Q8Part<'a> {
    const RUN: usize = BLOCK;
    type Run<V: Copy> = Scaled<'a, V>;
    const ROW_BYTES: usize = size_of::<Q8Block>() / BLOCK;

    #[inline(always)]
    fn k(&self) -> usize {
        self.k
    }

    #[inline(always)]
    fn run<S: Simd>(self, s: S, from: usize, to: usize) -> Scaled<'a, S::V> {
        let block = &self.blocks[from / BLOCK];
        let scales = block.scales.as_chunks().0;
        Scaled {
            block,
            rows: &block.rows[..to - from],
            scales: [s.load(&scales[0]), s.load(&scales[1])],
        }
    }

    #[inline(always)]
    fn ahead<S: Simd>(s: S, run: &Scaled<'a, S::V>, p: usize, bytes: usize) {
        // Steps of less than a cache line, over the scales too.
        s.prefetch(run.block, bytes + p * Self::ROW_BYTES);
    }

    #[inline(always)]
    fn vector<S: Simd>(s: S, run: &Scaled<'a, S::V>, p: usize, v: usize) -> S::V {
        s.mul(s.load_i8(&run.rows[p].as_chunks().0[v]), run.scales[v])
    }
}

/// Widens part [k, 32] -> to [k, 32].
#[inline(always)]
pub fn widen<S: Simd, B: Part>(s: S, part: B, to: &mut [PanelRow]) {
    let k = part.k();
    let mut from = 0;
    while from < k {
        let end = from + B::RUN.min(k - from);
        let run = part.run(s, from, end);
        for (p, row) in to[from..end].iter_mut().enumerate() {
            for (v, to) in row.0.as_chunks_mut().0.iter_mut().enumerate() {
                s.store(B::vector(s, &run, p, v), to);
            }
        }
        from = end;
    }
}
