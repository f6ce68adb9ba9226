//! Keys and values of one key head of one sequence, in the panels that products stream through.

use crate::kernels::gemm::View;
use crate::kernels::gemm::panels::{PanelRow, WIDTH, pack_panel};

/// Keys and values at positions 0..len.
///
/// Keys are stored in panels of 32 positions, [D, 32] each, so that lanes run along positions; values in ⌈D / 32⌉
/// panels [len, 32], so that lanes run along the head. Appending writes one column of the one and one row of the other;
/// truncating changes a length.
#[derive(Clone, Debug)]
pub struct KeyValues {
    keys: Vec<PanelRow>,
    values: Vec<Vec<PanelRow>>,
    size: usize,
    len: usize,
}

impl KeyValues {
    /// Nothing yet, for heads of `size` elements.
    pub fn new(size: usize) -> Self {
        Self {
            keys: Vec::new(),
            values: vec![Vec::new(); size.div_ceil(WIDTH)],
            size,
            len: 0,
        }
    }

    /// Forgets everything and holds k, v [n, D] from position 0 on, in the same memory; or one of them alone, and then
    /// nothing can be appended, and only the panels of that one be read.
    ///
    /// # Panics
    /// Where the shapes differ, or there is neither.
    pub(super) fn hold(&mut self, k: Option<View<'_>>, v: Option<View<'_>>) {
        let rows = k.or(v).expect("keys or values");
        for other in [k, v].into_iter().flatten() {
            assert_eq!((other.rows(), other.cols()), (rows.rows(), rows.cols()));
        }
        let size = rows.cols();
        self.size = size;
        self.len = 0;
        self.keys.clear();
        self.values.resize_with(size.div_ceil(WIDTH), Vec::new);
        self.values.iter_mut().for_each(Vec::clear);
        k.into_iter().for_each(|k| self.extend_keys(k));
        v.into_iter().for_each(|v| self.extend_values(v));
        self.len = rows.rows();
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no position.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends k, v [n, D].
    pub fn extend(&mut self, k: View<'_>, v: View<'_>) {
        assert_eq!(k.rows(), v.rows(), "a key and a value for each position");
        self.extend_keys(k);
        self.extend_values(v);
        self.len += k.rows();
    }

    fn extend_keys(&mut self, k: View<'_>) {
        debug_assert_eq!(k.cols(), self.size);
        debug_assert_eq!(self.keys.len(), self.len.div_ceil(WIDTH) * self.size);
        let end = self.len + k.rows();
        let panels = end.div_ceil(WIDTH) * self.size;
        self.keys.resize(panels, PanelRow([0.0; WIDTH]));
        let mut next = 0;
        while next < k.rows() {
            let (q, column) = ((self.len + next) / WIDTH, (self.len + next) % WIDTH);
            let panel = &mut self.keys[q * self.size..][..self.size];
            if column == 0 {
                // A panel from its start: turned in blocks.
                let n = WIDTH.min(k.rows() - next);
                pack_panel(k.row_range(next, next + n).t(), panel);
                next += n;
                continue;
            }
            for (row, x) in panel.iter_mut().zip(k.row(next)) {
                row.0[column] = *x;
            }
            next += 1;
        }
    }

    fn extend_values(&mut self, v: View<'_>) {
        debug_assert!(v.cols() == self.size);
        let end = self.len + v.rows();
        for panel in &mut self.values {
            panel.resize(end, PanelRow([0.0; WIDTH]));
        }
        for (panel, q) in self.values.iter_mut().zip((0..).step_by(WIDTH)) {
            let columns = v.columns(q, v.cols().min(q + WIDTH));
            pack_panel(columns, &mut panel[self.len..]);
        }
    }

    /// Forgets positions `len..`.
    ///
    /// # Panics
    /// Where there are fewer.
    #[track_caller]
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len, "truncate {} positions to {len}", self.len);
        self.len = len;
        self.keys.truncate(len.div_ceil(WIDTH) * self.size);
        self.values.iter_mut().for_each(|panel| panel.truncate(len));
    }

    /// Panel of keys 32 `q`.. [D, 32].
    #[inline(always)]
    pub(super) fn key_panel(&self, q: usize) -> &[PanelRow] {
        &self.keys[q * self.size..(q + 1) * self.size]
    }

    /// Elements 32 `q`.. of the values at positions `from..to`, [to − from, 32].
    #[inline(always)]
    pub(super) fn value_panel(&self, q: usize, from: usize, to: usize) -> &[PanelRow] {
        &self.values[q][from..to]
    }
}
