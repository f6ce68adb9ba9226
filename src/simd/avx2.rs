//! AVX2 and FMA: a vector is two registers of eight lanes.

use super::{Kernel, LANES, Sealed, Simd, lanewise};
use core::arch::x86_64::*;

/// Proof that the CPU has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The token, if CPUID reports the instructions.
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        found.then_some(Self(()))
    }

    /// Enters `f` in a function compiled for AVX2 and FMA.
    #[inline]
    pub fn enter<R, K: Kernel<R>>(self, kernel: K) -> R {
        /// # Safety
        /// The CPU has these features.
        #[target_feature(enable = "avx2,fma")]
        fn trampoline<R, K: Kernel<R>>(s: Avx2, kernel: K) -> R {
            kernel.run(s)
        }
        // SAFETY: `self` exists only if CPUID reports the two features the trampoline enables.
        unsafe { trampoline(self, kernel) }
    }
}

/// Evaluates intrinsics on values, which need nothing but the CPU features. What reads or writes memory has a block and
/// a reason of its own. (The methods are compiled into the trampoline and cannot enable the features themselves: a
/// trait's methods may not, and `#[inline(always)]` and `#[target_feature]` exclude each other.)
macro_rules! with_feature {
    ($e:expr) => {
        // SAFETY: intrinsics on values need AVX2 and FMA only; `self` exists only if CPUID reports them.
        unsafe { $e }
    };
}

/// A vector from one expression for its halves h = 0 and 1.
macro_rules! halves {
    ($h:ident => $e:expr) => {
        [
            {
                let $h = 0;
                $e
            },
            {
                let $h = 1;
                $e
            },
        ]
    };
}

/// [`halves`] of intrinsics on values.
macro_rules! both {
    ($h:ident => $e:expr) => {
        with_feature!(halves!($h => $e))
    };
}

/// Folds lanes with one intrinsic for each number of lanes that are left.
macro_rules! fold {
    ($v:ident, $eight:ident, $four:ident, $one:ident) => {
        with_feature!({
            let w8 = $eight($v[0], $v[1]);
            let w4 = $four(_mm256_castps256_ps128(w8), _mm256_extractf128_ps::<1>(w8));
            let w2 = $four(w4, _mm_movehl_ps(w4, w4));
            _mm_cvtss_f32($one(w2, _mm_shuffle_ps::<1>(w2, w2)))
        })
    };
}

type V = [__m256; 2];

impl Sealed for Avx2 {}

impl Simd for Avx2 {
    type V = V;
    type M = V;

    // 6 · 2 accumulators, 2 registers of the panel, 1 broadcast: 15 of 16 registers.
    const TILE_ROWS: usize = 6;
    const PANEL_ROWS: usize = 0;
    const TWO_PANEL_ROWS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        with_feature!([_mm256_set1_ps(x); 2])
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> V {
        // SAFETY: AVX2 by the token; the reference is valid for sixteen reads, eight of them by each load.
        unsafe { halves!(h => _mm256_loadu_ps(x.as_ptr().add(8 * h))) }
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> V {
        // SAFETY: AVX2 by the token; the reference is valid for sixteen reads, eight of them by each load.
        let narrow = unsafe { halves!(h => _mm_loadu_si128(x.as_ptr().add(8 * h).cast())) };
        both!(h => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(narrow[h]))))
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> V {
        // SAFETY: AVX2 by the token; the reference is valid for sixteen reads, eight of them by each load.
        let narrow = unsafe { halves!(h => _mm_loadl_epi64(x.as_ptr().add(8 * h).cast())) };
        both!(h => _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(narrow[h])))
    }
    #[inline(always)]
    fn store(self, v: V, to: &mut [f32; LANES]) {
        // SAFETY: AVX2 by the token; the reference is valid for sixteen writes.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), v[1]);
        }
    }
    #[inline(always)]
    fn prefetch<T>(self, x: &T, bytes: usize) {
        let at = std::ptr::from_ref(x).cast::<i8>().wrapping_add(bytes);
        // SAFETY: a prefetch is a hint of SSE, which every x86-64 has; it reads nothing and faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at) }
    }
    lanewise! {
        add(a, b) = both!(h => _mm256_add_ps(a[h], b[h]));
        sub(a, b) = both!(h => _mm256_sub_ps(a[h], b[h]));
        mul(a, b) = both!(h => _mm256_mul_ps(a[h], b[h]));
        div(a, b) = both!(h => _mm256_div_ps(a[h], b[h]));
        fma(a, b, c) = both!(h => _mm256_fmadd_ps(a[h], b[h], c[h]));
        sqrt(a) = both!(h => _mm256_sqrt_ps(a[h]));
        // VMAXPS returns its second operand for NaN and for two zeros, which is the definition.
        max(a, b) = both!(h => _mm256_max_ps(a[h], b[h]));
        bit_add(a, b) = both!(h => {
            let sum = _mm256_add_epi32(_mm256_castps_si256(a[h]), _mm256_castps_si256(b[h]));
            _mm256_castsi256_ps(sum)
        });
        bits_to_exponent(a) = both!(h => {
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(a[h])))
        });
    }
    #[inline(always)]
    fn less(self, a: V, b: V) -> V {
        both!(h => _mm256_cmp_ps::<_CMP_LT_OQ>(a[h], b[h]))
    }
    #[inline(always)]
    fn select(self, m: V, a: V, b: V) -> V {
        both!(h => _mm256_blendv_ps(b[h], a[h], m[h]))
    }
    #[inline(always)]
    fn sum(self, v: V) -> f32 {
        fold!(v, _mm256_add_ps, _mm_add_ps, _mm_add_ss)
    }
    #[inline(always)]
    fn maximum(self, v: V) -> f32 {
        fold!(v, _mm256_max_ps, _mm_max_ps, _mm_max_ss)
    }
    #[inline(always)]
    fn transpose(self, v: [V; LANES]) -> [V; LANES] {
        let mut out = v;
        for row in 0..2 {
            for col in 0..2 {
                let block = std::array::from_fn(|i| v[8 * row + i][col]);
                let turned = with_feature!(transpose_8x8(block));
                for i in 0..8 {
                    out[8 * col + i][row] = turned[i];
                }
            }
        }
        out
    }
}

/// Lane j of register i becomes lane i of register j.
///
/// # Safety
/// The CPU has AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn transpose_8x8(v: [__m256; 8]) -> [__m256; 8] {
    let mut a = v;
    for i in 0..4 {
        a[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    }
    let mut b = a;
    for i in 0..2 {
        b[4 * i] = _mm256_shuffle_ps::<0x44>(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = _mm256_shuffle_ps::<0xee>(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = _mm256_shuffle_ps::<0x44>(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = _mm256_shuffle_ps::<0xee>(a[4 * i + 1], a[4 * i + 3]);
    }
    let mut out = v;
    for c in 0..4 {
        out[c] = _mm256_permute2f128_ps::<0x20>(b[c], b[4 + c]);
        out[4 + c] = _mm256_permute2f128_ps::<0x31>(b[c], b[4 + c]);
    }
    out
}
