//! `foretoken inspect`

use super::output::Output;
use crate::Result;
use crate::checkpoint::ModelDir;
use crate::model::Config;
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
    /// The heads' share of all parameters.
    head_share: f64,
    config: &'a Config,
}

impl Inspect {
    /// Runs the command.
    ///
    /// # Errors
    /// A model that cannot be read.
    pub fn run(self) -> Result<()> {
        let (model, _) = ModelDir::load(&self.dir)?;
        let (trunk, heads) = model.parameter_counts();
        let report = Report {
            parameters: trunk + heads,
            trunk_parameters: trunk,
            head_parameters: heads,
            head_share: heads as f64 / (trunk + heads) as f64,
            config: model.config(),
        };
        let mut output = Output::new(self.json);
        output.result(&report, || {
            let config = serde_json::to_string_pretty(report.config).expect("plain data");
            format!(
                "parameters {}: trunk {trunk}, heads {heads} ({:.1} % of all)\n{config}",
                report.parameters,
                100.0 * report.head_share
            )
        });
        output.finish()
    }
}
