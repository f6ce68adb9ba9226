//! bf16 and f16 as f32.
//!
//! Every value of both formats is a value of f32, so widening is exact and has no rounding to choose.
//! A NaN stays a NaN; its payload is outside the contract.

/// The value of a bf16, given by its bits: the upper half of an f32 (sign, 8 exponent bits, 7 fraction bits).
pub(super) fn bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The value of an IEEE 754 binary16, given by its bits: sign, 5 exponent bits, 10 fraction bits.
pub(super) fn f16(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits) & 0x3ff;
    let magnitude = match (exponent, fraction) {
        (0, 0) => 0,
        // A subnormal has the value fraction * 2^-24. Shifting its highest one to bit 10, where the
        // implicit one of a normal number stands, takes `shift` halvings off the exponent.
        (0, _) => {
            let shift = fraction.leading_zeros() - 21;
            (113 - shift) << 23 | ((fraction << shift) & 0x3ff) << 13
        }
        // Infinity and NaN have the greatest exponent in both formats.
        (31, _) => 0xff << 23 | fraction << 13,
        // The exponents' biases are 15 and 127.
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `m * 2^e` by exact doublings and halvings: f64 has room for all values of both formats.
    fn scaled(m: u16, e: i32) -> f64 {
        let factor = if e < 0 { 0.5 } else { 2.0 };
        (0..e.abs()).fold(f64::from(m), |value, _| value * factor)
    }

    /// The value of a small float as IEEE 754 (section 3.4) defines it; None is a NaN.
    fn defined(bits: u16, fraction_bits: u32, bias: i32) -> Option<f64> {
        let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
        let greatest = (1u16 << (15 - fraction_bits)) - 1;
        let exponent = (bits >> fraction_bits) & greatest;
        let fraction = bits & ((1 << fraction_bits) - 1);
        let f = fraction_bits as i32;
        match exponent {
            e if e == greatest && fraction != 0 => None,
            e if e == greatest => Some(sign * f64::INFINITY),
            0 => Some(sign * scaled(fraction, 1 - bias - f)),
            e => Some(sign * scaled(fraction + (1 << fraction_bits), i32::from(e) - bias - f)),
        }
    }

    fn check_all(widen: fn(u16) -> f32, fraction_bits: u32, bias: i32) {
        for bits in 0..=u16::MAX {
            let found = widen(bits);
            match defined(bits, fraction_bits, bias) {
                None => assert!(found.is_nan(), "{bits:#06x}: {found}"),
                // Bits and not values, so that -0 differs from +0.
                Some(expected) => assert_eq!(
                    f64::from(found).to_bits(),
                    expected.to_bits(),
                    "{bits:#06x}: {found} for {expected}"
                ),
            }
        }
    }

    #[test]
    fn every_bf16_has_its_defined_value() {
        check_all(bf16, 7, 127);
    }

    #[test]
    fn every_f16_has_its_defined_value() {
        check_all(f16, 10, 15);
    }

    #[test]
    fn the_definition_used_above_knows_the_published_corners() {
        // Greatest normal, least normal and least subnormal binary16 (IEEE 754-2008, table 3.5):
        // 65504, 2^-14, 2^-24.
        assert_eq!(defined(0x7bff, 10, 15), Some(65504.0));
        assert_eq!(defined(0x0400, 10, 15), Some(1.0 / 16384.0));
        assert_eq!(defined(0x8001, 10, 15), Some(-1.0 / 16_777_216.0));
        assert_eq!(defined(0x3f80, 7, 127), Some(1.0));
    }
}
