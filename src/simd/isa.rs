//! Instruction sets: what the CPU has, what the user allows, and the way into a kernel.
//!
//! The choice is per thread, so that tests can compare instruction sets side by side; `kernels::par` passes it to its
//! worker threads. `FORETOKEN_ISA` sets a ceiling for the whole process. No choice ever changes a result.

use super::Kernel;
use super::portable::Portable;
use crate::{Error, Result};
use std::cell::Cell;
use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

/// The environment variable that names the highest instruction set to use.
pub const CEILING: &str = "FORETOKEN_ISA";

/// An instruction set that this CPU has: each variant carries the token that proves it.
#[derive(Clone, Copy, Debug)]
pub enum Isa {
    /// Plain Rust, the definition.
    Portable(Portable),
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

/// Names of all instruction sets, lowest first: by the lanes of a register, whatever the family of CPUs.
pub const NAMES: [&str; 4] = ["portable", "neon", "avx2", "avx512"];

thread_local! {
    static CHOSEN: Cell<Option<Isa>> = const { Cell::new(None) };
}

impl Isa {
    /// The instruction set of that name, if this CPU has it.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "portable" => Some(Self::Portable(Portable)),
            #[cfg(target_arch = "aarch64")]
            "neon" => Neon::detect().map(Self::Neon),
            #[cfg(target_arch = "x86_64")]
            "avx2" => Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            "avx512" => Avx512::detect().map(Self::Avx512),
            _ => None,
        }
    }

    /// Every instruction set that this CPU has, lowest first.
    pub fn all() -> Vec<Self> {
        NAMES.iter().filter_map(|name| Self::named(name)).collect()
    }

    /// The name that `FORETOKEN_ISA` uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable(_) => "portable",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
        }
    }

    /// The best instruction set of this CPU at or below the ceiling named `ceiling` (`None`: no ceiling).
    ///
    /// # Errors
    /// Returns [`Error::Setting`] for a name that is not one of [`NAMES`].
    pub fn best(ceiling: Option<&str>) -> Result<Self> {
        let highest = match ceiling {
            None => NAMES.len() - 1,
            Some(name) => NAMES.iter().position(|n| *n == name).ok_or_else(|| {
                let expected = format!("one of {}", NAMES.join(", "));
                Error::setting(CEILING, expected, format!("`{name}`"))
            })?,
        };
        Ok(Self::best_of(&NAMES[..=highest]))
    }

    fn best_of(names: &[&str]) -> Self {
        let mut found = names.iter().rev().filter_map(|name| Self::named(name));
        found.next().unwrap_or(Self::Portable(Portable))
    }

    /// The best instruction set that the environment allows.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] if `FORETOKEN_ISA` holds an unknown name.
    pub fn from_environment() -> Result<Self> {
        match std::env::var_os(CEILING) {
            None => Self::best(None),
            Some(value) => Self::best(Some(&value.to_string_lossy())),
        }
    }

    /// The instruction set of kernels that this thread starts.
    ///
    /// It is the one of [`Isa::scope`], else that of the environment. If `FORETOKEN_ISA` holds an unknown name there is
    /// no ceiling: [`Isa::from_environment`], [`Threads::new`](crate::kernels::par::Threads::new) and
    /// [`check_environment`](crate::kernels::par::check_environment) return the error.
    pub fn current() -> Self {
        static DEFAULT: OnceLock<Isa> = OnceLock::new();
        CHOSEN.get().unwrap_or_else(|| {
            *DEFAULT.get_or_init(|| Self::from_environment().unwrap_or(Self::best_of(&NAMES)))
        })
    }

    /// Runs `f` with this instruction set for all kernels started by this thread.
    pub fn scope<R>(self, f: impl FnOnce() -> R) -> R {
        struct Restore(Option<Isa>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CHOSEN.set(self.0);
            }
        }
        let _restore = Restore(CHOSEN.replace(Some(self)));
        f()
    }
}

/// Runs a kernel on the current instruction set.
#[inline]
pub fn run<R, K: Kernel<R>>(kernel: K) -> R {
    match Isa::current() {
        Isa::Portable(s) => kernel.run(s),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(s) => s.enter(kernel),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(s) => s.enter(kernel),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(s) => s.enter(kernel),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_is_never_exceeded() {
        for (rank, name) in NAMES.iter().enumerate() {
            let best = Isa::best(Some(name)).expect("a known name");
            let found = NAMES.iter().position(|n| *n == best.name());
            assert!(found.expect("a listed name") <= rank);
        }
    }

    #[test]
    fn an_unknown_name_is_refused_by_name() {
        let error = Isa::best(Some("sse9")).expect_err("no such instruction set");
        assert!(error.to_string().contains("sse9"));
    }

    #[test]
    fn a_scope_ends() {
        let before = Isa::current().name();
        Isa::Portable(Portable).scope(|| assert_eq!(Isa::current().name(), "portable"));
        assert_eq!(Isa::current().name(), before);
    }
}
