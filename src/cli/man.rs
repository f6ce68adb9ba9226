//! `foretoken man`: manual pages, in the format of `man`.

use super::failure::{Failure, Result};
use super::output::Output;
use clap::Args;

/// Flags of `foretoken man`.
#[derive(Clone, Debug, Args)]
pub struct Man {
    /// Command to print the page of, such as `train` or `tokenizer encode` [default: the program]
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

impl Man {
    /// Runs the command on the program's own command line.
    ///
    /// # Errors
    /// If there is no such command, or the page cannot be printed.
    pub fn run(&self, program: clap::Command) -> Result {
        // There would be a page about `help` otherwise.
        let mut program = program.disable_help_subcommand(true);
        // Gives every command its full name.
        program.build();
        let mut command = &program;
        for name in &self.command {
            let unknown = || Failure::Usage(format!("expected a command, found {name:?}"));
            command = command.find_subcommand(name).ok_or_else(unknown)?;
        }
        let mut page = Vec::new();
        let source = concat!("foretoken ", env!("CARGO_PKG_VERSION"));
        let rendered = clap_mangen::Man::new(command.clone())
            .source(source)
            .render(&mut page);
        rendered.expect("a Vec can be written to");
        let mut output = Output::new(false);
        output.text(&String::from_utf8_lossy(&page));
        Ok(output.finish()?)
    }
}
