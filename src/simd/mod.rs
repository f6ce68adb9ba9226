//! Sixteen lanes of `f32`, the same on every machine: the lowest layer of the crate.
//!
//! A kernel is a struct of its arguments that implements [`Kernel`]. [`run`] picks the instruction set and enters the
//! kernel inside a function compiled for it. Every backend performs the same sixteen-lane operations, each of them
//! correctly rounded, so a kernel has one answer on every instruction set (`docs/02-one-answer.md`).
//!
//! | file | what |
//! |---|---|
//! | [`portable`] | the definition: an array of sixteen `f32` |
//! | `neon` | NEON, four registers of four lanes |
//! | `avx2` | AVX2 + FMA, two registers of eight lanes |
//! | `avx512` | AVX-512F, one register |
//! | [`isa`] | the tokens that prove a CPU has an instruction set, and the ceiling `FORETOKEN_ISA` |
//! | [`float_environment`] | whether a thread rounds to nearest and keeps subnormal numbers |
//! | [`math`] | exp, sigmoid and SiLU on sixteen lanes, ln of one number |
//! | [`scalar`] | exp, ln, sin, cos and powers in `f64`, for tables, schedules and random numbers |
//! | [`matrix`] | a mutable matrix view that splits into disjoint parts |
//! | `tests` | every backend against the definition |
//!
//! This folder does not know what a kernel computes. Only it and the optional folder `gpu` have `unsafe` code.
//!
//! `#[inline(always)]` on every generic function that takes an `S: Simd` is load-bearing: a function left out of line
//! is compiled without the instruction set, and each of its intrinsics becomes a call. For the same reason kernels use
//! plain loops instead of closures that might stay out of line.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod float_environment;
pub mod isa;
pub mod math;
pub mod matrix;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod portable;
pub mod scalar;

#[cfg(test)]
mod tests;

pub use isa::{Isa, run};

/// Lanes of a vector, on every instruction set.
pub const LANES: usize = 16;

/// A computation over sixteen-lane vectors that returns an `R`, written once for every instruction set.
pub trait Kernel<R = ()> {
    /// Does the computation. Implementations mark it `#[inline(always)]`.
    fn run<S: Simd>(self, s: S) -> R;
}

/// Keeps [`Simd`] closed, so that an operation can be added without breaking anyone's code.
trait Sealed {}

/// Sixteen lanes of `f32`. A value of an implementing type proves that the CPU has the instructions.
///
/// Every operation is lane by lane and correctly rounded (IEEE 754, round to nearest, subnormals kept). Bit operations
/// see a lane as a `u32`. The trait is sealed: [`Isa`] lists all its types.
#[expect(private_bounds, reason = "the trait is sealed")]
pub trait Simd: Copy + Send + Sync + Sealed {
    /// Sixteen `f32`.
    type V: Copy;
    /// Sixteen truth values.
    type M: Copy;

    /// Rows of the micro-tile of a matrix multiplication that the registers can hold, if it is as wide as the next two
    /// constants say, or else half a panel: one vector.
    const TILE_ROWS: usize;
    /// Micro-tiles of at most this many rows are as wide as a panel: two vectors.
    const PANEL_ROWS: usize;
    /// Micro-tiles of at most this many rows are as wide as two panels, if there are two: four vectors. Two or fewer.
    const TWO_PANEL_ROWS: usize;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::V;
    /// Lane i is `x[i]`.
    fn load(self, x: &[f32; LANES]) -> Self::V;
    /// Lane i is `x[i]`, and `fill` past the end of x. At most sixteen elements; sixteen are a plain load.
    #[inline(always)]
    fn load_partial(self, x: &[f32], fill: f32) -> Self::V {
        if let Ok(whole) = x.try_into() {
            return self.load(whole);
        }
        let mut whole = [fill; LANES];
        whole[..x.len()].copy_from_slice(x);
        self.load(&whole)
    }
    /// Lane i is the bfloat16 `x[i]`: its sixteen bits become the upper half of the lane, which is exact.
    fn load_bf16(self, x: &[u16; LANES]) -> Self::V;
    /// Lane i is `x[i]`, which is exact.
    fn load_i8(self, x: &[i8; LANES]) -> Self::V;
    /// `to[i]` becomes lane i.
    fn store(self, v: Self::V, to: &mut [f32; LANES]);
    /// `to[i]` becomes lane i, for the elements that there are. At most sixteen; sixteen are a plain store.
    #[inline(always)]
    fn store_partial(self, v: Self::V, to: &mut [f32]) {
        if let Ok(whole) = to.try_into() {
            return self.store(v, whole);
        }
        let mut whole = [0.0; LANES];
        self.store(v, &mut whole);
        to.copy_from_slice(&whole[..to.len()]);
    }

    /// Hints to the CPU that the memory `bytes` bytes behind `x` will be read soon; changes no result.
    ///
    /// The address may lie outside of any object.
    fn prefetch<T>(self, x: &T, bytes: usize);

    /// a + b
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a − b
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// a · b
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// a / b
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// a · b + c with one rounding.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// √a
    fn sqrt(self, a: Self::V) -> Self::V;
    /// `if a > b { a } else { b }`: b if either is NaN, and if both are zeros.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// a < b, false if either is NaN.
    fn less(self, a: Self::V, b: Self::V) -> Self::M;
    /// The lane of `a` if the mask holds, else that of `b`.
    fn select(self, m: Self::M, a: Self::V, b: Self::V) -> Self::V;

    /// a + b modulo 2^32
    fn bit_add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a · 2^23 modulo 2^32: moves a small integer into the exponent field.
    fn bits_to_exponent(self, a: Self::V) -> Self::V;

    /// The sum of all lanes in the fixed order of rule R2: lane j += lane j + w for w = 8, 4, 2, 1.
    fn sum(self, v: Self::V) -> f32;
    /// The maximum of all lanes by the same fold.
    fn maximum(self, v: Self::V) -> f32;

    /// Lane j of vector i becomes lane i of vector j.
    fn transpose(self, v: [Self::V; LANES]) -> [Self::V; LANES];
}

/// Defines operations of [`Simd`] from vectors to a vector, each by one expression.
macro_rules! lanewise {
    ($($name:ident($($x:ident),+) = $result:expr;)+) => {$(
        #[inline(always)]
        fn $name(self, $($x: Self::V),+) -> Self::V {
            $result
        }
    )+};
}
use lanewise;
