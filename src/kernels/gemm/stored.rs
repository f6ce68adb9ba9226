//! What panels are made of: rows of 32 weights in one of the formats, and how a micro-tile reads them.

use super::format::{self, BLOCK};
use crate::simd::{LANES, Simd};

/// Columns of a panel: two vectors, which is the width of a micro-tile on AVX-512 and twice that of the other backends.
pub const WIDTH: usize = 2 * LANES;

/// Bytes that a micro-tile prefetches ahead. Panels are read once from end to end, and the loads of a tile of many rows
/// are not far enough ahead of its arithmetic to keep the memory busy. 8192 was faster than 4096 for several rows;
/// 16384 and 32768 slowed a single row down.
pub const AHEAD: usize = 8192;

const CACHE_LINE: usize = 64;

/// One or more rows of a panel, as they are stored.
///
/// The default is all zeros.
pub trait Stored: Copy + Default + Send + Sync {
    /// Rows in each; the last one of a panel may be partly unused.
    const ROWS: usize;
    /// Some rows of a panel, for a tile.
    type Part<'a>: Part
    where
        Self: 'a;

    /// Rows `from..to` of a panel [k, 32]; `from` is a multiple of [`Stored::ROWS`].
    fn part(panel: &[Self], from: usize, to: usize) -> Self::Part<'_>;

    /// Rounds at most [`Stored::ROWS`] rows.
    fn round(rows: &[PanelRow]) -> Self;

    /// Weight `j` of row `p` of a panel, widened.
    fn weight(panel: &[Self], p: usize, j: usize) -> f32;
}

/// The right operand of a micro-tile: rows of 32 weights, one for each element p of the chain.
pub trait Part: Copy {
    /// Rows that are read with one [`Part::Run`].
    const RUN: usize;
    /// What a micro-tile keeps in registers while it reads these rows.
    type Run<V: Copy>: Copy;

    /// Bytes of a row, with its share of what the rows of a run have in common.
    const ROW_BYTES: usize;

    /// Number of rows.
    fn k(&self) -> usize;

    /// Rows `from..to`, at most [`Part::RUN`] of them; `from` is a multiple of that.
    fn run<S: Simd>(self, s: S, from: usize, to: usize) -> Self::Run<S::V>;

    /// Prefetches the memory `bytes` bytes behind row `p` of a run.
    fn ahead<S: Simd>(s: S, run: &Self::Run<S::V>, p: usize, bytes: usize);

    /// Weights 16 v..16 v + 16 of row `p` of a run, widened.
    fn vector<S: Simd>(s: S, run: &Self::Run<S::V>, p: usize, v: usize) -> S::V;
}

/// One row of a panel, each weight by itself. A row fills whole cache lines, so that no vector straddles two.
pub trait Row: Copy + Default + Send + Sync + 'static {
    /// Rounds a row.
    fn from_exact(row: &PanelRow) -> Self;

    /// Weight `j`, widened.
    fn widened(&self, j: usize) -> f32;

    /// Weights 16 v..16 v + 16, widened.
    fn load<S: Simd>(&self, s: S, v: usize) -> S::V;
}

/// A row of `f32`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct PanelRow(pub [f32; WIDTH]);

impl Row for PanelRow {
    fn from_exact(row: &PanelRow) -> Self {
        *row
    }

    fn widened(&self, j: usize) -> f32 {
        self.0[j]
    }

    #[inline(always)]
    fn load<S: Simd>(&self, s: S, v: usize) -> S::V {
        s.load(&self.0.as_chunks().0[v])
    }
}

/// A row in bfloat16.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Bf16Row([u16; WIDTH]);

impl Row for Bf16Row {
    fn from_exact(row: &PanelRow) -> Self {
        Self(row.0.map(format::to_bf16))
    }

    fn widened(&self, j: usize) -> f32 {
        format::from_bf16(self.0[j])
    }

    #[inline(always)]
    fn load<S: Simd>(&self, s: S, v: usize) -> S::V {
        s.load_bf16(&self.0.as_chunks().0[v])
    }
}

impl<R: Row> Stored for R {
    const ROWS: usize = 1;
    type Part<'a> = &'a [R];

    #[inline(always)]
    fn part(panel: &[R], from: usize, to: usize) -> &[R] {
        &panel[from..to]
    }

    fn round(rows: &[PanelRow]) -> R {
        R::from_exact(&rows[0])
    }

    fn weight(panel: &[R], p: usize, j: usize) -> f32 {
        panel[p].widened(j)
    }
}

impl<'a, R: Row> Part for &'a [R] {
    const RUN: usize = usize::MAX;
    type Run<V: Copy> = &'a [R];
    const ROW_BYTES: usize = size_of::<R>();

    #[inline(always)]
    fn k(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn run<S: Simd>(self, _: S, from: usize, to: usize) -> &'a [R] {
        &self[from..to]
    }

    #[inline(always)]
    fn ahead<S: Simd>(s: S, run: &&'a [R], p: usize, bytes: usize) {
        for line in 0..size_of::<R>() / CACHE_LINE {
            s.prefetch(&run[p], bytes + line * CACHE_LINE);
        }
    }

    #[inline(always)]
    fn vector<S: Simd>(s: S, run: &&'a [R], p: usize, v: usize) -> S::V {
        run[p].load(s, v)
    }
}

/// 32 rows of a panel in eight bits, behind their scales: one stream of memory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Q8Block {
    scales: [f32; WIDTH],
    rows: [[i8; WIDTH]; BLOCK],
}

impl Stored for Q8Block {
    const ROWS: usize = BLOCK;
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
        let mut block = Self::default();
        let (mut max, mut finite) = ([0.0f32; WIDTH], [true; WIDTH]);
        for row in rows {
            for j in 0..WIDTH {
                let size = row.0[j].abs();
                max[j] = if size > max[j] { size } else { max[j] };
                finite[j] &= size < f32::INFINITY;
            }
        }
        for j in 0..WIDTH {
            block.scales[j] = format::scale(max[j], finite[j]);
        }
        for (row, q) in rows.iter().zip(&mut block.rows) {
            for ((q, x), scale) in q.iter_mut().zip(&row.0).zip(&block.scales) {
                *q = format::to_q8(*x, *scale);
            }
        }
        block
    }

    fn weight(panel: &[Self], p: usize, j: usize) -> f32 {
        let block = &panel[p / BLOCK];
        f32::from(block.rows[p % BLOCK][j]) * block.scales[j]
    }
}

/// Blocks of a panel. The last one may have unused rows.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// One column, as integers and their scale.
    fn column(w: &[f32]) -> (Vec<i8>, f32) {
        let rows: Vec<PanelRow> = w.iter().map(|w| PanelRow([*w; WIDTH])).collect();
        let Q8Block { scales, rows: q } = Q8Block::round(&rows);
        assert!(scales.iter().all(|s| s.to_bits() == scales[0].to_bits()));
        (q[..w.len()].iter().map(|q| q[31]).collect(), scales[0])
    }

    #[test]
    fn q8_is_off_by_half_a_scale() {
        for exponent in [-119, -60, -1, 0, 3, 100, 127] {
            let unit = 2f32.powi(exponent);
            let w: Vec<f32> = (0..BLOCK)
                .map(|i| ((i * 83 + 5) % 241) as f32 / 241.0 * unit * [1.9, -1.9][i % 2])
                .collect();
            let (q, scale) = column(&w);
            assert!(q.iter().any(|q| q.abs() == 127));
            for (w, q) in w.iter().zip(&q) {
                let widened = f64::from(f32::from(*q) * scale);
                // The quotient is rounded by 2^-18 of a scale at most, and the product by 2^-17.
                let max = f64::from(scale) * (0.5 + 2f64.powi(-16));
                assert!((f64::from(*w) - widened).abs() <= max, "{w:e}: {q}");
            }
        }
    }

    #[test]
    fn ends_of_the_range() {
        // Ties go to the even integer; the largest gives a scale of one.
        assert_eq!(
            column(&[127.0, 0.5, 1.5, -2.5, -0.0, 126.5]),
            (vec![127, 0, 2, -2, 0, 126], 1.0)
        );
        assert_eq!(column(&[0.0, -0.0]), (vec![0, 0], 0.0));
        assert_eq!(column(&[1e-37, -1e-40]), (vec![0, 0], 0.0));
        assert_eq!(column(&[]), (vec![], 0.0));
        let (q, scale) = column(&[f32::MAX, -f32::MAX, 1.0]);
        assert_eq!(q, [127, -127, 0]);
        assert!((127.0 * scale).is_finite());
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (q, scale) = column(&[1.0, broken, 2.0]);
            assert!(scale.is_nan() && q.iter().all(|q| (f32::from(*q) * scale).is_nan()));
        }
    }
}
