//! `foretoken eval`

use super::Machine;
use super::agreement::{self, Agreement};
use super::output::{Output, figures};
use super::train::one_of;
use crate::Result;
use crate::checkpoint::ModelDir;
use crate::data::{check_length, open_tokens};
use crate::model::WeightFormat;
use crate::simd::scalar;
use crate::train::{Evaluation, evaluate_stored};
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
    /// Tokens of a window [default: the one the model was trained with]
    #[arg(long, value_name = "T")]
    context: Option<usize>,
    /// How matrices are stored, rounded where it is not f32
    #[arg(long, default_value = "f32", value_parser = one_of(&WeightFormat::ALL, WeightFormat::name))]
    weights: WeightFormat,
    #[command(flatten)]
    agreement: agreement::Flags,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: Machine,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    evaluation: &'a Evaluation,
    /// e to the loss: as many equally likely tokens are as hard to choose from.
    perplexity: f64,
    /// Name of the format.
    weights: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    agreement: Option<Agreement>,
}

impl Eval {
    /// Runs the command.
    ///
    /// # Errors
    /// A model or data that cannot be read.
    pub fn run(self) -> Result<()> {
        let machine = self.machine.clone();
        machine.scope(move || self.eval())
    }

    fn eval(self) -> Result<()> {
        let (mut model, tokenizer) = ModelDir::load(&self.dir)?;
        let context = self.context.unwrap_or(model.config().default_context());
        let tokens = open_tokens(&self.data, &tokenizer, self.split_on.as_deref())?;
        check_length("--data", tokens.len(), 1)?;
        model.pack(self.weights);
        let result = evaluate_stored(&model, &tokens, &tokenizer, context)?;
        let mut output = Output::new(self.json);
        let report = Report {
            evaluation: &result,
            perplexity: scalar::exp(result.loss),
            weights: self.weights.name(),
            agreement: match self.agreement.agreement {
                true => Some(self.agreement.measure(&model, &tokenizer, &tokens)?),
                false => None,
            },
        };
        output.result(&report, || {
            let mut text = format!(
                "loss {:.4} nats a token, perplexity {:.3}, {:.4} bits a byte, {} tokens, {} weights\n\
                 loss by head      {}\naccuracy by head  {}",
                result.loss,
                report.perplexity,
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
        });
        output.finish()
    }
}
