//! A model's files: written so that a kill leaves them whole, and read as if written by a stranger.
//!
//! This folder knows nothing about training or decoding. All files but `model` and `run` move named
//! tensors, JSON and bytes between memory and the disk, and do not know which tensors a model has.
//!
//! * `model`: a model's directory, made of the parts below.
//! * `run`: the directory of a run: one writer, and a state from which training continues after a kill.
//! * `state`: that state as one file, with a checksum.
//! * `metrics`: the run's lines, cut back to a checkpoint.
//! * `directory`: a directory appears with all its files, or not at all; what is never replaced.
//! * `names`: the names of the files in a directory.
//! * `lock`: the lock of a directory, under which one process trains into it.
//! * `encode`: the safetensors format as we write it, one byte sequence for one content.
//! * `tensors`: the safetensors format as we read it, untrusted, one tensor at a time.
//! * `header`: a safetensors file's header, checked before it is believed.
//! * `json`: a JSON file as a type.
//!
//! *Architecture invariant*: everything read is hostile until checked. A reader gives an error that
//! names the file and the reason. It never panics, and it never reserves memory by a number that the
//! file claims about itself.

mod directory;
mod encode;
mod header;
mod json;
mod lock;
mod metrics;
mod model;
mod names;
mod run;
mod state;
mod tensors;

pub use encode::{Part, encode};
pub use model::ModelDir;
pub use run::RunDir;
pub use state::{encode_state, read_state};
pub use tensors::TensorFile;
