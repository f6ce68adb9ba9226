// Prelude for NVRTC.

// A kernel; KERNEL_OF gives the threads of its blocks, and how many blocks an SM should hold.
#define KERNEL(name) extern "C" __global__ void name
#define KERNEL_OF(threads, blocks, name) extern "C" __global__ void __launch_bounds__(threads, blocks) name
// After a kernel's body.
#define EXPORT(name)
