//! Keys and values of one key head of one sequence, in the panels that matrix multiplications stream through.

use crate::kernels::gemm::View;
use crate::kernels::gemm::panels::{PanelRow, WIDTH, pack_panel};
use crate::kernels::scratch::Scratch;

/// Keys and values at positions 0..len.
///
/// Keys are stored in panels of 32 positions, [D, 32] each, so that lanes run along positions; values in ⌈D / 32⌉
/// panels [len, 32], so that lanes run along the head. Appending writes one column of the one and one row of the other;
/// truncating changes a length.
#[derive(Clone, Debug)]
pub struct KeyValues {
    keys: Scratch<PanelRow>,
    values: Vec<Scratch<PanelRow>>,
    size: usize,
    len: usize,
}

impl KeyValues {
    /// Nothing yet, for heads of `size` elements.
    pub fn new(size: usize) -> Self {
        Self {
            keys: Scratch::new(0),
            values: vec![Scratch::new(0); size.div_ceil(WIDTH)],
            size,
            len: 0,
        }
    }

    /// Keys and values of positions 0..n for one pass, k, v [n, D], in memory that the next pass uses again. One of
    /// them may be absent; then only the panels of the other can be read, and nothing can be appended.
    ///
    /// # Panics
    /// Panics if the shapes differ, or both are absent.
    pub(super) fn of(k: Option<View<'_>>, v: Option<View<'_>>) -> Self {
        let rows = k.or(v).expect("keys or values");
        for other in [k, v].into_iter().flatten() {
            assert_eq!((other.rows(), other.cols()), (rows.rows(), rows.cols()));
        }
        let (n, size) = (rows.rows(), rows.cols());
        let mut kv = Self::new(size);
        if let Some(k) = k {
            kv.keys = Scratch::new(n.div_ceil(WIDTH) * size);
            kv.extend_keys(k);
        }
        if let Some(v) = v {
            kv.values.fill_with(|| Scratch::new(n));
            kv.extend_values(v);
        }
        kv.len = n;
        kv
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Elements of a key, D.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether there is no position.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends k, v [n, D].
    ///
    /// # Panics
    /// Panics if k or v does not have D columns, or their numbers of rows differ.
    #[track_caller]
    pub fn extend(&mut self, k: View<'_>, v: View<'_>) {
        let shape = |x: View<'_>| [x.rows(), x.cols()];
        assert!(
            shape(k) == shape(v) && k.cols() == self.size,
            "KeyValues::extend: keys {:?} and values {:?} for heads of {}",
            shape(k),
            shape(v),
            self.size
        );
        self.extend_keys(k);
        self.extend_values(v);
        self.len += k.rows();
    }

    fn extend_keys(&mut self, k: View<'_>) {
        let end = self.len + k.rows();
        let panels = end.div_ceil(WIDTH) * self.size;
        self.keys.resize(panels, PanelRow::default());
        let mut next = 0;
        while next < k.rows() {
            let (q, column) = ((self.len + next) / WIDTH, (self.len + next) % WIDTH);
            let panel = &mut self.keys[q * self.size..][..self.size];
            if column == 0 {
                // A panel from its start is transposed in blocks.
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
        let end = self.len + v.rows();
        for panel in &mut self.values {
            panel.resize(end, PanelRow::default());
        }
        for (panel, q) in self.values.iter_mut().zip((0..).step_by(WIDTH)) {
            let columns = v.columns(q, v.cols().min(q + WIDTH));
            pack_panel(columns, &mut panel[self.len..]);
        }
    }

    /// Forgets positions `len..`.
    ///
    /// # Panics
    /// Panics if there are fewer.
    #[track_caller]
    pub fn truncate(&mut self, len: usize) {
        assert!(
            len <= self.len,
            "KeyValues::truncate: {} positions to {len}",
            self.len
        );
        self.len = len;
        truncate_and_shrink(&mut self.keys, len.div_ceil(WIDTH) * self.size);
        for panel in &mut self.values {
            truncate_and_shrink(panel, len);
        }
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

/// Memory goes back only if most of it is spare: drafts are appended and cut again all the time.
fn truncate_and_shrink(rows: &mut Vec<PanelRow>, len: usize) {
    rows.truncate(len);
    if rows.capacity() > 4 * len + 64 {
        rows.shrink_to(2 * len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_cut_to_little_gives_its_memory_back() {
        let mut cache = KeyValues::new(4);
        let bytes = |cache: &KeyValues| cache.keys.capacity() + cache.values[0].capacity();
        let rows = vec![1.0; 5000 * 4];
        cache.extend(View::new(&rows, 5000, 4), View::new(&rows, 5000, 4));
        let whole = bytes(&cache);
        cache.truncate(4990);
        assert_eq!(
            bytes(&cache),
            whole,
            "drafts are appended and cut all the time"
        );
        cache.truncate(1);
        assert!(bytes(&cache) < whole / 10);
    }
}
