// Elementary functions, to be compared with the CPU's.

/// x [n] -> e^x or ln x, one word each; or -ln(-ln x) in f64, two words each.
KERNEL(elementary)(const float* x, unsigned* y, unsigned n, unsigned which)
{
    word64 i = (word64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    if (which == 0) y[i] = bits_of(exp_of(x[i]));
    if (which == 1) y[i] = bits_of(ln_of(x[i]));
    if (which == 2) {
        word64 bits = bits_of_double(-ln_of_double(-ln_of_double((double)x[i])));
        y[2 * i] = (unsigned)bits;
        y[2 * i + 1] = (unsigned)(bits >> 32);
    }
}
EXPORT(elementary)
