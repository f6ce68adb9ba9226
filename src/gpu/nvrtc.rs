//! The compiler of kernels, loaded at run time.
