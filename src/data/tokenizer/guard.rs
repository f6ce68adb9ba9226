//! Panics of the `tokenizers` library become errors.
//!
//! The library is written for valid files. A file with a chunk length of 0, for one, makes it panic. Such a panic is
//! caught and becomes an error, because no value of the library outlives the call that failed. This needs unwinding: in
//! a program built with `panic = "abort"` a hostile `tokenizer.json` ends the process.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::files::escape;

/// The reason given for a panic.
pub(super) const BROKEN: &str = "the tokenizer breaks on it";

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a call whose panic becomes an error. A panic hook may then print nothing.
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

/// The first line of a reason, fit for a terminal.
pub(super) fn short(reason: &str) -> String {
    escape(reason.lines().next().unwrap_or_default())
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
        assert!(short(&"x".repeat(10_000)).len() < 250);
        assert_eq!(short(""), "");
    }
}
