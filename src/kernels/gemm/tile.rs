//! The micro-tile: M rows by one or two panels of c, kept in registers while p, the index of the chains, runs.

use super::stored::{AHEAD, PanelRow, Part, WIDTH};
use crate::simd::matrix::MatrixMut;
use crate::simd::{LANES, Simd};

/// Rows of the next micro-panel of the left operand (BLIS's m_r) when `rest` are left and a micro-tile holds `max`:
/// few heights, so that few forms of the kernel are compiled, but every number of rows that a verify pass commonly has.
///
/// What one tile cannot hold is left to two of nearly the same height: the few chains of a tile of one or two rows wait
/// for each other.
#[inline]
pub fn micro_panel_rows(rest: usize, max: usize) -> usize {
    const HEIGHTS: [usize; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 12];
    if rest <= max && HEIGHTS.contains(&rest) {
        return rest;
    }
    let wanted = if rest < max + 3 {
        rest.div_ceil(2)
    } else {
        max
    };
    let mut heights = HEIGHTS.into_iter();
    heights.find(|h| *h >= wanted).expect("at most twelve rows")
}

/// The left operand of a micro-tile: M elements for each p.
pub trait Left<const M: usize>: Copy {
    /// Elements p = `from..to`. A loop over just these needs no bounds check, except for [`ColumnMajor`], which cannot
    /// be cut.
    fn cut(&self, from: usize, to: usize) -> Self;

    /// The elements of rows 0..M at `p`.
    fn at(&self, p: usize) -> [f32; M];
}

/// A packed micro-panel: [K, M] without gaps.
#[derive(Clone, Copy)]
pub struct MicroPanel<'a, const M: usize>(&'a [[f32; M]]);

impl<'a, const M: usize> MicroPanel<'a, M> {
    /// packed [K · M]
    #[inline(always)]
    pub fn new(packed: &'a [f32], k: usize) -> Self {
        Self(&packed.as_chunks().0[..k])
    }
}

impl<const M: usize> Left<M> for MicroPanel<'_, M> {
    #[inline(always)]
    fn cut(&self, from: usize, to: usize) -> Self {
        Self(&self.0[from..to])
    }

    #[inline(always)]
    fn at(&self, p: usize) -> [f32; M] {
        self.0[p]
    }
}

/// M rows of a row-major matrix, each contiguous.
#[derive(Clone, Copy)]
pub struct RowMajor<'a, const M: usize>([&'a [f32]; M]);

impl<'a, const M: usize> RowMajor<'a, M> {
    /// Rows `top..top + M` and columns `from..from + k` of data [.., stride]; chains run along the columns.
    #[inline(always)]
    pub fn new(data: &'a [f32], stride: usize, top: usize, from: usize, k: usize) -> Self {
        let mut rows = [&data[..0]; M];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = &data[(top + i) * stride + from..][..k];
        }
        Self(rows)
    }
}

impl<const M: usize> Left<M> for RowMajor<'_, M> {
    #[inline(always)]
    fn cut(&self, from: usize, to: usize) -> Self {
        // A loop, because `map` may stay out of line and hide from the compiler that the rows have one length.
        let mut rows = self.0;
        for row in &mut rows {
            *row = &row[from..to];
        }
        Self(rows)
    }

    #[inline(always)]
    fn at(&self, p: usize) -> [f32; M] {
        let mut x = [0.0; M];
        for (x, row) in x.iter_mut().zip(self.0) {
            *x = row[p];
        }
        x
    }
}

/// M neighbouring columns of a row-major matrix: the transposed operand, whose chains run down the columns.
#[derive(Clone, Copy)]
pub struct ColumnMajor<'a> {
    data: &'a [f32],
    stride: usize,
}

impl<'a> ColumnMajor<'a> {
    /// Columns `left..` of rows `from..` of data [.., stride].
    #[inline(always)]
    pub fn new(data: &'a [f32], stride: usize, from: usize, left: usize) -> Self {
        Self {
            data: &data[(from * stride + left).min(data.len())..],
            stride,
        }
    }
}

impl<const M: usize> Left<M> for ColumnMajor<'_> {
    #[inline(always)]
    fn cut(&self, from: usize, _: usize) -> Self {
        Self {
            data: &self.data[(from * self.stride).min(self.data.len())..],
            ..*self
        }
    }

    #[inline(always)]
    fn at(&self, p: usize) -> [f32; M] {
        *self.data[p * self.stride..]
            .first_chunk()
            .expect("M columns of row p")
    }
}

/// Runs the chains of rows `top..top + M` and columns `col..` of c over one panel [K, 32]: from +0 if `fresh`, else
/// from c.
///
/// Columns past the edge of c are computed and dropped.
#[inline(always)]
pub fn tile<S: Simd, const M: usize>(
    s: S,
    left: impl Left<M>,
    panel: impl Part,
    c: &mut MatrixMut<'_>,
    (top, col): (usize, usize),
    fresh: bool,
) {
    if S::TILE_VECTORS == 2 {
        let acc = load::<S, M, 1, 2>(s, c, top, col, fresh);
        let acc = chain(s, left, [panel], 0, acc);
        store(s, c, top, col, &acc);
        return;
    }
    for half in 0..2 {
        let col = col + half * LANES;
        if col < c.cols() {
            let acc = load::<S, M, 1, 1>(s, c, top, col, fresh);
            let acc = chain(s, left, [panel], half, acc);
            store(s, c, top, col, &acc);
        }
    }
}

/// Which elements of a triangular left operand are absent: attention's causal mask cuts a tile of M rows along a
/// diagonal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Triangle {
    /// Each row ends one element later than the row above; all start at p = 0. Rows are queries and p runs over keys: a
    /// later query sees more keys.
    Lower,
    /// Row i starts at p = i; all end together. Rows are keys and p runs over queries: a later key is seen by fewer
    /// queries.
    Upper,
}

/// [`tile()`] with a triangular left operand over a panel [K, 32], K ≥ M − 1: absent elements take no part in a chain.
#[inline(always)]
pub fn triangle<S: Simd, const M: usize>(
    s: S,
    shape: Triangle,
    left: impl Left<M>,
    panel: &[PanelRow],
    c: &mut MatrixMut<'_>,
    (top, col): (usize, usize),
    fresh: bool,
) {
    if S::TILE_VECTORS == 2 {
        let acc = load::<S, M, 1, 2>(s, c, top, col, fresh);
        let acc = triangle_chain(s, shape, left, panel, 0, acc);
        store(s, c, top, col, &acc);
        return;
    }
    for half in 0..2 {
        let col = col + half * LANES;
        if col < c.cols() {
            let acc = load::<S, M, 1, 1>(s, c, top, col, fresh);
            let acc = triangle_chain(s, shape, left, panel, half, acc);
            store(s, c, top, col, &acc);
        }
    }
}

#[inline(always)]
fn triangle_chain<S: Simd, const M: usize, const N: usize>(
    s: S,
    shape: Triangle,
    left: impl Left<M>,
    panel: &[PanelRow],
    half: usize,
    mut acc: [[[S::V; N]; 1]; M],
) -> [[[S::V; N]; 1]; M] {
    const { assert!(M >= 1 && M <= 8, "the steps below are seven") };
    let common = panel.len() + 1 - M;
    if shape == Triangle::Lower {
        acc = chain(s, left.cut(0, common), [&panel[..common]], half, acc);
    }
    // Unrolled, because the rows that take part have to be known at compile time.
    macro_rules! steps {
        ($($p:literal)*) => {$(
            if $p + 1 < M {
                let p = if shape == Triangle::Lower { common + $p } else { $p };
                let a = left.at(p);
                let row = panel[p].0.as_chunks().0;
                for i in 0..M {
                    if (shape == Triangle::Lower) == (i > $p) {
                        for v in 0..N {
                            acc[i][0][v] = s.fma(s.splat(a[i]), s.load(&row[half + v]), acc[i][0][v]);
                        }
                    }
                }
            }
        )*};
    }
    steps!(0 1 2 3 4 5 6);
    if shape == Triangle::Upper {
        let left = left.cut(M - 1, panel.len());
        acc = chain(s, left, [&panel[M - 1..]], half, acc);
    }
    acc
}

/// [`tile()`] over two panels at once: for one or two rows, whose chains would otherwise wait for each other.
#[inline(always)]
pub fn tile_of_two<S: Simd, const M: usize>(
    s: S,
    left: impl Left<M>,
    panels: [impl Part; 2],
    c: &mut MatrixMut<'_>,
    (top, col): (usize, usize),
    fresh: bool,
) {
    let acc = load::<S, M, 2, 2>(s, c, top, col, fresh);
    let acc = chain(s, left, panels, 0, acc);
    store(s, c, top, col, &acc);
}

/// Continues the chains of a tile: acc[i][q][v] = fma(left[p][i], b[q][p][v], acc[i][q][v]) for p ascending.
///
/// b holds P panels [K, 32] in any format; `N` vectors of each row are used, from vector `half` on. The loops over i, q
/// and v are unrolled; `acc` and what the rows of a run have in common live in registers. Runs are cut to one length
/// first, so that no bounds check of theirs remains in the loop.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // indices show the maths, and closures could stay out of line
fn chain<S: Simd, B: Part, const M: usize, const P: usize, const N: usize>(
    s: S,
    left: impl Left<M>,
    b: [B; P],
    half: usize,
    mut acc: [[[S::V; N]; P]; M],
) -> [[[S::V; N]; P]; M] {
    let k = b[0].k();
    // Behind the last rows lies the neighbour, which this tile reads as well if P is 2: prefetch the panel after it.
    let last_rows = k.saturating_sub(AHEAD / B::ROW_BYTES);
    let neighbours = (P - 1) * k * B::ROW_BYTES;
    let mut from = 0;
    while from < k {
        let to = from + B::RUN.min(k - from);
        let mut runs = [b[0].run(s, from, to); P];
        for q in 1..P {
            runs[q] = b[q].run(s, from, to);
        }
        let left = left.cut(from, to);
        for p in 0..to - from {
            let mut row = [[s.splat(0.0); N]; P];
            for q in 0..P {
                for v in 0..N {
                    row[q][v] = B::vector(s, &runs[q], p, half + v);
                }
            }
            let bytes = if P > 1 && from + p >= last_rows {
                AHEAD + neighbours
            } else {
                AHEAD
            };
            for q in 0..P {
                B::ahead(s, &runs[q], p, bytes);
            }
            let a = left.at(p);
            for i in 0..M {
                let x = s.splat(a[i]);
                for q in 0..P {
                    for v in 0..N {
                        acc[i][q][v] = s.fma(x, row[q][v], acc[i][q][v]);
                    }
                }
            }
        }
        from = to;
    }
    acc
}

#[inline(always)]
fn load<S: Simd, const M: usize, const P: usize, const N: usize>(
    s: S,
    c: &MatrixMut<'_>,
    top: usize,
    col: usize,
    fresh: bool,
) -> [[[S::V; N]; P]; M] {
    let mut acc = [[[s.splat(0.0); N]; P]; M];
    if fresh {
        return acc;
    }
    for (i, panels) in acc.iter_mut().enumerate() {
        let row = c.row(top + i);
        for (q, vectors) in panels.iter_mut().enumerate() {
            for (v, x) in vectors.iter_mut().enumerate() {
                let at = (col + q * WIDTH + v * LANES).min(row.len());
                let part = &row[at..row.len().min(at + LANES)];
                *x = s.load_partial(part, 0.0);
            }
        }
    }
    acc
}

#[inline(always)]
fn store<S: Simd, const M: usize, const P: usize, const N: usize>(
    s: S,
    c: &mut MatrixMut<'_>,
    top: usize,
    col: usize,
    acc: &[[[S::V; N]; P]; M],
) {
    for (i, panels) in acc.iter().enumerate() {
        let row = c.row_mut(top + i);
        let end = row.len();
        for (q, vectors) in panels.iter().enumerate() {
            for (v, x) in vectors.iter().enumerate() {
                let at = (col + q * WIDTH + v * LANES).min(end);
                s.store_partial(*x, &mut row[at..end.min(at + LANES)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::micro_panel_rows;

    #[test]
    fn heights_fill_any_number_of_rows_and_end_evenly() {
        for max in [4, 6, 12] {
            for rows in 1..200 {
                let (mut rest, mut last) = (rows, 0);
                while rest > 0 {
                    last = micro_panel_rows(rest, max);
                    assert!(
                        last <= rest && last <= max,
                        "{last} of {rest}, {max} at most"
                    );
                    rest -= last;
                }
                assert!(
                    last >= rows.min(max).min(2),
                    "{rows} rows end with a tile of {last}"
                );
            }
        }
        let split = |rows| {
            let first = micro_panel_rows(rows, 12);
            (first, micro_panel_rows(rows - first, 12))
        };
        assert_eq!([split(9), split(11), split(13)], [(5, 4), (6, 5), (7, 6)]);
    }
}
