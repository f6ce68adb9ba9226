//! Regimes decide which heads learn, and whether the trunk notices. All comparisons are of bits.

mod common;

use common::same_bits;
use foretoken::data::{Tokenizer, corpus};
use foretoken::model::{Config, HeadKind, JointLoss, Model, Preset, layout};
use foretoken::train::{Options, Plan, Regime, Schedule, Shape, Trainer};

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

/// A model after the first `steps` of a run of [`STEPS`].
fn trained(model: Model, plan: Plan, steps: u64) -> Model {
    let text = Tokenizer::bytes()
        .encode(corpus::stories(11, 9000).as_bytes())
        .expect("bytes");
    let options = Options {
        steps: STEPS,
        batch: 3,
        accumulate: 1,
        context: 20,
        seed: 2,
        schedule: Schedule {
            peak: 5e-3,
            warmup: 2,
            steps: STEPS,
            floor: 0.1,
            shape: Shape::Cosine,
        },
        joint: JointLoss::default(),
        plan,
        eval_every: 100,
        log_every: 1,
    };
    let mut trainer = Trainer::new(model);
    if steps == STEPS {
        let data = (text.clone(), &text[..300]);
        let run = trainer.run(&options, data, &Tokenizer::bytes(), None, &mut |_| {});
        run.expect("finite losses");
        return trainer.model;
    }
    let windows = foretoken::data::RandomWindows::new(text, 20, 3, 2).expect("a text");
    for step in 0..steps {
        let depth = trainer.model.config().mtp_depth;
        let objective = plan.objective(options.joint, depth, step, STEPS);
        let rate = options.schedule.rate(step);
        let batch = windows.batch(step).expect("in memory");
        let done = trainer.step(&batch, objective, rate);
        done.expect("finite losses");
    }
    trainer.model
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

/// λ = 0 at both ends and a λ that ends elsewhere are different runs; the same λ at both ends is the same run.
#[test]
fn lambda_may_change_over_the_run() {
    let kind = HeadKind::Recursive;
    let run = |lambda_end| {
        let plan = Plan {
            lambda_end,
            ..Plan::default()
        };
        trained(new(kind, 2, true), plan, STEPS)
    };
    let usual = JointLoss::default().lambda;
    assert_eq!(changed(&run(None), &run(Some(usual))), [""; 0]);
    assert!(!changed(&run(None), &run(Some(0.0))).is_empty());
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
