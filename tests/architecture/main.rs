//! Rules about the shape of the source, as tests that read the files.
//!
//! Each rule is a function from the files to findings, so that it can be run on small made-up trees too. A rule that
//! silently matches nothing would pass forever, so every module ends with tests of what it must catch and what it must
//! leave alone.
//!
//! - `source`: the files, and their code without comments, strings and tests
//! - `imports`: the paths that a file names
//! - `layers`: which folder may name which
//! - `circles`: files of a folder that name each other
//! - `safety`: which code may be `unsafe`
//! - `arithmetic`: no libm, no stray fused multiply-add, one user of rayon
//! - `shape`: the sections of an operation, module docs, dependencies, chapters

mod arithmetic;
mod circles;
mod imports;
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
fn a_layer_names_only_lower_layers() {
    enforce(
        "a file names (`crate::x`) its own folder and folders of strictly lower layers only",
        "each layer can then be read, tested and replaced knowing only what is below it",
        layers::check,
    );
}

#[test]
fn every_layer_exists() {
    enforce(
        "every folder of the list of layers exists",
        "a misspelt folder in the list would switch its rules off",
        layers::check_presence,
    );
}

#[test]
fn no_circles() {
    enforce(
        "files of one folder do not name each other in a circle",
        "a file in a circle cannot be understood without all the others",
        circles::check,
    );
}

#[test]
fn unsafe_stays_in_its_folders() {
    enforce(
        "`unsafe_code` is denied, and allowed for src/simd, src/gpu and the benches that call other libraries only",
        "whoever audits memory safety reads these folders and nothing else",
        safety::check,
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
        "the folder's page is its map, and a reader does not find a file that it omits",
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
        "every docs/*.md except the log and the pages for contributors is in an `include_str!(\"...docs/NAME.md\")` in src",
        "a chapter that rustdoc compiles has examples that run, and cannot rot unseen",
        shape::check_chapters,
    );
}

#[test]
fn links_lead_somewhere_in_files_and_in_rustdoc() {
    enforce(
        "README and chapters link to files by labels, and src/links.md has every label",
        "a path to a file is dead in rustdoc, and a path to an item is dead on a code host",
        shape::check_links,
    );
}
