//! Rows that are appended one after another, in memory that grows.

use super::device::{Array, Device, elements};

/// The minimum capacity, in rows.
const MIN_CAPACITY: usize = 64;

/// The rows of N matrices of one width.
#[derive(Clone, Debug)]
pub struct Growing<const N: usize> {
    pub(super) width: usize,
    /// Number of rows.
    pub(super) len: usize,
    /// With room for `len` rows or more; none before the first.
    arrays: Option<[Array; N]>,
}

impl<const N: usize> Growing<N> {
    /// No rows yet.
    pub fn new(width: usize) -> Self {
        Self {
            width,
            len: 0,
            arrays: None,
        }
    }

    /// # Panics
    /// Panics if there have never been rows.
    #[track_caller]
    pub(super) fn arrays(&self) -> &[Array; N] {
        self.arrays.as_ref().expect("there were rows")
    }

    /// Appends rows with unspecified contents. Returns arrays that hold all rows: the old ones, or larger ones.
    pub(super) fn extend(&mut self, device: &Device, rows: usize) -> [Array; N] {
        let (known, len) = (self.len * self.width, self.len + rows);
        self.len = len;
        let words = elements(&[len, self.width]);
        if let Some(arrays) = self.arrays.as_ref().filter(|x| words <= x[0].len()) {
            return arrays.clone();
        }
        let capacity = len.next_power_of_two().max(MIN_CAPACITY);
        let grown = std::array::from_fn(|i| {
            let array = device.empty(elements(&[capacity, self.width]));
            if let Some(old) = &self.arrays {
                device.copy(&old[i], 0..known, &array, 0);
            }
            array
        });
        self.arrays.insert(grown).clone()
    }
}
