//! The names of the files in a directory.

use std::ffi::OsStr;

use crate::files::writer;

pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const METRICS: &str = "metrics.jsonl";
pub(super) const STATE: &str = "train_state.safetensors";
pub(super) const LOCK: &str = "train.lock";

/// Whether a file has a name that this program gives: one of those above, or that of a temporary of it.
pub(super) fn is_ours(file: &OsStr) -> bool {
    let ours = |name: &&str| file == *name || writer(file, OsStr::new(name)).is_some();
    [CONFIG, WEIGHTS, TOKENIZER, METRICS, STATE, LOCK]
        .iter()
        .any(ours)
}
