//! AVX-512F: a vector is one register, a mask is one mask register.

use super::avx2::Avx2;
use super::{Kernel, LANES, Sealed, Simd, lanewise};
use core::arch::x86_64::*;

/// Proof that the CPU has AVX-512F (and the AVX2 and FMA that come with it).
#[derive(Clone, Copy, Debug)]
pub struct Avx512(Avx2);

impl Avx512 {
    /// The token, if CPUID reports the instructions.
    pub fn detect() -> Option<Self> {
        let found = Avx2::detect()?;
        is_x86_feature_detected!("avx512f").then_some(Self(found))
    }

    /// Enters `f` in a function compiled for AVX-512F.
    #[inline]
    pub fn enter<R, K: Kernel<R>>(self, kernel: K) -> R {
        /// # Safety
        /// The CPU has these features.
        #[target_feature(enable = "avx512f,avx2,fma")]
        fn trampoline<R, K: Kernel<R>>(s: Avx512, kernel: K) -> R {
            kernel.run(s)
        }
        // SAFETY: `self` exists only if CPUID reports the three features the trampoline enables.
        unsafe { trampoline(self, kernel) }
    }
}

/// Evaluates intrinsics on values, which need nothing but the CPU feature. What reads or writes memory has a block and
/// a reason of its own.
macro_rules! with_feature {
    ($e:expr) => {
        // SAFETY: intrinsics on values need AVX-512F only; `self` exists only if CPUID reports it.
        unsafe { $e }
    };
}

/// The halves of a vector, as AVX2 holds them.
macro_rules! halves {
    ($v:ident) => {
        with_feature!([
            _mm512_castps512_ps256($v),
            _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd($v))),
        ])
    };
}

/// The lanes below `n`.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    debug_assert!(n <= LANES);
    ((1u32 << n) - 1) as __mmask16
}

impl Sealed for Avx512 {}

impl Simd for Avx512 {
    type V = __m512;
    type M = __mmask16;

    // 12 · 2 accumulators, 2 vectors of the panel, and broadcasts straight from memory: 26 of 32 registers.
    const TILE_ROWS: usize = 12;
    const PANEL_ROWS: usize = 12;
    const TWO_PANEL_ROWS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        with_feature!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        // SAFETY: AVX-512F by the token; the reference is valid for sixteen reads.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn load_partial(self, x: &[f32], fill: f32) -> __m512 {
        if let Ok(whole) = x.try_into() {
            return self.load(whole);
        }
        assert!(x.len() <= LANES);
        // SAFETY: AVX-512F by the token; the mask admits only the elements of the slice.
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(x.len()), x.as_ptr()) }
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> __m512 {
        // SAFETY: AVX-512F by the token; the reference is valid for sixteen reads.
        unsafe {
            let narrow = _mm256_loadu_si256(x.as_ptr().cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(narrow)))
        }
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> __m512 {
        // SAFETY: AVX-512F by the token; the reference is valid for sixteen reads.
        unsafe {
            let narrow = _mm_loadu_si128(x.as_ptr().cast());
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(narrow))
        }
    }
    #[inline(always)]
    fn store(self, v: __m512, to: &mut [f32; LANES]) {
        // SAFETY: AVX-512F by the token; the reference is valid for sixteen writes.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn store_partial(self, v: __m512, to: &mut [f32]) {
        if let Ok(whole) = to.try_into() {
            return self.store(v, whole);
        }
        assert!(to.len() <= LANES);
        // SAFETY: AVX-512F by the token; the mask admits only the elements of the slice.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), first(to.len()), v) }
    }
    #[inline(always)]
    fn prefetch<T>(self, x: &T, bytes: usize) {
        self.0.prefetch(x, bytes);
    }
    lanewise! {
        add(a, b) = with_feature!(_mm512_add_ps(a, b));
        sub(a, b) = with_feature!(_mm512_sub_ps(a, b));
        mul(a, b) = with_feature!(_mm512_mul_ps(a, b));
        div(a, b) = with_feature!(_mm512_div_ps(a, b));
        fma(a, b, c) = with_feature!(_mm512_fmadd_ps(a, b, c));
        sqrt(a) = with_feature!(_mm512_sqrt_ps(a));
        // VMAXPS returns its second operand for NaN and for two zeros, which is the definition.
        max(a, b) = with_feature!(_mm512_max_ps(a, b));
        bit_add(a, b) = with_feature!({
            let sum = _mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b));
            _mm512_castsi512_ps(sum)
        });
        bits_to_exponent(a) = with_feature!({
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(a)))
        });
    }
    #[inline(always)]
    fn less(self, a: __m512, b: __m512) -> __mmask16 {
        with_feature!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b))
    }
    #[inline(always)]
    fn select(self, m: __mmask16, a: __m512, b: __m512) -> __m512 {
        with_feature!(_mm512_mask_blend_ps(m, b, a))
    }
    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        self.0.sum(halves!(v))
    }
    #[inline(always)]
    fn maximum(self, v: __m512) -> f32 {
        self.0.maximum(halves!(v))
    }
    #[inline(always)]
    fn transpose(self, v: [__m512; LANES]) -> [__m512; LANES] {
        // Four rounds: 1 x 1 elements within pairs of rows, 2 x 2 within fours, then 4 x 4 and 8 x 8 blocks across
        // the register.
        let mut a = v;
        for i in 0..8 {
            a[2 * i] = with_feature!(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]));
            a[2 * i + 1] = with_feature!(_mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
        }
        let mut b = a;
        for i in 0..4 {
            b[4 * i] = with_feature!(_mm512_shuffle_ps::<0x44>(a[4 * i], a[4 * i + 2]));
            b[4 * i + 1] = with_feature!(_mm512_shuffle_ps::<0xee>(a[4 * i], a[4 * i + 2]));
            b[4 * i + 2] = with_feature!(_mm512_shuffle_ps::<0x44>(a[4 * i + 1], a[4 * i + 3]));
            b[4 * i + 3] = with_feature!(_mm512_shuffle_ps::<0xee>(a[4 * i + 1], a[4 * i + 3]));
        }
        // b[4 g + c] holds, in 128-bit block q, column 4 q + c of rows 4 g..4 g + 4.
        let mut out = v;
        for c in 0..4 {
            let low = with_feature!(_mm512_shuffle_f32x4::<0x88>(b[c], b[4 + c]));
            let high = with_feature!(_mm512_shuffle_f32x4::<0xdd>(b[c], b[4 + c]));
            let low2 = with_feature!(_mm512_shuffle_f32x4::<0x88>(b[8 + c], b[12 + c]));
            let high2 = with_feature!(_mm512_shuffle_f32x4::<0xdd>(b[8 + c], b[12 + c]));
            out[c] = with_feature!(_mm512_shuffle_f32x4::<0x88>(low, low2));
            out[8 + c] = with_feature!(_mm512_shuffle_f32x4::<0xdd>(low, low2));
            out[4 + c] = with_feature!(_mm512_shuffle_f32x4::<0x88>(high, high2));
            out[12 + c] = with_feature!(_mm512_shuffle_f32x4::<0xdd>(high, high2));
        }
        out
    }
}
