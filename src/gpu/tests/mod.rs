//! A device against the CPU, bit by bit.
//!
//! The device is the first GPU; without one, the emulation runs the same kernels in both orders of threads. Standard
//! error says which of them it was. `FORETOKEN_REQUIRE_CUDA=1` makes a missing GPU a failure,
//! `FORETOKEN_REQUIRE_EMULATION=1` a missing C++ compiler.

mod attention;
mod device;
mod emulated;
mod matmul;
mod models;
mod rows;
mod sample;

use super::device::Device;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// Whether an environment variable is 1.
fn is_required(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|v| v == "1")
}

/// Prints a line once, although the output of passing tests is captured.
fn report(line: &str) {
    static PRINTED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut printed = PRINTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !printed.iter().any(|known| known == line) {
        printed.push(line.to_owned());
        let _ = writeln!(std::io::stderr(), "\n{line}");
    }
}

/// The GPU, or the emulated devices.
fn devices() -> Vec<Device> {
    let why = match Device::open() {
        Ok(device) => {
            report(&format!("tested on {}", device.name()));
            return vec![device];
        }
        Err(why) => why,
    };
    let required = is_required("FORETOKEN_REQUIRE_CUDA");
    assert!(!required, "FORETOKEN_REQUIRE_CUDA=1: {why}");
    // A GPU that exists has to work.
    assert!(why.to_string().starts_with("no CUDA"), "{why}");
    let emulated = emulated::devices();
    if !emulated.is_empty() {
        report(&format!("tested on the emulation: {why}"));
    }
    emulated
}

/// One of them.
fn device() -> Option<Device> {
    devices().into_iter().next()
}
