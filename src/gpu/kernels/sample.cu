// Sampling tokens as infer::sample does: the largest logit, or the largest score plus Gumbel noise.
//
// Each block takes 2048 tokens of a row and writes an entry of four words: a value in two words, its token, and the
// first token whose logit is NaN. `requests` has six words per row: the row of logits, the token index in two words,
// the temperature, the seed in two words.

/// Tokens of a block.
#define TOKENS 2048u
#define REQUEST 6u
#define ENTRY 4u
#define NO_TOKEN 0xffffffffu

/// ln x in f64 bitwise identical to simd::scalar::ln, for normal x > 0.
static __device__ inline double ln_of_double(double x)
{
    word64 bits = bits_of_double(x);
    long long k = (long long)(bits >> 52) - 1023;
    double m = double_of((bits & 0x000fffffffffffffULL) | 0x3ff0000000000000ULL);
    if (m > double_of(0x3ff6a09e667f3bcdULL)) {
        m = __dmul_rn(m, 0.5);
        k += 1;
    }
    double f = __dadd_rn(m, -1.0);
    double s = __ddiv_rn(f, __dadd_rn(2.0, f));
    double z = __dmul_rn(s, s);
    // Reciprocals of the odd numbers from 21 down to 3. The CPU's first step starts at 0 and yields the first of them.
    double series = 1.0 / 21.0;
    series = __dadd_rn(__dmul_rn(series, z), 1.0 / 19.0);
    series = __dadd_rn(__dmul_rn(series, z), 1.0 / 17.0);
    series = __dadd_rn(__dmul_rn(series, z), 1.0 / 15.0);
    series = __dadd_rn(__dmul_rn(series, z), 1.0 / 13.0);
    series = __dadd_rn(__dmul_rn(series, z), 1.0 / 11.0);
    series = __dadd_rn(__dmul_rn(series, z), 1.0 / 9.0);
    series = __dadd_rn(__dmul_rn(series, z), 1.0 / 7.0);
    series = __dadd_rn(__dmul_rn(series, z), 1.0 / 5.0);
    series = __dadd_rn(__dmul_rn(series, z), 1.0 / 3.0);
    series = __dmul_rn(__dmul_rn(2.0, z), series);
    double half_square = __dmul_rn(__dmul_rn(0.5, f), f);
    double e = (double)k;
    double high = double_of(0x3fe62e42fefa3800ULL);
    double low = double_of(0x3d2ef35793c76730ULL);
    double tail = __dadd_rn(__dmul_rn(s, __dadd_rn(half_square, series)), __dmul_rn(e, low));
    return __dadd_rn(__dmul_rn(e, high), -__dadd_rn(__dadd_rn(half_square, -tail), -f));
}

/// The first word of Philox4x32-10 (Salmon et al. 2011) with counter (token, token index, 0).
static __device__ inline unsigned random_word(unsigned seed_low, unsigned seed_high, unsigned index_low,
                                              unsigned index_high, unsigned token)
{
    unsigned a = token, b = index_low, c = index_high, d = 0;
    for (int round = 0; round < 10; ++round) {
        word64 first = (word64)0xd2511f53u * a;
        word64 second = (word64)0xcd9e8d57u * c;
        unsigned next_a = (unsigned)(second >> 32) ^ b ^ seed_low;
        unsigned next_c = (unsigned)(first >> 32) ^ d ^ seed_high;
        b = (unsigned)second;
        d = (unsigned)first;
        a = next_a;
        c = next_c;
        seed_low += 0x9e3779b9u;
        seed_high += 0xbb67ae85u;
    }
    return a;
}

/// Standard Gumbel noise of a token: -ln(-ln u) with u in (0, 1).
static __device__ inline double gumbel_of(const unsigned* request, unsigned token)
{
    unsigned bits = random_word(request[4], request[5], request[1], request[2], token) >> 9;
    // 2^-24, so that the product is exact.
    double u = __dmul_rn((double)(2 * bits + 1), 5.9604644775390625e-8);
    return -ln_of_double(-ln_of_double(u));
}

/// An upper bound of the noise.
#define NOISE_MAX 16.7

static __device__ inline void put(unsigned* entry, double value, unsigned token, unsigned bad)
{
    word64 bits = bits_of_double(value);
    entry[0] = (unsigned)bits;
    entry[1] = (unsigned)(bits >> 32);
    entry[2] = token;
    entry[3] = bad;
}

static __device__ inline double value_of(const unsigned* entry)
{
    return double_of((word64)entry[1] << 32 | entry[0]);
}

/// Whether a token precedes another: the larger value, then the lower id. NO_TOKEN comes last.
static __device__ inline bool precedes(double value, unsigned token, double other, unsigned other_token)
{
    if (token == NO_TOKEN || other_token == NO_TOKEN) return token < other_token;
    return value > other || (value == other && token < other_token);
}

/// The first of all threads' tokens and the lowest of their NaN tokens, for every thread.
static __device__ inline void best_of_block(double* value, unsigned* token, unsigned* bad)
{
    __shared__ double values[BLOCK_SIZE];
    __shared__ unsigned tokens[BLOCK_SIZE];
    __shared__ unsigned bads[BLOCK_SIZE];
    unsigned t = threadIdx.x;
    values[t] = *value;
    tokens[t] = *token;
    bads[t] = *bad;
    __syncthreads();
    for (unsigned w = BLOCK_SIZE / 2; w > 0; w /= 2) {
        if (t < w) {
            if (precedes(values[t + w], tokens[t + w], values[t], tokens[t])) {
                values[t] = values[t + w];
                tokens[t] = tokens[t + w];
            }
            bads[t] = smaller_of(bads[t], bads[t + w]);
        }
        __syncthreads();
    }
    *value = values[0];
    *token = tokens[0];
    *bad = bads[0];
    __syncthreads();
}

/// The first of a row's entries.
static __device__ inline void best_of_entries(const unsigned* entries, unsigned n, double* value, unsigned* token,
                                              unsigned* bad)
{
    *value = 0.0;
    *token = NO_TOKEN;
    *bad = NO_TOKEN;
    for (unsigned i = threadIdx.x; i < n; i += BLOCK_SIZE) {
        const unsigned* entry = entries + i * ENTRY;
        if (precedes(value_of(entry), entry[2], *value, *token)) {
            *value = value_of(entry);
            *token = entry[2];
        }
        *bad = smaller_of(*bad, entry[3]);
    }
    best_of_block(value, token, bad);
}

/// Each block's largest logit: entries [requests, blocks, 4].
KERNEL_OF(BLOCK_SIZE, 1, sample_largest)
(const float* logits, const unsigned* requests, unsigned* entries, unsigned vocab)
{
    unsigned row = requests[blockIdx.y * REQUEST];
    const float* z = logits + (word64)row * vocab;
    unsigned from = blockIdx.x * TOKENS;
    unsigned to = smaller_of(vocab, from + TOKENS);
    double value = 0.0;
    unsigned token = NO_TOKEN;
    unsigned bad = NO_TOKEN;
    for (unsigned i = from + threadIdx.x; i < to; i += BLOCK_SIZE) {
        float x = z[i];
        if (x != x) {
            bad = smaller_of(bad, i);
        } else if (token == NO_TOKEN || (double)x > value) {
            value = (double)x;
            token = i;
        }
    }
    best_of_block(&value, &token, &bad);
    if (threadIdx.x == 0) put(entries + (blockIdx.y * gridDim.x + blockIdx.x) * ENTRY, value, token, bad);
}
EXPORT(sample_largest)

/// Each block's largest score plus noise, score = (logit - max) / temperature, if the temperature is not 0.
KERNEL_OF(BLOCK_SIZE, 1, sample_perturbed)
(const float* logits, const unsigned* requests, const unsigned* entries, unsigned* perturbed, unsigned vocab)
{
    const unsigned* request = requests + blockIdx.y * REQUEST;
    float temperature = float_of(request[3]);
    if (temperature == 0.0f) return;
    double best_logit;
    unsigned best;
    unsigned bad;
    best_of_entries(entries + blockIdx.y * gridDim.x * ENTRY, gridDim.x, &best_logit, &best, &bad);
    const float* z = logits + (word64)request[0] * vocab;
    unsigned from = blockIdx.x * TOKENS;
    unsigned to = smaller_of(vocab, from + TOKENS);
    double value = 0.0;
    unsigned token = NO_TOKEN;
    // sample_token reports rows with a NaN or an infinite maximum.
    float max = (float)best_logit;
    bool valid = bad == NO_TOKEN && best != NO_TOKEN && max < INFINITE && max > MINUS_INFINITE;
    if (valid) {
        // The likeliest token has score 0, so the winner has at least its noise.
        double min = gumbel_of(request, best);
        for (unsigned i = from + threadIdx.x; i < to; i += BLOCK_SIZE) {
            double score = (double)__fdiv_rn(less_by(z[i], max), temperature);
            if (__dadd_rn(score, NOISE_MAX) < min) continue;
            double x = __dadd_rn(score, gumbel_of(request, i));
            if (token == NO_TOKEN || x > value) {
                value = x;
                token = i;
                min = x > min ? x : min;
            }
        }
    }
    best_of_block(&value, &token, &bad);
    if (threadIdx.x == 0) put(perturbed + (blockIdx.y * gridDim.x + blockIdx.x) * ENTRY, value, token, bad);
}
EXPORT(sample_perturbed)

/// Each row's token, or NO_TOKEN if the CPU has to return an error.
KERNEL_OF(BLOCK_SIZE, 1, sample_token)
(const unsigned* requests, const unsigned* entries, const unsigned* perturbed, unsigned* tokens, unsigned blocks)
{
    double best_value;
    unsigned best;
    unsigned bad;
    best_of_entries(entries + blockIdx.x * blocks * ENTRY, blocks, &best_value, &best, &bad);
    unsigned chosen = bad == NO_TOKEN ? best : NO_TOKEN;
    // All threads of a block take the same branch.
    if (float_of(requests[blockIdx.x * REQUEST + 3]) != 0.0f) {
        best_of_entries(perturbed + blockIdx.x * blocks * ENTRY, blocks, &best_value, &best, &bad);
        chosen = bad == NO_TOKEN ? best : NO_TOKEN;
    }
    if (threadIdx.x == 0) tokens[blockIdx.x] = chosen;
}
EXPORT(sample_token)

#undef TOKENS
#undef REQUEST
#undef ENTRY
#undef NOISE_MAX
