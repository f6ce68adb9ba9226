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

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) mod tests {
    use super::*;
    pub(crate) use mode::{FTZ, UP, add as add_mode};

    /// MXCSR, the register of the mode (Intel SDM, volume 1, section 10.2.3).
    #[cfg(target_arch = "x86_64")]
    mod mode {
        pub const FTZ: u32 = 1 << 15;
        const DAZ: u32 = 1 << 6;
        const DOWN: u32 = 1 << 13;
        pub const UP: u32 = 2 << 13;
        const TO_ZERO: u32 = 3 << 13;

        pub const WRONG: [(u32, &str); 5] = [
            (FTZ, "FTZ"),
            (DAZ, "DAZ"),
            (DOWN, "nearest"),
            (UP, "nearest"),
            (TO_ZERO, "nearest"),
        ];

        /// Sets these bits of MXCSR on this thread, which must not outlive the test.
        pub fn add(bits: u32) {
            let mut mode = 0u32;
            // SAFETY: stores the register to a local variable.
            unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut mode, options(nostack)) };
            mode |= bits;
            // SAFETY: the bits are defined ones and mask no exception, so that nothing faults. What the thread
            // computes in this mode is what the test is about.
            unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const mode, options(nostack)) };
        }
    }

    /// FPCR, the register of the mode (Arm Architecture Reference Manual for A-profile, "FPCR").
    #[cfg(target_arch = "aarch64")]
    mod mode {
        /// FZ, which flushes subnormal operands too.
        pub const FTZ: u32 = 1 << 24;
        pub const UP: u32 = 1 << 22;
        const DOWN: u32 = 2 << 22;
        const TO_ZERO: u32 = 3 << 22;

        pub const WRONG: [(u32, &str); 4] = [
            (FTZ, "FTZ"),
            (DOWN, "nearest"),
            (UP, "nearest"),
            (TO_ZERO, "nearest"),
        ];

        /// Sets these bits of FPCR on this thread, which must not outlive the test.
        pub fn add(bits: u32) {
            // SAFETY: the bits are defined ones and enable no trap, so that nothing faults. What the thread computes
            // in this mode is what the test is about.
            unsafe {
                std::arch::asm!(
                    "mrs {mode}, fpcr",
                    "orr {mode}, {mode}, {bits}",
                    "msr fpcr, {mode}",
                    mode = out(reg) _,
                    bits = in(reg) u64::from(bits),
                    options(nostack),
                );
            }
        }
    }

    /// Runs `f` on a thread of its own, and on the threads that it starts, with these bits of the mode set.
    pub(crate) fn with_mode<R: Send>(bits: u32, f: impl FnOnce() -> R + Send) -> R {
        let run = || {
            add_mode(bits);
            f()
        };
        std::thread::scope(|scope| scope.spawn(run).join().expect("the thread"))
    }

    #[test]
    fn every_wrong_mode_is_noticed() {
        assert_eq!(check(), Ok(()));
        for (bits, reason) in mode::WRONG {
            let error = with_mode(bits, check).expect_err(reason);
            assert!(error.contains(reason), "{bits:#x}: {error}");
        }
        assert_eq!(check(), Ok(()));
    }
}
