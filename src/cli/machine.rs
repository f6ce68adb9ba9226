//! `--threads`: how many threads compute.

use super::failure::Result;
use crate::kernels::par::Threads;
use clap::Args;

/// Flags of every command that computes.
#[derive(Clone, Debug, Args)]
pub struct Machine {
    /// Threads to compute on; never changes a result [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl Machine {
    /// Runs `f` on that many threads.
    pub fn scope(&self, f: impl FnOnce() -> Result + Send) -> Result {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        Threads::new(self.threads.unwrap_or_else(all))?.scope(f)
    }
}
