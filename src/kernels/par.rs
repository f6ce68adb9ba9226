//! Threads: the only user of rayon.
//!
//! Work is split over outputs only, never over a sum, so the number of threads never shows in a result.

use crate::simd::{Isa, LANES, float_environment};
use crate::{Error, Result};
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

/// Matrix multiplications of fewer multiply-adds are done by one thread: waking another costs more.
pub(super) const WORTH_SPLITTING: usize = 1 << 14;
/// Fewest elements of a task that goes once over its data, for the same reason.
const FEWEST_ELEMENTS: usize = 1 << 14;

/// A pool of threads.
pub struct Threads(rayon::ThreadPool);

impl Threads {
    /// A pool of `count` threads.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] for no threads or more than the system gives, and what [`check_environment`] returns
    /// for the threads of the pool.
    pub fn new(count: usize) -> Result<Self> {
        const MOST: usize = 1024;
        if count == 0 || count > MOST {
            return Err(Error::setting("threads", format!("1 to {MOST}"), count));
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build();
        let threads = Self(pool.map_err(|e| {
            Error::setting(
                "threads",
                "as many as the system gives",
                format!("{count} ({e})"),
            )
        })?);
        threads.scope(check_environment)?;
        Ok(threads)
    }

    /// Runs `f` on this pool; everything it starts uses these threads.
    pub fn scope<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        let isa = Isa::current();
        self.0.install(|| isa.scope(f))
    }
}

/// Checks that results are those of the rules here: that the calling thread and all threads of the current pool round
/// to nearest and keep subnormal numbers, and that `FORETOKEN_ISA` names an instruction set if it is set.
///
/// It takes some microseconds. A host program, or a plug-in of one, may change the mode of a thread at any time, so
/// a new or extended sequence, an evaluation and a training step check again.
///
/// # Errors
/// Returns [`Error::FloatEnvironment`] or [`Error::Setting`].
pub fn check_environment() -> Result<()> {
    Isa::from_environment()?;
    let wrong = on_every_thread(float_environment::check);
    match wrong.into_iter().find_map(|result| result.err()) {
        None => Ok(()),
        Some(reason) => Err(Error::FloatEnvironment(reason)),
    }
}

/// Checks the floating-point mode of the calling thread, in some nanoseconds.
///
/// # Errors
/// Returns [`Error::FloatEnvironment`].
pub fn check_this_thread() -> Result<()> {
    float_environment::check().map_err(Error::FloatEnvironment)
}

/// Runs `f` on the calling thread and on every thread of the current pool.
pub(super) fn on_every_thread<R: Send>(f: impl Fn() -> R + Sync) -> Vec<R> {
    let mut results = vec![f()];
    results.extend(rayon::broadcast(|_| f()));
    results
}

/// The number of threads that work started here is spread over.
pub fn count() -> usize {
    rayon::current_num_threads()
}

/// Does every task, on all threads of the pool. The order is not defined.
pub fn for_each<T: Send>(tasks: impl IntoIterator<Item = T>, f: impl Fn(T) + Sync) {
    let tasks: Vec<T> = tasks.into_iter().collect();
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

/// Elements of a task of an element-by-element operation over `total`, a multiple of [`LANES`].
pub(super) fn elements_per_task(total: usize) -> usize {
    part(total, LANES, 1).max(FEWEST_ELEMENTS)
}

/// Rows of a task of an operation over `elements` in rows of `width`.
pub(super) fn rows_per_task(elements: usize, width: usize) -> usize {
    let width = width.max(1);
    part(elements / width, 1, 1).max(FEWEST_ELEMENTS / width + 1)
}

/// Ends of parts that differ by at most one `unit`, `per_thread` of them for each thread: no thread is left with a
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
                    for_each(1..=100, |i: usize| {
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
                    let max = sizes.iter().map(tiles).max();
                    let min = sizes.iter().map(tiles).min();
                    assert!(max <= min.map(|n| n + 1), "{total}: {sizes:?}");
                }
            });
        }
    }

    #[test]
    fn no_threads_is_an_error() {
        let error = Threads::new(0).err().expect("refused");
        assert!(matches!(
            error,
            Error::Setting {
                field: "threads",
                ..
            }
        ));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn threads_in_another_mode_are_an_error() {
        use crate::simd::float_environment::tests::{FTZ, UP, with_mode};
        // This starts the threads of the global pool, too, which would otherwise inherit the mode set below.
        check_environment().expect("the usual mode");
        let pool = Threads::new(2).expect("a small pool");
        for bits in [FTZ, UP] {
            // A new thread inherits the mode of the one that starts it.
            let (new, caller) = with_mode(bits, || (Threads::new(2).err(), check_environment()));
            assert!(matches!(new, Some(Error::FloatEnvironment(_))), "{new:?}");
            assert!(
                matches!(caller, Err(Error::FloatEnvironment(_))),
                "{caller:?}"
            );
        }
        pool.scope(check_environment)
            .expect("threads started before");
    }
}
