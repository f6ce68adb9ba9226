//! The definition of every operation: plain Rust on an array of sixteen `f32`.
//!
//! Slow if the compiler may not use a fused multiply-add instruction, and exact everywhere: `f32::mul_add` rounds once
//! by its contract, which `tests.rs` checks against an exact emulation.

use super::{LANES, Sealed, Simd, lanewise};

/// The token of the portable backend. Every CPU has it.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

type V = [f32; LANES];

#[inline(always)]
fn map<T>(a: [T; LANES], f: impl Fn(T) -> f32) -> V {
    let mut out = [0.0; LANES];
    for (y, x) in out.iter_mut().zip(a) {
        *y = f(x);
    }
    out
}

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    let mut out = a;
    for (x, y) in out.iter_mut().zip(b) {
        *x = f(*x, y);
    }
    out
}

#[inline(always)]
fn fold(mut p: V, f: impl Fn(f32, f32) -> f32) -> f32 {
    for w in [8, 4, 2, 1] {
        for j in 0..w {
            p[j] = f(p[j], p[j + w]);
        }
    }
    p[0]
}

/// The maximum that the contract fixes: not `f32::max`, which treats NaN and signed zeros in its own way.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

impl Sealed for Portable {}

impl Simd for Portable {
    type V = V;
    type M = [bool; LANES];

    const TILE_ROWS: usize = 4;
    const PANEL_ROWS: usize = 0;
    const TWO_PANEL_ROWS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> V {
        *x
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> V {
        map(*x, |x| f32::from_bits(u32::from(x) << 16))
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> V {
        map(*x, f32::from)
    }
    #[inline(always)]
    fn store(self, v: V, to: &mut [f32; LANES]) {
        *to = v;
    }
    #[inline(always)]
    fn prefetch<T>(self, _: &T, _: usize) {}
    lanewise! {
        add(a, b) = zip(a, b, |x, y| x + y);
        sub(a, b) = zip(a, b, |x, y| x - y);
        mul(a, b) = zip(a, b, |x, y| x * y);
        div(a, b) = zip(a, b, |x, y| x / y);
        sqrt(a) = map(a, f32::sqrt);
        max(a, b) = zip(a, b, larger);
        bit_add(a, b) = zip(a, b, |x, y| f32::from_bits(x.to_bits().wrapping_add(y.to_bits())));
        bits_to_exponent(a) = map(a, |x| f32::from_bits(x.to_bits() << 23));
    }
    #[inline(always)]
    #[expect(
        clippy::disallowed_methods,
        reason = "fma of every lane is defined here"
    )]
    fn fma(self, a: V, b: V, c: V) -> V {
        let mut out = c;
        for i in 0..LANES {
            out[i] = a[i].mul_add(b[i], out[i]);
        }
        out
    }
    #[inline(always)]
    fn less(self, a: V, b: V) -> [bool; LANES] {
        let mut m = [false; LANES];
        for i in 0..LANES {
            m[i] = a[i] < b[i];
        }
        m
    }
    #[inline(always)]
    fn select(self, m: [bool; LANES], a: V, b: V) -> V {
        let mut out = b;
        for i in 0..LANES {
            if m[i] {
                out[i] = a[i];
            }
        }
        out
    }
    #[inline(always)]
    fn sum(self, v: V) -> f32 {
        fold(v, |x, y| x + y)
    }
    #[inline(always)]
    fn maximum(self, v: V) -> f32 {
        fold(v, larger)
    }
    #[inline(always)]
    fn transpose(self, v: [V; LANES]) -> [V; LANES] {
        let mut out = v;
        for (i, row) in v.iter().enumerate() {
            for (j, x) in row.iter().enumerate() {
                out[j][i] = *x;
            }
        }
        out
    }
}
