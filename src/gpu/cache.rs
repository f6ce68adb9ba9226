//! Compiled kernels in the user's cache directory.
