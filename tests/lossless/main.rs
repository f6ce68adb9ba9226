//! The promise: speculation never changes a token.
//!
//! Whatever drafts, and however many, the tokens are those of plain decoding. The heads' drafts of random models are
//! mostly wrong, so an oracle that is right with a given probability makes every accept length occur.

mod drafters;
mod hostile;
mod models;
mod pairs;
mod predicted;
mod sessions;
mod together;

use drafters::{Checked, Irregular, Liar, Oracle, SOFTMAX, Wild};
use foretoken::infer::{
    DecodeMode, DraftLength, Drafter, GenerateOptions, Generated, HeadDrafter, NoDrafts, Request,
    Sampler, Session,
};
use foretoken::kernels::par::Threads;
use foretoken::model::{HeadKind, Model};
use foretoken::simd::Isa;
use models::{random_model, trained_model};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::ops::ControlFlow;

/// As many drafts per step.
fn fixed(n: usize) -> DraftLength {
    DraftLength::Fixed(n)
}

/// Options with as many drafts as there are: the steps do not depend on the clock.
fn all() -> GenerateOptions {
    GenerateOptions {
        draft_length: DraftLength::All,
        ..GenerateOptions::default()
    }
}

fn run(
    model: &Model,
    prompt: &[u32],
    options: &GenerateOptions,
    drafter: &mut dyn Drafter,
) -> Generated {
    let mut streamed = Vec::new();
    let mut on_token = |_, token: foretoken::infer::DecodedToken, _: &[u32]| {
        streamed.push(token.id());
        ControlFlow::Continue(())
    };
    let request = Request::new(prompt, options.clone());
    let result = Session::new(model).generate(&[request], drafter, &mut on_token);
    let result = result.expect("a prompt that fits").remove(0);
    let result = result.expect("the logits are numbers");
    assert_eq!(
        streamed, result.tokens,
        "what was streamed is what was generated"
    );
    result
}

fn plain(model: &Model, prompt: &[u32], options: &GenerateOptions) -> Vec<u32> {
    let result = run(model, prompt, options, &mut NoDrafts);
    assert_eq!(
        result.steps,
        result.tokens.len(),
        "plain decoding has one token per step"
    );
    result.tokens
}

fn speculative(model: &Model, prompt: &[u32], options: &GenerateOptions) -> Generated {
    run(model, prompt, options, &mut HeadDrafter)
}

/// Greedy, and every filter at several temperatures.
fn samplers() -> impl Strategy<Value = Sampler> {
    let temperature = prop::sample::select(vec![0.0f32, 0.3, 1.0, 2.0]);
    let top_k = prop::sample::select(vec![0usize, 1, 5, 40]);
    let top_p = prop::sample::select(vec![1.0f32, 0.9, 0.3]);
    let min_p = prop::sample::select(vec![0.0f32, 0.05]);
    let all = (temperature, top_k, top_p, min_p, any::<u64>());
    all.prop_map(|(temperature, top_k, top_p, min_p, seed)| Sampler {
        temperature,
        top_k,
        top_p,
        min_p,
        seed,
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn heads_never_change_a_token(
        kind in prop::sample::select(HeadKind::ALL.to_vec()),
        depth in 1usize..=5,
        seed in 0u64..6,
        prompt in prop::collection::vec(0u32..257, 1..40),
        max_tokens in 1usize..60,
        drafts in 0usize..=6,
        chunk in 1usize..40,
        threads in prop::sample::select(vec![1usize, 2, 3]),
        sampler in samplers(),
    ) {
        let model = random_model(kind, depth, seed);
        let options = GenerateOptions { max_tokens, draft_length: fixed(drafts), chunk, sampler, ..all() };
        let expected = plain(&model, &prompt, &GenerateOptions { chunk: 256, ..options.clone() });
        let pool = Threads::new(threads).expect("a small pool");
        let got = pool.scope(|| speculative(&model, &prompt, &options));
        prop_assert_eq!(got.tokens, expected);
    }

    #[test]
    fn an_oracle_of_any_quality_never_changes_a_token(
        kind in prop::sample::select(HeadKind::ALL.to_vec()),
        right_of_ten in 0u32..=10,
        state in any::<u32>(),
        prompt in prop::collection::vec(0u32..257, 1..30),
        max_tokens in 1usize..80,
        sampler in samplers(),
    ) {
        let model = trained_model(kind);
        let options = GenerateOptions { max_tokens, sampler, ..all() };
        let truth = plain(model, &prompt, &options);
        let mut oracle = Oracle { texts: vec![[&prompt[..], &truth].concat()], right_of_ten, state };
        let got = run(model, &prompt, &options, &mut oracle);
        if right_of_ten == 10 {
            // Six drafts and one more token per step; the prefill's token comes alone.
            prop_assert_eq!(got.steps, 1 + (max_tokens - 1).div_ceil(7));
        }
        prop_assert_eq!(got.tokens, truth);
    }
}

#[test]
fn every_instruction_set_says_the_same() {
    let warm = Sampler {
        temperature: 0.8,
        top_p: 0.95,
        seed: 3,
        ..Sampler::GREEDY
    };
    for (kind, sampler) in HeadKind::ALL
        .iter()
        .flat_map(|k| [(k, Sampler::GREEDY), (k, warm)])
    {
        let model = trained_model(*kind);
        let options = GenerateOptions {
            max_tokens: 60,
            sampler,
            ..all()
        };
        let expected = plain(model, &[84, 104, 101], &options);
        for isa in Isa::all() {
            let got = isa.scope(|| speculative(model, &[84, 104, 101], &options));
            assert_eq!(got.tokens, expected, "{}", isa.name());
        }
    }
}

#[test]
fn a_stop_token_ends_both_ways_alike() {
    let model = trained_model(HeadKind::Recursive);
    let prompt = [84, 104, 101];
    let mut options = GenerateOptions {
        max_tokens: 100,
        ..all()
    };
    let whole = plain(model, &prompt, &options);
    let stop = whole[whole.len() / 2];
    options.stop = vec![stop];
    let end = whole.iter().position(|t| *t == stop).expect("it is there") + 1;
    assert_eq!(plain(model, &prompt, &options), whole[..end]);
    assert_eq!(speculative(model, &prompt, &options).tokens, whole[..end]);
}

#[test]
fn the_last_position_is_used() {
    for kind in HeadKind::ALL {
        let model = trained_model(kind);
        for len in 150..=160 {
            let options = GenerateOptions {
                max_tokens: 161 - len,
                ..all()
            };
            let prompt: Vec<u32> = (0..len as u32).map(|i| 97 + i % 7).collect();
            let expected = plain(model, &prompt, &options);
            assert_eq!(prompt.len() + expected.len(), 161);
            assert_eq!(speculative(model, &prompt, &options).tokens, expected);
        }
    }
}

#[test]
fn drafts_do_not_depend_on_the_past() {
    for kind in HeadKind::ALL {
        let random = random_model(kind, 4, 5);
        for model in [&random, trained_model(kind)] {
            let options = GenerateOptions {
                max_tokens: 40,
                ..all()
            };
            let mut drafter = Irregular::default();
            drafter.greedy = true;
            let prompt = [84, 104, 101, 114];
            let expected = plain(model, &prompt, &options);
            let got = run(model, &prompt, &options, &mut drafter);
            assert_eq!(got.tokens, expected);
            // Accepted drafts that are not those that the heads computed with.
            let mut liar = Liar {
                oracle: Oracle {
                    texts: vec![[&prompt[..], &expected].concat()],
                    right_of_ten: 9,
                    state: 3,
                },
                steps: 0,
            };
            let got = run(model, &prompt, &options, &mut liar);
            assert_eq!(got.tokens, expected);
            assert!(liar.steps > 3);
        }
    }
}

#[test]
fn a_drafters_logits_are_those_of_the_training_graph() {
    for kind in HeadKind::ALL {
        for model in [&random_model(kind, 4, 5), trained_model(kind)] {
            let mut checked = Checked::default();
            let options = GenerateOptions {
                max_tokens: 50,
                mode: DecodeMode::Rejection,
                sampler: SOFTMAX,
                ..all()
            };
            run(model, &[84, 104, 101, 114], &options, &mut checked);
            assert!(checked.checked > 30, "{kind:?}: {}", checked.checked);
        }
    }
}

#[test]
fn a_drafter_without_bounds_changes_nothing() {
    let model = trained_model(HeadKind::Parallel);
    let options = GenerateOptions {
        max_tokens: 150,
        ..all()
    };
    let expected = plain(model, &[84, 104, 101], &options);
    assert_eq!(
        run(model, &[84, 104, 101], &options, &mut Wild).tokens,
        expected
    );
}

#[test]
fn heads_that_compute_nonsense_change_nothing() {
    for kind in HeadKind::ALL {
        let mut model = random_model(kind, 3, 1);
        let options = all();
        let expected = plain(&model, &[1, 2, 3], &options);
        for id in model.params().ids().collect::<Vec<_>>() {
            if model.params().name(id).starts_with("mtp.") {
                model.params_mut().get_mut(id).data_mut().fill(f32::NAN);
            }
        }
        assert_eq!(speculative(&model, &[1, 2, 3], &options).tokens, expected);
    }
}
