//! A run that is killed at any moment resumes to the same bits as an uninterrupted one.
//!
//! The real program is killed while it trains and while it writes. The number of kills of each run is 3, or
//! `FORETOKEN_SOAK_KILLS`; a long search is
//!
//! ```text
//! FORETOKEN_SOAK_KILLS=50 cargo test --release --test resume
//! ```
//!
//! - `killed`: kills at random moments, and every order in which a kill can leave the files
//! - `between`: checkpoints in the middle of a run, and changes that outlive a kill before the next one
//! - `evaluations`: runs that stop inside an evaluation
//! - `pairs`: every kind of heads under every regime
//! - `refused`: flags and texts that are not the run's, and damaged states
//! - `stopped`: signals, a second process, a full disk
//! - `unwritable`: directories and disks that cannot take a checkpoint
//! - `texts`: runs on token files and learned vocabularies, and runs that start from a model
//! - `runs`: small runs and their directories

#[path = "../cli/support.rs"]
#[allow(dead_code)]
mod support;

mod between;
mod evaluations;
mod killed;
mod pairs;
mod refused;
mod runs;
mod stopped;
mod texts;
mod unwritable;
