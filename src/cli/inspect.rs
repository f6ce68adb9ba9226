//! `foretoken inspect`

use super::failure::Result;
use super::output::Output;
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
    /// The heads' share of all parameters.
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
        let (counts, config) = (model.counts(), model.config());
        let (trunk, heads) = (counts.trunk, counts.heads);
        let report = Report {
            parameters: trunk + heads,
            trunk_parameters: trunk,
            head_parameters: heads,
            head_share: heads as f64 / (trunk + heads) as f64,
            shared_parameters: counts.shared,
            bytes: (trunk + heads) * size_of::<f32>(),
            flops_per_token: config.flops(config.default_context()),
            config,
        };
        let mut output = Output::new(self.json);
        output.result(&report, || describe(&report));
        Ok(output.finish()?)
    }
}

fn describe(report: &Report<'_>) -> String {
    let config = serde_json::to_string_pretty(report.config).expect("plain data");
    let Flops {
        context,
        train,
        decode,
        draft,
    } = report.flops_per_token;
    format!(
        "parameters {}: trunk {}, heads {} ({:.1} % of all); {} of the trunk's are used by the heads as well\n\
         {} bytes of f32\n\
         operations for a token: training {train}, decoding {decode}, a draft {draft}\n\
         (a multiply-add is two; products with weights, and attention in a window of {context} tokens)\n\
         {config}",
        report.parameters,
        report.trunk_parameters,
        report.head_parameters,
        100.0 * report.head_share,
        report.shared_parameters,
        report.bytes,
    )
}
