//! `foretoken speed`

use super::compare::{Compared, check_identical, compare, sameness, shares};
use super::decoding::{Decoding, Prompt, Way, cut};
use super::device::On;
use super::failure::{Failure, Result};
use super::output::{at_least_one, print};
use crate::checkpoint::ModelDir;
use crate::infer::costs::{Costs, costs};
use crate::model::Model;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Maximum number of rows of a pass whose time is measured.
const ROWS: usize = 16;
/// Repeats of that measurement.
const COST_REPEATS: usize = 41;

/// Flags of `foretoken speed`.
#[derive(Clone, Debug, Args)]
pub struct Speed {
    /// Model directory
    dir: PathBuf,
    #[command(flatten)]
    prompt: Prompt,
    /// Cut N prompts out of the text, evenly spread, instead of using all of it as one
    #[arg(long, value_name = "N", requires = "prompt_tokens")]
    prompts: Option<usize>,
    /// Tokens per prompt that is cut out
    #[arg(long, value_name = "N", requires = "prompts")]
    prompt_tokens: Option<usize>,
    #[command(flatten)]
    decoding: Decoding,
    /// Timed runs with drafts and without, in turn; medians are reported
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = at_least_one())]
    repeats: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub on: On,
}

/// Plain decoding.
#[derive(Clone, Debug, Serialize)]
struct Plain {
    tokens_per_s: f64,
    /// Bytes of weights read by its passes, in GB (10^9) per second.
    weights_gb_per_s: f64,
}

/// Speculative decoding.
#[derive(Clone, Debug, Serialize)]
struct Speculative {
    tokens_per_s: f64,
    tokens_per_step: f64,
    drafted_by_depth: Vec<usize>,
    accepted_by_depth: Vec<usize>,
    /// Acceptance rate of each head; a draft after a wrong one is not accepted.
    acceptance_by_depth: Vec<f64>,
}

/// Time of a pass.
#[derive(Clone, Debug, Serialize)]
struct RowCost {
    rows: usize,
    ms: f64,
    /// Relative to one row.
    relative: f64,
}

/// What `foretoken speed --json` prints.
#[derive(Clone, Debug, Serialize)]
struct Report {
    plain: Plain,
    speculative: Speculative,
    /// Measured: plain time over speculative time.
    speedup: f64,
    /// Predicted from the costs of rows and head steps and the accepted drafts.
    predicted_speedup: f64,
    row_cost: Vec<RowCost>,
    /// Time of a head step.
    head_ms: Option<f64>,
    /// The same relative to a pass over one row.
    head_relative: Option<f64>,
    /// Speed of a plain read of as many bytes as a pass reads, in GB/s.
    read_gb_per_s: f64,
    /// Fraction of that speed reached by a pass over one row.
    bandwidth_share: f64,
    prompts: usize,
    new_tokens: usize,
    /// Whether drafting left the tokens unchanged.
    identical: bool,
}

impl Speed {
    /// Runs the command.
    ///
    /// # Errors
    /// If the model or the prompt cannot be read, the prompt does not fit, or the two texts differ.
    pub fn run(&self) -> Result {
        let device = self.on.open()?;
        let text = self.prompt.read()?;
        let (mut model, tokenizer) = ModelDir::load(&self.dir)?;
        let text = tokenizer.encode(&text)?;
        let prompts = match (self.prompts, self.prompt_tokens) {
            (Some(n), Some(len)) => {
                let starts = cut(text.len(), n, len)?;
                starts.iter().map(|start| &text[*start..][..len]).collect()
            }
            _ => vec![&*text],
        };
        let prompt = prompts[0];
        let decoding = &self.decoding;
        let options = decoding.options(Way::Speculative, &model, &tokenizer, prompt.len())?;
        if options.max_tokens == 0 {
            let reason = "--max-tokens: expected at least 1 token to measure, found 0";
            return Err(Failure::Usage(reason.to_owned()));
        }
        model.pack(decoding.weights);
        let held = device.hold(&model)?;
        let compared = compare(&held, &prompts, &options, self.repeats)?;
        let costs = costs(held.session(), prompt, ROWS, COST_REPEATS)?;
        let report = report(&model, &costs, prompts.len(), compared);
        print(self.json, &report, || describe(&report))?;
        check_identical(report.identical)
    }
}

fn report(model: &Model, costs: &Costs, prompts: usize, compared: Compared) -> Report {
    let (plain_seconds, fast_seconds) = (compared.plain_seconds, compared.fast_seconds);
    let (new_tokens, drafting) = (compared.plain.tokens.len(), compared.fast);
    let one = costs.passes[0];
    let gb = |seconds: f64| model.weight_bytes() as f64 * 1e-9 / seconds;
    let row_cost = |(rows, seconds): (usize, &f64)| RowCost {
        rows,
        ms: seconds * 1e3,
        relative: seconds / one,
    };
    Report {
        plain: Plain {
            tokens_per_s: new_tokens as f64 / plain_seconds,
            weights_gb_per_s: gb(one),
        },
        speedup: plain_seconds / fast_seconds,
        predicted_speedup: costs.predicted_speedup(
            new_tokens,
            drafting.steps,
            &drafting.drafted_by_depth,
        ),
        speculative: Speculative {
            tokens_per_s: new_tokens as f64 / fast_seconds,
            tokens_per_step: drafting.tokens_per_step(),
            acceptance_by_depth: shares(&drafting.accepted_by_depth, &drafting.drafted_by_depth),
            drafted_by_depth: drafting.drafted_by_depth,
            accepted_by_depth: drafting.accepted_by_depth,
        },
        row_cost: (1..).zip(&costs.passes).map(row_cost).collect(),
        head_ms: costs.head.map(|seconds| seconds * 1e3),
        head_relative: costs.head.map(|seconds| seconds / one),
        read_gb_per_s: gb(costs.read),
        bandwidth_share: costs.read / one,
        prompts,
        new_tokens,
        identical: compared.identical,
    }
}

fn describe(report: &Report) -> String {
    let (plain, speculative) = (&report.plain, &report.speculative);
    let mut text = format!(
        "plain        {:>8.0} tokens/s\n\
         speculative  {:>8.0} tokens/s, {:.2} tokens per step\n\
         speed-up     {:>8.2}, predicted {:.2} from the costs below\n\n\
         depth  drafted  accepted  share\n",
        plain.tokens_per_s,
        speculative.tokens_per_s,
        speculative.tokens_per_step,
        report.speedup,
        report.predicted_speedup
    );
    for (k, share) in speculative.acceptance_by_depth.iter().enumerate() {
        let drafted = speculative.drafted_by_depth[k];
        let accepted = speculative.accepted_by_depth[k];
        text += &format!("{:>5}  {drafted:>7}  {accepted:>8}  {share:.2}\n", k + 1);
    }
    text += "\nrows       ms  relative\n";
    for cost in &report.row_cost {
        let (rows, ms, relative) = (cost.rows, cost.ms, cost.relative);
        text += &format!("{rows:>4}  {ms:>7.3}  {relative:>8.2}\n");
    }
    if let (Some(ms), Some(relative)) = (report.head_ms, report.head_relative) {
        text += &format!("head  {ms:>7.3}  {relative:>8.2}\n");
    }
    text + &format!(
        "\na pass over one row reads {:.1} GB/s of weights, a plain read {:.1} GB/s: {:.0} %\n\
         {} prompts, {} new tokens each way: {}",
        plain.weights_gb_per_s,
        report.read_gb_per_s,
        100.0 * report.bandwidth_share,
        report.prompts,
        report.new_tokens,
        sameness(report.identical)
    )
}
