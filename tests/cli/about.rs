//! What the program says of itself: its version, completions and manual pages.

use crate::support::Folder;
use foretoken::simd::Isa;

/// Every command.
pub const COMMANDS: [&str; 11] = [
    "demo",
    "train",
    "eval",
    "generate",
    "speed",
    "inspect",
    "export",
    "plot",
    "tokenizer",
    "completions",
    "man",
];

#[test]
fn the_long_version_names_instruction_set_and_features() {
    let folder = Folder::with_text();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(folder.succeeds("-V"), format!("foretoken {version}\n"));
    for isa in Isa::all() {
        let mut command = folder.command("--version");
        let output = command.env("FORETOKEN_ISA", isa.name()).output();
        let text = String::from_utf8(output.expect("the binary").stdout).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], format!("foretoken {version}"));
        assert_eq!(lines[1], "arithmetic version: 1");
        let used = format!("instruction set: {} of portable", isa.name());
        assert!(lines[2].starts_with(&used), "{text}");
        let cuda = cfg!(feature = "cuda");
        assert!(lines[3].starts_with("features: cli, tokenizers"), "{text}");
        assert_eq!(lines[3].ends_with("cuda"), cuda, "{text}");
        let commit = option_env!("FORETOKEN_COMMIT").map(|commit| format!("commit: {commit}"));
        assert_eq!(lines.get(4).copied(), commit.as_deref());
    }
}

#[test]
fn completions_know_every_command_and_flag() {
    let folder = Folder::with_text();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = folder.succeeds(&format!("completions {shell}"));
        for word in COMMANDS.iter().chain(&["save-minutes", "show-drafts"]) {
            assert!(script.contains(word), "no {word} for {shell}");
        }
    }
    folder.refuses("completions abacus", 2, &["abacus", "bash", "zsh"]);
    folder.refuses("completions", 2, &["SHELL"]);
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = Folder::with_text();
    let page = folder.succeeds("man");
    assert!(page.contains(".TH foretoken 1"), "{page}");
    for command in COMMANDS {
        // A hyphen is escaped in a page.
        let named = format!("foretoken\\-{command}");
        assert!(page.contains(&named), "{command}: {page}");
        let own = folder.succeeds(&format!("man {command}"));
        assert!(own.contains(&format!(".TH foretoken-{command} 1")), "{own}");
        assert!(own.contains("\\-\\-help"), "{own}");
        let source = format!("\"foretoken {}\"", env!("CARGO_PKG_VERSION"));
        assert!(own.contains(&source), "{own}");
    }
    let page = folder.succeeds("man tokenizer encode");
    for word in ["foretoken-tokenizer-encode", "\\-\\-split\\-on"] {
        assert!(page.contains(word), "{word}: {page}");
    }
    // A packaged page must not depend on the machine that made it.
    assert!(!page.contains("instruction set"), "{page}");
    folder.refuses("man abacus", 2, &["a command", "abacus"]);
    folder.refuses("man train abacus", 2, &["a command", "abacus"]);
}
