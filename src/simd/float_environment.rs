//! Whether a thread computes by the rules: every result rounded to nearest, subnormal numbers kept.
//!
//! A CPU keeps this mode for each thread, and a program can change it: builds with `-ffast-math` and functions such as
//! PyTorch's `set_flush_denormal` flush subnormal numbers to zero. Work is divided over threads by the number of rows,
//! so one thread in another mode would make a row's bits depend on the batch.

use std::hint::black_box;

/// Checks the calling thread, in a few nanoseconds.
///
/// # Errors
/// Returns what is wrong, to follow "this thread".
pub fn check() -> Result<(), &'static str> {
    // Bits are compared, because a comparison in the wrong mode may take a subnormal number for zero.
    let half = black_box(f32::MIN_POSITIVE) * black_box(0.5);
    let half_f64 = black_box(f64::MIN_POSITIVE) * black_box(0.5);
    if half.to_bits() != 1 << 22 || half_f64.to_bits() != 1 << 51 {
        return Err("flushes subnormal results to zero (FTZ)");
    }
    let same = black_box(f32::from_bits(1)) + black_box(0.0);
    let same_f64 = black_box(f64::from_bits(1)) + black_box(0.0);
    if same.to_bits() != 1 || same_f64.to_bits() != 1 {
        return Err("reads subnormal numbers as zero (DAZ)");
    }
    // Rounded to nearest, all three sums are their first number. Rounding up changes the first sum, rounding down the
    // second, rounding to zero the third.
    let sums: [(f32, f32); 3] = [(1.0, 1e-10), (-1.0, -1e-10), (1.0, -1e-10)];
    for (x, y) in sums {
        if black_box(x) + black_box(y) != x {
            return Err("does not round to nearest");
        }
    }
    for (x, y) in sums.map(|(x, y)| (f64::from(x), f64::from(y) * 1e-10)) {
        if black_box(x) + black_box(y) != x {
            return Err("does not round to nearest");
        }
    }
    Ok(())
}

#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) mod tests {
    use super::*;

    /// Bits of MXCSR, the register of the mode (Intel SDM, volume 1, section 10.2.3).
    pub(crate) const FTZ: u32 = 1 << 15;
    pub(crate) const DAZ: u32 = 1 << 6;
    pub(crate) const DOWN: u32 = 1 << 13;
    pub(crate) const UP: u32 = 2 << 13;
    pub(crate) const TO_ZERO: u32 = 3 << 13;

    /// Runs `f` on a thread of its own, and on the threads that it starts, with these bits of MXCSR set.
    pub(crate) fn with_mode<R: Send>(bits: u32, f: impl FnOnce() -> R + Send) -> R {
        let run = || {
            add_mode(bits);
            f()
        };
        std::thread::scope(|scope| scope.spawn(run).join().expect("the thread"))
    }

    /// Sets these bits of MXCSR on this thread, which must not outlive the test.
    pub(crate) fn add_mode(bits: u32) {
        let mut mode = 0u32;
        // SAFETY: stores the register to a local variable.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut mode, options(nostack)) };
        mode |= bits;
        // SAFETY: the bits are defined ones and mask no exception, so that nothing faults. What the thread computes in
        // this mode is what the test is about.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const mode, options(nostack)) };
    }

    #[test]
    fn every_wrong_mode_is_noticed() {
        assert_eq!(check(), Ok(()));
        for (bits, reason) in [
            (FTZ, "FTZ"),
            (DAZ, "DAZ"),
            (DOWN, "nearest"),
            (UP, "nearest"),
            (TO_ZERO, "nearest"),
        ] {
            let error = with_mode(bits, check).expect_err(reason);
            assert!(error.contains(reason), "{bits:#x}: {error}");
        }
        assert_eq!(check(), Ok(()));
    }
}
