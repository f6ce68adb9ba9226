//! `foretoken eval`

use super::Machine;
use super::output::{Output, figures};
use crate::Result;
use crate::checkpoint::ModelDir;
use crate::data::{check_length, read_tokens};
use crate::train::evaluate;
use clap::Args;
use std::path::PathBuf;

/// Flags of `foretoken eval`.
#[derive(Clone, Debug, Args)]
pub struct Eval {
    /// Model directory
    dir: PathBuf,
    /// Text files
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Tokens of a window [default: the one the model was trained with]
    #[arg(long, value_name = "T")]
    context: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: Machine,
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
        let (model, tokenizer) = ModelDir::load(&self.dir)?;
        let context = self.context.unwrap_or(model.config().default_context());
        let tokens = read_tokens(&self.data, &tokenizer)?;
        check_length("--data", &tokens, 1)?;
        let result = evaluate(&model, &tokens, &tokenizer, context)?;
        let mut output = Output::new(self.json);
        output.result(&result, || {
            format!(
                "loss {:.4} nats a token, {:.4} bits a byte, {} tokens\nloss by head      {}\naccuracy by head  {}",
                result.loss,
                result.bits_per_byte,
                result.tokens,
                figures(&result.loss_heads),
                figures(&result.accuracy_heads)
            )
        });
        output.finish()
    }
}
