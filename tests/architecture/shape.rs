//! The shape of files and folders: sections, maps, dependencies, chapters.

use crate::source::{Finding, Source, Tree, item_end, words};

/// The packages that the crate may depend on.
const DEPENDENCIES: [&str; 19] = [
    "clap",
    "clap_complete",
    "clap_mangen",
    "cudarc",
    "indicatif",
    "libloading",
    "plotters",
    "rand",
    "rand_chacha",
    "rayon",
    "safetensors",
    "serde",
    "serde_json",
    "memchr",
    "half",
    "sha2",
    "signal-hook",
    "thiserror",
    "tokenizers",
];

pub fn check_ops(tree: &Tree) -> Vec<Finding> {
    tree.rust_in("src/ops")
        .filter(|file| {
            let name = file.path.rsplit('/').next();
            // A folder's map, and the test code that operations share.
            !matches!(name, Some("mod.rs" | "testing.rs" | "tests.rs"))
        })
        .filter_map(|file| {
            let (at, what) = op_breach(file)?;
            Some(file.finding(at, what))
        })
        .collect()
}

/// The first section that is not where it belongs. Each is looked for after the one before it.
fn op_breach(file: &Source) -> Option<(usize, String)> {
    if !file.text.starts_with("//!") {
        return Some((0, "does not begin with `//!` docs (the maths)".to_owned()));
    }
    let code = &file.code;
    let mut from = 0;
    for mark in [
        "pub struct",
        "Saved",
        "fn forward",
        "fn backward",
        "mod laws",
    ] {
        // `Saved` may be part of a name (`LinearSaved`); the others are whole words.
        let place = if mark == "Saved" {
            code[from..].find(mark)
        } else {
            words(&code[from..], mark).next()
        };
        let Some(place) = place else {
            let what =
                format!("from here on there is no `{mark}` (section missing or out of order)");
            return Some((from, what));
        };
        from += place + mark.len();
    }
    let end = item_end(code, from);
    let rest = code[end..].trim_start();
    let what = "code after `mod laws`, which ends the file".to_owned();
    (!rest.is_empty()).then(|| (code.len() - rest.len(), what))
}

pub fn check_mod_docs(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust_in("src") {
        let folder = file.path.strip_suffix("/mod.rs").unwrap_or_default();
        if folder.matches('/').count() != 1 {
            continue;
        }
        let docs: Vec<&str> = file
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        if docs.is_empty() {
            findings.push(file.finding(0, "does not begin with `//!` docs"));
            continue;
        }
        let docs = docs.join("\n");
        for stem in siblings(tree, folder) {
            let listed = [
                format!("`{stem}`"),
                format!("`{stem}.rs`"),
                format!("[{stem}]"),
            ];
            if !listed.iter().any(|form| docs.contains(form)) {
                findings.push(file.finding(0, format!("the docs do not list `{stem}`")));
            }
        }
    }
    findings
}

/// The stems of a folder's files, and the names of its folders.
fn siblings(tree: &Tree, folder: &str) -> Vec<String> {
    let mut stems: Vec<String> = tree
        .rust_in(folder)
        .filter_map(|file| {
            let name = file.path[folder.len() + 1..].split('/').next()?;
            Some(name.trim_end_matches(".rs").to_owned())
        })
        .filter(|stem| stem != "mod")
        .collect();
    stems.sort();
    stems.dedup();
    stems
}

pub fn check_dependencies(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.0.iter().filter(|file| file.path == "Cargo.toml") {
        for (at, name) in dependencies(&file.text) {
            if !DEPENDENCIES.contains(&name) {
                findings.push(file.finding(at, format!("`{name}` is not on the list")));
            }
        }
    }
    findings
}

/// The keys of `[dependencies]` and of `[target.*.dependencies]`; tests and benches are free.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut at, mut inside) = (0, false);
    for line in manifest.split_inclusive('\n') {
        let content = line.split('#').next().unwrap_or_default().trim();
        if let Some(header) = content
            .strip_prefix('[')
            .filter(|header| !header.starts_with('"'))
        {
            let header = header.trim_end_matches(']');
            inside = header == "dependencies" || header.ends_with(".dependencies");
            // [dependencies.name]
            let parent = header.rsplit_once('.');
            if let Some((parent, name)) = parent
                && (parent == "dependencies" || parent.ends_with(".dependencies"))
            {
                found.push((at, name));
            }
        } else if inside && let Some((key, _)) = content.split_once('=') {
            let name = key.split('.').next().unwrap_or_default().trim();
            found.push((at, name.trim_matches('"')));
        }
        at += line.len();
    }
    found
}

pub fn check_chapters(tree: &Tree) -> Vec<Finding> {
    let included: Vec<&str> = tree.rust_in("src").flat_map(included_files).collect();
    tree.0
        .iter()
        .filter(|file| is_chapter(&file.path))
        .filter(|file| {
            !included
                .iter()
                .any(|path| path.ends_with(&format!("/{}", file.path)))
        })
        .map(|file| file.finding(0, "no `include_str!` in src compiles this chapter"))
        .collect()
}

/// Files in docs without examples: numbers and verdicts, and pages for contributors.
const NOT_CHAPTERS: [&str; 3] = ["log.md", "CONTRIBUTING.md", "SECURITY.md"];

/// A file directly in docs, except those of [`NOT_CHAPTERS`].
fn is_chapter(path: &str) -> bool {
    path.strip_prefix("docs/").is_some_and(|name| {
        name.ends_with(".md") && !name.contains('/') && !NOT_CHAPTERS.contains(&name)
    })
}

/// In files that rustdoc shows, a link to a file or an item stands in the definition of a label, `[label]: target`.
/// `src/links.md` defines the same label for rustdoc.
pub fn check_links(tree: &Tree) -> Vec<Finding> {
    let links = tree.0.iter().find(|file| file.path == "src/links.md");
    let links = links.map_or("", |file| &*file.text);
    let mut findings = Vec::new();
    for file in &tree.0 {
        if file.path != "README.md" && !is_chapter(&file.path) {
            continue;
        }
        let mut at = 0;
        for line in file.text.split_inclusive('\n') {
            let label = line
                .split_once("]: ")
                .filter(|(label, target)| label.starts_with('[') && !target.starts_with("http"));
            if let Some((label, _)) = label
                && !links.contains(&format!("{label}]: "))
            {
                findings.push(file.finding(at, format!("`{label}]` is not in src/links.md")));
            }
            for (place, _) in line.match_indices("](") {
                let target = line[place + 2..].split(')').next().unwrap_or_default();
                if !target.starts_with("http") && !target.ends_with(".svg") {
                    findings.push(file.finding(at, format!("`{target}` is not behind a label")));
                }
            }
            at += line.len();
        }
    }
    findings
}

/// The literals of `include_str!("...")`. The place comes from the code, so that a comment does not
/// count; the text comes from the file, because the code has its literals blanked.
fn included_files(file: &Source) -> impl Iterator<Item = &str> {
    words(&file.code, "include_str").filter_map(|at| file.text[at..].split('"').nth(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(check: fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)]) -> Vec<String> {
        let found = check(&Tree::of(files));
        found.iter().map(Finding::to_string).collect()
    }

    const OP: &str = "//! y = x + x\nuse a::b;\npub struct Twice;\npub struct TwiceSaved;\n\
        impl Op for Twice {\n    type Saved = TwiceSaved;\n    fn forward() {}\n    fn backward() {}\n}\n\
        #[cfg(test)]\nmod laws {\n    fn f() {}\n}\n";

    #[test]
    fn an_operation_without_a_section_is_caught() {
        assert_eq!(findings(check_ops, &[("src/ops/twice.rs", OP)]), [""; 0]);
        let short = OP.replace("mod laws {\n    fn f() {}\n}", "mod laws;");
        assert_eq!(
            findings(check_ops, &[("src/ops/twice.rs", &short)]),
            [""; 0]
        );
        for (from, to) in [
            ("//!", "//"),
            ("pub struct", "struct"),
            ("Saved", "Kept"),
            ("fn forward", "fn forward_rows"),
            ("fn backward", "// fn backward"),
            ("mod laws", "mod tests"),
            (
                "    fn forward() {}\n    fn backward() {}",
                "fn backward() {}\nfn forward() {}",
            ),
            ("    fn f() {}\n}\n", "    fn f() {}\n}\nfn late() {}\n"),
        ] {
            let broken = OP.replace(from, to);
            let found = findings(check_ops, &[("src/ops/twice.rs", &broken)]);
            assert_eq!(found.len(), 1, "{from} -> {to}");
        }
        assert_eq!(
            findings(check_ops, &[("src/ops/mod.rs", ""), ("src/model/a.rs", "")]),
            [""; 0]
        );
    }

    #[test]
    fn a_file_missing_from_the_map_is_caught() {
        let docs = "//! Ops.\n//!\n//! - `add`: sums\n//! - [`mul`]\n//! - [sub]\n//! - `par.rs`\npub mod x;\n//! `late`\n";
        let files = |extra| {
            ["add", "mul", "sub", "par", "par/pool", extra]
                .map(|stem| (format!("src/ops/{stem}.rs"), ""))
                .into_iter()
                .chain([("src/ops/mod.rs".to_owned(), docs)])
                .collect::<Vec<_>>()
        };
        let found = |extra| {
            let files = files(extra);
            let files: Vec<_> = files
                .iter()
                .map(|(path, text)| (path.as_str(), *text))
                .collect();
            findings(check_mod_docs, &files)
        };
        assert_eq!(found("add"), [""; 0]);
        assert_eq!(found("late").len(), 1);
        assert_eq!(found("deep/mod").len(), 1);
        assert_eq!(
            findings(check_mod_docs, &[("src/ops/mod.rs", "pub mod x;")]).len(),
            1
        );
    }

    #[test]
    fn a_stray_dependency_is_caught() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\nclap = { version = \"4\", features = [\n  \"derive\",\n] }\n\
            # comment = \"1\"\nsneaky = \"1\"\nserde.workspace = true\n\"quoted\" = \"1\"\n[dev-dependencies]\nproptest = \"1\"\n\
            [target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n[dependencies.openssl]\nversion = \"1\"\n[profile.dev]\nopt-level = 1\n";
        let names: Vec<&str> = dependencies(manifest).iter().map(|found| found.1).collect();
        assert_eq!(
            names,
            ["clap", "sneaky", "serde", "quoted", "libc", "openssl"]
        );
        let found = findings(check_dependencies, &[("Cargo.toml", manifest)]);
        assert_eq!(found.len(), 4);
        assert!(
            found[0].starts_with("  Cargo.toml:8: `sneaky`"),
            "{}",
            found[0]
        );
    }

    #[test]
    fn a_link_that_is_dead_somewhere_is_caught() {
        let chapter = "[a][b] and [`c`](crate::c), [d](d.md)\n[e](http://e)\n![f](f.svg)\n[b]: b.md\n[g]: g.md\n[h]: http://h\n";
        let files = [
            ("src/links.md", "[b]: crate::b\n"),
            ("docs/00-map.md", chapter),
            ("docs/log.md", "[x](crate::x)"),
        ];
        let found = findings(check_links, &files);
        assert_eq!(found.len(), 3, "{found:?}");
        for (found, what) in found.iter().zip(["crate::c", "d.md", "[g]"]) {
            assert!(found.contains(what), "{found}");
        }
    }

    #[test]
    fn a_chapter_that_is_not_compiled_is_caught() {
        let lib =
            "#![doc = include_str!(\"../docs/00-map.md\")]\n// include_str!(\"../docs/01-a.md\")\n";
        let files = [
            ("src/lib.rs", lib),
            ("docs/00-map.md", ""),
            ("docs/01-a.md", ""),
            ("docs/log.md", ""),
            ("docs/notes/b.md", ""),
        ];
        let found = findings(check_chapters, &files);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("docs/01-a.md"), "{}", found[0]);
    }
}
