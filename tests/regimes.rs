//! Regimes decide which heads learn, and whether the trunk notices. All comparisons are of bits.

mod common;

use common::same_bits;
use foretoken::data::{RandomWindows, Tokenizer, corpus};
use foretoken::model::{Config, HeadKind, JointLoss, Model, Preset, layout};
use foretoken::train::{
    Ending, Event, Observer, Optimiser, Origin, Regime, Run, Schedule, TrainConfig, Trainer,
};
use std::fs;

/// Steps of a run: two for each stage of K + 1 = 3.
const STEPS: u64 = 6;

fn config(kind: HeadKind, depth: usize, tied: bool) -> Config {
    let mut config = Config {
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 8,
        tie_word_embeddings: tied,
        ..Preset::Tiny.config(257, kind, depth)
    };
    config.set_head_width(8);
    config
}

fn new(kind: HeadKind, depth: usize, tied: bool) -> Model {
    Model::new(config(kind, depth, tied), 4).expect("valid sizes")
}

fn text() -> Vec<u32> {
    let text = corpus::stories(11, 9000);
    Tokenizer::bytes().encode(text.as_bytes()).expect("bytes")
}

/// A run of [`STEPS`] under a regime. With AdamW every parameter moves, by its gradient and its decay.
fn regime(regime: Regime) -> TrainConfig {
    let mut config = TrainConfig::default();
    (config.steps, config.batch, config.context) = (STEPS, 3, 20);
    (config.seed, config.regime) = (2, regime);
    (config.peak_lr, config.warmup) = (5e-3, Some(2));
    (config.schedule, config.optimiser) = (Schedule::Cosine, Optimiser::ADAMW);
    (config.eval_every, config.log_every) = (100, 1);
    config
}

/// The same with a frozen trunk.
fn frozen() -> TrainConfig {
    let mut config = regime(Regime::Joint);
    config.freeze_trunk = true;
    config
}

/// A model after a whole run.
fn run(model: Model, config: &TrainConfig) -> Model {
    let (text, mut trainer) = (
        text(),
        Trainer::new(model, config.clone()).expect("a valid configuration"),
    );
    let quiet = &mut |_: &Event| {};
    let run = trainer.run(text.clone(), &text[..300], &Tokenizer::bytes(), None, quiet);
    run.expect("finite losses");
    trainer.into_model()
}

/// A model after the first steps of a run, made by hand: one for each loss.
fn stepped(model: Model, config: &TrainConfig, losses: &[JointLoss]) -> Model {
    let mut trainer = Trainer::new(model, config.clone()).expect("a valid configuration");
    let windows = RandomWindows::new(text(), 20, 3, 2).expect("a text");
    for (step, joint) in (0..).zip(losses) {
        let batch = windows.batch(step).expect("in memory");
        let done = trainer.step(&batch, *joint, config.lr(step));
        done.expect("finite losses");
    }
    trainer.into_model()
}

/// A model after the first `steps` of a run of [`STEPS`].
fn trained(model: Model, config: &TrainConfig, steps: u64) -> Model {
    if steps == STEPS {
        return run(model, config);
    }
    let heads = model.config().mtp_depth;
    let losses: Vec<_> = (0..steps)
        .map(|step| config.joint_loss(heads, step))
        .collect();
    stepped(model, config, &losses)
}

/// Names of the parameters of b that differ in a bit from those of a with the same name.
fn changed(a: &Model, b: &Model) -> Vec<String> {
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let differs = |(name, t): &(&str, &foretoken::tensor::Tensor)| {
        let other = a.params().find(name).map(|id| a.params().get(id));
        other.is_some_and(|other| bits(other.data()) != bits(t.data()))
    };
    let different = b.params().iter().filter(differs);
    different.map(|(name, _)| name.to_owned()).collect()
}

fn names(model: &Model, head: bool) -> Vec<String> {
    let all = model.params().iter().map(|(name, _)| name.to_owned());
    all.filter(|name| layout::is_head(name) == head).collect()
}

#[test]
fn detached_heads_leave_the_trunk_as_if_there_were_none() {
    for kind in HeadKind::ALL {
        for tied in [true, false] {
            let bare = trained(new(kind, 0, tied), &regime(Regime::Joint), STEPS);
            let start = new(kind, 2, tied);
            let got = trained(new(kind, 2, tied), &regime(Regime::Detached), STEPS);
            assert_eq!(changed(&bare, &got), [""; 0], "{kind:?}, tied {tied}");
            // The heads have learnt all the same, and joint training would have shown in the trunk.
            assert_eq!(changed(&start, &got).len(), got.params().len());
            let joint = trained(new(kind, 2, tied), &regime(Regime::Joint), STEPS);
            assert_eq!(changed(&bare, &joint), names(&bare, false));
        }
    }
}

#[test]
fn a_frozen_trunk_keeps_every_bit_and_its_new_heads_learn() {
    for kind in HeadKind::ALL {
        let trunk = trained(new(kind, 0, true), &regime(Regime::Joint), STEPS);
        let start = trunk.with_heads(config(kind, 2, true), 9).expect("heads");
        let copy = start.with_config(start.config().clone()).expect("a copy");
        let got = trained(copy, &frozen(), STEPS);
        assert_eq!(changed(&trunk, &got), [""; 0], "{kind:?}");
        assert_eq!(changed(&start, &got), names(&got, true), "{kind:?}");
    }
}

/// Inactive heads keep their values: they do not even decay. Without active heads the trunk learns as if there were
/// none.
#[test]
fn heads_learn_in_the_stages_in_which_they_are_active() {
    for kind in HeadKind::ALL {
        let start = new(kind, 2, true);
        let heads = |model: &Model| -> Vec<String> {
            let all = changed(&start, model).into_iter();
            all.filter(|name| layout::is_head(name)).collect()
        };
        let up = |steps| trained(new(kind, 2, true), &regime(Regime::Curriculum), steps);
        let bare = |steps| trained(new(kind, 0, true), &regime(Regime::Joint), steps);
        let [first, second, third] = [2, 4, 6].map(up);
        assert_eq!(heads(&first), [""; 0], "{kind:?}");
        assert_eq!(changed(&bare(2), &first), [""; 0], "{kind:?}");
        // The recursive kind has one module, and one active head trains all of it.
        let of_head_one = |name: &String| layout::first_head(name) == Some(1);
        let expected: Vec<_> = names(&start, true)
            .into_iter()
            .filter(of_head_one)
            .collect();
        assert_eq!(heads(&second), expected, "{kind:?}");
        assert_eq!(heads(&third), names(&start, true), "{kind:?}");

        let down = |steps| trained(new(kind, 2, true), &regime(Regime::Reverse), steps);
        let [first, second, third] = [2, 4, 6].map(down);
        assert_eq!(heads(&first), names(&start, true), "{kind:?}");
        let kept = |name: &String| !changed(&first, &second).contains(name);
        let of_head_two: Vec<_> = names(&start, true)
            .into_iter()
            .filter(|n| !of_head_one(n))
            .collect();
        let still: Vec<_> = names(&start, true).into_iter().filter(kept).collect();
        assert_eq!(still, of_head_two, "{kind:?}");
        let later = changed(&second, &third);
        assert_eq!(
            later,
            names(&start, false),
            "{kind:?}: only the trunk in the last stage"
        );
    }
}

/// A run equals steps made by hand with the λ of each step, which is written down here and not computed: a constant,
/// and a straight line between the two given values.
#[test]
fn the_lambda_of_each_step_reaches_the_loss() {
    let lines = [
        (0.75, None, [0.75; 5]),
        (1.0, Some(0.0), [1.0, 0.75, 0.5, 0.25, 0.0]),
        (0.5, Some(2.5), [0.5, 1.0, 1.5, 2.0, 2.5]),
        (0.5, Some(0.5), [0.5; 5]),
    ];
    for kind in HeadKind::ALL {
        let mut ends: Vec<Model> = Vec::new();
        for (lambda, lambda_end, steps) in lines {
            let mut config = regime(Regime::Joint);
            config.steps = steps.len() as u64;
            (config.lambda, config.lambda_end) = (lambda, lambda_end);
            let losses = steps.map(|lambda| JointLoss {
                lambda,
                ..JointLoss::default()
            });
            let by_hand = stepped(new(kind, 2, true), &config, &losses);
            let got = run(new(kind, 2, true), &config);
            assert_eq!(changed(&by_hand, &got), [""; 0], "{kind:?}, {lambda}");
            // So that this can fail: a different λ changes the trunk and the heads.
            for other in &ends {
                let changed = changed(other, &got);
                let in_heads = changed.iter().filter(|name| layout::is_head(name)).count();
                assert!(0 < in_heads && in_heads < changed.len(), "{kind:?}");
            }
            ends.push(got);
        }
    }
}

/// With a frozen trunk the optimiser and the gradients hold only what the heads need.
#[test]
fn a_frozen_trunk_has_no_gradients_and_no_moments() {
    for (kind, optimiser) in HeadKind::ALL
        .into_iter()
        .flat_map(|kind| Optimiser::ALL.map(|optimiser| (kind, optimiser)))
    {
        let trainer = |config: TrainConfig| {
            let mut config = config;
            config.optimiser = optimiser;
            Trainer::new(new(kind, 2, true), config).expect("a valid configuration")
        };
        // Two moments per element, or one momentum.
        let expected = |model: &Model, heads_only: bool| -> (usize, usize) {
            let params = model.params().iter();
            let learns = params.filter(|(name, _)| !heads_only || layout::is_head(name));
            learns.fold((0, 0), |(elements, kept), (name, t)| {
                let n = t.data().len();
                let by_muon = optimiser.moves_by_muon(name, t.shape());
                (elements + n, kept + if by_muon { n } else { 2 * n })
            })
        };
        let held = |trainer: &Trainer| {
            let kept = trainer.optimiser().tensors(trainer.model().params());
            let kept = kept.map(|(_, t)| t.data().len()).sum();
            (trainer.gradients().elements(), kept)
        };
        let whole = trainer(regime(Regime::Joint));
        assert_eq!(held(&whole), expected(whole.model(), false), "{kind:?}");
        let mut heads = trainer(frozen());
        assert_eq!(held(&heads), expected(heads.model(), true), "{kind:?}");
        assert!(held(&heads).0 < held(&whole).0 / 2, "{kind:?}");

        // It is still so after a step, and a step that would change the trunk is refused before it does anything.
        let windows = RandomWindows::new(text(), 20, 3, 2).expect("a text");
        let batch = windows.batch(0).expect("in memory");
        let error = heads.step(&batch, JointLoss::default(), 1e-3);
        let error = error.expect_err("the trunk cannot learn").to_string();
        assert!(
            error.contains("Frozen") && error.contains("Joint"),
            "{error}"
        );
        assert_eq!(heads.steps(), 0);
        assert_eq!(changed(whole.model(), heads.model()), [""; 0]);
        let joint = heads.config().joint_loss(2, 0);
        heads.step(&batch, joint, 1e-3).expect("finite");
        assert_eq!(held(&heads), expected(heads.model(), true), "{kind:?}");
    }
}

/// Stops a run after a step.
struct StopAfter(u64, bool);

impl Observer for StopAfter {
    fn event(&mut self, _: &Event) {}

    fn stepped(&mut self, steps: u64) {
        self.1 |= steps == self.0;
    }

    fn stop(&mut self) -> bool {
        self.1
    }
}

/// A run of heads on a frozen trunk that is stopped half way and resumed ends bitwise identical to an uninterrupted
/// one. Its checkpoint has no moments of the trunk.
#[test]
fn heads_on_a_frozen_trunk_resume_from_a_checkpoint() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (text, tokenizer) = (text(), Tokenizer::bytes());
    for (kind, optimiser) in [
        (HeadKind::Recursive, Optimiser::MUON),
        (HeadKind::Medusa, Optimiser::ADAMW),
    ] {
        let mut config = frozen();
        config.optimiser = optimiser;
        let train = |trainer: &mut Trainer, run: Option<&mut Run>, stop: u64| {
            let mut stop = StopAfter(stop, false);
            let ending = trainer.run(text.clone(), &text[..300], &tokenizer, run, &mut stop);
            ending.expect("finite losses")
        };
        let mut uninterrupted =
            Trainer::new(new(kind, 2, true), config.clone()).expect("a valid configuration");
        assert_eq!(train(&mut uninterrupted, None, u64::MAX), Ending::Done);

        let path = folder.path().join(kind.name());
        let mut trainer = Trainer::new(new(kind, 2, true), config).expect("a valid configuration");
        let run = Run::create(&path, &trainer, &tokenizer, Origin::default(), false);
        let mut run = run.expect("a new directory");
        let half = train(&mut trainer, Some(&mut run), 3);
        assert_eq!(half, Ending::Stopped(3));
        drop(run);

        let bytes = fs::read(path.join("train_state.safetensors")).expect("the state");
        let state = String::from_utf8_lossy(&bytes);
        for part in ["first_moment/", "second_moment/", "momentum/"] {
            assert!(!state.contains(&format!("{part}model.")), "{part}");
        }
        assert!(state.contains("weights/model.") && state.contains("moment"));

        let (mut run, mut trainer, _) = Run::open(&path).expect("a checkpoint");
        assert_eq!(trainer.steps(), 3);
        assert_eq!(
            trainer.gradients().elements(),
            uninterrupted.gradients().elements()
        );
        let rest = train(&mut trainer, Some(&mut run), u64::MAX);
        assert_eq!(rest, Ending::Done);
        let (got, expected) = (trainer.model(), uninterrupted.model());
        assert_eq!(changed(expected, got), [""; 0]);
        assert_eq!(changed(&new(kind, 2, true), got), names(got, true));
    }
}

/// A new Medusa head adds silu(0) = 0 to the trunk's hidden state. Values are compared, because −0 + 0 is +0.
#[test]
fn a_new_medusa_head_has_the_trunks_logits() {
    for width in [8, 16] {
        let mut config = config(HeadKind::Medusa, 2, true);
        config.set_head_width(width);
        let model = Model::new(config, 3).expect("valid sizes");
        let logits = common::answer(&model, &common::tokens(20, 257, 1));
        for head in &logits[1..] {
            assert!(head[..] == logits[0][..head.len()] && !head.is_empty());
        }
    }
}

/// Removing heads changes no bit of the trunk's logits, and none of the remaining heads'.
#[test]
fn heads_that_are_cut_change_nothing_that_remains() {
    for fixture in common::Fixture::all() {
        for model in [fixture.model(3), fixture.packed(3)] {
            let x = common::tokens(33, fixture.vocab, 3);
            let whole = common::answer(&model, &x);
            for depth in 0..=fixture.depth {
                let cut = model.keep_heads(depth).expect("fewer heads");
                assert_eq!(cut.config().mtp_depth, depth);
                assert_eq!(cut.config().num_hidden_layers, 2);
                let mut decoder = common::decoder::Decoder::new(&cut, 1);
                for part in x.chunks(7) {
                    decoder.feed(&[(0, part)]);
                    decoder.heads(&[0]);
                }
                let got = decoder.logits(0);
                assert_eq!(got.len(), depth + 1);
                for (k, (got, expected)) in got.iter().zip(&whole).enumerate() {
                    let what = format!("{fixture:?}, {depth} heads, depth {k}");
                    same_bits(&what, fixture.vocab, got, &expected[..got.len()]);
                }
            }
            let heads = |m: &Model| m.params().iter().any(|(name, _)| layout::is_head(name));
            assert!(heads(&model) && !heads(&model.keep_heads(0).expect("none")));
            let error = model.keep_heads(4).expect_err("there are 3").to_string();
            assert!(
                error.contains("mtp_depth") && error.contains("3"),
                "{error}"
            );
        }
    }
}
