//! The command line program.
//!
//! | file | what |
//! |---|---|
//! | `demo` | `foretoken demo`: the main job on embedded data |
//! | `train` | `foretoken train` |
//! | `regime` | its flags about what learns, when and from what |
//! | `checkpoints` | its flags about checkpoints and resuming |
//! | `given` | its flags as they were typed |
//! | `texts` | the texts it trains and validates on |
//! | `resume` | `foretoken train --resume` |
//! | `stop` | signals: a run's checkpoint, and no temporary is left |
//! | `watch` | a run's progress bar, and the answer to a signal |
//! | `eval` | `foretoken eval` |
//! | `agreement` | its flag `--agreement` |
//! | `generate` | `foretoken generate` |
//! | `speed` | `foretoken speed` |
//! | `inspect` | `foretoken inspect` |
//! | `export` | `foretoken export` |
//! | `plot` | `foretoken plot` |
//! | `tokenizer` | `foretoken tokenizer`, and the flags that choose one |
//! | `target` | what a command writes, and may replace |
//! | `compare` | plain and speculative decoding in turn |
//! | `decoding` | flags shared by the commands that decode |
//! | `voice` | a continuation as text: stop strings, colours |
//! | `machine` | `--threads` |
//! | `device` | `--device` |
//! | `output` | results on standard output, progress on standard error |
//! | `failure` | why a command ended early, and its exit code |
//!
//! Results go to standard output, as text or as one JSON object per line; progress and messages go to standard error.
//! The exit code is 0 on success, 2 if the command line was wrong, 128 plus the signal's number if a signal ended a
//! run, and 1 for every other error. A reader that closes the pipe early is no error.
//!
//! A command reads flags, calls the library and prints. What a program that uses the library could need lies below.

mod agreement;
mod checkpoints;
mod compare;
mod decoding;
mod demo;
mod device;
mod eval;
mod export;
mod failure;
mod generate;
mod given;
mod inspect;
mod machine;
mod output;
mod plot;
mod regime;
mod resume;
mod speed;
mod stop;
mod target;
mod texts;
mod tokenizer;
mod train;
mod voice;
mod watch;

use crate::simd::Isa;
use clap::{CommandFactory, FromArgMatches, Parser};
use failure::Failure;
use given::Given;
use std::process::ExitCode;

/// Trains language models that predict several tokens at once, and runs them so that every step yields several tokens.
/// Speculation never changes a single token.
#[derive(Debug, Parser)]
#[command(name = "foretoken", version, max_term_width = 100)]
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
    #[command(subcommand)]
    Tokenizer(tokenizer::Command),
}

/// The program: reads the arguments, runs the command, and reports an error in one sentence.
pub fn main() -> ExitCode {
    // A panic that is turned into an error is reported as that error only.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !crate::data::guarded() {
            report(panic);
        }
    }));
    let matches = negative_numbers(Command::command()).get_matches();
    let mut command = Command::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let (Command::Train(train), Some((_, matches))) = (&mut command, matches.subcommand()) {
        train.given = Given::of(matches);
    }
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // A run that a signal stopped has reported it.
            if !matches!(failure, Failure::Stopped(_)) {
                output::message(&format!("error: {failure}"));
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Lets every flag take a negative number as its value, so that the error about it names the flag.
fn negative_numbers(command: clap::Command) -> clap::Command {
    let arg = |arg: clap::Arg| {
        let takes = arg.get_action().takes_values() && !arg.is_positional();
        if takes {
            arg.allow_negative_numbers(true)
        } else {
            arg
        }
    };
    command.mut_args(arg).mut_subcommands(negative_numbers)
}

fn run(command: Command) -> failure::Result {
    // Checked before any kernel needs it, so that an unknown name is an error and not a panic.
    Isa::from_environment()?;
    stop::catch()?;
    match command {
        Command::Demo(demo) => demo.machine.scope(|| demo.run()),
        Command::Train(train) => train.machine.scope(|| train.run()),
        Command::Eval(eval) => eval.on.machine.scope(|| eval.run()),
        Command::Generate(generate) => generate.on.machine.scope(|| generate.run()),
        Command::Speed(speed) => speed.on.machine.scope(|| speed.run()),
        Command::Inspect(inspect) => inspect.run(),
        Command::Export(export) => export.run(),
        Command::Plot(plot) => plot.run(),
        Command::Tokenizer(tokenizer) => tokenizer.run(),
    }
}
