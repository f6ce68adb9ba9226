// Operations on rows of matrices: copies, norms, RoPE, activations and the loss.

/// x [rows, C] + z [rows, C] -> y
KERNEL(add)(float* y, const float* x, const float* z, unsigned cols)
{
    unsigned i = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= cols) return;
    word64 at = (word64)blockIdx.x * cols + i;
    y[at] = __fadd_rn(x[at], z[at]);
}
EXPORT(add)

/// x [rows, C] -> y [rows, C] = silu(x)
KERNEL(silu)(float* y, const float* x, unsigned cols)
{
    unsigned i = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= cols) return;
    word64 at = (word64)blockIdx.x * cols + i;
    y[at] = silu_of(x[at]);
}
EXPORT(silu)

/// table [entries, C], ids [rows] -> y [rows, C]; NaN for ids that are no entry.
KERNEL(gather_rows)(float* y, const float* table, const unsigned* ids, unsigned entries, unsigned cols)
{
    unsigned row = blockIdx.x;
    unsigned i = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= cols) return;
    unsigned id = ids[row];
    y[(word64)row * cols + i] = id < entries ? table[(word64)id * cols + i] : NOT_A_NUMBER;
}
EXPORT(gather_rows)

/// x [rows, C], b [C] -> y [rows, C] = x + b
KERNEL(add_bias)(float* y, const float* x, const float* b, unsigned cols)
{
    unsigned i = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= cols) return;
    word64 at = (word64)blockIdx.x * cols + i;
    y[at] = __fadd_rn(x[at], b[i]);
}
EXPORT(add_bias)

/// x [rows, A], z [rows, B] -> y [rows, A + B]
KERNEL(concat)(float* y, const float* x, const float* z, unsigned a, unsigned b)
{
    word64 row = blockIdx.x;
    unsigned i = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= a + b) return;
    y[row * (a + b) + i] = i < a ? x[row * a + i] : z[row * b + (i - a)];
}
EXPORT(concat)

/// gu [rows, 2 F] -> y [rows, F] = silu(gate) * up
KERNEL(swiglu)(float* y, const float* gu, unsigned f)
{
    word64 row = blockIdx.x;
    unsigned i = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= f) return;
    float gate = gu[row * 2 * f + i];
    float up = gu[row * 2 * f + f + i];
    y[row * f + i] = __fmul_rn(silu_of(gate), up);
}
EXPORT(swiglu)

/// 1 / sqrt(sum / n + eps)
static __device__ inline float inverse_root(float sum, unsigned n, float eps)
{
    float mean = __fdiv_rn(sum, (float)n);
    return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, eps)));
}

/// Elements of a row that are staged in shared memory at a time.
#define STAGE 2048u

/// x [rows, C], weight [C] -> y [rows, C] = x / sqrt(mean x² + eps) * weight; a block for each row.
///
/// All threads load the row; sixteen of them sum.
KERNEL_OF(BLOCK_SIZE, 1, rms_norm)(float* y, const float* x, const float* weight, unsigned cols, float eps)
{
    __shared__ float stage[STAGE];
    __shared__ float lanes[LANES];
    unsigned t = threadIdx.x;
    x += (word64)blockIdx.x * cols;
    y += (word64)blockIdx.x * cols;
    float sum = 0.0f;
    for (unsigned from = 0; from < cols; from += STAGE) {
        unsigned n = smaller_of(STAGE, cols - from);
#pragma unroll 8
        for (unsigned i = t; i < n; i += BLOCK_SIZE) stage[i] = x[from + i];
        __syncthreads();
        // Lanes past the end of the row need not add +0: no sum of squares is -0.
        if (t < LANES)
#pragma unroll 8
            for (unsigned i = t; i < n; i += LANES) sum = __fmaf_rn(stage[i], stage[i], sum);
        __syncthreads();
    }
    if (t < LANES) lanes[t] = sum;
    __syncthreads();
    float rstd = inverse_root(folded_sum(lanes), cols, eps);
    // The last stage is still in shared memory.
    unsigned last = cols == 0 ? 0 : (cols - 1) / STAGE * STAGE;
    for (unsigned i = t; i < cols; i += BLOCK_SIZE) {
        float value = i >= last ? stage[i - last] : x[i];
        y[i] = __fmul_rn(__fmul_rn(value, rstd), weight[i]);
    }
}
EXPORT(rms_norm)

/// Heads of a block in qk_norm, sixteen threads each.
#define HEADS_PER_BLOCK (BLOCK_SIZE / LANES)

/// qkv [rows, (H + 2 G) D] -> y: RMSNorm of each query and key head; values are copied.
KERNEL_OF(BLOCK_SIZE, 1, qk_norm)
(float* y, const float* qkv, const float* q_weight, const float* k_weight, unsigned query, unsigned key_value, unsigned size,
 float eps)
{
    __shared__ float lanes[HEADS_PER_BLOCK][LANES];
    unsigned own = threadIdx.x / LANES;
    unsigned lane = threadIdx.x % LANES;
    unsigned head = blockIdx.y * HEADS_PER_BLOCK + own;
    unsigned heads = query + 2 * key_value;
    bool there = head < heads;
    bool normed = head < query + key_value;
    word64 at = ((word64)blockIdx.x * heads + head) * size;
    float sum = 0.0f;
    if (normed)
        for (unsigned i = lane; i < size; i += LANES) sum = __fmaf_rn(qkv[at + i], qkv[at + i], sum);
    lanes[own][lane] = sum;
    __syncthreads();
    if (!there) return;
    if (!normed) {
        for (unsigned i = lane; i < size; i += LANES) y[at + i] = qkv[at + i];
        return;
    }
    float rstd = inverse_root(folded_sum(lanes[own]), size, eps);
    const float* weight = head < query ? q_weight : k_weight;
    for (unsigned i = lane; i < size; i += LANES) y[at + i] = __fmul_rn(__fmul_rn(qkv[at + i], rstd), weight[i]);
}
EXPORT(qk_norm)

/// qkv [rows, heads 2 half] -> y: the first `rotated` heads rotated by the angles of the rows' positions, the others
/// copied; a thread for each pair. NaN for positions that the table does not reach.
KERNEL(rope)(float* y, const float* qkv, const float* cosines, const float* sines, const unsigned* positions,
             unsigned table, unsigned half, unsigned rotated, unsigned heads)
{
    unsigned pair = blockIdx.y * blockDim.x + threadIdx.x;
    if (pair >= heads * half) return;
    unsigned head = pair / half;
    unsigned i = pair % half;
    word64 low = ((word64)blockIdx.x * heads + head) * 2 * half + i;
    word64 high = low + half;
    float a = qkv[low];
    float b = qkv[high];
    if (head < rotated) {
        unsigned position = positions[blockIdx.x];
        word64 angle = (word64)position * half + i;
        float c = position < table ? cosines[angle] : NOT_A_NUMBER;
        float s = position < table ? sines[angle] : NOT_A_NUMBER;
        y[low] = __fmaf_rn(-s, b, __fmul_rn(a, c));
        y[high] = __fmaf_rn(s, a, __fmul_rn(b, c));
    } else {
        y[low] = a;
        y[high] = b;
    }
}
EXPORT(rope)

/// logits [rows, V], targets [rows] -> out [2, rows]: losses ln Σ exp(z) - z[target], then 1 if the target has the
/// largest logit, else 0. NaN and 0 for targets outside the vocabulary. A block for each row.
KERNEL_OF(BLOCK_SIZE, 1, cross_entropy)(float* out, const float* logits, const unsigned* targets, unsigned rows, unsigned vocab)
{
    __shared__ float stage[STAGE];
    __shared__ float lanes[LANES];
    __shared__ unsigned before[BLOCK_SIZE];
    unsigned t = threadIdx.x;
    unsigned target = targets[blockIdx.x];
    const float* z = logits + (word64)blockIdx.x * vocab;
    float row_max = MINUS_INFINITE;
    for (unsigned from = 0; from < vocab; from += STAGE) {
        unsigned n = smaller_of(STAGE, vocab - from);
#pragma unroll 8
        for (unsigned i = t; i < n; i += BLOCK_SIZE) stage[i] = z[from + i];
        __syncthreads();
        if (t < LANES)
#pragma unroll 8
            for (unsigned i = t; i < n; i += LANES) row_max = larger(row_max, stage[i]);
        __syncthreads();
    }
    // Absent elements of the last sixteen are -inf, which replaces a NaN.
    if (t < LANES) lanes[t] = vocab % LANES > 0 && t >= vocab % LANES ? larger(row_max, MINUS_INFINITE) : row_max;
    __syncthreads();
    float max = folded_maximum(lanes);
    float sum = 0.0f;
    unsigned tied = 0;
    for (unsigned from = 0; from < vocab; from += STAGE) {
        unsigned n = smaller_of(STAGE, vocab - from);
        for (unsigned i = t; i < n; i += BLOCK_SIZE) {
            float x = z[from + i];
            tied |= from + i < target && x == max;
            stage[i] = exp_of(less_by(x, max));
        }
        __syncthreads();
        if (t < LANES)
#pragma unroll 8
            for (unsigned i = t; i < n; i += LANES) sum = __fadd_rn(sum, stage[i]);
        __syncthreads();
    }
    if (t < LANES) lanes[t] = sum;
    before[t] = tied;
    __syncthreads();
    if (t > 0) return;
    for (unsigned i = 1; i < BLOCK_SIZE; ++i) tied |= before[i];
    float at_target = target < vocab ? z[target] : NOT_A_NUMBER;
    float total = folded_sum(lanes);
    // If the largest logit is -inf, every element adds NaN, absent ones too, so leaving these out changes nothing.
    out[blockIdx.x] = less_by(ln_of(total), less_by(at_target, max));
    out[rows + blockIdx.x] = at_target == max && tied == 0 ? 1.0f : 0.0f;
}
EXPORT(cross_entropy)

#undef STAGE
#undef HEADS_PER_BLOCK
