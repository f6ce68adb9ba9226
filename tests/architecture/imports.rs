//! The paths that a file names, seen from the crate's root.

use crate::source::{Source, in_word, words};

/// A path such as `["infer", "draft", "Drafter"]` and where it stands in the file.
pub struct Import {
    pub at: usize,
    pub path: Vec<String>,
    /// Climbs with `super`. Inside a module of the file it climbs from there, so that the path may be too short.
    pub climbs: bool,
}

/// Every path that `code`, the text of `file` or a part of it, names from the crate's root or by climbing with `super`:
/// `crate::a::b`, each path of `crate::{a::b, c}`, `foretoken::a`, and `super::a`.
pub fn imports(file: &Source, code: &str) -> Vec<Import> {
    let mut found = Vec::new();
    for root in ["crate", "foretoken"] {
        for at in words(code, root) {
            let after = at + root.len();
            if let Some(next) = after_colons(code, after) {
                expand(code, next, None, &[], &mut found);
            } else if code[after..].trim_start().starts_with("as ") {
                found.push(Import {
                    at,
                    path: vec!["self".to_owned()],
                    climbs: false,
                });
            }
        }
    }
    let module = module(file);
    for at in words(code, "super") {
        if code[..at].trim_end().ends_with("::") {
            continue;
        }
        let (mut climbed, mut next) = (0, at);
        while code[next..].starts_with("super") {
            let Some(after) = after_colons(code, next + "super".len()) else {
                break;
            };
            (climbed, next) = (climbed + 1, after);
        }
        let base = &module[..module.len().saturating_sub(climbed)];
        if climbed > 0 {
            let known = found.len();
            expand(code, next, None, base, &mut found);
            found[known..].iter_mut().for_each(|i| i.climbs = true);
        }
    }
    found
}

/// The paths of a `use` tree that starts at `at`, below `prefix`. Returns where it ends.
pub fn expand(
    code: &str,
    at: usize,
    first: Option<usize>,
    prefix: &[String],
    found: &mut Vec<Import>,
) -> usize {
    let mut at = at + space(&code[at..]);
    if code[at..].starts_with('{') {
        at += 1;
        loop {
            at += space(&code[at..]);
            match code.as_bytes().get(at) {
                None => return at,
                Some(b'}') => return at + 1,
                Some(b',') => at += 1,
                _ => at = expand(code, at, first, prefix, found),
            }
        }
    }
    let length = { code[at..].bytes() }.take_while(|b| in_word(*b)).count();
    let first = first.unwrap_or(at);
    // One byte at least, such as the * of a glob, so that every call moves on.
    let end = at + length.max(1).min(code.len() - at);
    let mut path = prefix.to_vec();
    path.push(code[at..end].to_owned());
    if let Some(next) = after_colons(code, end).filter(|next| !code[*next..].starts_with('<')) {
        return expand(code, next, Some(first), &path, found);
    }
    found.push(Import {
        at: first,
        path,
        climbs: false,
    });
    let after = end + space(&code[end..]);
    match code[after..].strip_prefix("as ") {
        Some(name) => after + 3 + name.bytes().take_while(|b| in_word(*b)).count(),
        None => end,
    }
}

fn space(code: &str) -> usize {
    code.len() - code.trim_start().len()
}

/// The offset of the next token after `::`, if `::` comes next.
fn after_colons(code: &str, at: usize) -> Option<usize> {
    let rest = code[at..].trim_start().strip_prefix("::")?.trim_start();
    Some(code.len() - rest.len())
}

/// `["a", "b"]` for `src/a/b.rs` and for `src/a/b/mod.rs`.
fn module(file: &Source) -> Vec<String> {
    let path = file.path.strip_prefix("src/").unwrap_or_default();
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_the_root() {
        for (file, text, expected) in [
            ("src/a/b.rs", "use crate::c::D;", "c::D"),
            ("src/a/b.rs", "x(foretoken :: c::d())", "c::d"),
            ("src/a/b.rs", "use super::c::D;", "a::c::D"),
            ("src/a/mod.rs", "use super::c::D;", "c::D"),
            ("src/a/b/c.rs", "use super::super::d;", "a::d"),
            (
                "src/a/b.rs",
                "use crate::{c, d::{self, E as F, g::*}, h};",
                "c d::self d::E d::g::* h",
            ),
            (
                "src/a/b.rs",
                "use super::{c::D, E};\nf::<crate::g::H>()",
                "g::H a::c::D a::E",
            ),
            ("src/a/b.rs", "crate::c::d::<E>()", "c::d"),
            ("src/a/b.rs", "pub(super) fn f(self, x: crate::C) {}", "C"),
            ("src/a/b.rs", "use crate::{c", "c"),
        ] {
            let source = Source::new(file, text);
            let found = imports(&source, &source.code);
            let paths: Vec<String> = found.iter().map(|import| import.path.join("::")).collect();
            assert_eq!(paths.join(" "), expected, "{text}");
        }
    }
}
