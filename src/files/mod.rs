//! Files: written whole or not at all, opened with suspicion, hashed, and their text made fit for a terminal.
//!
//! This folder does not know what a file is for. Like the error type, it may be named by every other folder.
//!
//! * `atomic`: a file appears under its name whole, or not at all.
//! * `leftovers`: the temporaries of killed writers.
//! * `kind`: what a file seems to be, by its first bytes.
//! * `live`: the temporaries of this process, which a signal removes.
//! * `overlap`: whether writing to one path would destroy what another names.
//! * `read`: regular files of a bounded size.
//! * `hash`: SHA-256 of bytes and of files.
//! * `escape`: untrusted text in error messages.

mod atomic;
mod escape;
mod hash;
mod kind;
mod leftovers;
// Only the program catches signals.
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
mod live;
mod overlap;
mod read;

pub(crate) use atomic::{Temporary, beside, split, sync_dir, write, write_with};
pub(crate) use escape::escape;
pub use hash::Fingerprint;
pub(crate) use hash::{Hashing, hex};
pub(crate) use kind::{Expected, START, expect_kind};
pub(crate) use leftovers::writer;
#[cfg(feature = "cli")]
pub(crate) use live::remove_temporaries;
pub(crate) use live::steady;
pub(crate) use overlap::refuse_overlap;
pub(crate) use read::{
    check_start, numbers, open, read_bounded, read_bytes, read_parts, read_start,
};
