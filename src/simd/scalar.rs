//! Scalar f64 functions with one answer: the RoPE table, schedules, powers of β and initial values.
//!
//! Each function is one fixed sequence of IEEE +, −, ×, /, `sqrt`, comparisons, exact conversions and
//! bit operations (rule R4). Such a sequence has the same bits on every machine. A libm has not: the
//! standard library says that its `exp`, `sin` and the like may differ by platform and by version.
//! (32-bit x86 without SSE2 computes f64 in longer registers and stays outside the contract.)
//! There is no fused multiply-add either, because these run a few thousand times and a portable
//! build would emulate it.
//!
//! The method is the same three times, after Cody and Waite, *Software Manual for the Elementary
//! Functions* (1980): subtract a multiple of a constant that is split into parts so short that the
//! products are exact, then sum a Taylor series. The intervals that remain are small, so Taylor needs
//! two or three terms more than a minimax polynomial and has no coefficient to take on trust: each is
//! an integer's reciprocal.
//!
//! An error bound is in ulp of the result against the exact value. The tests measure it with
//! arithmetic of twice the length, and compare with the standard library besides.

use std::f64::consts::{FRAC_2_PI, LOG2_E, SQRT_2, TAU};

/// ln 2 = `LN2_HI` + `LN2_LO`. The first part has 42 bits, so that its product with any binary
/// exponent (11 bits) is exact. The sum is right to 2^-95.
const LN2_HI: f64 = f64::from_bits(0x3FE6_2E42_FEFA_3800);
const LN2_LO: f64 = f64::from_bits(0x3D2E_F357_93C7_6730);

/// π/2 = the sum of three parts. The first two have at most 32 bits, so that their products with a
/// quadrant number (21 bits) are exact. The third has 53 bits; its product is below 2^-48, so that
/// rounding it costs 2^-101.
const HALF_PI: [f64; 3] = [
    f64::from_bits(0x3FF9_21FB_5440_0000),
    f64::from_bits(0x3DD0_B461_1A60_0000),
    f64::from_bits(0x3BA3_198A_2E03_7073),
];

/// The series' coefficients, highest power first: e^x from x^13 to x^2, artanh from x^21 to x^3 (odd
/// powers), sine from x^17 to x^3 (odd), cosine from x^18 to x^4 (even).
const EXP: [f64; 12] = reciprocal_factorials(13, 1, false);
const ARTANH: [f64; 10] = reciprocals([21.0, 19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0]);
const SIN: [f64; 8] = reciprocal_factorials(17, 2, true);
const COS: [f64; 8] = reciprocal_factorials(18, 2, true);

/// Largest |angle| that [`sin_cos`] takes, twice the last position of a RoPE table.
/// It has at most 1,335,088 quadrants, a number of 21 bits.
pub const MAX_ANGLE: f64 = (1 << 21) as f64;

/// Largest x whose e^x is finite: ln of `f64::MAX`, rounded down.
const EXP_OVERFLOW: f64 = f64::from_bits(0x4086_2E42_FEFA_39EF);
/// Below this, e^x is under half of the smallest subnormal (ln 2^-1075 is -745.1332191019412...).
const EXP_UNDERFLOW: f64 = -745.133_219_101_942;

/// 2^-53: a word's top 53 bits times this is a number in [0, 1).
const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;

/// The exponential e^x. At most 0.90 ulp off if the result is normal.
///
/// Above 709.78 the result is +∞. From -708.40 to -745.13 it is subnormal and at most 0.95 of the
/// smallest subnormal off; below that it is +0. NaN gives NaN.
pub fn exp(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x > EXP_OVERFLOW {
        return f64::INFINITY;
    }
    if x < EXP_UNDERFLOW {
        return 0.0;
    }
    // x = k ln 2 + r with |r| <= 0.347. hi is exact; r is its rounded sum with the low part.
    let k = nearest(x * LOG2_E);
    let hi = x - k * LN2_HI;
    let lo = k * LN2_LO;
    let r = hi - lo;
    // e^r = 1 + r + r²/2! + ... + r^13/13!. The next term is below 5e-18, a fortieth of an ulp.
    let tail = horner(r, &EXP);
    let y = 1.0 + (hi + (r * r * tail - lo));
    // In two halves: 2^k itself is not a normal f64 for k = 1024 and for k < -1022. Only the second
    // product can round, if the result is subnormal.
    let k = k as i64;
    y * power_of_two(k / 2) * power_of_two(k - k / 2)
}

/// The natural logarithm. At most 0.85 ulp off, for subnormal x too.
///
/// Zero of either sign gives −∞, a negative number NaN, +∞ gives +∞ and NaN gives NaN.
pub fn ln(x: f64) -> f64 {
    if x.is_nan() || x == f64::INFINITY {
        return x;
    }
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if x < 0.0 {
        return f64::NAN;
    }
    // x = 2^k m with m in (√½, √2]. A subnormal is made normal first; the product is exact.
    let (x, shift) = if x < f64::MIN_POSITIVE {
        (x * power_of_two(54), 54)
    } else {
        (x, 0)
    };
    let mut k = (x.to_bits() >> 52) as i64 - 1023 - shift;
    let mut m = f64::from_bits((x.to_bits() & ((1 << 52) - 1)) | (1023 << 52));
    if m > SQRT_2 {
        m *= 0.5;
        k += 1;
    }
    // With s = f / (2 + f): ln(1 + f) = 2 artanh s = 2s + s·series, series = 2(s²/3 + s⁴/5 + ...).
    // |s| <= 0.172, so that the first term left out, s^23/23, is below 2^-60 of the sum. As 2s is
    // f − s·f, the sum below begins with the exact f and all that is rounded is smaller by half.
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let series = 2.0 * z * horner(z, &ARTANH);
    let half_square = 0.5 * f * f;
    let k = k as f64;
    k * LN2_HI - ((half_square - (s * (half_square + series) + k * LN2_LO)) - f)
}

/// Sine and cosine of an angle in radians, |x| <= [`MAX_ANGLE`]. Each is at most 0.85 ulp off, and
/// 9.5e-17 absolute. NaN gives NaN twice; sin(−0) is +0.
///
/// # Panics
/// If |x| is larger: the parts of π/2 would no longer give exact products.
#[track_caller]
pub fn sin_cos(x: f64) -> (f64, f64) {
    if x.is_nan() {
        return (x, x);
    }
    assert!(
        (-MAX_ANGLE..=MAX_ANGLE).contains(&x),
        "sin_cos: angle {x} is outside ±2^21"
    );
    // x = n π/2 + r + tail with |r| <= 0.786. The first difference is exact: it is a multiple of
    // 2^-53 below 1, or n is 0. The second keeps what it rounds off.
    let n = nearest(x * FRAC_2_PI);
    let (hi, lost) = two_sum(x - n * HALF_PI[0], -(n * HALF_PI[1]));
    let (r, tail) = two_sum(hi, lost - n * HALF_PI[2]);
    // sin r = r − r³/3! + ... + r^17/17!; the next term is below 1e-19.
    // cos r = 1 − r²/2! + ... − r^18/18!; the next term is below 4e-21.
    // tail is below half an ulp of r, so that its first-order effect is all of it.
    let z = r * r;
    let half = 0.5 * z;
    let odd = horner(z, &SIN);
    let sin = r + (r * z * odd + tail * (1.0 - half));
    let even = horner(z, &COS);
    // 1 − z/2 is rounded; (1 − w) − z/2 is exactly what was lost.
    let w = 1.0 - half;
    let cos = w + (((1.0 - w) - half) + (z * z * even - r * tail));
    match (n as i64) & 3 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

/// `base` to the n-th power by repeated squaring, lowest bit of n first; `powi(x, 0)` is 1.
///
/// The result is a tree of n − 1 rounded products, so that its relative error is at most about
/// n·2^-53, as long as no power on the way is subnormal. Integer powers below 2^53 are exact.
pub fn powi(base: f64, mut n: u64) -> f64 {
    let mut square = base;
    let mut product = 1.0;
    while n > 0 {
        if n & 1 == 1 {
            product *= square;
        }
        square *= square;
        n >>= 1;
    }
    product
}

/// RoPE's angle per position for pair `i` of a head: θ^(−2i/D), D = `head_size`
/// (Su et al. 2021, *RoFormer*, section 3.2.2). `i` counts from 0 to D/2 − 1.
///
/// At most 40 ulp off for θ from 10 to 10^8: the exponent's rounding grows by the exponent, which is
/// up to 18.4. Pair 0 is exactly 1.
///
/// # Panics
/// If `head_size` is 0.
#[track_caller]
pub fn rope_frequency(theta: f64, i: usize, head_size: usize) -> f64 {
    assert!(head_size > 0, "rope_frequency: a head of size 0");
    exp(-(2.0 * i as f64 / head_size as f64) * ln(theta))
}

/// A sample of the normal distribution with mean 0 and variance 1 from two random words, by
/// Box and Muller (1958): √(−2 ln u)·cos(2πv), u in (0, 1] and v in [0, 1) from the top 53 bits.
///
/// At most 5e-15 off (absolute), nearly all of it from rounding the angle 2πv.
/// The largest possible |result| is √(106 ln 2), about 8.57.
pub fn standard_normal(bits: [u64; 2]) -> f64 {
    let u = ((bits[0] >> 11) + 1) as f64 * UNIT;
    let v = (bits[1] >> 11) as f64 * UNIT;
    (-2.0 * ln(u)).sqrt() * sin_cos(TAU * v).1
}

/// x rounded to the nearest integer, ties to even, for |x| < 2^51: the sum with 1.5·2^52 has ulp 1.
fn nearest(x: f64) -> f64 {
    const SHIFT: f64 = (3_u64 << 51) as f64;
    (x + SHIFT) - SHIFT
}

/// 2^k for k in −1022..=1023.
fn power_of_two(k: i64) -> f64 {
    f64::from_bits(((k + 1023) as u64) << 52)
}

/// a + b rounded, and what the rounding lost, exactly (Knuth, TAOCP vol. 2, 4.2.2 theorem B).
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// The polynomial in x with these coefficients, highest power first (Horner's rule).
fn horner(x: f64, coefficients: &[f64]) -> f64 {
    coefficients.iter().fold(0.0, |sum, c| sum * x + c)
}

/// 1/n for the integers n of a series: each is one correctly rounded division.
const fn reciprocals<const N: usize>(mut divisors: [f64; N]) -> [f64; N] {
    let mut i = 0;
    while i < N {
        divisors[i] = 1.0 / divisors[i];
        i += 1;
    }
    divisors
}

/// 1/n!, 1/(n − step)!, ...; with `alternate`, negative if n mod 4 is 2 or 3, as in sine and cosine.
const fn reciprocal_factorials<const N: usize>(n: u32, step: u32, alternate: bool) -> [f64; N] {
    let mut divisors = [1.0; N];
    let mut i = 0;
    while i < N {
        let last = n - step * i as u32;
        if alternate && last & 2 != 0 {
            divisors[i] = -1.0;
        }
        // Exact: the largest product is 18! < 2^53.
        let mut factor = 2;
        while factor <= last {
            divisors[i] *= factor as f64;
            factor += 1;
        }
        i += 1;
    }
    reciprocals(divisors)
}

#[cfg(test)]
mod tests;
