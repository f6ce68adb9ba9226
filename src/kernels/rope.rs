//! Rotary position embedding (Su et al. 2021) over the whole head, in the half-split form of the public checkpoints.
//!
//! ```text
//! angle(p, i) = p · θ^(−2i/D)                      i < D/2
//! y[i]       = x[i] cos − x[i + D/2] sin          mul, then fma(−sin, ·)
//! y[i + D/2] = x[i + D/2] cos + x[i] sin          mul, then fma(sin, ·)
//! ```
//!
//! The table is computed in `f64` by our own functions and rounded once (rule R4). The gradient is the rotation by
//! the opposite angle.

use super::par;
use crate::simd::{self, Kernel, LANES, Simd, scalar};

/// cos and sin for every position, each [positions, D/2].
#[derive(Clone, Debug)]
pub struct RopeTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl RopeTable {
    /// Angles for positions 0..`positions` (at most 2^20) and heads of `head_size` (even) elements.
    ///
    /// # Panics
    /// Panics for more positions or an odd head size.
    #[track_caller]
    pub fn new(positions: usize, head_size: usize, theta: f64) -> Self {
        assert!(
            positions <= 1 << 20 && head_size.is_multiple_of(2),
            "RopeTable::new: {positions} positions, heads of {head_size}"
        );
        let half = head_size / 2;
        let frequencies: Vec<f64> = (0..half)
            .map(|i| scalar::rope_frequency(theta, i, head_size))
            .collect();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for p in 0..positions {
            for frequency in &frequencies {
                let (s, c) = scalar::sin_cos(p as f64 * frequency);
                cos.push(c as f32);
                sin.push(s as f32);
            }
        }
        Self { cos, sin, half }
    }

    /// Number of positions.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }

    /// D/2, angles of a position.
    pub fn half(&self) -> usize {
        self.half
    }

    /// cos of each angle, [positions, D/2].
    pub fn cosines(&self) -> &[f32] {
        &self.cos
    }

    /// sin of each angle, [positions, D/2].
    pub fn sines(&self) -> &[f32] {
        &self.sin
    }

    fn row(&self, position: usize) -> (&[f32], &[f32]) {
        let at = position * self.half..(position + 1) * self.half;
        (&self.cos[at.clone()], &self.sin[at])
    }
}

/// Sense of the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// By the position's angle.
    Forward,
    /// By the opposite angle.
    Backward,
}

/// Fewest elements of a task: half as many as in kernels with less arithmetic for each.
const ELEMENTS_PER_TASK: usize = 8192;

/// Rotates the first `heads` heads of each row of x [rows, stride] in place, by the angle of the row's position. `from`
/// [rows, stride], if it is given, is copied to x first.
///
/// # Panics
/// Panics if the shapes do not fit or a position is not in the table.
#[track_caller]
pub fn rotate(
    table: &RopeTable,
    heads: usize,
    stride: usize,
    positions: &[u32],
    direction: Direction,
    from: Option<&[f32]>,
    x: &mut [f32],
) {
    let elements = positions.len() * stride;
    assert!(
        stride > 0
            && heads * 2 * table.half <= stride
            && x.len() == elements
            && from.is_none_or(|from| from.len() == elements),
        "rope::rotate: {heads} heads of {} in {} rows of {stride}, x [{}], from {:?}",
        2 * table.half,
        positions.len(),
        x.len(),
        from.map(<[f32]>::len)
    );
    let rows = par::part(positions.len(), 1, 1).max(ELEMENTS_PER_TASK / stride + 1);
    let sign = match direction {
        Direction::Forward => 1.0,
        Direction::Backward => -1.0,
    };
    let tasks = positions.chunks(rows).zip(x.chunks_mut(rows * stride));
    par::for_each(tasks.enumerate(), |(i, (positions, x))| {
        for (r, (row, p)) in (i * rows..).zip(x.chunks_mut(stride).zip(positions)) {
            if let Some(from) = from {
                row.copy_from_slice(&from[r * stride..(r + 1) * stride]);
            }
            let x = &mut row[..heads * 2 * table.half];
            let (cos, sin) = table.row(*p as usize);
            simd::run(Rotate { x, cos, sin, sign });
        }
    });
}

/// The heads of one row; `sign` is the sense of the rotation.
struct Rotate<'a> {
    x: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    sign: f32,
}

impl Kernel for Rotate<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, cos, sin, sign } = self;
        let (half, sign) = (cos.len(), s.splat(sign));
        for head in x.chunks_mut(2 * half) {
            let (low, high) = head.split_at_mut(half);
            for from in (0..half).step_by(LANES) {
                let part = from..half.min(from + LANES);
                let c = s.load_partial(&cos[part.clone()], 0.0);
                let n = s.mul(s.load_partial(&sin[part.clone()], 0.0), sign);
                let a = s.load_partial(&low[part.clone()], 0.0);
                let b = s.load_partial(&high[part.clone()], 0.0);
                let minus = s.mul(n, s.splat(-1.0));
                s.store_partial(s.fma(minus, b, s.mul(a, c)), &mut low[part.clone()]);
                s.store_partial(s.fma(n, a, s.mul(b, c)), &mut high[part]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "2 heads of 4 in 3 rows of 7")]
    fn heads_that_do_not_fit_panic() {
        let table = RopeTable::new(4, 4, 1e4);
        let x = &mut [0.0; 21];
        rotate(&table, 2, 7, &[0, 1, 2], Direction::Forward, None, x);
    }
}
