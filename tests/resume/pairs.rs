//! Every kind of heads under every regime, with both optimisers and both schedules, in this process: a run that is
//! saved, dropped and opened again ends with the weights and the optimiser's state of an uninterrupted one.

use crate::runs::{StopAfter, files};
use foretoken::data::{Tokenizer, corpus};
use foretoken::model::{HeadKind, Model, Preset};
use foretoken::train::{Ending, Optimiser, Origin, Regime, Run, Schedule, TrainConfig, Trainer};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Two for each of K + 1 = 3 stages.
const STEPS: u64 = 6;

/// What the runs differ in.
#[derive(Clone, Debug)]
struct Case {
    kind: HeadKind,
    num_heads: usize,
    config: TrainConfig,
}

impl Case {
    fn new(kind: HeadKind, num_heads: usize, regime: Regime, turn: usize) -> Self {
        let mut config = TrainConfig::default();
        (config.steps, config.batch, config.context) = (STEPS, 2, 8);
        (config.seed, config.peak_lr, config.warmup) = (2, 5e-3, Some(2));
        (config.lambda, config.beta) = (0.7, 0.4);
        (config.eval_every, config.log_every) = (STEPS, 1);
        config.regime = regime;
        config.lambda_end = (turn < 4).then_some(0.1);
        config.optimiser = Optimiser::ALL[turn % 2];
        config.schedule = Schedule::ALL[turn / 2 % 2];
        Self {
            kind,
            num_heads,
            config,
        }
    }

    fn frozen(mut self) -> Self {
        self.config.freeze_trunk = true;
        self
    }

    fn trainer(&self) -> Trainer {
        let mut model = Preset::Tiny.config(257, self.kind, self.num_heads);
        (model.hidden_size, model.intermediate_size) = (16, 16);
        (model.num_hidden_layers, model.head_dim) = (1, 8);
        (model.num_attention_heads, model.num_key_value_heads) = (2, 1);
        model.set_head_width(8);
        let model = Model::new(model, 3).expect("valid sizes");
        Trainer::new(model, self.config.clone()).expect("a valid configuration")
    }
}

/// Trains until `stop` steps are done, or to the end.
fn train(trainer: &mut Trainer, run: &mut Run, tokens: &[u32], stop: u64) -> Ending {
    let (train, valid) = (tokens.to_vec(), &tokens[..9]);
    let stop = &mut StopAfter::step(stop);
    let ending = trainer.run(train, valid, &Tokenizer::bytes(), Some(run), stop);
    ending.expect("a finite run")
}

/// The files of a run that is dropped after each of these steps, and resumed from its directory.
fn run(case: &Case, path: &Path, tokens: &[u32], stops: &[u64]) -> BTreeMap<String, Vec<u8>> {
    let mut trainer = case.trainer();
    let tokenizer = Tokenizer::bytes();
    let run = Run::create(path, &trainer, &tokenizer, Origin::default(), false);
    let mut run = run.expect("a directory");
    for &stop in stops {
        let ending = train(&mut trainer, &mut run, tokens, stop);
        assert_eq!(ending, Ending::Stopped(stop), "{case:?}");
        drop((run, trainer));
        (run, trainer, _) = Run::open(path).expect("a run");
        assert_eq!((run.saved_step(), trainer.steps()), (stop, stop));
        assert_eq!(trainer.config(), &case.config);
        run.resume(&trainer).expect("a directory");
    }
    let ending = train(&mut trainer, &mut run, tokens, u64::MAX);
    assert_eq!(ending, Ending::Done, "{case:?}");
    files(path)
}

#[test]
fn every_kind_of_heads_under_every_regime_resumes_to_the_same_bits() {
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
    // The cases differ: no two runs end alike, except those without heads, for which the kind is irrelevant.
    assert!(
        ends.len() >= cases.len() - 3,
        "{} of {}",
        ends.len(),
        cases.len()
    );
}
