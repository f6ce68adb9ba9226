//! A wall around code of others that may panic on a hostile file.
//!
//! The `tokenizers` library is written for sound files. A file with a chunk length of 0, for one, makes it panic. Such
//! a panic is caught and becomes an error, since nothing of the library outlives the call that failed.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The reason of a panic.
pub(super) const BROKEN: &str = "the tokenizer breaks on it";

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a call whose panic will become an error. A panic hook may keep quiet then.
pub fn guarded() -> bool {
    INSIDE.get()
}

/// The value of `call`, or a reason: its error, or that it panicked.
pub(super) fn guard<T, E: ToString>(
    call: impl FnOnce() -> std::result::Result<T, E>,
) -> std::result::Result<T, String> {
    let outside = INSIDE.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    INSIDE.set(outside);
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(short(&error.to_string())),
        Err(_) => Err(BROKEN.to_owned()),
    }
}

/// A reason as part of one short sentence, whatever a file has put into it.
pub(super) fn short(reason: &str) -> String {
    const MOST: usize = 120;
    let line = reason.lines().next().unwrap_or_default();
    let mut text = String::new();
    for character in line.chars() {
        match character.is_control() {
            true => text.extend(character.escape_default()),
            false => text.push(character),
        }
        if text.len() >= MOST {
            return text + "...";
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_panics_become_reasons() {
        assert_eq!(guard(|| Ok::<_, String>(3)), Ok(3));
        assert_eq!(guard(|| Err::<(), _>("no")), Err("no".to_owned()));
        let inside = guard(|| Ok::<_, String>(guarded()));
        assert_eq!((inside, guarded()), (Ok(true), false));
        let broken = guard(|| -> std::result::Result<(), String> {
            [1, 2].chunks("".len()).for_each(drop);
            Ok(())
        });
        assert!(broken.unwrap_err().contains("breaks"));
        assert!(!guarded());
    }

    #[test]
    fn reasons_are_one_short_line_that_moves_no_cursor() {
        assert_eq!(short("one\ntwo"), "one");
        assert_eq!(short("\u{1b}[2J"), "\\u{1b}[2J");
        assert!(short(&"x".repeat(10_000)).len() < 130);
        assert_eq!(short(""), "");
    }
}
