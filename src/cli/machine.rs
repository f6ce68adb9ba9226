//! `--threads`: how many threads compute.

use super::failure::Result;
use super::output::message;
use crate::kernels::par::Threads;
use clap::Args;

/// Flags of every command that computes.
#[derive(Clone, Debug, Args)]
pub struct Machine {
    /// Threads to compute on; never changes a result, and more than the cores are slower [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl Machine {
    /// Runs `f` on that many threads.
    pub fn scope(&self, f: impl FnOnce() -> Result + Send) -> Result {
        let cores = std::thread::available_parallelism().ok().map(usize::from);
        let count = self.threads.unwrap_or(cores.unwrap_or(1));
        let threads = Threads::new(count)?;
        // Each kernel waits for the last of its threads, so those that wait for a core hold up all others.
        if let Some(cores) = cores.filter(|cores| count > *cores) {
            message(&format!(
                "warning: --threads {count}: this process runs {cores} at once, and more threads only wait for each \
                 other; --threads {cores} gives the same result faster"
            ));
        }
        threads.scope(f)
    }
}
