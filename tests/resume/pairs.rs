//! Every kind of heads under every regime, with both optimisers and both schedules, in this process: a run that is saved,
//! forgotten and opened again ends with the weights and the optimiser's state of one that nobody disturbed.

use crate::runs::files;
use foretoken::data::{Tokenizer, corpus};
use foretoken::model::{HeadKind, JointLoss, Model, Preset};
use foretoken::train::{
    Ending, Event, Kind, Options, Origin, Plan, Regime, Run, Saving, Schedule, Settings, Shape,
    Trainer,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::Ordering;

/// Two for each of K + 1 = 3 stages.
const STEPS: u64 = 6;

/// What the runs differ in.
#[derive(Clone, Copy, Debug)]
struct Case {
    kind: HeadKind,
    depth: usize,
    plan: Plan,
    optimiser: Kind,
    shape: Shape,
}

impl Case {
    fn new(kind: HeadKind, depth: usize, regime: Regime, turn: usize) -> Self {
        Self {
            kind,
            depth,
            plan: Plan {
                regime,
                lambda_end: (turn < 4).then_some(0.1),
                freeze_trunk: false,
            },
            optimiser: [Kind::AdamW, Kind::Muon][turn % 2],
            shape: Shape::ALL[turn / 2 % 2],
        }
    }

    fn frozen(self) -> Self {
        let plan = Plan {
            freeze_trunk: true,
            ..self.plan
        };
        Self { plan, ..self }
    }

    fn trainer(&self) -> Trainer {
        let mut config = Preset::Tiny.config(257, self.kind, self.depth);
        (config.hidden_size, config.intermediate_size) = (16, 16);
        (config.num_hidden_layers, config.head_dim) = (1, 8);
        (config.num_attention_heads, config.num_key_value_heads) = (2, 1);
        config.set_head_width(8);
        let model = Model::new(config, 3).expect("sound sizes");
        Trainer::planned(model, Settings::of(self.optimiser), self.options().plan)
    }

    fn options(&self) -> Options {
        Options {
            steps: STEPS,
            batch: 2,
            accumulate: 1,
            context: 8,
            seed: 2,
            schedule: Schedule {
                peak: 5e-3,
                warmup: 2,
                steps: STEPS,
                floor: 0.1,
                shape: self.shape,
            },
            joint: JointLoss {
                lambda: 0.7,
                beta: 0.4,
            },
            plan: self.plan,
            eval_every: STEPS,
            log_every: 1,
        }
    }
}

/// Trains until `stop` steps are done, or to the end.
fn train(trainer: &mut Trainer, run: &Run, tokens: &[u32], stop: u64) -> Ending {
    let mut watch = |event: &Event| match event {
        Event::Step { step, .. } if *step == stop => run.stopper().store(2, Ordering::Relaxed),
        _ => {}
    };
    let (options, tokenizer) = (run.record().options.clone(), Tokenizer::bytes());
    let data = (tokens.to_vec(), &tokens[..9]);
    let ending = trainer.run(&options, data, &tokenizer, Some(run), &mut watch);
    ending.expect("a finite run")
}

/// The files of a run that is dropped after each of these steps, and goes on from its directory.
fn run(case: &Case, path: &Path, tokens: &[u32], stops: &[u64]) -> BTreeMap<String, Vec<u8>> {
    let (tokenizer, options) = (Tokenizer::bytes(), case.options());
    let mut trainer = case.trainer();
    let plan = (&options, &tokenizer);
    let (origin, saving) = (Origin::default(), Saving::default());
    let mut run = Run::create(path, &trainer, plan, origin, saving, false).expect("a directory");
    for &stop in stops {
        let ending = train(&mut trainer, &run, tokens, stop);
        assert_eq!(ending, Ending::Stopped(stop), "{case:?}");
        drop((run, trainer));
        let (mut opened, restored, _) = Run::open(path, Saving::default()).expect("a run");
        assert_eq!(opened.record().step, stop, "{case:?}");
        opened
            .go_on(options.clone(), &restored)
            .expect("a directory");
        (run, trainer) = (opened, restored);
    }
    let ending = train(&mut trainer, &run, tokens, u64::MAX);
    assert_eq!(ending, Ending::Done, "{case:?}");
    files(path)
}

#[test]
fn every_kind_of_heads_under_every_regime_goes_on_to_the_same_bits() {
    let mut cases = Vec::new();
    for (i, kind) in HeadKind::ALL.into_iter().enumerate() {
        for (j, regime) in Regime::ALL.into_iter().enumerate() {
            // A Latin square: every kind and every regime meets each pair of an optimiser and a schedule.
            cases.push(Case::new(kind, 2, regime, (i + j) % 4 + 4 * (i % 2)));
        }
        cases.push(Case::new(kind, 2, Regime::Joint, i).frozen());
        cases.push(Case::new(kind, 2, Regime::Detached, i + 1).frozen());
        cases.push(Case::new(kind, 0, Regime::Joint, i));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tokens = Tokenizer::bytes().encode(corpus::stories(6, 600).as_bytes());
    let tokens = tokens.expect("bytes");
    let check = |i: usize, case: &Case| {
        let path = |name: &str| folder.path().join(format!("{name}-{i}"));
        let whole = run(case, &path("whole"), &tokens, &[]);
        // In the middle of a stage and at its border.
        let stops: &[u64] = [&[3][..], &[2, 5], &[1, 4]][i % 3];
        let stopped = run(case, &path("stopped"), &tokens, stops);
        for file in ["train_state.safetensors", "model.safetensors"] {
            assert!(
                stopped[file] == whole[file],
                "{case:?} {stops:?}: {file} differs"
            );
        }
        whole["model.safetensors"].clone()
    };
    // Nearly all of the time is waiting for the disk, which many can do at once.
    let ends: BTreeSet<Vec<u8>> = std::thread::scope(|scope| {
        let check = &check;
        let spawn = |(i, case)| scope.spawn(move || check(i, case));
        let runs: Vec<_> = cases.iter().enumerate().map(spawn).collect();
        runs.into_iter()
            .map(|run| run.join().expect("no failure"))
            .collect()
    });
    // The cases are cases: no two runs end alike, but for those of no heads, whose kind decides nothing.
    assert!(
        ends.len() >= cases.len() - 3,
        "{} of {}",
        ends.len(),
        cases.len()
    );
}
