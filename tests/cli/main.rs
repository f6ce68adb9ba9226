//! The program as a user meets it: the real binary, its exit codes, its sentences and its files.
//!
//! * `support`: running the binary, what an error must look like, models to run it on.
//! * `flags`: command lines that no run can have.
//! * `files`: data, prompts and model directories that cannot be read.
//! * `decoding`: what `generate` and `speed` print.
//! * `device`: what computes, and what is said where it is missing.
//! * `refit`: heads taken off a model, new ones trained on it, and the regimes.
//! * `vocabularies`: vocabularies, token files and pictures.
//! * `documents`: separators between documents, and vocabularies that threads cannot change.
//! * `runs`: runs that go well, what they print and write.
//! * `diverged`: runs that go wrong, what they say and leave.
//!
//! An error is one sentence on standard error that names the thing. The exit code is 2 where the command line was wrong
//! and 1 for every other error. Nothing new lies on the disk afterwards.

mod decoding;
mod device;
mod diverged;
mod documents;
mod files;
mod flags;
mod refit;
mod runs;
mod support;
mod vocabularies;
