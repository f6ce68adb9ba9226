//! Threads: the only user of rayon.
//!
//! Work is split over outputs only, never over a sum, so the number of threads never shows in a result.

use crate::simd::Isa;
use crate::{Error, Result};
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

/// A pool of threads.
pub struct Threads(rayon::ThreadPool);

impl Threads {
    /// A pool of `count` threads.
    ///
    /// # Errors
    /// [`Error::Usage`] for no threads, or more than the system gives.
    pub fn new(count: usize) -> Result<Self> {
        const MOST: usize = 1024;
        if count == 0 || count > MOST {
            return Err(Error::Usage(format!(
                "--threads: expected 1 to {MOST} threads, found {count}"
            )));
        }
        rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .build()
            .map(Self)
            .map_err(|e| Error::Usage(format!("--threads {count}: {e}")))
    }

    /// Runs `f` on this pool; everything it starts uses these threads.
    pub fn scope<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        let isa = Isa::current();
        self.0.install(|| isa.scope(f))
    }
}

/// The number of threads that work started here is spread over.
pub fn count() -> usize {
    rayon::current_num_threads()
}

/// Does every task, on as many threads as there are. The order is not defined.
pub fn for_each<T: Send>(tasks: Vec<T>, f: impl Fn(T) + Sync) {
    if tasks.len() <= 1 || count() == 1 {
        return tasks.into_iter().for_each(f);
    }
    let isa = Isa::current();
    tasks
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| isa.scope(|| f(task)));
}

/// The size of parts that gives every thread `per_thread` of them, a multiple of `unit`.
pub fn part(total: usize, unit: usize, per_thread: usize) -> usize {
    let parts = count() * per_thread;
    total.div_ceil(parts).next_multiple_of(unit).max(unit)
}

/// Ends of parts that differ by one `unit` at most, `per_thread` of them for every thread: no thread is left with a
/// whole part while the others wait.
pub fn ends(total: usize, unit: usize, per_thread: usize) -> Vec<usize> {
    let units = total.div_ceil(unit);
    let parts = (count() * per_thread).clamp(1, units.max(1));
    let end = |i: usize| (units * i / parts * unit).min(total);
    (1..=parts).map(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_task_runs_once_with_the_callers_instruction_set() {
        for threads in [1, 2, 3, 8] {
            let pool = Threads::new(threads).expect("a small pool");
            let sum = AtomicUsize::new(0);
            let portable = Isa::named("portable").expect("always there");
            portable.scope(|| {
                pool.scope(|| {
                    assert_eq!(count(), threads);
                    for_each((1..=100).collect(), |i: usize| {
                        assert_eq!(Isa::current().name(), "portable");
                        sum.fetch_add(i, Ordering::Relaxed);
                    });
                })
            });
            assert_eq!(sum.into_inner(), 5050);
        }
    }

    #[test]
    fn ends_are_even_and_cover_everything() {
        for threads in [1, 2, 3, 8] {
            Threads::new(threads).expect("a small pool").scope(|| {
                for total in [1, 11, 12, 13, 512, 4096] {
                    let ends = ends(total, 12, 4);
                    assert_eq!(ends.last(), Some(&total));
                    let starts = std::iter::once(0).chain(ends.iter().copied());
                    let sizes: Vec<usize> = ends.iter().zip(starts).map(|(e, s)| e - s).collect();
                    let tiles = |n: &usize| n.div_ceil(12);
                    let most = sizes.iter().map(tiles).max();
                    let least = sizes.iter().map(tiles).min();
                    assert!(most <= least.map(|n| n + 1), "{total}: {sizes:?}");
                }
            });
        }
    }

    #[test]
    fn no_threads_is_an_error() {
        let error = Threads::new(0).err().expect("refused");
        assert!(error.to_string().contains("--threads"));
    }
}
