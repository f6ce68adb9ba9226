//! Where `unsafe` may stand, and what it must say.

use crate::source::{Finding, Source, Tree, words};

/// The folders that whoever audits memory safety has to read; the last two call other libraries' unsafe functions and are
/// no part of the crate.
const FOLDERS: [&str; 4] = ["src/simd", "src/gpu", "benches/gemm", "benches/cuda"];

pub fn check_place(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|file| !FOLDERS.iter().any(|folder| file.is_rust_in(folder)))
        .flat_map(|file| {
            words(&file.code, "unsafe").map(|at| file.finding(at, "`unsafe` outside its folders"))
        })
        .collect()
}

pub fn check_reasons(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .flat_map(|file| {
            words(&file.code, "unsafe").filter_map(|at| Some(file.finding(at, missing(file, at)?)))
        })
        .collect()
}

/// What the `unsafe` at this offset should say and does not.
fn missing(file: &Source, at: usize) -> Option<&'static str> {
    let above = comments_above(&file.text, at);
    let has = |mark: &str| above.iter().any(|line| line.contains(mark));
    let rest = file.code[at + "unsafe".len()..].trim_start();
    // The words up to the body or the arguments say what kind of site this is.
    let head = rest.split(['{', '(', '<']).next().unwrap_or_default();
    let mut kinds = head
        .split_whitespace()
        .filter(|&kind| kind != "extern" && !kind.contains('"'));
    let line_start = file.code[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let public = file.code[line_start..at].trim_start().starts_with("pub ");
    match (kinds.next(), kinds.next()) {
        // A type: nothing is promised and nothing relied on.
        (Some("fn"), None) => None,
        (Some("fn"), Some(_)) | (Some("trait"), _) if has("# Safety") => None,
        (Some("fn"), Some(_)) if public => Some("public unsafe fn without a `# Safety` section"),
        (Some("trait"), _) => Some("unsafe trait without a `# Safety` section"),
        (Some("fn"), Some(_)) if has("SAFETY:") => None,
        (Some("fn"), Some(_)) => Some("unsafe fn without `# Safety` docs or a `SAFETY:` comment"),
        _ if has("SAFETY:") => None,
        _ => Some("unsafe without a `SAFETY:` comment directly above"),
    }
}

/// The contiguous comment lines above the line of `at`. Attributes may stand between, over several
/// lines too, and so may the first half of a statement that rustfmt broke after its `=`.
fn comments_above(text: &str, at: usize) -> Vec<&str> {
    let mut comments = Vec::new();
    let mut in_attribute = false;
    let line_start = text[..at].rfind('\n').unwrap_or(0);
    for (i, line) in text[..line_start].split('\n').rev().enumerate() {
        let line = line.trim();
        if in_attribute || line.starts_with("#[") {
            in_attribute = !line.starts_with("#[");
        } else if line.starts_with("//") {
            comments.push(line);
        } else if line.ends_with(")]") {
            in_attribute = true;
        } else if !(i == 0 && line.ends_with('=')) {
            break;
        }
    }
    comments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(text: &str) -> Vec<usize> {
        let found = check_reasons(&Tree::of(&[("src/simd/a.rs", text)]));
        found.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn unsafe_elsewhere_is_caught() {
        for path in [
            "src/ops/a.rs",
            "src/lib.rs",
            "tests/a.rs",
            "benches/a.rs",
            "src/simdx/a.rs",
        ] {
            let found = check_place(&Tree::of(&[(path, "\nfn f() { unsafe { g() } }")]));
            assert_eq!(found.len(), 1, "{path}");
            assert_eq!(found[0].line, 2, "{path}");
        }
        for (path, text) in [
            ("src/simd/avx2.rs", "unsafe fn f() {}"),
            ("src/gpu/a/b.rs", "unsafe fn f() {}"),
            ("src/ops/a.rs", "// unsafe\nfn f() { g(\"unsafe\") }"),
            ("src/lib.rs", "#![forbid(unsafe_op_in_unsafe_fn)]"),
        ] {
            assert_eq!(check_place(&Tree::of(&[(path, text)])).len(), 0, "{path}");
        }
    }

    #[test]
    fn silent_sites_are_caught() {
        for (text, line) in [
            ("fn f() {\n    unsafe { g() }\n}", 2),
            ("// SAFETY: far away\n\nlet x = unsafe { g() };", 3),
            (
                "// SAFETY: another statement's\nlet y = 1;\nlet x = unsafe { g() };",
                3,
            ),
            ("// because\nunsafe impl Send for A {}", 2),
            ("/// Docs.\nunsafe fn f() {}", 2),
            (
                "/// Docs.\n// SAFETY: not enough in public\npub unsafe fn f() {}",
                3,
            ),
            (
                "/// Docs.\n// SAFETY: nor here\npub const unsafe fn f<T>() {}",
                3,
            ),
            ("/// Docs.\npub unsafe trait A {}", 2),
            ("unsafe extern \"C\" {\n    fn f();\n}", 1),
            ("#[target_feature(enable = \"avx2\")]\nunsafe fn f() {}", 2),
        ] {
            assert_eq!(reasons(text), [line], "{text}");
        }
    }

    #[test]
    fn reasoned_sites_pass() {
        for text in [
            "// SAFETY: the token\n// proves it.\nlet x = unsafe { g() };",
            "// SAFETY: the token proves it.\nlet x =\n    unsafe { g() };",
            "// SAFETY: the token proves it.\n#[allow(clippy::x)]\nunsafe impl Send for A {}",
            "/// Docs.\n///\n/// # Safety\n/// The caller checks.\n#[inline]\npub unsafe fn f() {}",
            "/// # Safety\n/// The caller.\n#[cfg_attr(\n    a,\n    b(c)\n)]\npub(crate) unsafe fn f() {}",
            "/// # Safety\n/// Lanes.\npub unsafe trait A {}",
            "// SAFETY: as the trait says.\nunsafe fn f() {}",
            "struct A { f: unsafe fn(u8) -> u8, g: unsafe extern \"C\" fn() }",
            "// unsafe in words\nfn f() { g(\"unsafe { }\") }",
        ] {
            assert_eq!(reasons(text), [0; 0], "{text}");
        }
    }
}
