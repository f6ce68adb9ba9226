//! Floor 8: training and evaluation.
//!
//! | file | what |
//! |---|---|
//! | [`schedule`] | the learning rate of each step |
//! | [`regime`] | which heads count at each step, and whether they may change the trunk |
//! | [`optimiser`] | clipping, and AdamW or Muon over all parameters |
//! | [`evaluate`](mod@evaluate) | losses and accuracies of every head on a text |
//! | [`options`] | how to train, as numbers, and which numbers fit a model |
//! | [`trainer`] | one step, and the whole loop |
//! | [`run`] | where a run keeps what it makes, and how it goes on after a kill |
//! | [`state`] | what a checkpoint records |
//! | [`event`] | what a run reports |
//! | [`metrics`] | `metrics.jsonl` read back |
//!
//! This folder never knows decoding or the command line.

pub mod evaluate;
pub mod event;
pub mod metrics;
pub mod optimiser;
pub mod options;
pub mod regime;
pub mod run;
pub mod schedule;
pub mod state;
pub mod trainer;

pub use evaluate::{Evaluation, evaluate, evaluate_stored, evaluate_stored_on, evaluate_while};
pub use event::Event;
pub use metrics::Metrics;
pub use optimiser::{Kind, Optimiser, Settings};
pub use options::Options;
pub use regime::{Plan, Regime};
pub use run::{Intervals, Keep, Run, Saving};
pub use schedule::{Schedule, Shape};
pub use state::{Origin, Record, TextFile};
pub use trainer::{Ending, Trainer};
