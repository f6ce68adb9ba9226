//! The backends against the definition, operation by operation, and the definition's one soft spot against arithmetic
//! in wider types.

use super::{Isa, Kernel, LANES, Simd, run};

type Lanes = [f32; LANES];

/// Every operation of the trait on three vectors; masks through `select`, folds as lanes of a vector.
struct Everything(Lanes, Lanes, Lanes);

impl Kernel<Vec<(&'static str, Lanes)>> for Everything {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<(&'static str, Lanes)> {
        let (a, b, c) = (s.load(&self.0), s.load(&self.1), s.load(&self.2));
        let mut out = Vec::new();
        let mut keep = |name, v| {
            let mut lanes = [0.0; LANES];
            s.store(v, &mut lanes);
            out.push((name, lanes));
        };
        keep("splat", s.splat(self.0[3]));
        keep("load", a);
        keep("add", s.add(a, b));
        keep("sub", s.sub(a, b));
        keep("mul", s.mul(a, b));
        keep("div", s.div(a, b));
        keep("fma", s.fma(a, b, c));
        keep("sqrt", s.sqrt(a));
        keep("max", s.max(a, b));
        keep("select", s.select(s.less(a, b), c, b));
        keep("bit_add", s.bit_add(a, b));
        keep("bits_to_exponent", s.bits_to_exponent(a));
        keep("sum", s.splat(s.sum(a)));
        keep("maximum", s.splat(s.maximum(a)));
        let rows = std::array::from_fn(|i| s.splat((i % 2) as f32));
        let rows = turn(s, rows, [a, b, c]);
        for v in s.transpose(rows) {
            keep("transpose", v);
        }
        for n in 0..=LANES {
            keep("load_partial", s.load_partial(&self.0[..n], 7.0));
            let mut part = self.1;
            s.store_partial(a, &mut part[..n]);
            keep("store_partial", s.load(&part));
        }
        out
    }
}

/// Sixteen different vectors made of three.
#[inline(always)]
fn turn<S: Simd>(s: S, mut rows: [S::V; LANES], from: [S::V; 3]) -> [S::V; LANES] {
    for (i, row) in rows.iter_mut().enumerate() {
        *row = s.bit_add(from[i % 3], s.splat(f32::from_bits(i as u32)));
    }
    rows
}

/// Values on every edge that lanes can meet, in an order that brings all pairs together over time.
fn awkward() -> Vec<f32> {
    let mut values = vec![
        0.0,
        1.0,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
        f32::from_bits(0x007f_ffff),
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
        1.0 + f32::EPSILON,
        3.0e-39,
        1.0e20,
        0.1,
    ];
    values.extend(values.clone().iter().map(|x| -x));
    values.extend((1..40).map(|i| (i as f32 * 0.37 - 7.0) * 2f32.powi(i % 13 - 6)));
    values
}

fn vectors() -> impl Iterator<Item = (Lanes, Lanes, Lanes)> {
    let values = awkward();
    (0..4000).map(move |t: usize| {
        let at = |k: usize| std::array::from_fn(|i| values[(t * k + i * (k + 2)) % values.len()]);
        (at(1), at(5), at(11))
    })
}

#[test]
fn every_backend_is_the_definition() {
    let portable = Isa::named("portable").expect("always there");
    for (a, b, c) in vectors() {
        let expected = portable.scope(|| run(Everything(a, b, c)));
        for isa in Isa::all() {
            let got = isa.scope(|| run(Everything(a, b, c)));
            for ((name, x), (_, y)) in got.iter().zip(&expected) {
                for i in 0..LANES {
                    let same = x[i].to_bits() == y[i].to_bits() || (x[i].is_nan() && y[i].is_nan());
                    assert!(
                        same,
                        "{} {name} lane {i}: {:e}, not {:e}",
                        isa.name(),
                        x[i],
                        y[i]
                    );
                }
            }
        }
    }
}

/// Sixteen narrow numbers widened.
struct Widen<T>([T; LANES]);

impl Kernel<Lanes> for Widen<u16> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Lanes {
        let mut lanes = [0.0; LANES];
        s.store(s.load_bf16(&self.0), &mut lanes);
        lanes
    }
}

impl Kernel<Lanes> for Widen<i8> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Lanes {
        let mut lanes = [0.0; LANES];
        s.store(s.load_i8(&self.0), &mut lanes);
        lanes
    }
}

#[test]
fn every_narrow_number_is_widened_exactly() {
    for isa in Isa::all() {
        isa.scope(|| {
            for block in 0..65536 / LANES {
                let x: [u16; LANES] = std::array::from_fn(|i| (block * LANES + i) as u16);
                for (x, y) in x.iter().zip(run(Widen(x))) {
                    // Sign, exponent and the upper seven bits of the fraction, by their meaning.
                    let sign = if x >> 15 == 1 { -1.0 } else { 1.0 };
                    let (exponent, fraction) = (i32::from(x >> 7 & 255), f64::from(x & 127));
                    let expected = match exponent {
                        255 if fraction == 0.0 => sign * f64::INFINITY,
                        255 => f64::NAN,
                        0 => sign * fraction * 2f64.powi(-126 - 7),
                        e => sign * (1.0 + fraction / 128.0) * 2f64.powi(e - 127),
                    };
                    let same = f64::from(y).to_bits() == expected.to_bits();
                    let same = same || (y.is_nan() && expected.is_nan());
                    assert!(same, "{} {x:#06x}: {y:e}, not {expected:e}", isa.name());
                }
            }
            for block in 0..256 / LANES {
                let x: [i8; LANES] = std::array::from_fn(|i| (block * LANES + i) as u8 as i8);
                for (x, y) in x.iter().zip(run(Widen(x))) {
                    assert_eq!(y.to_bits(), (*x as f32).to_bits(), "{} {x}", isa.name());
                }
            }
        });
    }
}

/// The nearest `f32` to hi + lo, ties to even; |lo| is at most half a unit of hi's last place in `f64`.
fn round_once(hi: f64, lo: f64) -> f32 {
    // Rounding to odd in f64 keeps the information that the second rounding needs (Boldo and Melquiond, 2008).
    let odd = hi.to_bits() & 1 == 1;
    let hi = if lo == 0.0 || odd {
        hi
    } else if (lo > 0.0) == (hi > 0.0) {
        f64::from_bits(hi.to_bits() + 1)
    } else {
        f64::from_bits(hi.to_bits() - 1)
    };
    hi as f32
}

#[test]
fn the_portable_multiply_add_rounds_once() {
    let values: Vec<f32> = awkward().into_iter().filter(|x| x.is_finite()).collect();
    let mut checked = 0;
    for &a in &values {
        for &b in &values {
            for &c in &values {
                // The product of two f32 is exact in f64; the sum is split exactly by Knuth's two-sum.
                let (p, c64) = (f64::from(a) * f64::from(b), f64::from(c));
                let hi = p + c64;
                let back = hi - p;
                let lo = (p - (hi - back)) + (c64 - back);
                let expected = if hi == 0.0 {
                    hi as f32
                } else {
                    round_once(hi, lo)
                };
                let got = a.mul_add(b, c);
                assert_eq!(got.to_bits(), expected.to_bits(), "{a:e} * {b:e} + {c:e}");
                checked += 1;
            }
        }
    }
    assert!(checked > 100_000);
}

#[test]
fn a_required_instruction_set_is_there() {
    Isa::from_environment().expect("FORETOKEN_ISA is unset or names an instruction set");
    let found: Vec<&str> = Isa::all().iter().map(|isa| isa.name()).collect();
    for name in super::isa::NAMES {
        if !found.contains(&name) {
            println!("this CPU has no {name}: comparisons with it are skipped");
            let required = std::env::var("FORETOKEN_REQUIRE_ISA").unwrap_or_default();
            assert_ne!(
                required, name,
                "FORETOKEN_REQUIRE_ISA names an instruction set this CPU lacks"
            );
        }
    }
}
