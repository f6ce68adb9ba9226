//! A run as somebody watches it: the bar moves with every step, and a signal is answered at once.

use super::output::message;
use crate::Result;
use crate::train::{Event, Keep, Run, Trainer};
use indicatif::ProgressBar;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a signal may wait for its answer. A handler of signals may not write to a terminal itself.
const PATIENCE: Duration = Duration::from_millis(50);

/// A run, and the bar that shows it.
#[derive(Clone, Copy, Debug)]
pub struct Watched<'a> {
    /// Keeps everything.
    pub run: &'a Run,
    /// Moves with every step.
    pub bar: &'a ProgressBar,
}

impl Keep for Watched<'_> {
    fn path(&self) -> &Path {
        self.run.path()
    }

    fn event(&self, event: &Event) -> Result<()> {
        self.run.event(event)
    }

    fn due(&self, step: u64, evaluated: bool) -> bool {
        self.run.due(step, evaluated)
    }

    fn checkpoint(&self, trainer: &Trainer) -> Result<()> {
        self.run.checkpoint(trainer)
    }

    fn stop(&self) -> bool {
        self.run.stop()
    }

    fn stepped(&self, step: u64) {
        self.bar.set_position(step);
    }
}

/// Says that the run is stopping as soon as it was asked to, while the step is still being computed. Dropping the value
/// ends the watch; a signal that came before is answered then.
#[derive(Debug)]
pub struct Answer {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Answer {
    /// Watches `stop` from now on.
    pub fn to(stop: &Arc<AtomicUsize>, bar: &ProgressBar) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (stop, bar, ended) = (Arc::clone(stop), bar.clone(), Arc::clone(&over));
        let thread = thread::spawn(move || {
            let asked = || stop.load(Ordering::Relaxed) != 0;
            while !asked() && !ended.load(Ordering::Acquire) {
                thread::park_timeout(PATIENCE);
            }
            if asked() {
                bar.suspend(|| {
                    message("stopping after this step; a second signal ends the program at once");
                });
            }
        });
        let thread = Some(thread);
        Self { over, thread }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A watch that panicked has nothing to say, and its run is none the worse.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::progress;
    use crate::data::Tokenizer;
    use crate::model::{HeadKind, JointLoss, Model, Preset};
    use crate::train::{Options, Origin, Plan, Saving, Schedule, Shape};

    #[test]
    fn the_bar_starts_where_the_run_goes_on_and_moves_with_every_step() {
        let bar = progress(7, 10);
        assert_eq!((bar.position(), bar.length()), (7, Some(10)));
        let mut config = Preset::Tiny.config(257, HeadKind::Medusa, 0);
        (config.hidden_size, config.intermediate_size) = (16, 16);
        (config.num_hidden_layers, config.head_dim) = (1, 8);
        (config.num_attention_heads, config.num_key_value_heads) = (1, 1);
        let mut trainer = Trainer::new(Model::new(config, 1).unwrap());
        let options = Options {
            steps: 3,
            batch: 1,
            accumulate: 1,
            context: 4,
            seed: 1,
            schedule: Schedule {
                peak: 1e-3,
                warmup: 0,
                steps: 3,
                floor: 0.1,
                shape: Shape::Wsd,
            },
            joint: JointLoss::default(),
            plan: Plan::default(),
            eval_every: 1,
            // Reports alone would move the bar at the last step only.
            log_every: 3,
        };
        let tokenizer = Tokenizer::bytes();
        let folder = tempfile::tempdir().unwrap();
        let plan = (&options, &tokenizer);
        let path = folder.path().join("run");
        let (origin, saving) = (Origin::default(), Saving::default());
        let run = Run::create(&path, &trainer, plan, origin, saving, false).unwrap();
        let bar = progress(0, 3);
        let watched = Watched {
            run: &run,
            bar: &bar,
        };
        let tokens = tokenizer.encode(b"some text to read").unwrap();
        let mut positions = Vec::new();
        let mut look = |event: &Event| {
            if let Event::Eval { .. } = event {
                positions.push(bar.position());
            }
        };
        let data = (tokens.clone(), &*tokens);
        let ran = trainer.run(&options, data, &tokenizer, Some(&watched), &mut look);
        ran.unwrap();
        assert_eq!(positions, [1, 2, 3]);
    }
}
