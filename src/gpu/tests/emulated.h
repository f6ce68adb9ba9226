// Prelude for the host's C++ compiler: what CUDA C has and C++ lacks.
//
// Each thread of a block is a fiber that runs until a barrier or its end; then the next one runs. When all have reached
// the barrier, the first one continues. Blocks run one after the other. A value that is read with no barrier after it
// was written is visible in one order of threads and not in the other.

#include <csetjmp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <utility>

namespace emulation {

typedef void (*Entry)(void **);

const unsigned MOST_THREADS = 1024;
const size_t STACK = 64 * 1024;

struct Fiber {
    // Where it continues.
    jmp_buf here;
    ucontext_t start;
    char *stack;
    bool started;
    // The line of the barrier where it waits, 0 at its end.
    int line;
};

static Fiber fibers[MOST_THREADS];
static jmp_buf scheduler;
static unsigned current;
static Entry entry;
static void **arguments;

// Lets the other fibers run.
static __attribute__((noinline)) void leave(int line) {
    fibers[current].line = line;
    if (!_setjmp(fibers[current].here)) _longjmp(scheduler, 1);
}

// A fiber runs one thread of each block, for ever.
static void run_threads() {
    for (;;) {
        entry(arguments);
        leave(0);
    }
}

static __attribute__((noinline)) void resume(Fiber &fiber) {
    if (_setjmp(scheduler)) return;
    if (fiber.started) _longjmp(fiber.here, 1);
    fiber.started = true;
    if (!fiber.stack) fiber.stack = static_cast<char *>(malloc(STACK));
    if (!fiber.stack) abort();
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack;
    fiber.start.uc_stack.ss_size = STACK;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, run_threads, 0);
    setcontext(&fiber.start);
}

template <typename... A, size_t... I>
inline void call(void (*kernel)(A...), void **values, std::index_sequence<I...>) {
    kernel(*static_cast<A *>(values[I])...);
}

template <typename... A> inline void apply(void (*kernel)(A...), void **values) {
    call(kernel, values, std::index_sequence_for<A...>());
}

struct Index {
    unsigned x, y, z;
};

} // namespace emulation

static emulation::Index threadIdx, blockIdx, blockDim, gridDim;

// Runs all threads of all blocks. Returns 1 if some threads of a block wait at a barrier and others at another one or
// at the end.
extern "C" __attribute__((visibility("default"))) int foretoken_run(emulation::Entry entry, int descending,
        const unsigned *grid, unsigned threads, void **arguments) {
    using namespace emulation;
    emulation::entry = entry;
    emulation::arguments = arguments;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {threads, 1, 1};
    const size_t blocks = size_t(grid[0]) * grid[1] * grid[2];
    for (size_t block = 0; block < blocks; block++) {
        blockIdx.x = unsigned(block % grid[0]);
        blockIdx.y = unsigned(block / grid[0] % grid[1]);
        blockIdx.z = unsigned(block / grid[0] / grid[1]);
        do {
            for (unsigned i = 0; i < threads; i++) {
                current = descending ? threads - 1 - i : i;
                threadIdx = {current, 0, 0};
                resume(fibers[current]);
            }
            for (unsigned i = 1; i < threads; i++) {
                if (fibers[i].line == fibers[0].line) continue;
                // Abandons all fibers.
                for (Fiber &fiber : fibers) fiber.started = false;
                return 1;
            }
        } while (fibers[0].line);
    }
    return 0;
}

#define KERNEL(name) static void kernel_##name
#define KERNEL_OF(threads, blocks, name) static void kernel_##name
#define EXPORT(name) \
    extern "C" __attribute__((visibility("default"))) void foretoken_##name(void **values) { \
        emulation::apply(kernel_##name, values); \
    }

#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__
#define __syncthreads() emulation::leave(__LINE__)

// Without contraction, each plain operator rounds once.
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __drcp_rn(double a) { return 1.0 / a; }
inline double __dsqrt_rn(double a) { return __builtin_sqrt(a); }

template <typename To, typename From> inline To foretoken_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "types of one size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline int __float_as_int(float x) { return foretoken_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return foretoken_bits<unsigned>(x); }
inline float __int_as_float(int x) { return foretoken_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return foretoken_bits<float>(x); }
inline long long __double_as_longlong(double x) { return foretoken_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return foretoken_bits<double>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((static_cast<unsigned long long>(a) * b) >> 32); }

// Conversions. Kernels convert to integers only numbers in range.
inline float __double2float_rn(double x) { return float(x); }
inline double __uint2double_rn(unsigned x) { return double(x); }
inline double __int2double_rn(int x) { return double(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __int2float_rn(int x) { return float(x); }
inline int __float2int_rn(float x) { return int(__builtin_nearbyintf(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline int __double2int_rn(double x) { return int(__builtin_nearbyint(x)); }
inline int __double2int_rz(double x) { return int(x); }

inline unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
inline unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }

struct alignas(16) float4 {
    float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
