//! Threads: the only user of rayon.
//!
//! Work is split over outputs only, never over a sum, so the number of threads never shows in a result.

use crate::simd::Isa;
use crate::{Error, Result};
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

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
    let _busy = Busy::begin();
    tasks
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| isa.scope(|| f(task)));
}

thread_local! {
    /// How many calls on this thread wait for tasks of their own.
    static WAITING: Cell<usize> = const { Cell::new(0) };
}

/// While it lives, this thread waits for tasks of its own and must not take up a watch for someone else: it would not come
/// back to what it waits for until the other is done, and two such threads would wait for each other for ever.
struct Busy;

impl Busy {
    fn begin() -> Self {
        WAITING.set(WAITING.get() + 1);
        Self
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        WAITING.set(WAITING.get() - 1);
    }
}

/// Runs `f` while the pool's other threads keep looking for its tasks instead of going to sleep.
///
/// A decoding step is some hundred small products; waking a thread for each would cost more than the thread does. A
/// thread that finds nothing for a while looks less often, so that waiting for a slow reader does not burn a core.
///
/// It works best alone on its pool: threads that wait for tasks of another caller do not watch.
pub fn awake<R>(f: impl FnOnce() -> R) -> R {
    /// Lets the threads go, also where `f` panics.
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let Some(me) = rayon::current_thread_index().filter(|_| count() > 1) else {
        return f();
    };
    let over = AtomicBool::new(false);
    rayon::in_place_scope(|scope| {
        let ends = Ends(&over);
        let _busy = Busy::begin();
        // A broadcast, because what it starts cannot be stolen: this thread, waiting for a task, would otherwise take up
        // the watch itself and never return.
        scope.spawn_broadcast(|_, thread| {
            if thread.index() != me && WAITING.get() == 0 {
                watch(&over);
            }
        });
        let result = f();
        drop(ends);
        result
    })
}

/// Does what tasks there are until it is over.
fn watch(over: &AtomicBool) {
    /// Looks without finding a task before the system may give the core to someone else.
    const PATIENCE: u32 = 256;
    /// The same before the thread begins to nap: some milliseconds, longer than anything but waiting takes.
    const NAPS: u32 = 1 << 18;
    let mut idle = 0u32;
    while !over.load(Ordering::Relaxed) {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            idle = 0;
            continue;
        }
        idle = idle.saturating_add(1);
        match idle {
            NAPS.. => std::thread::sleep(std::time::Duration::from_micros(50)),
            n if n % PATIENCE == 0 => std::thread::yield_now(),
            _ => std::hint::spin_loop(),
        }
    }
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
    use std::sync::atomic::AtomicUsize;

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
    fn tasks_are_done_by_threads_kept_awake_in_each_other() {
        for threads in [1, 2, 3, 8] {
            let pool = Threads::new(threads).expect("a small pool");
            let sum = AtomicUsize::new(0);
            let add = |i: usize| {
                // Tasks of tasks, as products inside a parallel section are.
                for_each((0..i % 4).collect(), |_: usize| {
                    sum.fetch_add(1, Ordering::Relaxed);
                });
            };
            let result = pool.scope(|| {
                awake(|| {
                    for_each((0..100).collect(), add);
                    awake(|| for_each((0..100).collect(), add));
                    7
                })
            });
            assert_eq!((result, sum.into_inner()), (7, 300));
        }
        assert_eq!(awake(|| 5), 5, "outside of any pool");
    }

    /// Two callers on one pool, from threads of its own and from others, again and again: nobody waits for ever.
    #[test]
    fn callers_that_keep_threads_awake_do_not_block_each_other() {
        for threads in [2, 3] {
            let pool = Threads::new(threads).expect("a small pool");
            let sum = AtomicUsize::new(0);
            let busy = || {
                awake(|| {
                    for _ in 0..20 {
                        for_each((0..6).collect(), |_: usize| {
                            sum.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            };
            for _ in 0..50 {
                pool.scope(|| rayon::join(busy, busy));
                std::thread::scope(|scope| {
                    for _ in 0..3 {
                        scope.spawn(|| pool.scope(busy));
                    }
                });
            }
            assert_eq!(sum.into_inner(), 50 * 5 * 20 * 6);
        }
    }

    #[test]
    #[should_panic(expected = "a task failed")]
    fn a_panic_lets_the_threads_go() {
        let pool = Threads::new(3).expect("a small pool");
        pool.scope(|| awake(|| -> () { panic!("a task failed") }));
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
