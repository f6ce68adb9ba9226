// Matrix multiplication under rule R1: y [M, N] = x [M, K] wᵀ with w [N, K]. Each output is one chain of fused
// multiply-adds over k ascending, computed by one thread. No chain is padded: one more fma(0, 0, c) would turn -0 into
// +0.

// Whether every row of a matrix with `cols` columns can be read four elements at a time.
static __device__ inline bool by_fours(const float *data, unsigned cols) {
    return cols % 4 == 0 && (size_t)data % 16 == 0;
}

// ---- Many rows. A block computes a tile of 128 x 128 outputs, a thread 8 x 8 of them. Steps of 8 k pass through
// shared memory: while one is multiplied, the next one is on its way to registers.

#define TILE 128
#define STEP 8
// A row of a step. The padding keeps four neighbours aligned and spreads the stores over the banks.
#define PITCH (TILE + 4)

// Carries a thread's share of an operand's step from global to shared memory: four neighbours in k of one row.
struct Carrier {
    const float *from;
    // Position in the step.
    unsigned row, k;
    // Whether the matrix has this row.
    bool there;
    bool aligned;
    float x[4];

    __device__ Carrier(const float *data, unsigned first, unsigned rows, unsigned cols)
        : row(threadIdx.x / (STEP / 4)), k(threadIdx.x % (STEP / 4) * 4), aligned(by_fours(data, cols)) {
        there = first + row < rows;
        from = data + (word64)(first + row) * cols + k;
    }

    // Loads from the next step, which has `left` k. What is not there becomes 0 and never enters an output that is
    // stored.
    __device__ void load(unsigned left) {
        const unsigned along = there && k < left ? left - k : 0;
        if (aligned && along >= 4) {
            const float4 v = *reinterpret_cast<const float4 *>(from);
            x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
        } else {
#pragma unroll
            for (unsigned i = 0; i < 4; i++) x[i] = i < along ? from[i] : 0.0f;
        }
        from += STEP;
    }

    __device__ void store(float (*to)[PITCH]) const {
#pragma unroll
        for (unsigned i = 0; i < 4; i++) to[k + i][row] = x[i];
    }
};

struct alignas(16) Step {
    float x[STEP][PITCH], w[STEP][PITCH];
};

// One k of a thread's outputs.
__device__ __forceinline__ void tile_step(const Step &step, unsigned k, unsigned row, unsigned col, float (&sum)[8][8]) {
    float a[8], b[8];
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        const float4 u = *reinterpret_cast<const float4 *>(&step.x[k][row + 16 * half]);
        const float4 v = *reinterpret_cast<const float4 *>(&step.w[k][col + 32 * half]);
        a[4 * half] = u.x, a[4 * half + 1] = u.y, a[4 * half + 2] = u.z, a[4 * half + 3] = u.w;
        b[4 * half] = v.x, b[4 * half + 1] = v.y, b[4 * half + 2] = v.z, b[4 * half + 3] = v.w;
    }
#pragma unroll
    for (unsigned i = 0; i < 8; i++) {
#pragma unroll
        for (unsigned j = 0; j < 8; j++) sum[i][j] = __fmaf_rn(a[i], b[j], sum[i][j]);
    }
}

KERNEL_OF(256, 2, matmul_tiles)(const float *x, const float *w, float *y, unsigned m, unsigned k, unsigned n) {
    __shared__ Step steps[2];
    const unsigned top = blockIdx.x * TILE, left = blockIdx.y * TILE;
    Carrier x_next(x, top, m, k), w_next(w, left, n, k);
    // A warp computes 32 x 64 outputs, so that it reads 32 and 64 neighbours of shared memory for each k, four at a
    // time.
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const unsigned row = warp / 2 * 32 + lane / 8 * 4, col = warp % 2 * 64 + lane % 8 * 4;
    float sum[8][8] = {};
    if (k > 0) {
        x_next.load(k);
        w_next.load(k);
        x_next.store(steps[0].x);
        w_next.store(steps[0].w);
    }
    __syncthreads();
    unsigned now = 0, rest = k;
    // One barrier per step is enough: the half that is overwritten was last read before the previous barrier.
    while (rest > STEP) {
        x_next.load(rest - STEP);
        w_next.load(rest - STEP);
#pragma unroll
        for (unsigned i = 0; i < STEP; i++) tile_step(steps[now], i, row, col, sum);
        now = 1 - now;
        rest -= STEP;
        x_next.store(steps[now].x);
        w_next.store(steps[now].w);
        __syncthreads();
    }
    for (unsigned i = 0; i < rest; i++) tile_step(steps[now], i, row, col, sum);
    const bool y_aligned = by_fours(y, n);
#pragma unroll
    for (unsigned i = 0; i < 8; i++) {
        const unsigned r = top + row + i % 4 + i / 4 * 16;
        if (r >= m) continue;
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            const unsigned c = left + col + 32 * half;
            float *to = y + (word64)r * n + c;
            const float *from = &sum[i][4 * half];
            if (y_aligned && c + 4 <= n) {
                *reinterpret_cast<float4 *>(to) = make_float4(from[0], from[1], from[2], from[3]);
            } else {
#pragma unroll
                for (unsigned j = 0; j < 4; j++) {
                    if (c + j < n) to[j] = from[j];
                }
            }
        }
    }
}
EXPORT(matmul_tiles)

#undef TILE
#undef STEP
#undef PITCH

// ---- Few rows. The time goes into reading w, so each of its elements is read once. A block computes 16 outputs of
// every row. Its threads load a stretch of its 16 rows of w and of all rows of x, whole cache lines at a time; then
// each thread continues the chains of one column and up to ROWS / 16 rows. Meanwhile the next stretch is on its way to
// registers.

#define COLUMNS 16
#define THREADS 256

// A stretch of `ROWS` rows of a matrix, spread over the threads' registers.
template <unsigned ROWS, unsigned STRETCH> struct Stretch {
    static const unsigned QUADS = ROWS * STRETCH / 4, EACH = (QUADS + THREADS - 1) / THREADS;
    float x[EACH][4];

    // Loads elements from..from + left, or fewer, of the first `rows` rows of a matrix with `cols` columns.
    __device__ __forceinline__ void load(const float *data, unsigned cols, unsigned rows, unsigned from, unsigned left,
            bool aligned) {
#pragma unroll
        for (unsigned i = 0; i < EACH; i++) {
            const unsigned quad = threadIdx.x + i * THREADS, row = quad / (STRETCH / 4), k = quad % (STRETCH / 4) * 4;
            if (row >= rows || k >= left) continue;
            const float *p = data + (word64)row * cols + from + k;
            if (aligned && k + 4 <= left) {
                const float4 v = *reinterpret_cast<const float4 *>(p);
                x[i][0] = v.x, x[i][1] = v.y, x[i][2] = v.z, x[i][3] = v.w;
            } else {
#pragma unroll
                for (unsigned j = 0; j < 4; j++) {
                    if (k + j < left) x[i][j] = p[j];
                }
            }
        }
    }

    // Rows and elements that are not there get unspecified values, which are never read.
    __device__ __forceinline__ void store(float (*to)[STRETCH + 4]) const {
#pragma unroll
        for (unsigned i = 0; i < EACH; i++) {
            const unsigned quad = threadIdx.x + i * THREADS, row = quad / (STRETCH / 4), k = quad % (STRETCH / 4) * 4;
            if (row >= ROWS) continue;
            *reinterpret_cast<float4 *>(&to[row][k]) = make_float4(x[i][0], x[i][1], x[i][2], x[i][3]);
        }
    }
};

template <unsigned ROWS, unsigned STRETCH>
__device__ __forceinline__ void few_rows(float (*xs)[STRETCH + 4], float (*ws)[STRETCH + 4], const float *x, const float *w,
        float *y, unsigned rows, unsigned k, unsigned n) {
    const unsigned CHAINS = (ROWS + 15) / 16;
    const unsigned first = blockIdx.x * COLUMNS, columns = n - first < COLUMNS ? n - first : COLUMNS;
    const unsigned column = threadIdx.x % COLUMNS, row = threadIdx.x / COLUMNS;
    const bool works = column < columns && row < rows;
    const bool x_aligned = by_fours(x, k), w_aligned = by_fours(w, k);
    w += (word64)first * k;
    float sum[CHAINS] = {};
    Stretch<ROWS, STRETCH> x_next = {};
    Stretch<COLUMNS, STRETCH> w_next = {};
    x_next.load(x, k, rows, 0, k, x_aligned);
    w_next.load(w, k, columns, 0, k, w_aligned);
    for (unsigned from = 0; from < k; from += STRETCH) {
        x_next.store(xs);
        w_next.store(ws);
        __syncthreads();
        const unsigned left = k - from < STRETCH ? k - from : STRETCH;
        if (k - from > STRETCH) {
            const unsigned rest = k - from - STRETCH;
            x_next.load(x, k, rows, from + STRETCH, rest, x_aligned);
            w_next.load(w, k, columns, from + STRETCH, rest, w_aligned);
        }
        if (works) {
            unsigned p = 0;
#pragma unroll 8
            for (; p + 4 <= left; p += 4) {
                const float4 v = *reinterpret_cast<const float4 *>(&ws[column][p]);
#pragma unroll
                for (unsigned i = 0; i < CHAINS; i++) {
                    const float4 u = *reinterpret_cast<const float4 *>(&xs[row + 16 * i][p]);
                    sum[i] = __fmaf_rn(u.x, v.x, sum[i]);
                    sum[i] = __fmaf_rn(u.y, v.y, sum[i]);
                    sum[i] = __fmaf_rn(u.z, v.z, sum[i]);
                    sum[i] = __fmaf_rn(u.w, v.w, sum[i]);
                }
            }
            for (; p < left; p++) {
#pragma unroll
                for (unsigned i = 0; i < CHAINS; i++) sum[i] = __fmaf_rn(xs[row + 16 * i][p], ws[column][p], sum[i]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (unsigned i = 0; i < CHAINS; i++) {
        const unsigned at = row + 16 * i;
        if (works && at < rows) y[(word64)at * n + first + column] = sum[i];
    }
}

#define FEW_ROWS(name, max_rows, stretch) \
    KERNEL_OF(THREADS, 1, name)(const float *x, const float *w, float *y, unsigned m, unsigned k, unsigned n) { \
        alignas(16) __shared__ float xs[max_rows][stretch + 4]; \
        alignas(16) __shared__ float ws[COLUMNS][stretch + 4]; \
        few_rows<max_rows, stretch>(xs, ws, x, w, y, m, k, n); \
    } \
    EXPORT(name)

// The largest number of rows, and the stretch of k: as long as shared memory allows, so that enough is on its way.
FEW_ROWS(matmul_16_rows, 16, 256)
FEW_ROWS(matmul_32_rows, 32, 128)

#undef FEW_ROWS
#undef COLUMNS
#undef THREADS
