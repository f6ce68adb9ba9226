//! Files of a model: how they are written so that a kill leaves them whole, and how they are read
//! when nobody knows who wrote them.
//!
//! This folder never knows training and never knows decoding. All files but `model` and `run` move named
//! tensors, JSON and bytes between memory and the disk, and do not know which tensors a model has.
//!
//! * `model`: a model's directory, made of the parts below.
//! * `run`: the directory of a run: one writer, and a state to go on from after a kill.
//! * `state`: that state as one file, with a checksum.
//! * `metrics`: the run's lines, cut back to a checkpoint.
//! * `atomic`: a file appears under its name whole, or not at all.
//! * `directory`: the same for a directory with its files; what is never replaced.
//! * `lock`: the lock of a directory, under which one process trains into it.
//! * `leftovers`: what killed writers left.
//! * `encode`: the safetensors format as we write it, one byte sequence for one content.
//! * `tensors`: the safetensors format as we read it, untrusted.
//! * `header`: what a safetensors file says about itself, checked before it is believed.
//! * `widen`: bf16 and f16 as f32, exactly.
//! * `json`: a JSON file as a type.
//! * `untrusted`: opening, bounded reading and safe printing, shared by all readers.
//!
//! *Architecture invariant*: everything read is hostile until checked. A reader gives an error that
//! names the file and the reason. It never panics, and it never reserves memory by a number that the
//! file claims about itself.

mod atomic;
mod directory;
mod encode;
mod header;
mod json;
mod leftovers;
mod lock;
mod metrics;
mod model;
mod run;
mod state;
mod tensors;
mod untrusted;
mod widen;

pub use atomic::{write, write_with};
pub use directory::create_dir;
pub use encode::{encode, sha256_file, sha256_hex};
pub use json::read_json;
pub use model::ModelDir;
pub use run::RunDir;
pub use state::{encode_state, read_state};
pub use tensors::TensorFile;
