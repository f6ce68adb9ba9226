//! NEON, the vector instructions of every 64-bit ARM CPU: a vector is four registers of four lanes.

use super::{Kernel, LANES, Sealed, Simd, lanewise};
use core::arch::aarch64::*;

/// Proof that the CPU has NEON.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// The token, if the system reports the instructions.
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    /// Enters `f` in a function compiled for NEON.
    #[inline]
    pub fn enter<R, K: Kernel<R>>(self, kernel: K) -> R {
        /// # Safety
        /// The CPU has this feature.
        #[target_feature(enable = "neon")]
        fn trampoline<R, K: Kernel<R>>(s: Neon, kernel: K) -> R {
            kernel.run(s)
        }
        // SAFETY: `self` exists only if the system reports the feature the trampoline enables.
        unsafe { trampoline(self, kernel) }
    }
}

/// Evaluates intrinsics on values, which need nothing but the CPU feature. What reads or writes memory has a block and
/// a reason of its own.
macro_rules! with_feature {
    ($e:expr) => {
        // SAFETY: intrinsics on values need NEON only; `self` exists only if the system reports it.
        unsafe { $e }
    };
}

/// A vector from one expression for its quarters q = 0, 1, 2 and 3.
macro_rules! quarters {
    ($q:ident => $e:expr) => {
        quarters!($q => $e, 0 1 2 3)
    };
    ($q:ident => $e:expr, $($number:literal)*) => {
        [$({
            let $q = $number;
            $e
        }),*]
    };
}

/// [`quarters`] of intrinsics on values.
macro_rules! all_four {
    ($q:ident => $e:expr) => {
        with_feature!(quarters!($q => $e))
    };
}

/// Folds lanes with one function of two registers.
macro_rules! fold {
    ($v:ident, $f:ident) => {
        with_feature!({
            let w8 = [$f($v[0], $v[2]), $f($v[1], $v[3])];
            let w4 = $f(w8[0], w8[1]);
            // Lanes 0 and 1, and then lane 0, hold what counts.
            let w2 = $f(w4, vextq_f32::<2>(w4, w4));
            vgetq_lane_f32::<0>($f(w2, vextq_f32::<1>(w2, w2)))
        })
    };
}

/// The larger lanes by the definition. Neither FMAX nor FMAXNM is it: of two zeros they return the positive one, and of
/// a number and a NaN the NaN, or the number on whichever side it is.
///
/// # Safety
/// The CPU has NEON.
#[inline]
#[target_feature(enable = "neon")]
fn larger(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vbslq_f32(vcgtq_f32(a, b), a, b)
}

type V = [float32x4_t; 4];

impl Sealed for Neon {}

impl Simd for Neon {
    type V = V;
    type M = [uint32x4_t; 4];

    // 6 · 4 accumulators, 4 registers of the panel, 2 of the left operand, whose elements a multiply-add can pick: 30
    // of 32 registers.
    const TILE_ROWS: usize = 6;
    // 8 accumulators and 8 registers of the panel for each row. The 16 of two panels would leave none for the left
    // operand.
    const PANEL_ROWS: usize = 2;
    const TWO_PANEL_ROWS: usize = 0;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        with_feature!([vdupq_n_f32(x); 4])
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> V {
        // SAFETY: NEON by the token; the reference is valid for sixteen reads, four of them by each load.
        unsafe { quarters!(q => vld1q_f32(x.as_ptr().add(4 * q))) }
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> V {
        // SAFETY: NEON by the token; the reference is valid for sixteen reads, four of them by each load.
        let narrow = unsafe { quarters!(q => vld1_u16(x.as_ptr().add(4 * q))) };
        all_four!(q => vreinterpretq_f32_u32(vshll_n_u16::<16>(narrow[q])))
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> V {
        // Two loads, because the compiler widens all of one load at once, and a micro-tile then runs out of registers.
        // SAFETY: NEON by the token; the reference is valid for sixteen reads, eight of them by each load.
        let narrow = unsafe { [vld1_s8(x.as_ptr()), vld1_s8(x.as_ptr().add(8))] };
        with_feature!({
            let halves = [vmovl_s8(narrow[0]), vmovl_s8(narrow[1])];
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(halves[0]))),
                vcvtq_f32_s32(vmovl_s16(vget_high_s16(halves[0]))),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(halves[1]))),
                vcvtq_f32_s32(vmovl_s16(vget_high_s16(halves[1]))),
            ]
        })
    }
    #[inline(always)]
    fn store(self, v: V, to: &mut [f32; LANES]) {
        // SAFETY: NEON by the token; the reference is valid for sixteen writes, four of them by each store.
        unsafe { quarters!(q => vst1q_f32(to.as_mut_ptr().add(4 * q), v[q])) };
    }
    #[inline(always)]
    fn prefetch<T>(self, x: &T, bytes: usize) {
        let at = std::ptr::from_ref(x).addr().wrapping_add(bytes);
        // SAFETY: a prefetch is a hint; it changes neither memory nor registers and faults at no address. (The
        // intrinsic is not stable yet.)
        unsafe {
            core::arch::asm!(
                "prfm pldl1keep, [{at}]",
                at = in(reg) at,
                options(nomem, nostack, preserves_flags),
            );
        }
    }
    lanewise! {
        add(a, b) = all_four!(q => vaddq_f32(a[q], b[q]));
        sub(a, b) = all_four!(q => vsubq_f32(a[q], b[q]));
        mul(a, b) = all_four!(q => vmulq_f32(a[q], b[q]));
        div(a, b) = all_four!(q => vdivq_f32(a[q], b[q]));
        fma(a, b, c) = all_four!(q => vfmaq_f32(c[q], a[q], b[q]));
        sqrt(a) = all_four!(q => vsqrtq_f32(a[q]));
        max(a, b) = all_four!(q => larger(a[q], b[q]));
        bit_add(a, b) = all_four!(q => {
            let sum = vaddq_u32(vreinterpretq_u32_f32(a[q]), vreinterpretq_u32_f32(b[q]));
            vreinterpretq_f32_u32(sum)
        });
        bits_to_exponent(a) = all_four!(q => {
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(a[q])))
        });
    }
    #[inline(always)]
    fn less(self, a: V, b: V) -> [uint32x4_t; 4] {
        all_four!(q => vcltq_f32(a[q], b[q]))
    }
    #[inline(always)]
    fn select(self, m: [uint32x4_t; 4], a: V, b: V) -> V {
        all_four!(q => vbslq_f32(m[q], a[q], b[q]))
    }
    #[inline(always)]
    fn sum(self, v: V) -> f32 {
        fold!(v, vaddq_f32)
    }
    #[inline(always)]
    fn maximum(self, v: V) -> f32 {
        fold!(v, larger)
    }
    #[inline(always)]
    fn transpose(self, v: [V; LANES]) -> [V; LANES] {
        let mut out = v;
        for row in 0..4 {
            for col in 0..4 {
                let block = quarters!(i => v[4 * row + i][col]);
                let turned = with_feature!(transpose_4x4(block));
                for i in 0..4 {
                    out[4 * col + i][row] = turned[i];
                }
            }
        }
        out
    }
}

/// Lane j of register i becomes lane i of register j.
///
/// # Safety
/// The CPU has NEON.
#[inline]
#[target_feature(enable = "neon")]
fn transpose_4x4(v: V) -> V {
    // Even columns of a pair of rows, and odd ones.
    let (even, odd) = (vtrn1q_f32(v[0], v[1]), vtrn2q_f32(v[0], v[1]));
    let (even2, odd2) = (vtrn1q_f32(v[2], v[3]), vtrn2q_f32(v[2], v[3]));
    [
        vcombine_f32(vget_low_f32(even), vget_low_f32(even2)),
        vcombine_f32(vget_low_f32(odd), vget_low_f32(odd2)),
        vcombine_f32(vget_high_f32(even), vget_high_f32(even2)),
        vcombine_f32(vget_high_f32(odd), vget_high_f32(odd2)),
    ]
}
