//! What a device has to be able to do: memory, copies, launches.
//!
//! Everything happens in the order of the calls. Failures are sentences.

use std::ffi::c_void;

/// A machine that runs kernels.
pub(super) trait Machine: Send + Sync {
    /// What a user would call it.
    fn name(&self) -> String;

    /// Memory for so many 32-bit words, with any contents.
    fn allocate(&self, words: usize) -> Result<Block, String>;

    /// Gives memory back.
    fn free(&self, block: Block);

    /// Copies words to a block, from its word `at` on.
    fn write(&self, data: &[u32], to: &Block, at: usize) -> Result<(), String>;

    /// Copies words between blocks or, where nothing overlaps, inside one.
    fn copy(&self, from: (&Block, usize), to: (&Block, usize), words: usize) -> Result<(), String>;

    /// Copies words of a block, from its word `at` on; waits for what was launched before.
    fn read(&self, from: &Block, at: usize, data: &mut [u32]) -> Result<(), String>;

    /// Runs a kernel with arguments given by their addresses.
    ///
    /// # Safety
    /// The addresses are those of values of the types of the kernel's parameters. Where they are blocks' addresses, the
    /// kernel stays inside these blocks.
    unsafe fn launch(
        &self,
        kernel: &'static str,
        grid: [u32; 3],
        block: u32,
        args: &mut [*mut c_void],
    ) -> Result<(), String>;

    /// A block is lent to hold so many words.
    fn lend(&self, _block: &Block, _words: usize) {}

    /// A block that was lent comes back.
    fn take_back(&self, _block: &Block, _words: usize) -> Result<(), String> {
        Ok(())
    }
}

/// Memory of a machine. Only a machine makes one, and only once for the same memory.
#[derive(Debug)]
pub(super) struct Block {
    pub address: u64,
    pub words: usize,
}

impl Block {
    /// The address of the word `at`, of which `words` follow.
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
