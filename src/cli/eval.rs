//! `foretoken eval`

use super::agreement::{self, Agreement};
use super::device::On;
use super::failure::Result;
use super::output::{figures, one_of, print};
use crate::checkpoint::ModelDir;
use crate::data::{TextFiles, check_length};
use crate::model::WeightFormat;
use crate::simd::scalar;
use crate::train::Evaluation;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Flags of `foretoken eval`.
#[derive(Clone, Debug, Args)]
pub struct Eval {
    /// Model directory
    dir: PathBuf,
    /// Text files, or one token file made with the model's tokenizer
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Text between documents that becomes the end-of-text token, as in training; by default it is plain text
    #[arg(long, value_name = "TEXT")]
    split_on: Option<String>,
    /// Read --data as text even if its first bytes are those of another kind of file, such as an archive or a page
    #[arg(long)]
    as_text: bool,
    /// Tokens per window [default: as the model was trained]
    #[arg(long, value_name = "T")]
    context: Option<usize>,
    /// How weight matrices are stored; bf16 and q8 are quantised
    #[arg(long, default_value = "f32", value_parser = one_of(&WeightFormat::ALL, WeightFormat::name))]
    weights: WeightFormat,
    #[command(flatten)]
    agreement: agreement::Flags,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub on: On,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    evaluation: &'a Evaluation,
    /// e to the loss. Left out if it overflows an `f64`, which takes a loss of some 709 nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    perplexity: Option<f64>,
    /// Name of the format.
    weights: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    agreement: Option<Agreement>,
}

impl Eval {
    /// Runs the command.
    ///
    /// # Errors
    /// If the model or the data cannot be read.
    pub fn run(&self) -> Result {
        let device = self.on.open()?;
        let (mut model, tokenizer) = ModelDir::load(&self.dir)?;
        let context = self.context.unwrap_or(model.config().default_context());
        let tokens = TextFiles::new(&self.data, self.split_on.as_deref())?
            .as_text(self.as_text)
            .tokens(&tokenizer)?;
        check_length("--data", tokens.len(), 1)?;
        // Checked before the evaluation, which may take long.
        let requests = self.agreement.requests(&model, &tokenizer, &tokens)?;
        model.pack(self.weights);
        let held = device.hold(&model)?;
        let result = held.evaluate(&tokens, &tokenizer, context)?;
        let agreement = requests.map(|requests| Agreement::measure(&held, &requests));
        let report = Report {
            evaluation: &result,
            perplexity: perplexity(result.loss),
            weights: self.weights.name(),
            agreement: agreement.transpose()?,
        };
        print(self.json, &report, || {
            let perplexity = report.perplexity.map(|p| format!("perplexity {p:.3}, "));
            let mut text = format!(
                "loss {:.4} nats per token, {}{:.4} bits per byte, {} tokens, {} weights\n\
                 loss by head      {}\naccuracy by head  {}",
                result.loss,
                perplexity.unwrap_or_default(),
                result.bits_per_byte,
                result.tokens,
                report.weights,
                figures(&result.loss_heads),
                figures(&result.accuracy_heads)
            );
            if let Some(agreement) = &report.agreement {
                text += &format!("\n\n{}", agreement.describe());
            }
            text
        })
    }
}

/// e to the loss, if it is finite.
fn perplexity(loss: f64) -> Option<f64> {
    Some(scalar::exp(loss)).filter(|p| p.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perplexity_beyond_the_numbers_is_left_out() {
        assert_eq!(perplexity(0.0), Some(1.0));
        // ln of the largest f64, 2^1024, is 709.78.
        assert!(perplexity(709.0).is_some_and(f64::is_finite));
        for loss in [710.0, 1e6, f64::INFINITY, f64::NAN] {
            assert_eq!(perplexity(loss), None, "{loss}");
        }
        let evaluation = |loss| Evaluation {
            loss,
            bits_per_byte: 1.0,
            loss_heads: vec![Some(loss)],
            accuracy_heads: vec![Some(0.0)],
            tokens: 1,
        };
        for (loss, there) in [(700.0, true), (800.0, false)] {
            let report = Report {
                evaluation: &evaluation(loss),
                perplexity: perplexity(loss),
                weights: "f32",
                agreement: None,
            };
            let json = serde_json::to_value(&report).unwrap();
            assert_eq!(json.get("perplexity").is_some(), there, "{json}");
        }
    }
}
