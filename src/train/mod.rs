//! Training and evaluation.
//!
//! | file | what |
//! |---|---|
//! | [`config`] | [`TrainConfig`]: how to train, and what fits a model |
//! | [`schedule`] | the learning rate of each step |
//! | [`regime`] | which heads are active at each step, and whether they may change the trunk |
//! | [`optimiser`] | clipping, and AdamW or Muon over all parameters |
//! | [`trainer`] | a model in training, and one step |
//! | [`training_loop`] | steps, reports, evaluations and checkpoints to the end of a run |
//! | [`evaluate`](mod@evaluate) | losses and accuracies of every head on a text |
//! | [`event`] | what a run reports, and to whom |
//! | [`run`] | the directory of a run: metrics, checkpoints, resuming |
//! | [`state`] | what a checkpoint records |
//! | [`text_file`] | the texts of a run, recognised by their content |
//! | [`metrics`] | reading `metrics.jsonl` |
//!
//! This folder knows nothing about decoding or the command line.

pub mod config;
pub mod evaluate;
pub mod event;
pub mod metrics;
pub mod optimiser;
pub mod regime;
pub mod run;
pub mod schedule;
pub mod state;
pub mod text_file;
pub mod trainer;
pub mod training_loop;

pub use config::TrainConfig;
pub use evaluate::{Evaluation, evaluate, evaluate_on, evaluate_while};
pub use event::{Event, Observer};
pub use metrics::Metrics;
pub use optimiser::{AdamW, Optimiser};
pub use regime::Regime;
pub use run::Run;
pub use schedule::Schedule;
pub use state::{Origin, Record};
pub use text_file::TextFile;
pub use trainer::{StepReport, Trainer};
pub use training_loop::Ending;
