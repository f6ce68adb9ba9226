//! Circles: files of a folder that name each other, directly or through others.

use crate::imports::{Import, expand, imports};
use crate::source::{Finding, Source, Tree, words};
use std::collections::{BTreeMap, VecDeque};

/// The folders without circles.
const FOLDERS: [&str; 4] = ["src/cli", "src/gpu", "src/infer", "src/kernels/gemm"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    FOLDERS.iter().flat_map(|f| circles(tree, f)).collect()
}

/// Which file names which in a folder, and where. A subfolder counts as the file of its name.
type Graph<'a> = BTreeMap<String, BTreeMap<String, (&'a Source, usize)>>;

fn circles(tree: &Tree, folder: &str) -> Vec<Finding> {
    let graph = graph(tree, folder);
    let mut findings = Vec::new();
    for start in graph.keys() {
        let Some(circle) = shortest(&graph, start) else {
            continue;
        };
        // Each circle is found from each of its files.
        if circle.iter().min() == Some(start) {
            let (file, at) = graph[start][&circle[1 % circle.len()]];
            let what = format!("a circle: {} -> {start}", circle.join(" -> "));
            findings.push(file.finding(at, what));
        }
    }
    findings
}

/// The shortest path from a file back to it.
fn shortest(graph: &Graph, start: &str) -> Option<Vec<String>> {
    let mut ways = VecDeque::from([vec![start.to_owned()]]);
    let mut seen = Vec::new();
    while let Some(way) = ways.pop_front() {
        let next = graph.get(way.last()?).into_iter().flat_map(BTreeMap::keys);
        for name in next {
            if name == start {
                return Some(way);
            }
            if !seen.contains(name) {
                seen.push(name.clone());
                ways.push_back([&way[..], std::slice::from_ref(name)].concat());
            }
        }
    }
    None
}

fn graph<'a>(tree: &'a Tree, folder: &'a str) -> Graph<'a> {
    let stem = |file: &Source| {
        let name = file.path[folder.len() + 1..].split('/').next();
        name.unwrap_or_default().trim_end_matches(".rs").to_owned()
    };
    let stems: Vec<String> = tree.rust_in(folder).map(stem).collect();
    let prefix: Vec<String> = { folder.split('/').skip(1) }.map(str::to_owned).collect();
    // What mod.rs re-exports belongs to the file that defines it.
    let mut exports = BTreeMap::new();
    let mut graph = Graph::new();
    let root = tree.rust_in(folder).find(|file| stem(file) == "mod");
    if let Some(root) = root {
        let code = root.shipped();
        for at in words(&code, "use") {
            let public = code[..at].trim_end().ends_with(['b', ')']);
            let mut uses = Vec::new();
            expand(&code, at + "use".len(), None, &[], &mut uses);
            for Import { path, .. } in uses {
                if let [first, .., last] = &path[..]
                    && stems.contains(first)
                    && public
                {
                    exports.insert(last.clone(), first.clone());
                }
            }
        }
        for child in &stems {
            for at in words(&code, child) {
                let line = code[..at].rfind('\n').map_or(0, |newline| newline + 1);
                let public = code[line..at].trim_start().starts_with("pub");
                if code[at + child.len()..].starts_with("::") && !public {
                    let edges = graph.entry("mod".to_owned()).or_default();
                    edges.entry(child.clone()).or_insert((root, at));
                }
            }
        }
    }
    for file in tree.rust_in(folder).filter(|file| stem(file) != "mod") {
        for Import { at, path, .. } in imports(file, &file.shipped()) {
            let Some([name, ..]) = path.strip_prefix(&prefix[..]) else {
                continue;
            };
            let target = match exports.get(name) {
                _ if stems.contains(name) => name.clone(),
                Some(target) => target.clone(),
                None => "mod".to_owned(),
            };
            if target != stem(file) {
                let edges = graph.entry(stem(file)).or_default();
                edges.entry(target).or_insert((file, at));
            }
        }
    }
    graph
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let found = circles(&Tree::of(files), "src/a/b");
        found.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn circles_are_caught() {
        let root = "mod x;\npub mod y;\npub use y::{Y, Z as W};\n";
        for (x, y) in [
            ("use super::y;", "\nuse super::x::X;"),
            ("use crate::a::b::y::Y;", "\nfn f(x: super::x::X) {}"),
            ("use super::Y;", "\nuse super::{x::X, q};"),
        ] {
            let files = [
                ("src/a/b/mod.rs", root),
                ("src/a/b/x.rs", x),
                ("src/a/b/y.rs", y),
            ];
            let found = found(&files);
            assert_eq!(found.len(), 1, "{x} {y}: {found:?}");
            assert!(found[0].starts_with("  src/a/b/x.rs:1:"), "{}", found[0]);
            assert!(found[0].ends_with("x -> y -> x"), "{}", found[0]);
        }
        let three = found(&[
            ("src/a/b/x.rs", "use super::y;"),
            ("src/a/b/y.rs", "use super::z;"),
            ("src/a/b/z/deep.rs", "use super::super::x;"),
        ]);
        assert_eq!(three.len(), 1, "{three:?}");
        // What is defined in mod.rs, which needs the file.
        let root = found(&[
            ("src/a/b/mod.rs", "mod x;\nfn f() { x::g() }\nstruct F;"),
            ("src/a/b/x.rs", "use super::F;"),
        ]);
        assert!(root.len() == 1 && root[0].contains("mod -> x"), "{root:?}");
    }

    #[test]
    fn what_is_no_circle_passes() {
        let root = "mod x;\nmod y;\npub use x::X;\npub use y::Y;\n";
        for (x, y) in [
            ("use super::y::Y;", "use crate::a::c;"),
            ("use super::Y;", "#[cfg(test)]\nmod tests { use super::x; }"),
            ("use super::Y;\nuse super::super::y;", "// use super::x;"),
        ] {
            let files = [
                ("src/a/b/mod.rs", root),
                ("src/a/b/x.rs", x),
                ("src/a/b/y.rs", y),
            ];
            assert_eq!(found(&files), [""; 0], "{x} {y}");
        }
    }
}
