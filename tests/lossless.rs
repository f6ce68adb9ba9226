//! The promise: speculation never changes a token.
//!
//! Whatever drafts, and however many, the tokens are those of plain decoding. The heads' drafts of random models are
//! mostly wrong, so an oracle that is right with a given probability makes every accept length occur. And the accepted
//! counts are not only plausible: walking the plain output with the training graph predicts them exactly.

use foretoken::Result;
use foretoken::data::{Batch, RandomWindows, Tokenizer, corpus};
use foretoken::exec::{Exec, Rows, Train};
use foretoken::infer::verify::{prefill, verify};
use foretoken::infer::{
    Drafter, Generated, HeadDrafter, NoDrafts, Options, Sampler, Sequence, generate,
};
use foretoken::kernels::par::Threads;
use foretoken::model::{Config, HeadKind, JointLoss, Model};
use foretoken::ops::SelectRows;
use foretoken::simd::Isa;
use foretoken::train::Trainer;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::sync::OnceLock;

fn config(kind: HeadKind, depth: usize, width: usize) -> Config {
    let text = format!(
        r#"{{"vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 160,
            "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true, "use_qk_norm": true,
            "mtp_kind": "{}", "mtp_depth": {depth}}}"#,
        kind.name()
    );
    let mut config: Config = serde_json::from_str(&text).expect("a config");
    config.set_head_width(width);
    config
}

fn random_model(kind: HeadKind, depth: usize, seed: u64) -> Model {
    let width = if seed.is_multiple_of(2) { 8 } else { 32 };
    let mut model = Model::new(config(kind, depth, width), seed).expect("sound sizes");
    if seed.is_multiple_of(3) {
        model.pack();
    }
    model
}

/// One small model of each kind that has learnt enough for its heads to be right now and then.
fn trained_model(kind: HeadKind) -> &'static Model {
    static MODELS: OnceLock<Vec<(HeadKind, Model)>> = OnceLock::new();
    let models = MODELS.get_or_init(|| HeadKind::ALL.map(|kind| (kind, train(kind))).into());
    let found = models.iter().find(|(k, _)| *k == kind);
    &found.expect("every kind was trained").1
}

fn train(kind: HeadKind) -> Model {
    let text = corpus::stories(5, 100_000);
    let tokens = Tokenizer::bytes().encode(text.as_bytes());
    let windows = RandomWindows::new(tokens.into(), 48, 8, 3).expect("enough text");
    let mut trainer = Trainer::new(Model::new(config(kind, 4, 32), 9).expect("sound sizes"));
    for step in 0..150 {
        let batch: Batch = windows.batch(step);
        trainer
            .step(&batch, JointLoss::default(), 5e-3)
            .expect("finite losses");
    }
    trainer.model
}

fn run(model: &Model, prompt: &[u32], options: &Options, drafter: &mut dyn Drafter) -> Generated {
    let mut streamed = Vec::new();
    let result = generate(model, prompt, options, drafter, &mut |tokens| {
        streamed.extend_from_slice(tokens);
    });
    let result = result.expect("a prompt that fits");
    assert_eq!(
        streamed, result.tokens,
        "what was streamed is what was generated"
    );
    result
}

fn plain(model: &Model, prompt: &[u32], options: &Options) -> Vec<u32> {
    let result = run(model, prompt, options, &mut NoDrafts);
    assert_eq!(
        result.steps,
        result.tokens.len(),
        "plain decoding has one token a step"
    );
    result.tokens
}

fn speculative(model: &Model, prompt: &[u32], options: &Options) -> Generated {
    run(
        model,
        prompt,
        options,
        &mut HeadDrafter::new(model, Sampler::Greedy),
    )
}

/// Knows the plain output and lies with a fixed pattern, so that every number of accepted drafts occurs.
struct Oracle {
    truth: Vec<u32>,
    prompt: usize,
    right_of_ten: u32,
    state: u32,
}

impl Drafter for Oracle {
    fn draft(&mut self, sequence: &mut Sequence<'_>, wanted: usize) -> Result<Vec<u32>> {
        let known = sequence.tokens().len() - self.prompt;
        let rest = self.truth[known..].iter().take(wanted.min(6));
        Ok(rest
            .map(|token| {
                self.state = self
                    .state
                    .wrapping_mul(1_664_525)
                    .wrapping_add(1_013_904_223);
                let right = (self.state >> 16) % 10 < self.right_of_ten;
                if right { *token } else { (token + 1) % 257 }
            })
            .collect())
    }
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
    ) {
        let model = random_model(kind, depth, seed);
        let options = Options { max_tokens, drafts, chunk, ..Options::default() };
        let expected = plain(&model, &prompt, &Options { chunk: 256, ..options.clone() });
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
    ) {
        let model = trained_model(kind);
        let options = Options { max_tokens, ..Options::default() };
        let truth = plain(model, &prompt, &options);
        let mut oracle = Oracle { truth: truth.clone(), prompt: prompt.len(), right_of_ten, state };
        let got = run(model, &prompt, &options, &mut oracle);
        if right_of_ten == 10 {
            // Six drafts and one more token a step; the prefill's token comes alone.
            prop_assert_eq!(got.steps, 1 + (max_tokens - 1).div_ceil(7));
        }
        prop_assert_eq!(got.tokens, truth);
    }
}

/// The accepted counts of a fixed number of drafts, from the training graph on the finished text alone.
///
/// Where drafts 1..k − 1 are right, head k is fed exactly the text, so its draft is the largest logit of the training
/// graph at the row before the current token.
fn predicted(model: &Model, prompt: usize, text: &[u32], drafts: usize) -> Generated {
    let depth = model.config().mtp_depth;
    let mut exec = Train::frozen(model.params());
    let whole = Rows::batch(1, text.len());
    let trunk = model.trunk(&mut exec, text, &whole);
    let mut guesses = Vec::new();
    let (mut h, mut rows) = (trunk.clone(), whole.clone());
    for k in 1..=depth {
        let (source, source_rows, drop) = match model.config().mtp_kind.chained() {
            true => (&h, &rows, 1),
            false => (&trunk, &whole, k),
        };
        let (fewer, keep) = source_rows.without_last(drop);
        let input = exec.apply(SelectRows { keep }, [source]);
        let out = model.head(&mut exec, k, &input, &text[k..], &fewer);
        let logits = model.logits(&mut exec, &out);
        let best = |row: &[f32]| {
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter()
                .position(|x| *x == most)
                .expect("a largest logit") as u32
        };
        let logits = logits.value();
        guesses.push(
            (0..logits.rows())
                .map(|r| best(logits.row(r)))
                .collect::<Vec<_>>(),
        );
        (h, rows) = (out, fewer);
    }
    let mut result = Generated {
        tokens: text[prompt..].to_vec(),
        steps: 1,
        drafted_by_depth: Vec::new(),
        accepted_by_depth: Vec::new(),
    };
    // The prefill gave the first token; p is the current token's position.
    let mut p = prompt;
    while p + 1 < text.len() {
        let drafted = drafts.min(depth).min(text.len() - 1 - p - 1);
        let hit = |k: usize| guesses[k - 1].get(p - 1) == Some(&text[p + k]);
        let accepted = (1..=drafted).take_while(|k| hit(*k)).count();
        if result.drafted_by_depth.len() < drafted {
            result.drafted_by_depth.resize(drafted, 0);
            result.accepted_by_depth.resize(drafted, 0);
        }
        (0..drafted).for_each(|k| result.drafted_by_depth[k] += 1);
        (0..accepted).for_each(|k| result.accepted_by_depth[k] += 1);
        result.steps += 1;
        p += accepted + 1;
    }
    result
}

#[test]
fn predicted_acceptance_is_live_acceptance() {
    for kind in HeadKind::ALL {
        let model = trained_model(kind);
        let mut accepted = 0;
        for drafts in 1..=4 {
            for seed in 0..4 {
                let prompt = Tokenizer::bytes().encode(corpus::stories(100 + seed, 10).as_bytes());
                let prompt = &prompt[..20 + 5 * seed as usize];
                let options = Options {
                    max_tokens: 90,
                    drafts,
                    ..Options::default()
                };
                let live = speculative(model, prompt, &options);
                let text = [prompt, &live.tokens].concat();
                assert_eq!(
                    live,
                    predicted(model, prompt.len(), &text, drafts),
                    "{kind:?}"
                );
                accepted += live.accepted_by_depth.iter().sum::<usize>();
            }
        }
        assert!(
            accepted > 100,
            "{kind:?}: a test of acceptance needs accepted drafts"
        );
    }
}

#[test]
fn every_instruction_set_says_the_same() {
    for kind in HeadKind::ALL {
        let model = trained_model(kind);
        let options = Options {
            max_tokens: 60,
            ..Options::default()
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
    let mut options = Options {
        max_tokens: 100,
        ..Options::default()
    };
    let whole = plain(model, &prompt, &options);
    let stop = whole[whole.len() / 2];
    options.stop = Some(stop);
    let end = whole.iter().position(|t| *t == stop).expect("it is there") + 1;
    assert_eq!(plain(model, &prompt, &options), whole[..end]);
    assert_eq!(speculative(model, &prompt, &options).tokens, whole[..end]);
}

#[test]
fn the_last_position_is_used_and_none_after_it() {
    for kind in HeadKind::ALL {
        let model = trained_model(kind);
        let options = Options {
            max_tokens: 1000,
            ..Options::default()
        };
        for prompt in [159, 160] {
            let prompt: Vec<u32> = (0..prompt).map(|i| 97 + i % 7).collect();
            let expected = plain(model, &prompt, &options);
            assert_eq!(prompt.len() + expected.len(), 161);
            assert_eq!(speculative(model, &prompt, &options).tokens, expected);
        }
        assert!(Sequence::new(model, &[1; 161]).is_err());
        assert!(Sequence::new(model, &[]).is_err());
        assert!(Sequence::new(model, &[257]).is_err());
    }
}

/// A depth that sits out some steps must not keep what rejected drafts left: its drafts are those of a drafter that
/// sees the text for the first time.
#[test]
fn drafts_do_not_depend_on_the_past() {
    let sampler = Sampler::Greedy;
    for kind in HeadKind::ALL {
        let random = random_model(kind, 4, 5);
        for model in [&random, trained_model(kind)] {
            let mut sequence =
                Sequence::new(model, &[84, 104, 101, 114]).expect("a prompt that fits");
            let first = prefill(&mut sequence, 3, sampler).expect("numbers");
            sequence.push(first);
            let mut drafter = HeadDrafter::new(model, sampler);
            for wanted in [4, 1, 3, 0, 4, 2, 1, 3, 3, 1, 1, 4, 4, 2, 4] {
                let drafts = drafter.draft(&mut sequence, wanted).expect("numbers");
                let again = drafter.draft(&mut sequence, wanted).expect("numbers");
                let known = sequence.tokens();
                let mut fresh = Sequence::new(model, known).expect("a prompt that fits");
                fresh.advance(&known[..known.len() - 1]);
                let expected = HeadDrafter::new(model, sampler).draft(&mut fresh, wanted);
                assert_eq!(drafts, expected.expect("numbers"), "{kind:?}");
                assert_eq!(drafts, again, "{kind:?}: asked twice");
                for token in verify(&mut sequence, &drafts, sampler).expect("numbers") {
                    sequence.push(token);
                }
            }
        }
    }
}

#[test]
fn heads_that_compute_nonsense_change_nothing() {
    for kind in HeadKind::ALL {
        let mut model = random_model(kind, 3, 1);
        let options = Options::default();
        let expected = plain(&model, &[1, 2, 3], &options);
        for id in model.params().ids().collect::<Vec<_>>() {
            if model.params().name(id).starts_with("mtp.") {
                model.params_mut().get_mut(id).data_mut().fill(f32::NAN);
            }
        }
        assert_eq!(speculative(&model, &[1, 2, 3], &options).tokens, expected);
    }
}
