//! The tree's files, and the views of a file's text that the rules scan.

use std::fmt;
use std::fs;
use std::path::Path;

/// One breach of a rule.
pub struct Finding {
    /// The file, relative to the package, with `/` between folders.
    pub path: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What stands there and what is wrong with it.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "  {}:{}: {}", self.path, self.line, self.what)
    }
}

/// One file.
pub struct Source {
    /// The file, relative to the package, with `/` between folders.
    pub path: String,
    /// The text as it is.
    pub text: String,
    /// The text with comments and the inside of string and character literals replaced by spaces,
    /// byte for byte, so that an offset means the same place in both.
    pub code: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") {
            blank(text)
        } else {
            text.to_owned()
        };
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
        }
    }

    /// A finding at a byte offset of the text.
    pub fn finding(&self, offset: usize, what: impl Into<String>) -> Finding {
        Finding {
            path: self.path.clone(),
            line: 1 + self.text[..offset].matches('\n').count(),
            what: what.into(),
        }
    }

    /// `simd` for `src/simd/scalar.rs`; none for a file directly in `src` or outside it.
    pub fn folder(&self) -> Option<&str> {
        Some(self.path.strip_prefix("src/")?.split_once('/')?.0)
    }

    pub fn is_rust_in(&self, folder: &str) -> bool {
        self.path.ends_with(".rs")
            && self
                .path
                .strip_prefix(folder)
                .is_some_and(|rest| rest.starts_with('/'))
    }

    /// The code that ships: without items marked `#[cfg(test)]`, and nothing of a test file.
    pub fn shipped(&self) -> String {
        let is_test_file = self.path.contains("/tests/")
            || ["/tests.rs", "/testing.rs"]
                .iter()
                .any(|name| self.path.ends_with(name));
        if is_test_file || self.code.contains("#![cfg(test)]") {
            return String::new();
        }
        let mut bytes = self.code.clone().into_bytes();
        for (start, _) in self.code.match_indices("#[cfg(test)]") {
            let end = item_end(&self.code, start + "#[cfg(test)]".len());
            blank_range(&mut bytes, start, end);
        }
        String::from_utf8(bytes).expect("whole literals and comments are blanked")
    }
}

/// All files that some rule reads.
pub struct Tree(pub Vec<Source>);

impl Tree {
    /// Reads the package that this test belongs to.
    pub fn of_this_package() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        for (folder, ending) in [
            ("src", "rs"),
            ("tests", "rs"),
            ("benches", "rs"),
            ("docs", "md"),
        ] {
            read_folder(root, folder, ending, &mut files);
        }
        for path in ["Cargo.toml", "README.md", "src/links.md"] {
            read_file(root, path, &mut files);
        }
        // The order of a directory listing differs by system; reports should not.
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self(files)
    }

    /// A made-up tree.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        Self(
            files
                .iter()
                .map(|(path, text)| Source::new(path, text))
                .collect(),
        )
    }

    pub fn rust_in<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a Source> {
        self.0.iter().filter(move |file| file.is_rust_in(folder))
    }

    pub fn rust(&self) -> impl Iterator<Item = &Source> {
        self.0.iter().filter(|file| file.path.ends_with(".rs"))
    }
}

fn read_folder(root: &Path, folder: &str, ending: &str, files: &mut Vec<Source>) {
    // A missing folder has no files; the rule about layers says which must exist.
    let Ok(entries) = fs::read_dir(root.join(folder)) else {
        return;
    };
    for entry in entries {
        let entry = entry.expect("a directory entry");
        let name = entry.file_name().into_string().expect("a UTF-8 file name");
        let path = format!("{folder}/{name}");
        if entry.path().is_dir() {
            read_folder(root, &path, ending, files);
        } else if entry.path().extension().is_some_and(|e| e == ending) {
            read_file(root, &path, files);
        }
    }
}

fn read_file(root: &Path, path: &str, files: &mut Vec<Source>) {
    let text = fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("read {path}: {e}"));
    files.push(Source::new(path, &text));
}

/// Offsets where `word` stands as a word of its own.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| {
            let before = code[..at].bytes().next_back();
            let after = code[at + word.len()..].bytes().next();
            !before.is_some_and(in_word) && !after.is_some_and(in_word)
        })
}

/// Whether a byte can be part of an identifier.
pub fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Where the item that starts at `from` ends: after its `;` or its closing brace.
pub fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0;
    for (i, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return i;
        }
        if depth == 0 && (byte == b';' || byte == b'}') {
            return i + 1;
        }
    }
    code.len()
}

fn blank_range(bytes: &mut [u8], from: usize, to: usize) {
    for byte in &mut bytes[from..to] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

/// Replaces comments and the inside of literals by spaces.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut i = 0;
    while i < bytes.len() {
        let rest = &text.as_bytes()[i..];
        // How far the token reaches, and how much of its start and end stays visible.
        let (length, edge) = if rest.starts_with(b"//") {
            (line_length(rest), 0)
        } else if rest.starts_with(b"/*") {
            (block_comment_length(rest), 0)
        } else if rest[0] == b'"' {
            (string_length(rest), 1)
        } else if rest[0] == b'\'' {
            (char_length(&text[i..]), 1)
        } else if let Some(length) = raw_string_length(bytes, i) {
            (length, 0)
        } else {
            // Over a whole character or word, so that the r of `for"` starts no raw string.
            let word = rest.iter().take_while(|&&b| in_word(b)).count();
            i += word.max(1);
            continue;
        };
        if length > 2 * edge {
            blank_range(&mut out, i + edge, i + length - edge);
        }
        i += length;
    }
    String::from_utf8(out).expect("whole literals and comments are blanked")
}

fn line_length(rest: &[u8]) -> usize {
    rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())
}

/// Block comments nest.
fn block_comment_length(rest: &[u8]) -> usize {
    let (mut depth, mut i) = (0, 0);
    while i + 1 < rest.len() {
        match &rest[i..i + 2] {
            b"/*" => (depth, i) = (depth + 1, i + 2),
            b"*/" => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    rest.len()
}

fn string_length(rest: &[u8]) -> usize {
    let mut i = 1;
    while i < rest.len() && rest[i] != b'"' {
        i += if rest[i] == b'\\' { 2 } else { 1 };
    }
    (i + 1).min(rest.len())
}

/// A character literal, or 1 where the quote belongs to a lifetime.
fn char_length(rest: &str) -> usize {
    let mut inside = rest[1..].chars();
    match inside.next() {
        // The escaped character may be a quote itself: the end is looked for after it.
        Some('\\') => rest[2..]
            .char_indices()
            .skip(1)
            .find(|&(_, c)| c == '\'')
            .map_or(rest.len(), |(at, _)| at + 3),
        Some(c) if inside.next() == Some('\'') => c.len_utf8() + 2,
        _ => 1,
    }
}

/// The length of r"..", r#".."#, br".." and cr".." when one starts at `i`.
fn raw_string_length(bytes: &[u8], i: usize) -> Option<usize> {
    let rest = &bytes[i..];
    let prefix = [&b"br"[..], b"cr", b"r"]
        .into_iter()
        .find(|p| rest.starts_with(p))?
        .len();
    let hashes = rest[prefix..].iter().take_while(|&&b| b == b'#').count();
    let open = prefix + hashes + 1;
    if rest.get(open - 1) != Some(&b'"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let length = rest[open..]
        .windows(close.len())
        .position(|window| window == close.as_bytes());
    Some(length.map_or(rest.len(), |length| open + length + close.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_in_place() {
        for (text, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("a // b", c)"#, r#"f("      ", c)"#),
            (r#"f("a\"b", c)"#, r#"f("    ", c)"#),
            ("f(r#\"a\"b\"#, c)", "f(        , c)"),
            ("f(br\"a\\\", c)", "f(      , c)"),
            ("'\"' + b'\\'' + x", "' ' + b'  ' + x"),
            ("'\\\\' + '\\u{e9}' + x", "'  ' + '      ' + x"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("'é' /* é */ é", "'  '          é"),
            ("r#type \"", "r#type \""),
        ] {
            let code_of_text = blank(text);
            assert_eq!(code_of_text.len(), text.len(), "{text}");
            assert_eq!(code_of_text.trim_end(), code.trim_end(), "{text}");
        }
    }

    #[test]
    fn words_are_whole() {
        let code = "unsafe fn a() { unsafe_op(); not_unsafe(); (unsafe) }";
        assert_eq!(words(code, "unsafe").collect::<Vec<_>>(), [0, 44]);
    }

    #[test]
    fn test_items_do_not_ship_and_what_follows_does() {
        let text = "a\n#[cfg(test)]\nuse b;\nc\n#[cfg(test)]\nmod tests {\n fn d() { e }\n}\nf";
        let shipped = Source::new("src/x/y.rs", text).shipped();
        let seen: Vec<&str> = shipped.split_whitespace().collect();
        assert_eq!(seen, ["a", "c", "f"]);
        assert_eq!(shipped.matches('\n').count(), text.matches('\n').count());
        assert_eq!(Source::new("src/x/tests.rs", text).shipped(), "");
        assert_eq!(Source::new("src/x/tests/y.rs", text).shipped(), "");
        assert_eq!(Source::new("src/x/testing.rs", text).shipped(), "");
    }

    #[test]
    fn a_finding_names_file_and_line() {
        let finding = Source::new("src/x/y.rs", "a\nb\nc").finding(2, "b is wrong");
        assert_eq!(finding.to_string(), "  src/x/y.rs:2: b is wrong");
    }

    #[test]
    fn this_package_is_really_read() {
        let tree = Tree::of_this_package();
        for path in ["Cargo.toml", "src/lib.rs", "tests/architecture/source.rs"] {
            assert!(tree.0.iter().any(|file| file.path == path), "{path}");
        }
    }
}
