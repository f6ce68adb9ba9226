//! `foretoken completions`: a script that completes commands and flags in a shell.

use super::failure::Result;
use super::output::Output;
use clap::Args;
use clap_complete::Shell;

/// Flags of `foretoken completions`.
#[derive(Clone, Debug, Args)]
pub struct Completions {
    /// Shell to print the script for
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    /// Runs the command on the program's own command line.
    ///
    /// # Errors
    /// If the script cannot be printed.
    pub fn run(&self, mut program: clap::Command) -> Result {
        let name = program.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, name, &mut script);
        let mut output = Output::new(false);
        output.text(&String::from_utf8_lossy(&script));
        Ok(output.finish()?)
    }
}
