// Shared by all kernels: reductions by rule R2, and the CPU's elementary functions, operation by operation.
//
// Every floating-point operation is an intrinsic that rounds once, so that no compiler may fuse or reorder anything.

/// Partial sums of a row: element i goes to lane i mod 16.
#define LANES 16u
/// Threads of a block, except in matrix multiplication.
#define BLOCK_SIZE 128u

typedef unsigned long long word64;

static __device__ inline float float_of(unsigned bits)
{
    union { unsigned bits; float value; } x;
    x.bits = bits;
    return x.value;
}

static __device__ inline unsigned bits_of(float value)
{
    union { unsigned bits; float value; } x;
    x.value = value;
    return x.bits;
}

static __device__ inline double double_of(word64 bits)
{
    union { word64 bits; double value; } x;
    x.bits = bits;
    return x.value;
}

static __device__ inline word64 bits_of_double(double value)
{
    union { word64 bits; double value; } x;
    x.value = value;
    return x.bits;
}

#define NOT_A_NUMBER float_of(0x7fc00000u)
#define INFINITE float_of(0x7f800000u)
#define MINUS_INFINITE float_of(0xff800000u)

/// a - b
static __device__ inline float less_by(float a, float b)
{
    return __fadd_rn(a, -b);
}

/// The contract's maximum, which fixes the result for NaN and signed zeros.
static __device__ inline float larger(float a, float b)
{
    return a > b ? a : b;
}

static __device__ inline unsigned smaller_of(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/// Folds the sixteen partial sums: 8, 4, 2, 1.
static __device__ inline float folded_sum(const float* lanes)
{
    float p[LANES];
    for (unsigned j = 0; j < LANES; ++j) p[j] = lanes[j];
    for (unsigned w = LANES / 2; w > 0; w /= 2)
        for (unsigned j = 0; j < w; ++j) p[j] = __fadd_rn(p[j], p[j + w]);
    return p[0];
}

/// Folds the sixteen partial maxima: 8, 4, 2, 1.
static __device__ inline float folded_maximum(const float* lanes)
{
    float p[LANES];
    for (unsigned j = 0; j < LANES; ++j) p[j] = lanes[j];
    for (unsigned w = LANES / 2; w > 0; w /= 2)
        for (unsigned j = 0; j < w; ++j) p[j] = larger(p[j], p[j + w]);
    return p[0];
}

/// e^x bitwise identical to simd::math::exp: n = round(x / ln 2), r = x - n ln 2, a polynomial, n into the exponent.
static __device__ inline float exp_of(float x)
{
    float shifted = __fmaf_rn(x, 1.44269504f, 12582912.0f);
    float n = less_by(shifted, 12582912.0f);
    float r = __fmaf_rn(n, -0.6933594f, x);
    r = __fmaf_rn(n, 2.1219444e-4f, r);
    float p = 1.9875691e-4f;
    p = __fmaf_rn(p, r, 1.3981999e-3f);
    p = __fmaf_rn(p, r, 8.333452e-3f);
    p = __fmaf_rn(p, r, 4.1665796e-2f);
    p = __fmaf_rn(p, r, 1.6666665e-1f);
    p = __fmaf_rn(p, r, 0.5f);
    p = __fmaf_rn(__fmul_rn(p, r), r, r);
    p = __fadd_rn(p, 1.0f);
    float y = float_of(bits_of(p) + (bits_of(shifted) << 23));
    y = x < 3.40282347e38f ? y : x;
    y = 88.72283f < x ? INFINITE : y;
    return x < -87.3f ? 0.0f : y;
}

/// ln x bitwise identical to simd::math::ln: x = 2^e m with m around 1, a polynomial in m - 1.
static __device__ inline float ln_of(float x)
{
    bool tiny = x < 1.17549435e-38f;
    float normal = tiny ? __fmul_rn(x, 8388608.0f) : x;
    unsigned moved = bits_of(normal) + (0x3f800000u - 0x3f3504f3u);
    float biased = float_of((moved >> 23) | 0x4b000000u);
    float e = less_by(biased, tiny ? 8388608.0f + 127.0f + 23.0f : 8388608.0f + 127.0f);
    float m = float_of((moved & 0x007fffffu) + 0x3f3504f3u);
    float f = less_by(m, 1.0f);
    float p = 7.0376836e-2f;
    p = __fmaf_rn(p, f, -1.151461e-1f);
    p = __fmaf_rn(p, f, 1.1676999e-1f);
    p = __fmaf_rn(p, f, -1.2420141e-1f);
    p = __fmaf_rn(p, f, 1.4249323e-1f);
    p = __fmaf_rn(p, f, -1.6668058e-1f);
    p = __fmaf_rn(p, f, 2.0000715e-1f);
    p = __fmaf_rn(p, f, -2.4999994e-1f);
    p = __fmaf_rn(p, f, 3.333333e-1f);
    float square = __fmul_rn(f, f);
    float tail = __fmul_rn(__fmul_rn(f, square), p);
    tail = __fmaf_rn(e, -2.1219444e-4f, tail);
    tail = __fmaf_rn(square, -0.5f, tail);
    float y = __fmaf_rn(e, 0.6933594f, __fadd_rn(f, tail));
    y = x < INFINITE ? y : x;
    if (x < 0.0f) return NOT_A_NUMBER;
    if (x < float_of(1u)) return MINUS_INFINITE;
    return y;
}

/// x sigmoid(x)
static __device__ inline float silu_of(float x)
{
    float e = exp_of(less_by(0.0f, x));
    return __fmul_rn(x, __fdiv_rn(1.0f, __fadd_rn(1.0f, e)));
}
