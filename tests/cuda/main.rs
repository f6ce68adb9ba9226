//! A device against the CPU, bit by bit.
//!
//! On the first GPU where there is one, else on the emulation in both orders of threads, else nowhere. Which of these it
//! was is said on the error stream.

mod attention;
mod models;
mod pick;
mod products;
mod rows;

use foretoken::gpu::{Device, Order};
use std::io::Write;
use std::sync::Once;

/// Says something once, where tests that pass cannot hide it.
fn say(what: &str) {
    static SAID: Once = Once::new();
    SAID.call_once(|| _ = writeln!(std::io::stderr(), "\n{what}"));
}

/// The devices to test. `FORETOKEN_REQUIRE_CUDA=1` makes it a failure that there is no GPU.
pub fn devices() -> Vec<Device> {
    let why = match Device::open() {
        Ok(device) => {
            say(&format!("tested on {}", device.name()));
            return vec![device];
        }
        Err(why) => why,
    };
    let required = std::env::var("FORETOKEN_REQUIRE_CUDA").is_ok_and(|v| v == "1");
    assert!(
        !required,
        "FORETOKEN_REQUIRE_CUDA=1, and there is no GPU: {why}"
    );
    // One that is there has to work.
    assert!(why.to_string().starts_with("no CUDA"), "{why}");
    let orders = [Order::Ascending, Order::Descending];
    let emulated: Result<Vec<Device>, _> = orders.into_iter().map(Device::emulated).collect();
    if emulated.is_ok() {
        say(&format!("tested on the emulation: {why}"));
    }
    emulated.unwrap_or_else(|no_compiler| {
        // One that is there has to compile the kernels.
        let missing = no_compiler.to_string().starts_with("no C++ compiler");
        assert!(missing, "{no_compiler}");
        say(&format!(
            "NOTHING WAS TESTED: no GPU ({why}) and no emulation ({no_compiler})"
        ));
        Vec::new()
    })
}

/// One of them.
pub fn device() -> Option<Device> {
    devices().into_iter().next()
}
