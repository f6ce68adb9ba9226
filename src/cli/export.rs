//! `foretoken export`

use super::failure::{Failure, Result};
use super::output;
use super::target::{Inputs, Target};
use crate::checkpoint::ModelDir;
use clap::Args;
use std::path::PathBuf;

/// Flags of `foretoken export`.
#[derive(Clone, Debug, Args)]
pub struct Export {
    /// Model directory to read
    dir: PathBuf,
    /// Model directory to create
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace the model directory if it exists and this program wrote everything in it
    #[arg(long)]
    force: bool,
    /// Write the trunk alone
    #[arg(long)]
    without_heads: bool,
    /// Keep the first N heads [default: all]
    #[arg(long, value_name = "N", conflicts_with = "without_heads")]
    heads: Option<usize>,
}

impl Export {
    /// Runs the command.
    ///
    /// # Errors
    /// If the model cannot be read, has fewer heads, or the directory cannot be created.
    pub fn run(self) -> Result {
        let target = Target::dir(
            &self.out,
            &Inputs::default().model("the model", Some(&self.dir)),
        )?;
        let (model, tokenizer) = ModelDir::load(&self.dir)?;
        let all = model.config().mtp_depth;
        let kept = if self.without_heads {
            0
        } else {
            self.heads.unwrap_or(all)
        };
        if kept > all {
            return Err(Failure::Usage(format!(
                "--heads {kept}: expected at most the model's {all} heads"
            )));
        }
        let model = model.keep_heads(kept)?;
        ModelDir::create(&self.out, &model, &tokenizer, self.force)?;
        target.written();
        output::message(&format!(
            "{}: {kept} of {all} heads, {} parameters",
            self.out.display(),
            model.params().elements()
        ));
        Ok(())
    }
}
