//! Floor 10: the command line program.
//!
//! | file | what |
//! |---|---|
//! | [`demo`] | the main job on embedded data |
//! | [`train`] | `foretoken train` |
//! | [`regime`] | its flags that say what learns, when and from what |
//! | [`texts`] | what it trains and validates on |
//! | [`resume`] | `foretoken train --resume` |
//! | [`stop`] | signals that ask a run to end |
//! | [`watch`] | a run's bar, and the answer to a signal |
//! | [`eval`] | `foretoken eval` |
//! | [`agreement`] | its flag `--agreement` |
//! | [`generate`] | `foretoken generate` |
//! | [`speed`] | `foretoken speed` |
//! | [`inspect`] | `foretoken inspect` |
//! | [`export`] | `foretoken export` |
//! | [`decoding`] | flags of the commands that decode |
//! | [`voice`] | a continuation as text: stop strings, colours |
//! | [`device`] | what computes: `--device` |
//! | [`plot`] | `foretoken plot` |
//! | [`tokenizer`] | `foretoken tokenizer`, and the flags that choose one |
//! | [`utf8`] | text from tokens that end inside a character |
//! | [`output`] | results on standard output, progress on standard error |
//!
//! Results go to standard output, as text or one JSON object a line; progress and messages to standard error. The exit
//! code is 0, 2 where the command line was wrong, 128 and the signal's number where a signal ended a run, 1 for every
//! other error. A reader that closes the pipe early is no
//! error. This folder computes nothing.

pub mod agreement;
pub mod decoding;
pub mod demo;
pub mod device;
pub mod eval;
pub mod export;
pub mod generate;
pub mod inspect;
pub mod output;
pub mod plot;
pub mod regime;
pub mod resume;
pub mod speed;
pub mod stop;
pub mod texts;
pub mod tokenizer;
pub mod train;
pub mod utf8;
pub mod voice;
pub mod watch;

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
    /// Measure plain and speculative decoding, and what rows and heads cost
    Speed(speed::Speed),
    /// Print a model's sizes
    Inspect(inspect::Inspect),
    /// Write a model with fewer heads, or none
    Export(export::Export),
    /// Draw the curves of one or several runs
    Plot(plot::Plot),
    /// Learn a vocabulary, look at one, or encode texts
    Tokenizer(tokenizer::Command),
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

/// An error as a sentence in which a setting is named by its flag.
fn by_flag(error: &crate::Error) -> String {
    match error {
        crate::Error::Setting {
            field,
            expected,
            found,
        } if *field != crate::simd::isa::CEILING => {
            let flag = match *field {
                "peak_lr" => "lr".to_owned(),
                other => other.replace('_', "-"),
            };
            format!("--{flag}: expected {expected}, found {found}")
        }
        other => other.to_string(),
    }
}

/// The program: reads the arguments, runs the command, reports an error in one sentence.
pub fn main() -> ExitCode {
    // A panic that becomes an error is told as an error, and only so.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !crate::data::guarded() {
            tell(panic);
        }
    }));
    let cli = Cli::parse();
    // Checked before any kernel asks for it, so that a wrong name is a sentence and not a panic.
    let result = Isa::from_environment().and_then(|_| match cli.command {
        Command::Demo(demo) => demo.run(),
        Command::Train(train) => train.run(),
        Command::Eval(eval) => eval.run(),
        Command::Generate(generate) => generate.run(),
        Command::Speed(speed) => speed.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Export(export) => export.run(),
        Command::Plot(plot) => plot.run(),
        Command::Tokenizer(tokenizer) => tokenizer.run(),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // What there is to say was said.
        Err(error @ crate::Error::Stopped(_)) => ExitCode::from(error.exit_code()),
        Err(error) => {
            output::message(&format!("error: {}", by_flag(&error)));
            ExitCode::from(error.exit_code())
        }
    }
}
