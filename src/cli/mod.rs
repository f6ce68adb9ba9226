//! Floor 9: the command line program.
//!
//! | file | what |
//! |---|---|
//! | [`demo`] | the main job on embedded data |
//! | [`train`] | `foretoken train` |
//! | [`resume`] | `foretoken train --resume` |
//! | [`stop`] | signals that ask a run to end |
//! | [`eval`] | `foretoken eval` |
//! | [`generate`] | `foretoken generate` |
//! | [`inspect`] | `foretoken inspect` |
//! | [`utf8`] | text from tokens that end inside a character |
//! | [`output`] | results on standard output, progress on standard error |
//!
//! Results go to standard output, as text or one JSON object a line; progress and messages to standard error. The exit
//! code is 0, 2 where the command line was wrong, 128 and the signal's number where a signal ended a run, 1 for every
//! other error. A reader that closes the pipe early is no
//! error. This folder computes nothing.

pub mod demo;
pub mod eval;
pub mod generate;
pub mod inspect;
pub mod output;
pub mod resume;
pub mod stop;
pub mod train;
pub mod utf8;

use crate::Result;
use crate::kernels::par::Threads;
use crate::simd::Isa;
use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;

/// Trains language models that predict several tokens at once, and runs them so that every step yields several tokens.
/// Speculation never changes a single token.
#[derive(Debug, Parser)]
#[command(name = "foretoken", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a small model on embedded stories, then generate with it both ways and compare
    Demo(demo::Demo),
    /// Train a model on text files
    Train(Box<train::Train>),
    /// Measure a model's losses on a text
    Eval(eval::Eval),
    /// Continue a prompt
    Generate(generate::Generate),
    /// Print a model's sizes
    Inspect(inspect::Inspect),
}

/// Flags of every command that computes.
#[derive(Clone, Debug, Args)]
pub struct Machine {
    /// Threads to compute on; never changes a result [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl Machine {
    /// Runs `f` on as many threads as asked for.
    fn scope<R: Send>(&self, f: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        Threads::new(self.threads.unwrap_or_else(all))?.scope(f)
    }
}

/// The program: reads the arguments, runs the command, reports an error in one sentence.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Checked before any kernel asks for it, so that a wrong name is a sentence and not a panic.
    let result = Isa::from_environment().and_then(|_| match cli.command {
        Command::Demo(demo) => demo.run(),
        Command::Train(train) => train.run(),
        Command::Eval(eval) => eval.run(),
        Command::Generate(generate) => generate.run(),
        Command::Inspect(inspect) => inspect.run(),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // What there is to say was said.
        Err(error @ crate::Error::Stopped(_)) => ExitCode::from(error.exit_code()),
        Err(error) => {
            output::message(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}
