//! Floors: a lower floor never names a higher one, and neighbours never name each other.

use crate::source::{Finding, Source, Tree, in_word, words};

/// A folder under `src` and how high it stands.
struct Floor {
    folder: &'static str,
    number: u8,
    /// Whether the folder may be missing.
    optional: bool,
}

const fn floor(number: u8, folder: &'static str) -> Floor {
    Floor {
        folder,
        number,
        optional: false,
    }
}

/// From the ground up. Floors of one number are neighbours.
const FLOORS: [Floor; 14] = [
    // Atomic writing, hashing and escaping: as the error type, for everyone.
    floor(0, "files"),
    floor(0, "simd"),
    floor(1, "kernels"),
    floor(2, "tensor"),
    // Names no operation: the tape knows the trait, the operations come from above.
    floor(3, "autograd"),
    floor(4, "ops"),
    floor(5, "exec"),
    floor(5, "data"),
    floor(6, "model"),
    floor(7, "checkpoint"),
    floor(8, "train"),
    floor(8, "infer"),
    // In builds with the feature `cuda` only.
    floor(9, "gpu"),
    floor(10, "cli"),
];

/// What the crate's root offers to every floor.
const EVERYWHERE: [&str; 4] = ["error", "Error", "Result", "profile"];

/// Files that put the floors together and may name them all.
const ROOTS: [&str; 2] = ["src/lib.rs", "src/main.rs"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust_in("src")
        .filter(|file| !ROOTS.contains(&file.path.as_str()))
        .flat_map(check_file)
        .collect()
}

pub fn check_presence(tree: &Tree) -> Vec<Finding> {
    FLOORS
        .iter()
        .filter(|floor| !floor.optional)
        .map(|floor| format!("src/{}", floor.folder))
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
        Some(folder) => match floor_of(folder) {
            None => {
                let what =
                    format!("folder `{folder}` has no floor: add it to the list in floors.rs");
                return vec![file.finding(0, what)];
            }
            floor => floor,
        },
    };
    names(file)
        .into_iter()
        .filter_map(|(at, name)| Some(file.finding(at, breach(own, &name)?)))
        .collect()
}

fn floor_of(name: &str) -> Option<&'static Floor> {
    FLOORS.iter().find(|floor| floor.folder == name)
}

/// What is wrong with naming `crate::name` on the floor `own` (none: a file directly in `src`).
fn breach(own: Option<&Floor>, name: &str) -> Option<String> {
    if EVERYWHERE.contains(&name) {
        return None;
    }
    let Some(named) = floor_of(name) else {
        return Some(format!(
            "names `crate::{name}`, which is no floor; only {EVERYWHERE:?} may be named everywhere"
        ));
    };
    match own {
        Some(own) if named.folder == own.folder || named.number < own.number => None,
        Some(own) => Some(format!(
            "{} (floor {}) names `crate::{name}` (floor {})",
            own.folder, own.number, named.number
        )),
        None => Some(format!(
            "a file directly in src names the floor `crate::{name}`; only lib.rs and main.rs may"
        )),
    }
}

/// Every name reached from the crate's root, with its place: `crate::a`, `crate::{a::b, c}`,
/// `foretoken::a`, and `super::super::a` where the chain climbs out of the file's folder.
fn names(file: &Source) -> Vec<(usize, String)> {
    let code = &file.code;
    let mut found = Vec::new();
    for root in ["crate", "foretoken"] {
        for at in words(code, root) {
            let after = at + root.len();
            if let Some(path) = after_colons(code, after) {
                found.extend(first_names(code, path));
            } else if code[after..].trim_start().starts_with("as ") {
                found.push((at, "self".to_owned()));
            }
        }
    }
    // src/a/mod.rs is one module below the root, src/a/b.rs two. A module inside the file is deeper
    // still, so that a name here may be a sibling: only names of floors count.
    let depth = file.path.matches('/').count() - usize::from(file.path.ends_with("/mod.rs"));
    for at in words(code, "super") {
        if code[..at].trim_end().ends_with("::") {
            continue;
        }
        let (mut climbed, mut path) = (0, at);
        while code[path..].starts_with("super") {
            let Some(next) = after_colons(code, path + "super".len()) else {
                break;
            };
            (climbed, path) = (climbed + 1, next);
        }
        if climbed >= depth {
            let reached = first_names(code, path);
            found.extend(
                reached
                    .into_iter()
                    .filter(|(_, name)| floor_of(name).is_some()),
            );
        }
    }
    found
}

/// The offset of the next token after `::`, if `::` comes next.
fn after_colons(code: &str, at: usize) -> Option<usize> {
    let rest = code[at..].trim_start().strip_prefix("::")?.trim_start();
    Some(code.len() - rest.len())
}

/// The first segment of a path, or of every path of a group in braces.
fn first_names(code: &str, from: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let (mut depth, mut expecting, mut skip_to) = (0, true, from);
    for (i, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            _ if i < skip_to || byte.is_ascii_whitespace() => {}
            b'{' => {
                depth += 1;
                expecting = depth == 1;
            }
            b'}' => {
                depth -= 1;
                expecting = false;
            }
            b',' => expecting = depth == 1,
            _ if expecting => {
                let length = code[i..].bytes().take_while(|&b| in_word(b)).count().max(1);
                found.push((i, code[i..i + length].to_owned()));
                (expecting, skip_to) = (false, i + length);
            }
            _ => {}
        }
        if depth <= 0 && !expecting {
            break;
        }
    }
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
    fn higher_floors_and_neighbours_are_caught() {
        for (path, text, line, name) in [
            ("src/ops/a.rs", "use crate::exec::Train;", 1, "exec"),
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
    fn what_is_no_floor_is_caught() {
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
    fn a_missing_floor_is_caught() {
        let mut files: Vec<(String, &str)> = FLOORS
            .iter()
            .map(|floor| (format!("src/{}/mod.rs", floor.folder), ""))
            .collect();
        let present = |files: &[(String, &str)]| {
            let files: Vec<_> = files.iter().map(|(p, t)| (p.as_str(), *t)).collect();
            check_presence(&Tree::of(&files)).len()
        };
        assert_eq!(present(&files), 0);
        files.remove(3);
        let optional = usize::from(FLOORS[3].optional);
        assert_eq!(present(&files), 1 - optional);
    }
}
