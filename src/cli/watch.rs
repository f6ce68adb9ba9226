//! Watching a run: the bar moves with every step, and a signal is answered at once.

use super::output::{Output, describe, message, show};
use crate::train::{Event, Observer};
use indicatif::ProgressBar;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Longest time between a signal and its answer. A signal handler may not write to a terminal itself.
const PATIENCE: Duration = Duration::from_millis(50);

/// Shows a run, and stops it on a signal.
#[derive(Debug)]
pub struct Watch<'a> {
    /// Moves with every step.
    pub bar: &'a ProgressBar,
    /// Prints events.
    pub output: Output,
    /// The signal's number, or 0.
    pub signal: &'a AtomicUsize,
}

impl Observer for Watch<'_> {
    fn event(&mut self, event: &Event) {
        show(self.bar, event);
        self.bar
            .suspend(|| self.output.result(event, || describe(event)));
    }

    fn stepped(&mut self, steps: u64) {
        self.bar.set_position(steps);
    }

    fn stop(&mut self) -> bool {
        self.signal.load(Ordering::Relaxed) != 0
    }
}

/// Does some work; a signal is answered at once, while the step is still being computed.
pub fn answering<R>(signal: &AtomicUsize, bar: &ProgressBar, work: impl FnOnce() -> R) -> R {
    thread::scope(|scope| {
        let (working, over) = mpsc::channel::<()>();
        let answer = scope.spawn(move || {
            let asked = || signal.load(Ordering::Relaxed) != 0;
            while !asked() && over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {}
            if asked() {
                bar.suspend(|| {
                    message("stopping after this step; a second signal ends the program at once");
                });
            }
        });
        let done = work();
        drop(working);
        // If the thread panicked, only the answer to a signal is lost.
        let _ = answer.join();
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::progress;
    use crate::data::Tokenizer;
    use crate::model::{HeadKind, Model, Preset};
    use crate::train::{TrainConfig, Trainer};

    /// A [`Watch`] without output, which notes where the bar stands at each evaluation.
    struct Positions<'a>(Watch<'a>, Vec<u64>);

    impl Observer for Positions<'_> {
        fn event(&mut self, event: &Event) {
            if let Event::Eval { .. } = event {
                self.1.push(self.0.bar.position());
            }
        }

        fn stepped(&mut self, steps: u64) {
            self.0.stepped(steps);
        }
    }

    #[test]
    fn the_bar_starts_where_a_resumed_run_starts_and_moves_with_every_step() {
        let bar = progress(7, 10);
        assert_eq!((bar.position(), bar.length()), (7, Some(10)));
        let mut model = Preset::Tiny.config(257, HeadKind::Medusa, 0);
        (model.hidden_size, model.intermediate_size) = (16, 16);
        (model.num_hidden_layers, model.head_dim) = (1, 8);
        (model.num_attention_heads, model.num_key_value_heads) = (1, 1);
        let mut config = TrainConfig::default();
        (config.steps, config.batch, config.context) = (3, 1, 4);
        // Reports alone would move the bar at the last step only.
        (config.eval_every, config.log_every) = (1, 3);
        let mut trainer = Trainer::new(Model::new(model, 1).unwrap(), config).unwrap();
        let tokenizer = Tokenizer::bytes();
        let (bar, signal) = (progress(0, 3), AtomicUsize::new(0));
        let watch = Watch {
            bar: &bar,
            output: Output::new(false),
            signal: &signal,
        };
        let mut positions = Positions(watch, Vec::new());
        let tokens = tokenizer.encode(b"some text to read").unwrap();
        let ran = trainer.run(tokens.clone(), tokens, &tokenizer, None, &mut positions);
        ran.unwrap();
        assert_eq!(positions.1, [1, 2, 3]);
    }
}
