// Matrix products under rule R1: each output is one chain of fused multiply-adds over k ascending. One thread owns an
// output from the first k to the last. No chain is padded: one more fma(0, 0, c) would turn -0 into +0.

// ---- Many rows. A block owns a tile of 128 x 128 outputs, a thread 8 x 8 of them. Steps of 8 k pass through shared
// memory: while one is multiplied, the next one is on its way to registers.

#define TILE 128
#define STEP 8
// A row of an operand's step. The padding keeps four neighbours aligned and spreads the stores over the banks.
#define PITCH (TILE + 4)

// An operand as [outer, k]: rows of a, or columns of b. A thread carries four elements of a step: neighbours in k, or
// with OUTER neighbours in the outer index, whichever are neighbours in memory.
template <bool OUTER> struct Carrier {
    const float *from;
    unsigned long long outer_stride, k_stride;
    // Its first element in the step, and how many of the outer index there are from it on.
    unsigned outer, k, outer_left;
    // Whether four neighbours are aligned.
    bool aligned;
    float x[4];

    __device__ Carrier(const float *data, unsigned long long outer_stride, unsigned long long k_stride, unsigned first,
            unsigned count, unsigned aligned)
        : outer_stride(outer_stride), k_stride(k_stride), aligned(aligned != 0) {
        const unsigned t = threadIdx.x;
        outer = OUTER ? t % (TILE / 4) * 4 : t / (STEP / 4);
        k = OUTER ? t / (TILE / 4) : t % (STEP / 4) * 4;
        const unsigned at = first + outer;
        outer_left = at < count ? count - at : 0;
        from = data + at * outer_stride + k * k_stride;
    }

    // Takes the elements of the next step, of which there are `left` k. What is not there is 0 and never multiplied into
    // an output that is kept.
    __device__ void take(unsigned left) {
        const unsigned k_left = k < left ? left - k : 0;
        const unsigned along = OUTER ? outer_left : k_left, across = OUTER ? k_left : outer_left;
        const unsigned long long stride = OUTER ? outer_stride : k_stride;
        if (aligned && along >= 4 && across > 0) {
            const float4 v = *reinterpret_cast<const float4 *>(from);
            x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
        } else {
#pragma unroll
            for (unsigned i = 0; i < 4; i++) x[i] = i < along && across > 0 ? from[i * stride] : 0.0f;
        }
        from += STEP * k_stride;
    }

    // Puts them where the block reads them.
    __device__ void put(float (*to)[PITCH]) const {
        if (OUTER) {
            *reinterpret_cast<float4 *>(&to[k][outer]) = make_float4(x[0], x[1], x[2], x[3]);
        } else {
#pragma unroll
            for (unsigned i = 0; i < 4; i++) to[k + i][outer] = x[i];
        }
    }
};

struct alignas(16) Step {
    float a[STEP][PITCH], b[STEP][PITCH];
};

// One k of a thread's outputs.
__device__ __forceinline__ void tile_step(const Step &step, unsigned k, unsigned row, unsigned col, float (&sum)[8][8]) {
    float a[8], b[8];
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        const float4 u = *reinterpret_cast<const float4 *>(&step.a[k][row + 16 * half]);
        const float4 v = *reinterpret_cast<const float4 *>(&step.b[k][col + 32 * half]);
        a[4 * half] = u.x, a[4 * half + 1] = u.y, a[4 * half + 2] = u.z, a[4 * half + 3] = u.w;
        b[4 * half] = v.x, b[4 * half + 1] = v.y, b[4 * half + 2] = v.z, b[4 * half + 3] = v.w;
    }
#pragma unroll
    for (unsigned i = 0; i < 8; i++) {
#pragma unroll
        for (unsigned j = 0; j < 8; j++) sum[i][j] = __fmaf_rn(a[i], b[j], sum[i][j]);
    }
}

template <bool A_OUTER, bool B_OUTER>
__device__ __forceinline__ void tile_product(Step (&steps)[2], const float *a, unsigned long long a_row,
        unsigned long long a_col, unsigned a_aligned, const float *b, unsigned long long b_row, unsigned long long b_col,
        unsigned b_aligned, float *c, unsigned long long c_row, unsigned c_aligned, unsigned m, unsigned k, unsigned n,
        unsigned go_on) {
    const unsigned top = blockIdx.x * TILE, left = blockIdx.y * TILE;
    Carrier<A_OUTER> a_next(a, a_row, a_col, top, m, a_aligned);
    Carrier<B_OUTER> b_next(b, b_col, b_row, left, n, b_aligned);
    // A warp owns 32 x 64 outputs, so that it reads 32 and 64 neighbours of shared memory for each k, four at a time.
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const unsigned row = warp / 2 * 32 + lane / 8 * 4, col = warp % 2 * 64 + lane % 8 * 4;
    float sum[8][8];
#pragma unroll
    for (unsigned i = 0; i < 8; i++) {
        const unsigned y = top + row + i % 4 + i / 4 * 16;
#pragma unroll
        for (unsigned j = 0; j < 8; j++) {
            const unsigned x = left + col + j % 4 + j / 4 * 32;
            sum[i][j] = go_on && y < m && x < n ? c[y * c_row + x] : 0.0f;
        }
    }
    if (k > 0) {
        a_next.take(k);
        b_next.take(k);
        a_next.put(steps[0].a);
        b_next.put(steps[0].b);
    }
    __syncthreads();
    unsigned now = 0, rest = k;
    // One barrier a step: what is overwritten after it was read before the one before.
    while (rest > STEP) {
        a_next.take(rest - STEP);
        b_next.take(rest - STEP);
#pragma unroll
        for (unsigned i = 0; i < STEP; i++) tile_step(steps[now], i, row, col, sum);
        now = 1 - now;
        rest -= STEP;
        a_next.put(steps[now].a);
        b_next.put(steps[now].b);
        __syncthreads();
    }
    for (unsigned i = 0; i < rest; i++) tile_step(steps[now], i, row, col, sum);
#pragma unroll
    for (unsigned i = 0; i < 8; i++) {
        const unsigned y = top + row + i % 4 + i / 4 * 16;
        if (y >= m) continue;
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            const unsigned x = left + col + 32 * half;
            float *to = c + y * c_row + x;
            const float *from = &sum[i][4 * half];
            if (c_aligned && x + 4 <= n) {
                *reinterpret_cast<float4 *>(to) = make_float4(from[0], from[1], from[2], from[3]);
            } else {
#pragma unroll
                for (unsigned j = 0; j < 4; j++) {
                    if (x + j < n) to[j] = from[j];
                }
            }
        }
    }
}

#define TILE_PRODUCT(name, a_outer, b_outer) \
    KERNEL_OF(256, 2, name)(const float *a, unsigned long long a_row, unsigned long long a_col, unsigned a_aligned, \
            const float *b, unsigned long long b_row, unsigned long long b_col, unsigned b_aligned, float *c, \
            unsigned long long c_row, unsigned c_aligned, unsigned long long a_at, unsigned long long b_at, \
            unsigned long long c_at, unsigned m, unsigned k, unsigned n, unsigned go_on) { \
        __shared__ Step steps[2]; \
        tile_product<a_outer, b_outer>(steps, a + a_at, a_row, a_col, a_aligned, b + b_at, b_row, b_col, b_aligned, \
                c + c_at, c_row, c_aligned, m, k, n, go_on); \
    } \
    EXPORT(name)

// Named by what are neighbours in memory, in a and in b.
TILE_PRODUCT(product_k_k, false, false)
TILE_PRODUCT(product_k_col, false, true)
TILE_PRODUCT(product_row_k, true, false)
TILE_PRODUCT(product_row_col, true, true)

#undef TILE_PRODUCT
#undef TILE
#undef STEP
#undef PITCH

// ---- Few rows: x [rows, k], w [n, k] -> y [rows, n]. The time goes into reading w, and each of its elements is read
// once. A block owns 16 outputs of every row. Its threads fetch a stretch of its 16 rows of w and of all rows of x, whole
// lines of memory at a time; then each thread continues the chains of one column and up to ROWS / 16 rows. The next
// stretch is on its way to registers meanwhile.

#define COLUMNS 16
#define THREADS 256

// Part of a matrix with neighbours in k: `rows` rows from the first, elements from..from + left of each.
template <unsigned ROWS, unsigned STRETCH> struct Stretch {
    static const unsigned QUADS = ROWS * STRETCH / 4, EACH = (QUADS + THREADS - 1) / THREADS;
    float x[EACH][4];

    __device__ __forceinline__ void take(const float *data, unsigned long long stride, unsigned rows, unsigned from,
            unsigned left, unsigned aligned) {
#pragma unroll
        for (unsigned i = 0; i < EACH; i++) {
            const unsigned quad = threadIdx.x + i * THREADS, row = quad / (STRETCH / 4), k = quad % (STRETCH / 4) * 4;
            if (row >= rows || k >= left) continue;
            const float *p = data + row * stride + from + k;
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

    // Rows and elements that are not there get anything, and are not read.
    __device__ __forceinline__ void put(float (*to)[STRETCH + 4]) const {
#pragma unroll
        for (unsigned i = 0; i < EACH; i++) {
            const unsigned quad = threadIdx.x + i * THREADS, row = quad / (STRETCH / 4), k = quad % (STRETCH / 4) * 4;
            if (row >= ROWS) continue;
            *reinterpret_cast<float4 *>(&to[row][k]) = make_float4(x[i][0], x[i][1], x[i][2], x[i][3]);
        }
    }
};

template <unsigned ROWS, unsigned STRETCH>
__device__ __forceinline__ void few_product(float (*xs)[STRETCH + 4], float (*ws)[STRETCH + 4], const float *x,
        unsigned long long x_row, unsigned x_aligned, const float *w, unsigned long long w_row, unsigned w_aligned,
        float *y, unsigned long long y_row, unsigned rows, unsigned k, unsigned n, unsigned go_on) {
    const unsigned CHAINS = (ROWS + 15) / 16;
    const unsigned first = blockIdx.x * COLUMNS, columns = n - first < COLUMNS ? n - first : COLUMNS;
    const unsigned column = threadIdx.x % COLUMNS, row = threadIdx.x / COLUMNS;
    const bool works = column < columns && row < rows;
    w += first * w_row;
    y += first + column;
    float sum[CHAINS];
#pragma unroll
    for (unsigned i = 0; i < CHAINS; i++) {
        const unsigned at = row + 16 * i;
        sum[i] = go_on && works && at < rows ? y[at * y_row] : 0.0f;
    }
    Stretch<ROWS, STRETCH> x_next = {};
    Stretch<COLUMNS, STRETCH> w_next = {};
    x_next.take(x, x_row, rows, 0, k, x_aligned);
    w_next.take(w, w_row, columns, 0, k, w_aligned);
    for (unsigned from = 0; from < k; from += STRETCH) {
        x_next.put(xs);
        w_next.put(ws);
        __syncthreads();
        const unsigned left = k - from < STRETCH ? k - from : STRETCH;
        if (k - from > STRETCH) {
            const unsigned rest = k - from - STRETCH;
            x_next.take(x, x_row, rows, from + STRETCH, rest, x_aligned);
            w_next.take(w, w_row, columns, from + STRETCH, rest, w_aligned);
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
        if (works && at < rows) y[at * y_row] = sum[i];
    }
}

#define FEW_PRODUCT(name, most, stretch) \
    KERNEL_OF(THREADS, 1, name)(const float *x, unsigned long long x_row, unsigned x_aligned, const float *w, \
            unsigned long long w_row, unsigned w_aligned, float *y, unsigned long long y_row, unsigned long long x_at, \
            unsigned long long w_at, unsigned long long y_at, unsigned rows, unsigned k, unsigned n, unsigned go_on) { \
        alignas(16) __shared__ float xs[most][stretch + 4]; \
        alignas(16) __shared__ float ws[COLUMNS][stretch + 4]; \
        few_product<most, stretch>(xs, ws, x + x_at, x_row, x_aligned, w + w_at, w_row, w_aligned, y + y_at, y_row, \
                rows, k, n, go_on); \
    } \
    EXPORT(name)

// Rows at most, and the stretch of k: as long as shared memory allows, so that enough is on its way.
FEW_PRODUCT(product_16_rows, 16, 256)
FEW_PRODUCT(product_32_rows, 32, 128)

#undef FEW_PRODUCT
#undef COLUMNS
#undef THREADS
