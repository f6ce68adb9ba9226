//! The program as a user runs it: the real binary, its exit codes, its messages and its files.
//!
//! * `support`: running the binary, what an error must look like, models to run it on.
//! * `about`: the version, completions and manual pages.
//! * `flags`: command lines that are refused.
//! * `files`: data, prompts and model directories that cannot be read.
//! * `kinds`: files of another kind than their readers expect.
//! * `signals`: signals outside a run with a checkpoint.
//! * `decoding`: what `generate` and `speed` print.
//! * `device`: devices, and the message if one is missing.
//! * `refit`: heads removed from a model, new ones trained on it, and the regimes.
//! * `vocabularies`: vocabularies, token files and pictures.
//! * `documents`: separators between documents, and vocabularies that do not depend on threads.
//! * `replaced`: outputs that would destroy an input, and what `--force` replaces.
//! * `texts`: characters that a vocabulary lacks or changes, texts that look like flags, new documents, colours.
//! * `runs`: runs that succeed, what they print and write.
//! * `diverged`: runs that diverge, what they report and leave.
//!
//! An error is one sentence on standard error that names what is wrong. The exit code is 2 if the command line was
//! wrong and 1 for every other error. It leaves no new file on the disk.

mod about;
mod decoding;
mod device;
mod diverged;
mod documents;
mod files;
mod flags;
mod kinds;
mod refit;
mod replaced;
mod runs;
#[cfg(unix)]
mod signals;
mod support;
mod texts;
mod vocabularies;
