//! The interface to what runs the kernels: memory, copies, launches.
//!
//! Everything happens in the order of the calls. Errors are sentences.

use std::ffi::c_void;

/// Memory and kernels of one device.
pub(super) trait Backend: Send + Sync {
    /// The device's name, as its vendor writes it.
    fn name(&self) -> String;

    /// Memory for this many 32-bit words, with unspecified contents.
    fn allocate(&self, words: usize) -> Result<Allocation, String>;

    /// Releases memory.
    fn free(&self, memory: Allocation);

    /// Copies words from the host to the start of an allocation.
    fn write(&self, data: &[u32], to: &Allocation) -> Result<(), String>;

    /// Copies words between allocations, or between disjoint parts of one.
    fn copy(&self, from: Place<'_>, to: Place<'_>, words: usize) -> Result<(), String>;

    /// Copies words of an allocation to the host, from its word `at` on, after everything launched before.
    fn read(&self, from: &Allocation, at: usize, data: &mut [u32]) -> Result<(), String>;

    /// Launches a kernel.
    ///
    /// # Safety
    /// - `args` holds the address of a value for each parameter of the kernel, in order and of the parameter's type.
    /// - For these values and this grid, the kernel stays inside the allocations that its pointers point into.
    unsafe fn launch(
        &self,
        kernel: &'static str,
        grid: [u32; 3],
        block: u32,
        args: &mut [*mut c_void],
    ) -> Result<(), String>;

    /// Called when an array of this many words starts to use an allocation.
    fn lend(&self, _memory: &Allocation, _words: usize) {}

    /// Called when that array has been dropped.
    fn take_back(&self, _memory: &Allocation, _words: usize) -> Result<(), String> {
        Ok(())
    }
}

/// A word of an allocation.
pub(super) type Place<'a> = (&'a Allocation, usize);

/// Memory of a backend. Only a backend makes one, and only once for the same memory.
#[derive(Debug)]
pub(super) struct Allocation {
    pub address: u64,
    pub words: usize,
}

impl Allocation {
    /// The address of word `at`.
    ///
    /// # Panics
    /// Panics unless `words` words from there on are inside.
    #[track_caller]
    pub fn part(&self, at: usize, words: usize) -> u64 {
        assert!(
            at <= self.words && words <= self.words - at,
            "{words} words from word {at} of {} on a device",
            self.words
        );
        self.address + 4 * at as u64
    }
}
