// Causal attention of rows to KV caches under rule R5: one kernel for the scores, one for softmax and weighted values.
//
// A launch takes up to four chunks, each consecutive rows of one sequence with its cache. Keys and values of a cache
// are [positions, G D] each. Scores are [rows, H, stride].

/// Keys of a block of attention_scores, one for each thread.
#define KEYS BLOCK_SIZE
/// Queries of a block of attention_scores: rows and heads that share a key head.
#define QUERIES 8u
/// Elements of a head that are staged at a time.
#define PART 32u
/// Rows of a block of attention_values.
#define ROWS 4u
/// Positions whose values are staged at a time.
#define POSITIONS 64u
/// Elements of a head that a block of attention_values computes.
#define WIDTH 64u

/// The argument for a chunk.
template <typename T>
static __device__ inline T of_chunk(unsigned chunk, T a, T b, T c, T d)
{
    return chunk == 0 ? a : chunk == 1 ? b : chunk == 2 ? c : d;
}

/// Copies the keys and values of rows from..from + gridDim.x of qkv to positions at.. of a cache.
KERNEL(cache_append)(const float* qkv, float* keys, float* values, unsigned from, unsigned at, unsigned query_width,
                     unsigned key_width)
{
    unsigned i = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= key_width) return;
    const float* row = qkv + ((word64)from + blockIdx.x) * (query_width + 2 * key_width) + query_width;
    word64 to = ((word64)at + blockIdx.x) * key_width + i;
    keys[to] = row[i];
    values[to] = row[key_width + i];
}
EXPORT(cache_append)

/// scores[row, head, j] = (chain over D of q k[j]) * scale, for the row's own keys.
///
/// Block (x, y, z): the x-th eight queries of a key head, the y-th tile of keys, the z-th chunk. Row 0 of `scores` is
/// row `top` of qkv.
KERNEL_OF(BLOCK_SIZE, 1, attention_scores)
(const float* qkv, const float* keys0, const float* keys1, const float* keys2, const float* keys3, float* scores,
 unsigned from0, unsigned from1, unsigned from2, unsigned from3, unsigned len0, unsigned len1, unsigned len2,
 unsigned len3, unsigned first0, unsigned first1, unsigned first2, unsigned first3, unsigned top, unsigned stride,
 unsigned query, unsigned key_value, unsigned size, float scale)
{
    __shared__ float queries[QUERIES][PART];
    __shared__ float tile[KEYS][PART + 1];
    unsigned t = threadIdx.x;
    unsigned group = query / key_value;
    unsigned chunk = blockIdx.z;
    unsigned from = of_chunk(chunk, from0, from1, from2, from3);
    unsigned len = of_chunk(chunk, len0, len1, len2, len3);
    unsigned first = of_chunk(chunk, first0, first1, first2, first3);
    const float* keys = of_chunk(chunk, keys0, keys1, keys2, keys3);
    unsigned key_head = blockIdx.x % key_value;
    // Query i of a key head: its row is i / group.
    unsigned start = blockIdx.x / key_value * QUERIES;
    if (start >= len * group) return;
    unsigned count = smaller_of(QUERIES, len * group - start);
    unsigned end = first + (start + count - 1) / group + 1;
    unsigned base = blockIdx.y * KEYS;
    if (base >= end) return;
    unsigned width = (query + 2 * key_value) * size;
    float chains[QUERIES];
    for (unsigned i = 0; i < QUERIES; ++i) chains[i] = 0.0f;
    for (unsigned d = 0; d < size; d += PART) {
        for (unsigned i = t; i < QUERIES * PART; i += BLOCK_SIZE) {
            unsigned q = start + i / PART;
            unsigned e = d + i % PART;
            float x = 0.0f;
            if (q < start + count && e < size)
                x = qkv[((word64)from + q / group) * width + (key_head * group + q % group) * size + e];
            queries[i / PART][i % PART] = x;
        }
        for (unsigned i = t; i < KEYS * PART; i += BLOCK_SIZE) {
            unsigned j = base + i / PART;
            unsigned e = d + i % PART;
            float x = 0.0f;
            if (j < end && e < size) x = keys[((word64)j * key_value + key_head) * size + e];
            tile[i / PART][i % PART] = x;
        }
        __syncthreads();
        // Elements past the end of the head do not enter the chain.
        unsigned n = smaller_of(PART, size - d);
#pragma unroll 8
        for (unsigned e = 0; e < n; ++e) {
            float k = tile[t][e];
#pragma unroll
            for (unsigned i = 0; i < QUERIES; ++i) chains[i] = __fmaf_rn(queries[i][e], k, chains[i]);
        }
        __syncthreads();
    }
    unsigned j = base + t;
#pragma unroll
    for (unsigned i = 0; i < QUERIES; ++i) {
        unsigned q = start + i;
        unsigned row = q / group;
        if (i < count && j <= first + row) {
            word64 at = ((word64)(from - top + row) * query + key_head * group + q % group) * stride + j;
            scores[at] = __fmul_rn(chains[i], scale);
        }
    }
}
EXPORT(attention_scores)

/// A thread's share of the values and scores of 64 positions, fetched while the previous 64 are added up.
struct Fetched {
    float values[POSITIONS * WIDTH / BLOCK_SIZE];
    float scores[ROWS * POSITIONS / BLOCK_SIZE];
};

/// Fetches positions base..end; row r has scores up to position first + r only. `values` points to the block's first
/// element of the head, which has `left` elements from there on.
static __device__ inline void fetch(Fetched* to, const float* values, unsigned value_stride, unsigned left,
                                    const float* scores, word64 score_stride, unsigned rows, unsigned first,
                                    unsigned base, unsigned end)
{
#pragma unroll
    for (unsigned i = 0; i < POSITIONS * WIDTH / BLOCK_SIZE; ++i) {
        unsigned at = i * BLOCK_SIZE + threadIdx.x;
        unsigned j = base + at / WIDTH;
        bool there = j < end && at % WIDTH < left;
        to->values[i] = there ? values[(word64)j * value_stride + at % WIDTH] : 0.0f;
    }
#pragma unroll
    for (unsigned i = 0; i < ROWS * POSITIONS / BLOCK_SIZE; ++i) {
        unsigned at = i * BLOCK_SIZE + threadIdx.x;
        unsigned row = at / POSITIONS;
        unsigned j = base + at % POSITIONS;
        bool there = row < rows && j <= first + row;
        to->scores[i] = there ? scores[row * score_stride + j] : 0.0f;
    }
}

/// m = max s;  e[j] = exp(s[j] - m);  Z = Σ e by rule R2;  out = (chain over j ascending of e[j] v[j]) / Z.
///
/// Block (x, y, z): the x-th four rows of the z-th chunk, the y-th part of the heads. A thread computes one element of
/// two rows.
KERNEL_OF(BLOCK_SIZE, 1, attention_values)
(const float* scores, const float* values0, const float* values1, const float* values2, const float* values3,
 float* out, unsigned from0, unsigned from1, unsigned from2, unsigned from3, unsigned len0, unsigned len1, unsigned len2,
 unsigned len3, unsigned first0, unsigned first1, unsigned first2, unsigned first3, unsigned top, unsigned stride,
 unsigned query, unsigned key_value, unsigned size)
{
    __shared__ float tile[POSITIONS][WIDTH];
    __shared__ float weights[ROWS][POSITIONS];
    __shared__ float maxima[ROWS][BLOCK_SIZE / ROWS];
    __shared__ float lanes[ROWS][LANES];
    unsigned t = threadIdx.x;
    unsigned chunk = blockIdx.z;
    unsigned from = of_chunk(chunk, from0, from1, from2, from3);
    unsigned len = of_chunk(chunk, len0, len1, len2, len3);
    unsigned first = of_chunk(chunk, first0, first1, first2, first3);
    const float* values = of_chunk(chunk, values0, values1, values2, values3);
    unsigned start = blockIdx.x * ROWS;
    if (start >= len) return;
    unsigned rows = smaller_of(ROWS, len - start);
    unsigned parts = (size + WIDTH - 1) / WIDTH;
    unsigned head = blockIdx.y / parts;
    unsigned column = blockIdx.y % parts * WIDTH;
    unsigned key_head = head / (query / key_value);
    // Row r has keys 0..first + r.
    first += start;
    from += start;
    scores += ((word64)(from - top) * query + head) * stride;
    word64 row_stride = (word64)query * stride;

    // The order is free: with a NaN among the scores the result is NaN whatever the maximum, and subtracting either
    // zero is the same.
    unsigned r = t / (BLOCK_SIZE / ROWS);
    float row_max = MINUS_INFINITE;
    if (r < rows)
        for (unsigned j = t % (BLOCK_SIZE / ROWS); j <= first + r; j += BLOCK_SIZE / ROWS)
            row_max = larger(row_max, scores[r * row_stride + j]);
    maxima[r][t % (BLOCK_SIZE / ROWS)] = row_max;
    __syncthreads();
    if (t < ROWS) {
        float max = MINUS_INFINITE;
        for (unsigned i = 0; i < BLOCK_SIZE / ROWS; ++i) max = larger(max, maxima[t][i]);
        maxima[t][0] = max;
    }
    __syncthreads();

    unsigned d = t % WIDTH;
    unsigned pair = t / WIDTH * 2;
    float total = 0.0f;
    float a = 0.0f;
    float b = 0.0f;
    unsigned end = first + rows;
    values += key_head * size + column;
    unsigned value_stride = key_value * size;
    Fetched next;
    fetch(&next, values, value_stride, size - column, scores, row_stride, rows, first, 0, end);
    for (unsigned base = 0; base < end; base += POSITIONS) {
#pragma unroll
        for (unsigned i = 0; i < POSITIONS * WIDTH / BLOCK_SIZE; ++i) {
            unsigned at = i * BLOCK_SIZE + t;
            tile[at / WIDTH][at % WIDTH] = next.values[i];
        }
#pragma unroll
        for (unsigned i = 0; i < ROWS * POSITIONS / BLOCK_SIZE; ++i) {
            unsigned at = i * BLOCK_SIZE + t;
            unsigned row = at / POSITIONS;
            bool there = row < rows && base + at % POSITIONS <= first + row;
            weights[row][at % POSITIONS] = there ? exp_of(less_by(next.scores[i], maxima[row][0])) : 0.0f;
        }
        __syncthreads();
        if (end - base > POSITIONS)
            fetch(&next, values, value_stride, size - column, scores, row_stride, rows, first, base + POSITIONS, end);
        if (t < ROWS * LANES) {
            // Absent keys have e = +0, which changes no sum of non-negative numbers.
            const float* own = weights[t / LANES];
            for (unsigned i = t % LANES; i < POSITIONS; i += LANES) total = __fadd_rn(total, own[i]);
        }
        // Absent keys do not enter a chain. The second row of a pair has one more key than the first.
        unsigned left = end - base;
        unsigned keys_a = pair < rows ? smaller_of(POSITIONS, left - smaller_of(left, rows - 1 - pair)) : 0;
        unsigned keys_b = pair + 1 < rows ? smaller_of(POSITIONS, left - smaller_of(left, rows - 2 - pair)) : 0;
#pragma unroll 8
        for (unsigned j = 0; j < keys_a; ++j) {
            float v = tile[j][d];
            a = __fmaf_rn(weights[pair][j], v, a);
            b = __fmaf_rn(weights[pair + 1][j], v, b);
        }
        if (keys_b > keys_a) b = __fmaf_rn(weights[pair + 1][keys_a], tile[keys_a][d], b);
        __syncthreads();
    }
    if (t < ROWS * LANES) lanes[t / LANES][t % LANES] = total;
    __syncthreads();
    unsigned e = column + d;
    if (e >= size) return;
    out += ((word64)from * query + head) * size + e;
    if (pair < rows) out[(word64)pair * query * size] = __fdiv_rn(a, folded_sum(lanes[pair]));
    if (pair + 1 < rows) out[(word64)(pair + 1) * query * size] = __fdiv_rn(b, folded_sum(lanes[pair + 1]));
}
EXPORT(attention_values)

#undef KEYS
#undef QUERIES
#undef PART
#undef ROWS
#undef POSITIONS
#undef WIDTH
