//! exp, sigmoid and SiLU on sixteen lanes, ln of one number: one sequence of IEEE operations each (rule R4).
//!
//! Error bounds are in units in the last place of the `f32` result (ulp), measured against `f64` over a dense sample of
//! all bit patterns; the tests at the end assert them. Polynomials are those of the Cephes library (S. Moshier,
//! `expf` and `logf`), evaluated by Horner's rule with fused multiply-adds.

use super::Simd;

/// Below this, exp is +0; it keeps every result a normal number.
pub const EXP_LOWEST: f32 = -87.3;
/// Above this (the largest `f32` whose exp is finite), exp is infinite.
pub const EXP_HIGHEST: f32 = 88.722_83;

/// ln 2 in two parts: the first has few enough bits that n · `LN2_HIGH` is exact for every exponent n.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// 1.5 · 2^23: adding it leaves the nearest integer in the low bits of the sum.
const ROUNDER: f32 = 12_582_912.0;

/// e^x, within 1.1 ulp; +0 below [`EXP_LOWEST`], infinite above [`EXP_HIGHEST`], NaN for NaN.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2; e^r by a polynomial of degree 7; n is added to the exponent field.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let shifted = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUNDER));
    let n = s.sub(shifted, s.splat(ROUNDER));
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    let p = s.splat(1.987_569_1e-4);
    let p = s.fma(p, r, s.splat(1.398_199_9e-3));
    let p = s.fma(p, r, s.splat(8.333_452e-3));
    let p = s.fma(p, r, s.splat(4.166_579_6e-2));
    let p = s.fma(p, r, s.splat(1.666_666_5e-1));
    let p = s.fma(p, r, s.splat(0.5));
    let p = s.fma(s.mul(p, r), r, r);
    let p = s.add(p, s.splat(1.0));
    // The low bits of `shifted` hold n in two's complement; modulo 2^32 the addition moves the exponent by n.
    let y = s.bit_add(p, s.bits_to_exponent(shifted));
    // A NaN fails the first comparison and is passed on; the other two put the limits in place.
    let y = s.select(s.less(x, s.splat(f32::MAX)), y, x);
    let y = s.select(s.less(s.splat(EXP_HIGHEST), x), s.splat(f32::INFINITY), y);
    s.select(s.less(x, s.splat(EXP_LOWEST)), s.splat(0.0), y)
}

/// Natural logarithm of one number, within 1.1 ulp; −∞ at ±0, NaN below 0, ∞ at ∞, NaN for NaN; subnormal arguments are
/// right. The loss needs one logarithm per row, so there is no form for sixteen lanes.
///
/// x = 2^e m with m in [√½, √2); ln m by a polynomial in f = m − 1.
#[expect(
    clippy::disallowed_methods,
    reason = "the sequence of operations is the definition of this function"
)]
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    const SQRT_HALF_BITS: u32 = 0x3f35_04f3;
    const ONE_BITS: u32 = 0x3f80_0000;
    if x.is_nan() || x == f32::INFINITY {
        return x;
    }
    if x == 0.0 {
        return f32::NEG_INFINITY;
    }
    if x < 0.0 {
        return f32::NAN;
    }
    // A subnormal number is made normal first, which is exact.
    let (normal, bias) = if x < f32::MIN_POSITIVE {
        (x * 8_388_608.0, 127 + 23)
    } else {
        (x, 127)
    };
    // Moves the boundary of the exponent from 1 to √½, so that f is small on both sides.
    let moved = normal.to_bits() + (ONE_BITS - SQRT_HALF_BITS);
    let e = ((moved >> 23) as i32 - bias) as f32;
    let f = f32::from_bits((moved & 0x007f_ffff) + SQRT_HALF_BITS) - 1.0;
    let p = 7.037_683_6e-2_f32;
    let p = p.mul_add(f, -1.151_461e-1);
    let p = p.mul_add(f, 1.167_699_9e-1);
    let p = p.mul_add(f, -1.242_014_1e-1);
    let p = p.mul_add(f, 1.424_932_3e-1);
    let p = p.mul_add(f, -1.666_805_8e-1);
    let p = p.mul_add(f, 2.000_071_5e-1);
    let p = p.mul_add(f, -2.499_999_4e-1);
    let p = p.mul_add(f, 3.333_333e-1);
    let square = f * f;
    let tail = (f * square) * p;
    let tail = e.mul_add(LN2_LOW, tail);
    let tail = square.mul_add(-0.5, tail);
    e.mul_add(LN2_HIGH, f + tail)
}

/// 1 / (1 + e^−x), within 2.3 ulp if x ≥ −87; +0 below −88.73; NaN for NaN.
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let e = exp(s, s.sub(s.splat(0.0), x));
    s.div(s.splat(1.0), s.add(s.splat(1.0), e))
}

/// x · sigmoid(x), within 2.9 ulp if x ≥ −87; −0 below −88.73; NaN for NaN and −∞.
#[inline(always)]
pub fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    s.mul(x, sigmoid(s, x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, Kernel, LANES, run};

    #[derive(Clone, Copy)]
    enum Function {
        Exp,
        Sigmoid,
        Silu,
    }

    struct Apply<'a>(Function, &'a mut [f32; LANES]);

    impl Kernel for Apply<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let x = s.load(self.1);
            let y = match self.0 {
                Function::Exp => exp(s, x),
                Function::Sigmoid => sigmoid(s, x),
                Function::Silu => silu(s, x),
            };
            s.store(y, self.1);
        }
    }

    fn apply(f: Function, mut x: [f32; LANES]) -> [f32; LANES] {
        run(Apply(f, &mut x));
        x
    }

    fn one(f: Function, x: f32) -> f32 {
        apply(f, [x; LANES])[0]
    }

    /// Every `step`-th bit pattern, sixteen at a time; a prime step meets every exponent and both signs.
    fn sample(step: usize) -> impl Iterator<Item = [f32; LANES]> {
        (0..=u32::MAX).step_by(step * LANES).map(move |first| {
            std::array::from_fn(|i| f32::from_bits(first.wrapping_add((i * step) as u32)))
        })
    }

    /// |got − exact| in units in the last place of the exact value's binade.
    fn ulp(got: f32, exact: f64) -> f64 {
        let binade = (exact.abs() as f32).max(f32::MIN_POSITIVE).to_bits() & 0x7f80_0000;
        (f64::from(got) - exact).abs() / (f64::from(f32::from_bits(binade)) * 2f64.powi(-23))
    }

    fn worst(f: Function, exact: impl Fn(f64) -> f64, inside: impl Fn(f32) -> bool) -> f64 {
        let mut worst: f64 = 0.0;
        for x in sample(499) {
            for (x, y) in x.into_iter().zip(apply(f, x)) {
                if inside(x) {
                    worst = worst.max(ulp(y, exact(f64::from(x))));
                }
            }
        }
        worst
    }

    #[test]
    fn exp_is_within_its_bound() {
        let inside = |x: f32| (EXP_LOWEST..=EXP_HIGHEST).contains(&x);
        let worst = worst(Function::Exp, f64::exp, inside);
        assert!(worst < 1.1, "{worst}");
    }

    #[test]
    fn ln_is_within_its_bound() {
        let mut worst: f64 = 0.0;
        for x in sample(499).flatten() {
            if x > 0.0 && x < f32::INFINITY {
                worst = worst.max(ulp(ln(x), f64::from(x).ln()));
            }
        }
        assert!(worst < 1.1, "{worst}");
    }

    #[test]
    fn sigmoid_is_within_its_bound() {
        let exact = |x: f64| 1.0 / (1.0 + (-x).exp());
        let worst = worst(Function::Sigmoid, exact, |x| x >= -87.0);
        assert!(worst < 2.3, "{worst}");
    }

    #[test]
    fn silu_is_within_its_bound() {
        let exact = |x: f64| x / (1.0 + (-x).exp());
        let worst = worst(Function::Silu, exact, |x| (-87.0..f32::MAX).contains(&x));
        assert!(worst < 2.9, "{worst}");
    }

    #[test]
    fn limits() {
        let exp = |x| one(Function::Exp, x);
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY).to_bits(), 0);
        assert_eq!(exp(EXP_LOWEST.next_down()).to_bits(), 0);
        assert!(exp(EXP_LOWEST).is_normal());
        assert!(exp(EXP_HIGHEST).is_finite());
        assert_eq!(exp(EXP_HIGHEST.next_up()), f32::INFINITY);
        assert_eq!(exp(f32::MAX), f32::INFINITY);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan() && exp(-f32::NAN).is_nan());
        assert_eq!(ln(1.0).to_bits(), 0);
        assert_eq!(ln(0.0), f32::NEG_INFINITY);
        assert_eq!(ln(-0.0), f32::NEG_INFINITY);
        assert_eq!(ln(f32::INFINITY), f32::INFINITY);
        assert!(ln(-1.0).is_nan() && ln(f32::NEG_INFINITY).is_nan() && ln(f32::NAN).is_nan());
        let sigmoid = |x| one(Function::Sigmoid, x);
        assert_eq!(sigmoid(0.0), 0.5);
        assert_eq!(sigmoid(f32::NEG_INFINITY), 0.0);
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
        assert!(sigmoid(f32::NAN).is_nan());
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for f in [Function::Exp, Function::Sigmoid, Function::Silu] {
            for x in sample(40_009) {
                let expected = Isa::named("portable")
                    .expect("always there")
                    .scope(|| apply(f, x));
                for isa in Isa::all() {
                    let y = isa.scope(|| apply(f, x));
                    for i in 0..LANES {
                        let same = y[i].to_bits() == expected[i].to_bits()
                            || (y[i].is_nan() && expected[i].is_nan());
                        assert!(
                            same,
                            "{}: f({:e}) = {:e}, not {:e}",
                            isa.name(),
                            x[i],
                            y[i],
                            expected[i]
                        );
                    }
                }
            }
        }
    }
}
