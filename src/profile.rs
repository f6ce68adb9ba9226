//! Where the time goes: seconds and floating-point operations by operation and phase.
//!
//! Off by default; a scope then costs one look at a flag. Scopes nest, and an entry's time is its own: the time of an
//! inner scope is not counted again in the outer one.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static ON: AtomicBool = AtomicBool::new(false);
static ENTRIES: Mutex<BTreeMap<(&'static str, &'static str), Entry>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// Time of the scopes inside the innermost open one.
    static INNER: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// Floating-point operations of matrix multiplications in the innermost open scope.
    static WORK: Cell<u64> = const { Cell::new(0) };
}

/// The totals of one operation and phase.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Entry {
    /// How often its scope was entered.
    pub calls: u64,
    /// Time inside, without that of inner scopes.
    pub time: Duration,
    /// Floating-point operations of its matrix multiplications, two for each multiply-add.
    pub flops: u64,
}

/// Starts counting, from zero. The whole process shares one count.
pub fn start() {
    ENTRIES.lock().unwrap_or_else(|e| e.into_inner()).clear();
    ON.store(true, Ordering::Relaxed);
}

/// Stops counting. Returns the entries by operation and phase, the slowest first.
pub fn stop() -> Vec<(String, Entry)> {
    ON.store(false, Ordering::Relaxed);
    let entries = std::mem::take(&mut *ENTRIES.lock().unwrap_or_else(|e| e.into_inner()));
    let named = |((name, phase), entry)| (format!("{name} {phase}"), entry);
    let mut all: Vec<(String, Entry)> = entries.into_iter().map(named).collect();
    all.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.time));
    all
}

/// An open scope; its time is counted when it is dropped.
#[must_use]
pub struct Scope {
    name: &'static str,
    phase: &'static str,
    start: Instant,
    /// [`INNER`] and [`WORK`] of the scope around it.
    outer: (Duration, u64),
}

/// Counts the time until the result is dropped. A path `a::b::Name` is shortened to `Name`.
#[inline]
pub fn scope(name: &'static str, phase: &'static str) -> Option<Scope> {
    ON.load(Ordering::Relaxed).then(|| Scope {
        name: name.rsplit("::").next().unwrap_or(name),
        phase,
        outer: (INNER.take(), WORK.take()),
        start: Instant::now(),
    })
}

impl Drop for Scope {
    fn drop(&mut self) {
        let all = self.start.elapsed();
        let (inner, work) = self.outer;
        let mut entries = ENTRIES.lock().unwrap_or_else(|e| e.into_inner());
        let entry = entries.entry((self.name, self.phase)).or_default();
        entry.calls += 1;
        entry.time += all.saturating_sub(INNER.replace(inner + all));
        entry.flops += WORK.replace(work);
    }
}

/// Runs `f` in a [`scope`].
#[inline]
pub fn time<R>(name: &'static str, phase: &'static str, f: impl FnOnce() -> R) -> R {
    let _scope = scope(name, phase);
    f()
}

/// Counts a matrix multiplication of m · n · k multiply-adds for the innermost open scope.
#[inline]
pub fn matmul(m: usize, n: usize, k: usize) {
    if ON.load(Ordering::Relaxed) {
        WORK.set(WORK.get() + 2 * (m * n * k) as u64);
    }
}

/// Entries as a table: milliseconds per step, share, and GFLOP/s of matrix multiplications.
pub fn table(entries: &[(String, Entry)], steps: u64) -> String {
    let steps = steps.max(1) as f64;
    let total: f64 = entries.iter().map(|(_, e)| e.time.as_secs_f64()).sum();
    let mut text = format!(
        "{:<28} {:>9} {:>9} {:>7} {:>9}\n",
        "operation", "calls", "ms", "share", "GFLOP/s"
    );
    for (name, e) in entries {
        let seconds = e.time.as_secs_f64();
        let rate = match e.flops {
            0 => String::new(),
            flops => format!("{:.0}", flops as f64 * 1e-9 / seconds.max(1e-9)),
        };
        let (calls, ms) = (e.calls as f64 / steps, seconds * 1e3 / steps);
        let share = 100.0 * seconds / total.max(1e-9);
        text += &format!("{name:<28} {calls:>9.1} {ms:>9.2} {share:>6.1}% {rate:>9}\n");
    }
    let ms = total * 1e3 / steps;
    text + &format!("{:<28} {:>9} {ms:>9.2}\n", "all, per step", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_time_is_counted_once_and_work_goes_to_the_inner_scope() {
        // Other tests of this process may add entries: only names of this test are looked at.
        start();
        let pause = Duration::from_millis(5);
        time("test::Outer", "forward", || {
            matmul(1, 2, 3);
            time("test::Inner", "forward", || {
                matmul(10, 10, 10);
                std::thread::sleep(pause);
            });
            matmul(1, 1, 1);
        });
        let entries = stop();
        let find = |name: &str| entries.iter().find(|(n, _)| n == name).expect("an entry").1;
        let (outer, inner) = (find("Outer forward"), find("Inner forward"));
        assert_eq!((outer.calls, inner.calls), (1, 1));
        assert_eq!((outer.flops, inner.flops), (14, 2000));
        assert!(inner.time >= pause && outer.time < inner.time + pause);
        assert!(table(&entries, 1).contains("Inner forward"));
    }
}
