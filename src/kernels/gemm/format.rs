//! How weights are rounded to a format, and what a stored weight stands for.

/// How the matrices of a model are stored.
///
/// A stored weight stands for one `f32`, its widened value, and matrix multiplications see nothing else (rule R1 with
/// the widened values as the right operand).
///
/// | format | stored | widened | bytes per weight |
/// |---|---|---|---|
/// | f32 | the weight | itself | 4 |
/// | bf16 | the weight rounded to the nearest bfloat16, ties to even | its 16 bits followed by 16 zero bits | 2 |
/// | q8 | an integer q in −127..=127, one scale per 32 inputs of an output | `q as f32 * scale`, rounded once | 1.125 |
///
/// Rounding to bf16: a finite weight beyond the largest bfloat16, 3.39e38, becomes the largest bfloat16 of its sign and
/// not an infinity. Infinities stay. NaN stays NaN.
///
/// Rounding to q8: a block is 32 neighbouring elements p of one column of the packed matrix, or fewer at its end. With
/// m = max |w| of the block,
///
/// ```text
/// scale = min(m / 127, 2.67938839e36)   one rounding; 0 if m / 127 is below 2^−126, the smallest normal number
/// q     = w / scale                     one rounding, then to the nearest integer, ties to even, then to −127..=127;
///                                       0 if the scale is 0
/// ```
///
/// The bound is the largest `f32` that stays finite when multiplied by 127. A weight is off by at most half a scale,
/// plus the rounding of the quotient and of the product. A block that holds an infinity or a NaN has the scale NaN and
/// so is NaN throughout: what was broken stays visibly broken.
///
/// q8 is the scheme of GGML's Q8_0 with an `f32` scale instead of half precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightFormat {
    /// 32 bits per weight: as they were trained.
    #[default]
    F32,
    /// 16 bits per weight: bfloat16.
    Bf16,
    /// 9 bits per weight: eight-bit integers with an `f32` scale for every 32 of them.
    Q8,
}

names!(WeightFormat {
    F32 = "f32",
    Bf16 = "bf16",
    Q8 = "q8"
});

/// Elements of a q8 block, which share a scale.
pub(super) const BLOCK: usize = 32;

/// The largest scale: 127 times it is finite, 127 times its successor is not.
const LARGEST_SCALE: f32 = f32::from_bits(0x7c01_0203);

/// The bfloat16 that stands for a weight.
pub(super) fn to_bf16(w: f32) -> u16 {
    const INFINITY: u16 = 0x7f80;
    let bits = w.to_bits();
    let (sign, upper) = (bits >> 16 & 0x8000, bits >> 16 & 0x7fff);
    let magnitude = match upper as u16 {
        // The set bit keeps a NaN whose payload is all in the lower half.
        _ if w.is_nan() => INFINITY | 0x40,
        INFINITY => INFINITY,
        // Half of the last kept place is added, less one unit if the place is even; a carry moves the exponent on.
        _ => {
            let rounded = (bits & 0x7fff_ffff) + 0x7fff + (upper & 1);
            ((rounded >> 16) as u16).min(INFINITY - 1)
        }
    };
    sign as u16 | magnitude
}

/// The number that a bfloat16 stands for.
pub(super) fn from_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// The scale of a block whose largest magnitude is `max`; `finite` says whether all its weights are finite.
pub(super) fn scale(max: f32, finite: bool) -> f32 {
    let scale = max / 127.0;
    match scale {
        _ if !finite => f32::NAN,
        // A subnormal scale would have few bits, and no weight would be near its own.
        _ if scale < f32::MIN_POSITIVE => 0.0,
        _ if scale > LARGEST_SCALE => LARGEST_SCALE,
        _ => scale,
    }
}

/// w / scale, to the nearest integer of −127..=127.
#[inline(always)]
pub(super) fn to_q8(w: f32, scale: f32) -> i8 {
    /// Numbers from 2^23 to 2^24 have no fraction, so adding this rounds to an integer, ties to even.
    const NO_FRACTION: f32 = 12_582_912.0;
    if scale == 0.0 {
        return 0;
    }
    let x = w / scale;
    let rounded = (x + NO_FRACTION) - NO_FRACTION;
    // NaN, if the scale is NaN, becomes 0.
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

    /// Rounding to bfloat16 by its meaning: the nearer of the two neighbours, and the even one of two equally near.
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
}
