//! `foretoken inspect`

use super::failure::Result;
use super::output::print;
use crate::checkpoint::ModelDir;
use crate::model::{Config, Flops};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Flags of `foretoken inspect`.
#[derive(Clone, Debug, Args)]
pub struct Inspect {
    /// Model directory
    dir: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `foretoken inspect --json` prints.
#[derive(Clone, Debug, Serialize)]
struct Report<'a> {
    parameters: usize,
    trunk_parameters: usize,
    head_parameters: usize,
    /// The heads' fraction of all parameters.
    head_share: f64,
    /// Trunk parameters that the heads use as well.
    shared_parameters: usize,
    /// Bytes of all parameters, as f32.
    bytes: usize,
    flops_per_token: Flops,
    config: &'a Config,
}

impl Inspect {
    /// Runs the command.
    ///
    /// # Errors
    /// If the model cannot be read.
    pub fn run(self) -> Result {
        let (model, _) = ModelDir::load(&self.dir)?;
        let (counts, config) = (model.parameter_counts(), model.config());
        let (trunk, heads, shared) = (counts.trunk, counts.heads, counts.shared);
        let all = trunk + heads;
        let report = Report {
            parameters: all,
            trunk_parameters: trunk,
            head_parameters: heads,
            head_share: heads as f64 / all as f64,
            shared_parameters: shared,
            bytes: all * size_of::<f32>(),
            flops_per_token: config.flops(config.default_context()),
            config,
        };
        print(self.json, &report, || {
            let flops = &report.flops_per_token;
            format!(
                "parameters {all}: trunk {trunk}, heads {heads} ({:.1} % of all); {shared} of the trunk's are used by \
                 the heads as well\n\
                 {} bytes of f32\n\
                 operations for a token: training {}, decoding {}, a draft {}\n\
                 (a multiply-add is two; products with weights, and attention in a window of {} tokens)\n\
                 {}",
                100.0 * report.head_share,
                report.bytes,
                flops.train,
                flops.decode,
                flops.draft,
                flops.context,
                serde_json::to_string_pretty(config).expect("plain data"),
            )
        })
    }
}
