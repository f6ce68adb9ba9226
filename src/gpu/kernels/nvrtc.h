// Before the kernels where NVRTC compiles them.

// A kernel, and one that is launched with so many threads a block and no more, of which an SM is to hold so many blocks.
#define KERNEL(name) extern "C" __global__ void name
#define KERNEL_OF(threads, blocks, name) extern "C" __global__ void __launch_bounds__(threads, blocks) name
// After a kernel's body.
#define EXPORT(name)
