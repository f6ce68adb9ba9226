//! How weights are stored: exactly, in half the memory, or in little more than a quarter.
//!
//! A stored weight stands for one `f32`, its widened value, and products see nothing else (rule R1 with the widened
//! values as the right operand).
//!
//! | format | stored | widened | bytes a weight |
//! |---|---|---|---|
//! | f32 | the weight | itself | 4 |
//! | bf16 | the weight rounded to the nearest bfloat16, ties to even | its 16 bits followed by 16 zero bits | 2 |
//! | q8 | an integer q in −127..=127, and a scale for each 32 k of a column | `q as f32 * scale`, one rounding | 1.125 |
//!
//! Rounding to bf16: a finite weight beyond the largest bfloat16, 3.39e38, becomes the largest bfloat16 of its sign and
//! not an infinity. Infinities stay. NaN stays NaN.
//!
//! Rounding to q8: blocks are the k 32 b..32 b + 32 of one column, the last of them may be shorter. With m = max |w| of
//! the block,
//!
//! ```text
//! scale = min(m / 127, 2.67938839e36)      one rounding; 0 where m / 127 is below 2^−126, the smallest normal number
//! q     = w / scale                     one rounding, then to the nearest integer, ties to even, then to −127..=127;
//!                                       0 where the scale is 0
//! ```
//!
//! The bound is the largest `f32` that 127 times it is finite. A weight is off by half a scale at most, up to the
//! rounding of the quotient and of the product. A block that holds an infinity or a NaN has the scale NaN and so is NaN
//! throughout: what was broken stays visibly broken.
//!
//! The scheme of q8 is that of GGML's Q8_0 with a scale in `f32` instead of half precision.

use super::stored::{PanelRow, WIDTH};

/// How the matrices of a model are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// 32 bits a weight: as they were trained.
    #[default]
    F32,
    /// 16 bits a weight: bfloat16.
    Bf16,
    /// 9 bits a weight: eight-bit integers with an `f32` scale for every 32 of them.
    Q8,
}

impl WeightFormat {
    /// Every format, the exact one first.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Q8];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Q8 => "q8",
        }
    }
}

/// k of a q8 block: they share a scale.
pub const BLOCK: usize = 32;

/// The largest scale: 127 times it is finite, 127 times its successor is not.
const LARGEST_SCALE: f32 = f32::from_bits(0x7c01_0203);

/// The bfloat16 that stands for a weight.
pub fn to_bf16(w: f32) -> u16 {
    const INFINITY: u16 = 0x7f80;
    let bits = w.to_bits();
    let (sign, upper) = (bits >> 16 & 0x8000, bits >> 16 & 0x7fff);
    let magnitude = match upper as u16 {
        // The set bit keeps a NaN whose payload is all in the lower half.
        _ if w.is_nan() => INFINITY | 0x40,
        INFINITY => INFINITY,
        // Half of the last place kept is added, less one unit where the place is even; the carry goes where it should.
        _ => {
            let rounded = (bits & 0x7fff_ffff) + 0x7fff + (upper & 1);
            ((rounded >> 16) as u16).min(INFINITY - 1)
        }
    };
    sign as u16 | magnitude
}

/// The number that a bfloat16 stands for.
pub fn from_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// Rounds one block, at most 32 rows of 32 columns, to integers `q` and one scale a column.
pub(super) fn to_q8(rows: &[PanelRow], q: &mut [[i8; WIDTH]], scales: &mut [f32; WIDTH]) {
    let (mut most, mut finite) = ([0.0f32; WIDTH], [true; WIDTH]);
    for row in rows {
        for j in 0..WIDTH {
            let size = row.0[j].abs();
            most[j] = if size > most[j] { size } else { most[j] };
            finite[j] &= size < f32::INFINITY;
        }
    }
    for j in 0..WIDTH {
        scales[j] = scale(most[j], finite[j]);
    }
    for (row, q) in rows.iter().zip(q) {
        for j in 0..WIDTH {
            q[j] = to_integer(row.0[j], scales[j]);
        }
    }
}

fn scale(most: f32, finite: bool) -> f32 {
    let scale = most / 127.0;
    match scale {
        _ if !finite => f32::NAN,
        // In the range of subnormal numbers a scale would have a few bits only, and no weight would be near its own.
        _ if scale < f32::MIN_POSITIVE => 0.0,
        _ if scale > LARGEST_SCALE => LARGEST_SCALE,
        _ => scale,
    }
}

/// w / scale, to the nearest integer of −127..=127.
#[inline(always)]
fn to_integer(w: f32, scale: f32) -> i8 {
    /// Numbers from 2^23 to 2^24 have no fraction, so adding this rounds to an integer, ties to even.
    const NO_FRACTION: f32 = 12_582_912.0;
    if scale == 0.0 {
        return 0;
    }
    let x = w / scale;
    let rounded = (x + NO_FRACTION) - NO_FRACTION;
    // NaN, where the scale is NaN, becomes 0.
    rounded.clamp(-127.0, 127.0) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_scale_is_the_largest() {
        let next = f32::from_bits(LARGEST_SCALE.to_bits() + 1);
        assert!((127.0 * LARGEST_SCALE).is_finite() && (127.0 * next).is_infinite());
    }

    /// Rounding to bfloat16 by its meaning: of the two neighbours the nearer one, of two as near the even one.
    #[test]
    fn bf16_is_the_nearest() {
        let lowers = [0, 1, 2, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff];
        for upper in 0..=u16::MAX {
            for lower in lowers {
                let w = f32::from_bits(u32::from(upper) << 16 | lower);
                let got = to_bf16(w);
                if w.is_nan() {
                    assert!(from_bf16(got).is_nan());
                    continue;
                }
                if w.is_infinite() || upper & 0x7fff == 0x7f7f {
                    assert_eq!(got, upper, "{w:e} saturates");
                    continue;
                }
                let off = |x: u16| (f64::from(w) - f64::from(from_bf16(x))).abs();
                let (below, above) = (off(upper), off(upper + 1));
                let even = upper + (upper & 1);
                let expected = match below.partial_cmp(&above).expect("numbers") {
                    std::cmp::Ordering::Less => upper,
                    std::cmp::Ordering::Greater => upper + 1,
                    std::cmp::Ordering::Equal => even,
                };
                assert_eq!(got, expected, "{w:e}");
            }
        }
    }

    fn column(w: &[f32]) -> (Vec<i8>, f32) {
        let rows: Vec<PanelRow> = w.iter().map(|w| PanelRow([*w; WIDTH])).collect();
        let (mut q, mut scales) = (vec![[99; WIDTH]; w.len()], [99.0; WIDTH]);
        to_q8(&rows, &mut q, &mut scales);
        assert!(scales.iter().all(|s| s.to_bits() == scales[0].to_bits()));
        (q.iter().map(|q| q[31]).collect(), scales[0])
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
                let most = f64::from(scale) * (0.5 + 2f64.powi(-16));
                assert!((f64::from(*w) - widened).abs() <= most, "{w:e}: {q}");
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
