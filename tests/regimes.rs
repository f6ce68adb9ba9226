//! Regimes decide which heads learn, and whether the trunk notices. All comparisons are of bits.

mod common;

use common::same_bits;
use foretoken::data::{RandomWindows, Tokenizer, corpus};
use foretoken::model::{Config, HeadKind, JointLoss, Model, Objective, Preset, layout};
use foretoken::train::{
    Ending, Event, Kind, Options, Origin, Plan, Regime, Run, Saving, Schedule, Settings, Shape,
    Trainer,
};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
    Model::new(config(kind, depth, tied), 4).expect("sound sizes")
}

fn text() -> Vec<u32> {
    let text = corpus::stories(11, 9000);
    Tokenizer::bytes().encode(text.as_bytes()).expect("bytes")
}

fn options(plan: Plan, joint: JointLoss, steps: u64) -> Options {
    Options {
        steps,
        batch: 3,
        accumulate: 1,
        context: 20,
        seed: 2,
        schedule: Schedule {
            peak: 5e-3,
            warmup: 2,
            steps,
            floor: 0.1,
            shape: Shape::Cosine,
        },
        joint,
        plan,
        eval_every: 100,
        log_every: 1,
    }
}

/// Every parameter moves by AdamW, by its gradient and its decay.
fn trainer(model: Model, plan: Plan) -> Trainer {
    Trainer::planned(model, Settings::of(Kind::AdamW), plan)
}

/// A model after a whole run with these options.
fn run(model: Model, options: &Options) -> Model {
    let (text, mut trainer) = (text(), trainer(model, options.plan));
    let data = (text.clone(), &text[..300]);
    let run = trainer.run(options, data, &Tokenizer::bytes(), None, &mut |_| {});
    run.expect("finite losses");
    trainer.model
}

/// A model after the first steps of a run, made by hand: one for each objective.
fn stepped(model: Model, options: &Options, objectives: &[Objective]) -> Model {
    let mut trainer = trainer(model, options.plan);
    let windows = RandomWindows::new(text(), 20, 3, 2).expect("a text");
    for (step, objective) in (0..).zip(objectives) {
        let batch = windows.batch(step).expect("in memory");
        let done = trainer.step(&batch, *objective, options.schedule.rate(step));
        done.expect("finite losses");
    }
    trainer.model
}

/// A model after the first `steps` of a run of [`STEPS`].
fn trained(model: Model, plan: Plan, steps: u64) -> Model {
    let options = options(plan, JointLoss::default(), STEPS);
    if steps == STEPS {
        return run(model, &options);
    }
    let depth = model.config().mtp_depth;
    let at = |step| plan.objective(options.joint, depth, step, STEPS);
    let objectives: Vec<_> = (0..steps).map(at).collect();
    stepped(model, &options, &objectives)
}

fn plan(regime: Regime) -> Plan {
    Plan {
        regime,
        ..Plan::default()
    }
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
            let bare = trained(new(kind, 0, tied), Plan::default(), STEPS);
            let start = new(kind, 2, tied);
            let got = trained(new(kind, 2, tied), plan(Regime::Detached), STEPS);
            assert_eq!(changed(&bare, &got), [""; 0], "{kind:?}, tied {tied}");
            // The heads have learnt all the same, and joint training would have shown in the trunk.
            assert_eq!(changed(&start, &got).len(), got.params().len());
            let joint = trained(new(kind, 2, tied), Plan::default(), STEPS);
            assert_eq!(changed(&bare, &joint), names(&bare, false));
        }
    }
}

#[test]
fn a_frozen_trunk_keeps_every_bit_and_its_new_heads_learn() {
    for kind in HeadKind::ALL {
        let trunk = trained(new(kind, 0, true), Plan::default(), STEPS);
        let start = trunk.with_heads(config(kind, 2, true), 9).expect("heads");
        let frozen = Plan {
            freeze_trunk: true,
            ..Plan::default()
        };
        let got = trained(
            start.rebuilt(start.config().clone()).expect("a copy"),
            frozen,
            STEPS,
        );
        assert_eq!(changed(&trunk, &got), [""; 0], "{kind:?}");
        assert_eq!(changed(&start, &got), names(&got, true), "{kind:?}");
    }
}

/// Heads that do not count keep their values: they do not even decay. With none of them the trunk learns as without.
#[test]
fn heads_learn_in_the_stages_in_which_they_count() {
    for kind in HeadKind::ALL {
        let start = new(kind, 2, true);
        let heads = |model: &Model| -> Vec<String> {
            let all = changed(&start, model).into_iter();
            all.filter(|name| layout::is_head(name)).collect()
        };
        let up = |steps| trained(new(kind, 2, true), plan(Regime::Curriculum), steps);
        let bare = |steps| trained(new(kind, 0, true), Plan::default(), steps);
        let [first, second, third] = [2, 4, 6].map(up);
        assert_eq!(heads(&first), [""; 0], "{kind:?}");
        assert_eq!(changed(&bare(2), &first), [""; 0], "{kind:?}");
        // A recursive head is one module, which the first active depth trains whole.
        let of_depth_one = |name: &String| layout::first_depth(name) == Some(1);
        let expected: Vec<_> = names(&start, true)
            .into_iter()
            .filter(of_depth_one)
            .collect();
        assert_eq!(heads(&second), expected, "{kind:?}");
        assert_eq!(heads(&third), names(&start, true), "{kind:?}");

        let down = |steps| trained(new(kind, 2, true), plan(Regime::Reverse), steps);
        let [first, second, third] = [2, 4, 6].map(down);
        assert_eq!(heads(&first), names(&start, true), "{kind:?}");
        let kept = |name: &String| !changed(&first, &second).contains(name);
        let second_depth: Vec<_> = names(&start, true)
            .into_iter()
            .filter(|n| !of_depth_one(n))
            .collect();
        let still: Vec<_> = names(&start, true).into_iter().filter(kept).collect();
        assert_eq!(still, second_depth, "{kind:?}");
        let later = changed(&second, &third);
        assert_eq!(
            later,
            names(&start, false),
            "{kind:?}: only the trunk in the last stage"
        );
    }
}

/// A run equals steps made by hand with the λ that each is to have, here numbers that are written down and not computed:
/// a constant, and a straight line whose ends are those that were asked for.
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
            let plan = Plan {
                lambda_end,
                ..Plan::default()
            };
            let beta = 0.6;
            let options = options(plan, JointLoss { lambda, beta }, steps.len() as u64);
            let objectives = steps.map(|lambda| Objective::from(JointLoss { lambda, beta }));
            let by_hand = stepped(new(kind, 2, true), &options, &objectives);
            let got = run(new(kind, 2, true), &options);
            assert_eq!(changed(&by_hand, &got), [""; 0], "{kind:?}, {lambda}");
            // So that this can fail: another λ is seen in the trunk and in the heads.
            for other in &ends {
                let changed = changed(other, &got);
                let in_heads = changed.iter().filter(|name| layout::is_head(name)).count();
                assert!(0 < in_heads && in_heads < changed.len(), "{kind:?}");
            }
            ends.push(got);
        }
    }
}

/// The optimiser and the gradients hold what the heads need and nothing for the trunk, whose weights alone are kept. A
/// trainer without a plan holds everything.
#[test]
fn a_frozen_trunk_has_no_gradients_and_no_moments() {
    let frozen = Plan {
        freeze_trunk: true,
        ..Plan::default()
    };
    for (kind, optimiser) in HeadKind::ALL
        .into_iter()
        .flat_map(|kind| Kind::ALL.map(|optimiser| (kind, optimiser)))
    {
        let settings = Settings::of(optimiser);
        // Two moments of an element, or one momentum.
        let expected = |model: &Model, heads_only: bool| -> (usize, usize) {
            let params = model.params().iter();
            let learns = params.filter(|(name, _)| !heads_only || layout::is_head(name));
            learns.fold((0, 0), |(elements, kept), (name, t)| {
                let n = t.data().len();
                let by_muon = settings.moves_by_muon(name, t.shape());
                (elements + n, kept + if by_muon { n } else { 2 * n })
            })
        };
        let held = |trainer: &Trainer| {
            let kept = trainer.optimiser().tensors(trainer.model.params());
            let kept = kept.map(|(_, t)| t.data().len()).sum();
            (trainer.gradients().elements(), kept)
        };
        let whole = Trainer::with(new(kind, 2, true), settings);
        assert_eq!(held(&whole), expected(&whole.model, false), "{kind:?}");
        let mut heads = Trainer::planned(new(kind, 2, true), settings, frozen);
        assert_eq!(held(&heads), expected(&heads.model, true), "{kind:?}");
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
        assert_eq!(changed(&whole.model, &heads.model), [""; 0]);
        let objective = frozen.objective(JointLoss::default(), 2, 0, 1);
        heads.step(&batch, objective, 1e-3).expect("finite");
        assert_eq!(held(&heads), expected(&heads.model, true), "{kind:?}");
    }
}

/// A run of heads on a frozen trunk that is stopped half way goes on to the bits of one that is not, from a state without
/// moments of the trunk.
#[test]
fn heads_on_a_frozen_trunk_go_on_from_a_checkpoint() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plan = Plan {
        freeze_trunk: true,
        ..Plan::default()
    };
    let (text, tokenizer) = (text(), Tokenizer::bytes());
    for (kind, optimiser) in [
        (HeadKind::Recursive, Kind::Muon),
        (HeadKind::Medusa, Kind::AdamW),
    ] {
        let options = options(plan, JointLoss::default(), STEPS);
        let begun = || Trainer::planned(new(kind, 2, true), Settings::of(optimiser), plan);
        let data = || (text.clone(), &text[..300]);
        let mut undisturbed = begun();
        let done = undisturbed.run(&options, data(), &tokenizer, None, &mut |_| {});
        assert_eq!(done.expect("finite losses"), Ending::Done);

        let path = folder.path().join(kind.name());
        let (mut trainer, saving) = (begun(), Saving::default());
        let stop = Arc::clone(&saving.stop);
        let origin = Origin::default();
        let (run, parts) = (Run::create, (&options, &tokenizer));
        let run = run(&path, &trainer, parts, origin, saving, false).expect("a new directory");
        let mut stop_at_half = |event: &Event| {
            if let Event::Step { step: 3, .. } = event {
                stop.store(1, Ordering::Relaxed);
            }
        };
        let half = trainer.run(&options, data(), &tokenizer, Some(&run), &mut stop_at_half);
        assert_eq!(half.expect("finite losses"), Ending::Stopped(3));
        drop(run);

        let bytes = fs::read(path.join("train_state.safetensors")).expect("the state");
        let state = String::from_utf8_lossy(&bytes);
        for part in ["first_moment/", "second_moment/", "momentum/"] {
            assert!(!state.contains(&format!("{part}model.")), "{part}");
        }
        assert!(state.contains("weights/model.") && state.contains("moment"));

        let (run, mut trainer, _) = Run::open(&path, Saving::default()).expect("a checkpoint");
        assert_eq!(trainer.steps(), 3);
        assert_eq!(
            trainer.gradients().elements(),
            undisturbed.gradients().elements()
        );
        let rest = trainer.run(&options, data(), &tokenizer, Some(&run), &mut |_| {});
        assert_eq!(rest.expect("finite losses"), Ending::Done);
        assert_eq!(changed(&undisturbed.model, &trainer.model), [""; 0]);
        assert_eq!(
            changed(&new(kind, 2, true), &trainer.model),
            names(&trainer.model, true)
        );
    }
}

/// A new Medusa head adds silu(0) = 0 to the trunk's state: values are compared, because −0 + 0 is +0.
#[test]
fn a_new_medusa_head_says_what_the_trunk_says() {
    for width in [8, 16] {
        let mut config = config(HeadKind::Medusa, 2, true);
        config.set_head_width(width);
        let model = Model::new(config, 3).expect("sound sizes");
        let logits = common::answer(&model, &common::tokens(20, 257, 1));
        for head in &logits[1..] {
            assert!(head[..] == logits[0][..head.len()] && !head.is_empty());
        }
    }
}

/// A model without its heads is its trunk, and with fewer heads those compute what they did.
#[test]
fn heads_that_are_cut_change_nothing_that_remains() {
    for fixture in common::Fixture::all() {
        for model in [fixture.model(3), fixture.packed(3)] {
            let x = common::tokens(33, fixture.vocab, 3);
            let whole = common::answer(&model, &x);
            for depth in 0..=fixture.depth {
                let cut = model.cut_heads(depth).expect("fewer heads");
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
            assert!(heads(&model) && !heads(&model.cut_heads(0).expect("none")));
            let error = model.cut_heads(4).expect_err("there are 3").to_string();
            assert!(
                error.contains("mtp_depth") && error.contains("3"),
                "{error}"
            );
        }
    }
}
