//! What `foretoken --version` says. `-V` is the short form, which names the version only.

use crate::model::config::ARITHMETIC_VERSION;
use crate::simd::Isa;
use std::sync::LazyLock;

/// Version of the program and of the arithmetic, instruction set, features, and the commit that `FORETOKEN_COMMIT`
/// named when the program was built.
pub fn long() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(|| {
        let available: Vec<&str> = Isa::all().into_iter().map(Isa::name).collect();
        let cuda = if cfg!(feature = "cuda") { ", cuda" } else { "" };
        let commit = option_env!("FORETOKEN_COMMIT");
        format!(
            "{}\narithmetic version: {ARITHMETIC_VERSION}\ninstruction set: {} of {}\nfeatures: cli, tokenizers{cuda}{}",
            env!("CARGO_PKG_VERSION"),
            Isa::current().name(),
            available.join(", "),
            commit.map_or_else(String::new, |commit| format!("\ncommit: {commit}")),
        )
    });
    &LONG
}
