//! The error bounds that `scalar` states, measured: against numbers of twice the length, against the
//! standard library, and against literals from mpmath.

use super::*;
use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, LN_2};

/// A number of twice the length: the sum of two f64, the second below an ulp of the first.
/// The reference for error bounds: it shares nothing with the functions under
/// test but the exact `two_sum`.
#[derive(Clone, Copy)]
struct Dd(f64, f64);

// mpmath 1.3 with 400 bits; each part is rounded from what the parts before it leave.
const LN2: Dd = Dd(LN_2, 2.3190468138462996e-17);
const HALF_PI_3: [f64; 3] = [FRAC_PI_2, 6.123233995736766e-17, -1.4973849048591698e-33];

impl Dd {
    fn plus(self, b: Dd) -> Dd {
        let (sum, lost) = two_sum(self.0, b.0);
        let (hi, lo) = two_sum(sum, lost + self.1 + b.1);
        Dd(hi, lo)
    }
    fn times(self, b: Dd) -> Dd {
        let product = self.0 * b.0;
        let lost = self.0.mul_add(b.0, -product);
        let (hi, lo) = two_sum(product, lost + (self.0 * b.1 + self.1 * b.0));
        Dd(hi, lo)
    }
    fn over(self, n: f64) -> Dd {
        let quotient = self.0 / n;
        let (hi, lo) = two_sum(quotient, ((-quotient).mul_add(n, self.0) + self.1) / n);
        Dd(hi, lo)
    }
    fn negative(self) -> Dd {
        Dd(-self.0, -self.1)
    }
}

/// 1 + x + x²/2! + ... as the sums of the terms whose exponent is 0, 1, 2 and 3 mod 4.
fn exp_series(x: Dd) -> [Dd; 4] {
    let mut term = Dd(1.0, 0.0);
    let mut sums = [Dd(0.0, 0.0); 4];
    for n in 0..30 {
        sums[n % 4] = sums[n % 4].plus(term);
        term = term.times(x).over((n + 1) as f64);
    }
    sums
}

/// e^x as a number near 1 and a binary exponent.
fn exp_dd(x: Dd) -> (Dd, i32) {
    let k = (x.0 / LN_2).round();
    let [a, b, c, d] = exp_series(x.plus(Dd(-k, 0.0).times(LN2)));
    (a.plus(b).plus(c).plus(d), k as i32)
}

/// One Newton step from std: ln x = y + ln(x e^-y), and the last argument is 1 + t, t near 1e-16.
fn ln_dd(x: f64) -> Dd {
    let y = x.ln();
    let (inverse, k) = exp_dd(Dd(-y, 0.0));
    let t = inverse.times(Dd(scaled(x, k), 0.0)).plus(Dd(-1.0, 0.0));
    Dd(y, 0.0).plus(t)
}

fn sin_cos_dd(x: f64) -> (Dd, Dd) {
    let n = (x / FRAC_PI_2).round();
    let r = HALF_PI_3.iter().fold(Dd(x, 0.0), |r, &part| {
        r.plus(Dd(-n, 0.0).times(Dd(part, 0.0)))
    });
    let [a, b, c, d] = exp_series(r);
    let (sin, cos) = (b.plus(d.negative()), a.plus(c.negative()));
    match (n as i64) & 3 {
        0 => (sin, cos),
        1 => (cos, sin.negative()),
        2 => (sin.negative(), cos.negative()),
        _ => (cos.negative(), sin),
    }
}

/// x·2^k in two exact steps.
fn scaled(x: f64, k: i32) -> f64 {
    x * 2.0_f64.powi(k / 2) * 2.0_f64.powi(k - k / 2)
}

/// |got − want| in ulp of want, both normal.
fn ulps(got: f64, want: Dd) -> f64 {
    let ulp = f64::from_bits(want.0.to_bits() & (0x7FF << 52)) * f64::EPSILON;
    ((got - want.0) - want.1).abs() / ulp
}

fn exp_ulps(x: f64) -> f64 {
    let (want, k) = exp_dd(Dd(x, 0.0));
    ulps(scaled(exp(x), -k), want)
}

/// `count` numbers spread over [from, to), by a Weyl sequence: deterministic and even.
fn spread(from: f64, to: f64, count: u64) -> impl Iterator<Item = f64> {
    let weyl = |i: u64| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11) as f64 * UNIT;
    (0..count).map(move |i| from + (to - from) * weyl(i))
}

fn worst(name: &str, errors: impl Iterator<Item = f64>) -> f64 {
    let worst = errors.fold(0.0, |worst: f64, error| {
        assert!(!error.is_nan(), "{name}: an error is NaN");
        worst.max(error)
    });
    println!("{name}: {worst}");
    worst
}

#[test]
fn exp_is_within_its_bound() {
    let wide = spread(-708.39, 709.78, 200_000);
    let narrow = spread(-1.05, 1.05, 200_000);
    // |r| is largest on both sides of (k + ½) ln 2.
    let seams =
        (-1021..1023).flat_map(|k| [-1e-9, 0.0, 1e-9].map(|d| (f64::from(k) + 0.5 + d) * LN_2));
    assert!(worst("exp", wide.chain(narrow).chain(seams).map(exp_ulps)) <= 0.90);
    for x in spread(-750.0, 711.0, 200_000) {
        let (ours, std) = (exp(x), x.exp());
        let apart = ours.to_bits().abs_diff(std.to_bits());
        assert!(apart <= 2, "exp({x:e}) = {ours:e}, std {std:e}");
    }
}

#[test]
fn exp_at_its_borders() {
    assert_eq!([exp(0.0), exp(-0.0), exp(f64::MIN_POSITIVE)], [1.0; 3]);
    assert!(exp(EXP_OVERFLOW).is_finite());
    assert_eq!(exp(EXP_OVERFLOW.next_up()), f64::INFINITY);
    assert_eq!(
        [exp(f64::INFINITY), exp(f64::NEG_INFINITY)],
        [f64::INFINITY, 0.0]
    );
    assert!(exp(f64::NAN).is_nan());
    // mpmath 1.3: e^x in units of the smallest subnormal.
    for (x, units) in [
        (-720.5, 24_948_310_000.060_276),
        (-745.0, 0.571_250_147_471),
    ] {
        assert!((exp(x).to_bits() as f64 - units).abs() <= 0.95);
    }
    assert_eq!(exp(-745.14).to_bits(), 0);
    // The exact border of rounding to zero is half of the smallest subnormal.
    assert_eq!(
        [
            exp(-745.1332191019411).to_bits(),
            exp(EXP_UNDERFLOW).to_bits()
        ],
        [1, 0]
    );
}

#[test]
fn ln_is_within_its_bound() {
    let near_one = spread(0.49, 2.1, 200_000);
    // Every exponent, subnormals included: a random bit pattern is a log-uniform number.
    let wide = spread(1.0, f64::INFINITY.to_bits() as f64, 200_000)
        .map(|bits| f64::from_bits(bits as u64));
    let subnormal =
        spread(1.0, (1_u64 << 52) as f64, 20_000).map(|bits| f64::from_bits(bits as u64));
    let close = (1..53).flat_map(|k| [1.0 + 0.5_f64.powi(k), 1.0 - 0.5_f64.powi(k)]);
    let all = near_one.chain(wide).chain(subnormal).chain(close);
    let error = |x: f64| {
        let (ours, std) = (ln(x), x.ln());
        let apart = ours.to_bits().abs_diff(std.to_bits());
        assert!(apart <= 2, "ln({x:e}) = {ours:e}, std {std:e}");
        ulps(ours, ln_dd(x))
    };
    assert!(worst("ln", all.map(error)) <= 0.85);
    assert_eq!(
        [ln(1.0), ln(0.0), ln(-0.0)],
        [0.0, f64::NEG_INFINITY, f64::NEG_INFINITY]
    );
    assert_eq!(ln(f64::INFINITY), f64::INFINITY);
    assert!(
        [-1.0, -5e-324, f64::NEG_INFINITY, f64::NAN]
            .map(ln)
            .iter()
            .all(|y| y.is_nan())
    );
}

#[test]
fn sin_cos_is_within_its_bound() {
    let small = spread(-7.0, 7.0, 150_000);
    let wide = spread(-MAX_ANGLE, MAX_ANGLE, 150_000);
    let positions = (0..=1 << 20).step_by(7).map(f64::from);
    // Near multiples of π/4, odd ones too, where the quadrant changes.
    let seams = (0..2_670_176).step_by(17).map(|n| f64::from(n) * FRAC_PI_4);
    let points = [45.553_093_477_052, 5e-324, 1e-300, MAX_ANGLE, -MAX_ANGLE];
    let all = small
        .chain(wide)
        .chain(positions)
        .chain(seams)
        .chain(points);
    let (mut in_ulp, mut absolute) = (0.0_f64, 0.0_f64);
    for x in all {
        let ((sin, cos), (sin_dd, cos_dd)) = (sin_cos(x), sin_cos_dd(x));
        for (ours, want, std) in [(sin, sin_dd, x.sin()), (cos, cos_dd, x.cos())] {
            // A NaN fails here; the max below would drop it.
            assert!(
                (ours - std).abs() <= 2.3e-16,
                "at {x:e}: {ours:e}, std {std:e}"
            );
            absolute = absolute.max(((ours - want.0) - want.1).abs());
            if want.0.abs() >= f64::MIN_POSITIVE {
                in_ulp = in_ulp.max(ulps(ours, want));
            }
        }
    }
    println!("sin_cos: {in_ulp} ulp, {absolute:e} absolute");
    assert!(in_ulp <= 0.85 && absolute <= 9.5e-17);
    assert_eq!(sin_cos(0.0), (0.0, 1.0));
    assert!(sin_cos(f64::NAN).0.is_nan() && sin_cos(f64::NAN).1.is_nan());
}

#[test]
#[should_panic(expected = "outside")]
fn sin_cos_refuses_a_long_angle() {
    sin_cos(MAX_ANGLE.next_up());
}

/// The reference itself is held by literals from mpmath 1.3 with 400 bits, in two parts.
#[test]
fn the_references_agree_with_mpmath() {
    let close = |got: Dd, hi: f64, lo: f64| ((got.0 - hi) + (got.1 - lo)).abs() <= 1e-29 * hi.abs();
    let (y, k) = exp_dd(Dd(-37.25, 0.0));
    let [hi, lo] = [6.64554417291507e-17, -5.891784267265031e-34].map(|part| scaled(part, -k));
    assert!(close(y, hi, lo));
    let (y, k) = exp_dd(Dd(-0.35, 0.0));
    assert!(k == -1 && close(y, 2.0 * 0.7046880897187134, 2.0 * 1.0400012608936173e-17));
    assert!(close(
        ln_dd(10000.0),
        9.210340371976184,
        -8.683024893528997e-16
    ));
    assert!(close(
        ln_dd(5e-324),
        -744.4400719213812,
        -4.422444340918698e-14
    ));
    // The f64 nearest to a multiple of π/2 of all below 2^21, by a search over the multiples.
    let (sin, cos) = sin_cos_dd(45.553093477052);
    assert!(close(sin, 1.0, -1.915685142356643e-37));
    assert!(((cos.0 - -6.189806365883577e-19) + cos.1).abs() < 1e-33);
    let (sin, cos) = sin_cos_dd(1048575.0);
    assert!(close(sin, -0.6156211730587509, -2.5046289920458823e-17));
    assert!(close(cos, 0.7880422395289275, -2.1937952293745267e-17));
}

#[test]
fn powi_is_exact_on_integers_and_near_otherwise() {
    assert_eq!(
        [powi(3.0, 33), powi(-2.0, 1023)],
        [5_559_060_566_555_523.0, -2.0_f64.powi(1023)]
    );
    assert_eq!(
        [powi(0.0, 0), powi(0.5, 1074), powi(2.0, 1024)],
        [1.0, 5e-324, f64::INFINITY]
    );
    // mpmath 1.3.
    let points = [
        (0.999, 1000, 0.36769542477096373),
        (0.95, 10_000, 1.7220782772880572e-223),
        (1.0000001, 1 << 20, 1.110552450671116),
    ];
    for (base, n, want) in points {
        assert!((powi(base, n) / want - 1.0).abs() <= n as f64 * UNIT);
    }
    for (base, n) in spread(0.5, 1.001, 20_000).zip((0_u64..1000).cycle()) {
        let want = (0..n).fold(Dd(1.0, 0.0), |product, _| product.times(Dd(base, 0.0)));
        let error = ((powi(base, n) - want.0) - want.1).abs() / want.0;
        assert!(error <= n as f64 * UNIT, "{base}^{n}: {error:e}");
    }
}

#[test]
fn rope_frequency_is_within_its_bound() {
    let mut errors = Vec::new();
    for theta in [10.0, 1e2, 1e4, 5e5, 1e6, 1e7, 1e8]
        .into_iter()
        .chain(spread(10.0, 1e8, 50))
    {
        for head_size in (2..=256).step_by(2) {
            assert_eq!(rope_frequency(theta, 0, head_size), 1.0);
            for i in 1..head_size / 2 {
                let exponent = ln_dd(theta)
                    .times(Dd(2.0 * i as f64, 0.0))
                    .over(head_size as f64);
                let (want, k) = exp_dd(exponent.negative());
                errors.push(ulps(scaled(rope_frequency(theta, i, head_size), -k), want));
            }
        }
    }
    assert!(worst("rope_frequency", errors.into_iter()) <= 40.0);
    // mpmath 1.3.
    for (theta, i, head_size, want) in [
        (1e4, 31, 64, 0.0001333521432163324),
        (1e6, 17, 128, 0.025482967479793464),
        (5e5, 3, 80, 0.37374659925372544),
    ] {
        assert!((rope_frequency(theta, i, head_size) / want - 1.0).abs() <= 40.0 * f64::EPSILON);
    }
}

#[test]
fn standard_normal_is_within_its_bound_and_normal() {
    // mpmath 1.3. The first two are the largest values, the third has u = 1, the last cos(π/2).
    for (bits, want) in [
        ([0, 0], 8.571674348652905),
        ([0, 1 << 63], -8.571674348652905),
        ([u64::MAX, 12345], 0.0),
        (
            [0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210],
            3.289947693606651,
        ),
        (
            [0x9E37_79B9_7F4A_7C15, 0xBF58_476D_1CE4_E5B9],
            -0.015774361370931016,
        ),
        (
            [0x8000_0000_0000_0000, 0xE000_0000_0000_0000],
            0.8325546111576976,
        ),
        ([0x94D0_49BB_1331_11EB, 0x4000_0000_0000_0000], 0.0),
    ] {
        assert!((standard_normal(bits) - want).abs() <= 5e-15);
    }
    // The moments 1 to 4 of two million samples, each within five standard deviations.
    let count = 1 << 21;
    let mut sums = [0.0; 4];
    let mut state = 1_u64;
    for _ in 0..count {
        let x = standard_normal([split_mix(&mut state), split_mix(&mut state)]);
        for (sum, power) in sums.iter_mut().zip(1..) {
            *sum += x.powi(power) / f64::from(count);
        }
    }
    let sigma = 5.0 / f64::from(count).sqrt();
    for ((sum, want), variance) in sums
        .iter()
        .zip([0.0, 1.0, 0.0, 3.0])
        .zip([1.0, 2.0, 15.0, 96.0_f64])
    {
        assert!(
            (sum - want).abs() <= sigma * variance.sqrt(),
            "moments {sums:?}"
        );
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014), a generator that needs no crate.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
