//! Layers: a file names its own folder and lower layers only. Folders on the same layer do not name each other.

use crate::imports::imports;
use crate::source::{Finding, Source, Tree};

/// A folder under `src` and its layer.
struct Layer {
    number: u8,
    folder: &'static str,
}

const fn layer(number: u8, folder: &'static str) -> Layer {
    Layer { number, folder }
}

/// From the bottom up.
const LAYERS: [Layer; 14] = [
    // Atomic writing, hashing and escaping, for every layer above.
    layer(0, "files"),
    layer(0, "simd"),
    layer(1, "kernels"),
    layer(2, "tensor"),
    // Names no operation: the tape knows the trait, the operations come from above.
    layer(3, "autograd"),
    layer(4, "ops"),
    layer(5, "exec"),
    layer(5, "data"),
    layer(6, "model"),
    layer(7, "checkpoint"),
    layer(8, "train"),
    layer(8, "infer"),
    // Only with the feature `cuda`.
    layer(9, "gpu"),
    // Only with the feature `cli`.
    layer(10, "cli"),
];

/// What the crate's root offers to every layer.
const EVERYWHERE: [&str; 4] = ["error", "Error", "Result", "profile"];

/// Files that put the layers together and may name them all.
const ROOTS: [&str; 2] = ["src/lib.rs", "src/main.rs"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust_in("src")
        .filter(|file| !ROOTS.contains(&file.path.as_str()))
        .flat_map(check_file)
        .collect()
}

pub fn check_presence(tree: &Tree) -> Vec<Finding> {
    LAYERS
        .iter()
        .map(|layer| format!("src/{}", layer.folder))
        .filter(|folder| tree.rust_in(folder).next().is_none())
        .map(|path| Finding {
            path,
            line: 1,
            what: "the folder is missing or has no Rust file".to_owned(),
        })
        .collect()
}

fn check_file(file: &Source) -> Vec<Finding> {
    let own = match file.folder() {
        None => None,
        Some(folder) => match layer_of(folder) {
            None => {
                let what =
                    format!("folder `{folder}` has no layer: add it to the list in layers.rs");
                return vec![file.finding(0, what)];
            }
            layer => layer,
        },
    };
    names(file)
        .into_iter()
        .filter_map(|(at, name)| Some(file.finding(at, breach(own, &name)?)))
        .collect()
}

fn layer_of(name: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.folder == name)
}

/// What is wrong with naming `crate::name` on the layer `own` (none: a file directly in `src`).
fn breach(own: Option<&Layer>, name: &str) -> Option<String> {
    if EVERYWHERE.contains(&name) {
        return None;
    }
    let Some(named) = layer_of(name) else {
        return Some(format!(
            "names `crate::{name}`, which is no layer; only {EVERYWHERE:?} may be named everywhere"
        ));
    };
    match own {
        Some(own) if named.folder == own.folder || named.number < own.number => None,
        Some(own) => Some(format!(
            "{} (layer {}) names `crate::{name}` (layer {})",
            own.folder, own.number, named.number
        )),
        None => Some(format!(
            "a file directly in src names the layer `crate::{name}`; only lib.rs and main.rs may"
        )),
    }
}

/// The first name of every path from the crate's root.
fn names(file: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for import in imports(file, &file.code) {
        let name = import.path.into_iter().next().unwrap_or_default();
        if !import.climbs || layer_of(&name).is_some() {
            found.push((import.at, name));
        }
    }
    // The paths of one group have one place.
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let found = check(&Tree::of(&[(path, text)]));
        found.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn higher_layers_and_neighbours_are_caught() {
        for (path, text, line, name) in [
            ("src/ops/a.rs", "use crate::exec::TapeExec;", 1, "exec"),
            (
                "src/simd/a.rs",
                "\nfn f() { crate::kernels::g() }",
                2,
                "kernels",
            ),
            ("src/exec/a.rs", "use crate::data;", 1, "data"),
            ("src/train/mod.rs", "use crate::infer::x;", 1, "infer"),
            ("src/autograd/a.rs", "use crate::ops::Add;", 1, "ops"),
            (
                "src/tensor/a.rs",
                "use crate::{\n    error::Error,\n    kernels::{gemm, cli},\n    model::{self, x},\n};",
                4,
                "model",
            ),
            ("src/tensor/a.rs", "use crate :: {kernels, ops};", 1, "ops"),
            (
                "src/tensor/a.rs",
                "#[cfg(test)]\nmod tests {\n    use crate::ops;\n}",
                3,
                "ops",
            ),
            (
                "src/tensor/a.rs",
                "fn f() { $crate::train::x!() }",
                1,
                "train",
            ),
            ("src/tensor/a.rs", "use foretoken::train;", 1, "train"),
            ("src/tensor/a.rs", "use super::super::train::x;", 1, "train"),
            (
                "src/tensor/mod.rs",
                "use super::{kernels, train};",
                1,
                "train",
            ),
            (
                "src/tensor/a/b.rs",
                "use super::super::super::train;",
                1,
                "train",
            ),
            (
                "src/tensor/a.rs",
                "pub(in crate::train) fn f() {}",
                1,
                "train",
            ),
            ("src/error.rs", "use crate::simd;", 1, "simd"),
        ] {
            let found = findings(path, text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(
                found[0].starts_with(&format!("  {path}:{line}: ")),
                "{}",
                found[0]
            );
            assert!(
                found[0].contains(&format!("`crate::{name}`")),
                "{}",
                found[0]
            );
        }
    }

    #[test]
    fn what_is_no_layer_is_caught() {
        for (path, text) in [
            ("src/ops/a.rs", "use crate::*;"),
            ("src/ops/a.rs", "use crate::VERSION;"),
            ("src/ops/a.rs", "use crate as root;"),
            ("src/ops/a.rs", "use crate::{self as root};"),
            ("src/extra/a.rs", "fn f() {}"),
        ] {
            assert_eq!(findings(path, text).len(), 1, "{text}");
        }
    }

    #[test]
    fn what_is_allowed_passes() {
        for (path, text) in [
            (
                "src/ops/a.rs",
                "use crate::{\n    Error, Result,\n    autograd::Op,\n    ops::b,\n};",
            ),
            (
                "src/ops/a.rs",
                "pub(crate) fn f() -> crate::error::Result<()> { crate::simd::g() }",
            ),
            (
                "src/ops/a.rs",
                "// use crate::exec;\n/// [`crate::cli`]\nfn f() { g(\"crate::train\") }",
            ),
            (
                "src/ops/a.rs",
                "use super::add;\n#[cfg(test)]\nmod laws { use super::super::add; }",
            ),
            (
                "src/simd/mod.rs",
                "mod tests { use super::*; use super::avx2::f; }",
            ),
            ("src/lib.rs", "pub use crate::cli::run;"),
            ("src/main.rs", "fn main() { foretoken::cli::run() }"),
            ("tests/a.rs", "use crate::anything;"),
        ] {
            assert_eq!(findings(path, text), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_missing_layer_is_caught() {
        let mut files: Vec<(String, &str)> = LAYERS
            .iter()
            .map(|layer| (format!("src/{}/mod.rs", layer.folder), ""))
            .collect();
        let present = |files: &[(String, &str)]| {
            let files: Vec<_> = files.iter().map(|(p, t)| (p.as_str(), *t)).collect();
            check_presence(&Tree::of(&files)).len()
        };
        assert_eq!(present(&files), 0);
        files.remove(3);
        assert_eq!(present(&files), 1);
    }
}
