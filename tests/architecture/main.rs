//! Tidy rules as tests: what the design promises about the shape of the source, read from the files.
//!
//! Each rule is a function from the tree's files to findings, so that it can be tried on small
//! made-up trees too. A rule that silently matches nothing would otherwise pass for ever: every
//! module ends with tests that feed its scanner what it must catch and what it must leave alone.
//!
//! - `source`: the files, and their code without comments, strings and tests
//! - `layers`: who may name whom
//! - `safety`: where `unsafe` may stand and what it must say
//! - `arithmetic`: no libm, no stray fused multiply-add, one user of rayon
//! - `shape`: file length, the sections of an operation, module docs, dependencies, chapters

mod arithmetic;
mod layers;
mod safety;
mod shape;
mod source;

use source::{Finding, Tree};

/// Fails with every finding, the rule and the reason for it.
#[track_caller]
fn enforce(rule: &str, why: &str, check: impl Fn(&Tree) -> Vec<Finding>) {
    let findings = check(&Tree::of_this_package());
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(
        findings.is_empty(),
        "\nrule: {rule}\nwhy:  {why}\n{}\n",
        lines.join("\n")
    );
}

#[test]
fn a_floor_names_only_lower_floors() {
    enforce(
        "a file names (`crate::x`) its own floor folder and strictly lower floors only",
        "then each floor can be read, tested and replaced knowing only what is below it",
        layers::check,
    );
}

#[test]
fn every_floor_exists() {
    enforce(
        "every folder of the floor list exists unless the list says optional",
        "a misspelt folder in the list would switch its rules off",
        layers::check_presence,
    );
}

#[test]
fn files_are_short() {
    enforce(
        "a Rust file has at most 400 lines",
        "a file is read in one sitting; a longer one holds two concepts",
        shape::check_length,
    );
}

#[test]
fn unsafe_stays_in_its_folders() {
    enforce(
        "the word unsafe occurs in src/simd and src/gpu only",
        "whoever audits memory safety reads these folders and nothing else",
        safety::check_place,
    );
}

#[test]
fn unsafe_says_why_it_is_sound() {
    enforce(
        "an unsafe block or impl has `// SAFETY:` directly above; a public unsafe fn has `# Safety`",
        "each site must say what it relies on and who guarantees it",
        safety::check_reasons,
    );
}

#[test]
fn rayon_has_one_user() {
    enforce(
        "rayon is named in src/kernels/par.rs or src/kernels/par/ only",
        "one place decides how work is split, so that threads can never change a result",
        arithmetic::check_rayon,
    );
}

#[test]
fn no_libm_decides_a_result() {
    enforce(
        "no exp, ln, sin, powi, ... of the standard library outside tests",
        "libm differs by platform and version (rule R4); use simd's or simd::scalar's functions",
        arithmetic::check_libm,
    );
}

#[test]
fn fused_multiply_add_stays_in_simd() {
    enforce(
        "mul_add occurs in src/simd only, tests aside",
        "where a product is fused is part of the arithmetic's definition, which lives in simd",
        arithmetic::check_mul_add,
    );
}

#[test]
fn an_operation_has_its_five_sections() {
    enforce(
        "a file in src/ops has, in order: `//!` maths, `pub struct`, a `Saved` type, \
         `fn forward`, `fn backward`, and `mod laws` at the end",
        "one layout for every operation; without its laws a gradient is only a claim",
        shape::check_ops,
    );
}

#[test]
fn a_mod_lists_its_files() {
    enforce(
        "src/*/mod.rs begins with `//!` docs that list every sibling file, as `stem` or [stem]",
        "the folder's page is its map; a file that it omits is a file that nobody finds",
        shape::check_mod_docs,
    );
}

#[test]
fn dependencies_are_the_agreed_ones() {
    enforce(
        "[dependencies] holds only packages on the list in tests/architecture/shape.rs",
        "every package is read, updated and trusted by all users; adding one is a decision",
        shape::check_dependencies,
    );
}

#[test]
fn chapters_are_compiled() {
    enforce(
        "every docs/*.md except log.md is in an `include_str!(\"...docs/NAME.md\")` in src",
        "a chapter that rustdoc compiles has examples that run, and cannot rot unseen",
        shape::check_chapters,
    );
}
