//! `foretoken speed`

use super::Machine;
use super::agreement::add;
use super::decoding::{Decoding, Prompt, Way, cut};
use super::device::On;
use super::generate::timed;
use super::output::Output;
use crate::checkpoint::ModelDir;
use crate::infer::measure::{Costs, costs, median};
use crate::infer::{GenerateOptions, Generated, Request};
use crate::model::Model;
use crate::{Error, Result};
use clap::Args;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Rows whose cost is measured.
const ROWS: usize = 16;
/// Repeats of the cost of rows.
const COST_REPEATS: usize = 41;

/// Flags of `foretoken speed`.
#[derive(Clone, Debug, Args)]
pub struct Speed {
    /// Model directory
    dir: PathBuf,
    #[command(flatten)]
    prompt: Prompt,
    /// Cut this many prompts out of the text, evenly spread, instead of taking it whole
    #[arg(long, value_name = "N", requires = "prompt_tokens")]
    prompts: Option<usize>,
    /// Tokens of each prompt that is cut out
    #[arg(long, value_name = "N", requires = "prompts")]
    prompt_tokens: Option<usize>,
    #[command(flatten)]
    decoding: Decoding,
    /// Timed runs each way, in turn; the medians are reported
    #[arg(long, default_value_t = 5, value_name = "N")]
    repeats: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: On,
    #[command(flatten)]
    machine: Machine,
}

/// Plain decoding.
#[derive(Clone, Debug, Serialize)]
struct Plain {
    tokens_per_s: f64,
    /// Bytes of weights that its passes read a second, in GB (10^9).
    weights_gb_per_s: f64,
}

/// Speculative decoding.
#[derive(Clone, Debug, Serialize)]
struct Speculative {
    tokens_per_s: f64,
    tokens_per_step: f64,
    drafted_by_depth: Vec<usize>,
    accepted_by_depth: Vec<usize>,
    /// Share of the drafts of each depth that were accepted; one after a wrong draft is not.
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
    /// What the costs of rows and head steps and the accepted drafts predict.
    predicted_speedup: f64,
    row_cost: Vec<RowCost>,
    /// Time of a head step.
    head_ms: Option<f64>,
    /// The same relative to a pass over one row.
    head_relative: Option<f64>,
    /// A plain read of as many bytes as a pass reads, in GB/s.
    read_gb_per_s: f64,
    /// Share of that which a pass over one row reaches.
    bandwidth_share: f64,
    prompts: usize,
    new_tokens: usize,
    /// Whether both ways gave the same tokens.
    identical: bool,
}

impl Speed {
    /// Runs the command.
    ///
    /// # Errors
    /// A model or prompt that cannot be read or does not fit; two texts that differ.
    pub fn run(self) -> Result<()> {
        let machine = self.machine.clone();
        machine.scope(move || self.speed())
    }

    fn speed(self) -> Result<()> {
        let device = self.device.open()?;
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
        let options = |way| { &self.decoding }.options(way, (&model, &tokenizer), prompts[0].len());
        let (plain, drafting) = (options(Way::Plain)?, options(Way::Speculative)?);
        model.pack(self.decoding.weights);
        let held = device.hold(&model)?;
        let mut identical = true;
        let mut times = [Vec::new(), Vec::new()];
        let mut results = [Vec::new(), Vec::new()];
        for prompt in &prompts {
            let (mut plain_times, mut fast_times) = (Vec::new(), Vec::new());
            let run = |options: &GenerateOptions, way| -> Result<(Generated, f64)> {
                let request = Request::new(*prompt, options.clone());
                let next = &mut |_, _, _: &[u32]| ControlFlow::Continue(());
                let (mut all, seconds) = timed(&held, &[request], way, next)?;
                Ok((all.remove(0), seconds))
            };
            // The first run of each warms up; the tokens of all are compared.
            let expected = run(&plain, Way::Plain)?.0;
            let (mut fast, _) = run(&drafting, Way::Speculative)?;
            for _ in 0..self.repeats.max(1) {
                plain_times.push(run(&plain, Way::Plain)?.1);
                let (again, seconds) = run(&drafting, Way::Speculative)?;
                fast_times.push(seconds);
                identical &= fast.tokens == expected.tokens;
                fast = again;
            }
            identical &= fast.tokens == expected.tokens;
            results[0].push(expected);
            results[1].push(fast);
            times[0].push(median(plain_times));
            times[1].push(median(fast_times));
        }
        let costs = costs(held.session(), prompts[0], ROWS, COST_REPEATS)?;
        let report = report(&model, &costs, &times, &results, identical);
        let mut output = Output::new(self.json);
        output.result(&report, || describe(&report));
        output.finish()?;
        match report.identical {
            true => Ok(()),
            false => Err(Error::Diverged(
                "speculation changed the text: please report this".to_owned(),
            )),
        }
    }
}

fn report(
    model: &Model,
    costs: &Costs,
    times: &[Vec<f64>; 2],
    [plain, fast]: &[Vec<Generated>; 2],
    identical: bool,
) -> Report {
    let [plain_time, fast_time] = [0, 1].map(|way: usize| times[way].iter().sum::<f64>());
    let new_tokens: usize = plain.iter().map(|g| g.tokens.len()).sum();
    let steps: usize = fast.iter().map(|g| g.steps).sum();
    let (mut drafted, mut accepted) = (Vec::new(), Vec::new());
    for generated in fast {
        add(&mut drafted, &generated.drafted_by_depth);
        add(&mut accepted, &generated.accepted_by_depth);
    }
    let share = |(accepted, drafted): (&usize, &usize)| *accepted as f64 / (*drafted).max(1) as f64;
    let one = costs.passes[0];
    let gb = |seconds: f64| model.weight_bytes() as f64 * 1e-9 / seconds;
    Report {
        plain: Plain {
            tokens_per_s: new_tokens as f64 / plain_time,
            weights_gb_per_s: gb(one),
        },
        speculative: Speculative {
            tokens_per_s: new_tokens as f64 / fast_time,
            tokens_per_step: new_tokens as f64 / steps.max(1) as f64,
            acceptance_by_depth: accepted.iter().zip(&drafted).map(share).collect(),
            drafted_by_depth: drafted.clone(),
            accepted_by_depth: accepted,
        },
        speedup: plain_time / fast_time,
        predicted_speedup: predict(costs, new_tokens, steps, &drafted),
        row_cost: (1..)
            .zip(&costs.passes)
            .map(|(rows, seconds)| RowCost {
                rows,
                ms: seconds * 1e3,
                relative: seconds / one,
            })
            .collect(),
        head_ms: costs.head.map(|seconds| seconds * 1e3),
        head_relative: costs.head.map(|seconds| seconds / one),
        read_gb_per_s: gb(costs.read),
        bandwidth_share: costs.read / one,
        prompts: plain.len(),
        new_tokens,
        identical,
    }
}

/// The speed-up that costs predict for steps that drafted so often at each depth.
fn predict(costs: &Costs, tokens: usize, steps: usize, drafted: &[usize]) -> f64 {
    // A step that drafted exactly d tokens was a pass over d + 1 rows; rows that were not measured cost as the last.
    let at_least = |d: usize| match d {
        0 => steps,
        d => drafted.get(d - 1).copied().unwrap_or(0),
    };
    let pass = |d: usize| costs.passes[d.min(costs.passes.len() - 1)];
    let exactly = |d: usize| (at_least(d) - at_least(d + 1)) as f64;
    let passes: f64 = (0..=drafted.len()).map(|d| exactly(d) * pass(d)).sum();
    let heads = costs.head.unwrap_or(0.0) * drafted.iter().sum::<usize>() as f64;
    tokens as f64 * costs.passes[0] / (passes + heads)
}

fn describe(report: &Report) -> String {
    let Report {
        plain, speculative, ..
    } = report;
    let mut lines = vec![
        format!("plain        {:>8.0} tokens/s", plain.tokens_per_s),
        format!(
            "speculative  {:>8.0} tokens/s, {:.2} tokens a step",
            speculative.tokens_per_s, speculative.tokens_per_step
        ),
        format!(
            "speed-up     {:>8.2}, predicted {:.2} from the costs below",
            report.speedup, report.predicted_speedup
        ),
        String::new(),
        "depth  drafted  accepted  share".to_owned(),
    ];
    for (k, share) in speculative.acceptance_by_depth.iter().enumerate() {
        lines.push(format!(
            "{:>5}  {:>7}  {:>8}  {share:.2}",
            k + 1,
            speculative.drafted_by_depth[k],
            speculative.accepted_by_depth[k]
        ));
    }
    lines.push(String::new());
    lines.push("rows       ms  relative".to_owned());
    for cost in &report.row_cost {
        lines.push(format!(
            "{:>4}  {:>7.3}  {:>8.2}",
            cost.rows, cost.ms, cost.relative
        ));
    }
    if let (Some(ms), Some(relative)) = (report.head_ms, report.head_relative) {
        lines.push(format!("head  {ms:>7.3}  {relative:>8.2}"));
    }
    lines.push(String::new());
    lines.push(format!(
        "a pass over one row reads {:.1} GB/s of weights, a plain read {:.1} GB/s: {:.0} %",
        plain.weights_gb_per_s,
        report.read_gb_per_s,
        100.0 * report.bandwidth_share
    ));
    let same = if report.identical {
        "identical"
    } else {
        "DIFFERENT"
    };
    lines.push(format!(
        "{} prompts, {} new tokens each way: {same}",
        report.prompts, report.new_tokens
    ));
    lines.join("\n")
}
