//! Which code may be `unsafe`. The lints in `Cargo.toml` deny `unsafe_code` (rustc) and `unsafe` blocks and impls
//! without a `SAFETY:` comment (clippy's `undocumented_unsafe_blocks`). By default clippy also warns about a visible
//! `unsafe fn` without a section `# Safety`. The rule here is that `Cargo.toml` keeps the two lines, and that
//! only the places listed below allow `unsafe_code`.

use crate::source::{Finding, Tree, words};

/// Places that allow `unsafe_code`. Benches call the functions of other libraries.
const ALLOWED: [(&str, &str); 4] = [
    ("src/lib.rs", "pub mod simd;"),
    ("src/lib.rs", "pub mod gpu;"),
    ("benches/gemm/main.rs", "mod peers;"),
    ("benches/cuda/main.rs", "mod cublas;"),
];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for at in words(&file.code, "unsafe_code") {
            let rest = file.code[at..].split_once(']').map_or("", |(_, rest)| rest);
            let item = rest.trim_start().lines().next().unwrap_or_default();
            if !ALLOWED.contains(&(&file.path, item)) {
                findings.push(file.finding(at, "`unsafe_code` is allowed here"));
            }
        }
    }
    for file in tree.0.iter().filter(|file| file.path == "Cargo.toml") {
        for lint in [
            "unsafe_code = \"deny\"",
            "undocumented_unsafe_blocks = \"deny\"",
        ] {
            if !file.text.lines().any(|line| line == lint) {
                findings.push(file.finding(0, format!("no line `{lint}`")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_places_are_caught() {
        let lints = "unsafe_code = \"deny\"\nundocumented_unsafe_blocks = \"deny\"\n";
        let count = |files: &[(&str, &str)]| check(&Tree::of(files)).len();
        assert_eq!(count(&[("Cargo.toml", lints)]), 0);
        assert_eq!(count(&[("Cargo.toml", &lints.replace("deny", "warn"))]), 2);
        let allow = "#[allow(unsafe_code)]\npub mod simd;";
        assert_eq!(count(&[("src/lib.rs", allow)]), 0);
        for (path, text) in [
            ("src/ops/mod.rs", allow),
            ("src/lib.rs", "#[allow(unsafe_code)]\npub mod ops;"),
            ("tests/a.rs", "#![allow(unsafe_code)]"),
            ("src/a.rs", "#![cfg_attr(x, expect(unsafe_code))]"),
        ] {
            assert_eq!(count(&[(path, text)]), 1, "{path} {text}");
        }
    }
}
