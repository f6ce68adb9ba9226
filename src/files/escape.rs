//! Untrusted text in error messages.

/// Longest text from a file that an error message repeats, in characters.
/// It fits the longest sentence of the safetensors crate with a usual tensor name.
const MAX_CHARS: usize = 240;

/// Text from a file, fit for a terminal: control characters are escaped and long text is cut.
/// A tensor's name may be a megabyte long, or move the cursor.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == MAX_CHARS {
            out.push_str("...");
            break;
        }
        match c {
            // `escape_debug` would escape these too. They do no harm, and messages are full of them.
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_escaped_and_cut() {
        assert_eq!(escape("a.weight \"x\" \\"), "a.weight \"x\" \\");
        // Clear the screen; then a character that turns the reading direction around; then a second line.
        assert_eq!(escape("\u{1b}[2J\u{202e}\n"), "\\u{1b}[2J\\u{202e}\\n");
        assert_eq!(escape(&"x".repeat(MAX_CHARS)).len(), MAX_CHARS);
        let cut = "x".repeat(MAX_CHARS) + "...";
        assert_eq!(escape(&"x".repeat(MAX_CHARS + 1)), cut);
    }
}
