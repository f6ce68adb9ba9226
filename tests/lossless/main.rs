//! The promise: speculation never changes a token.
//!
//! Whatever drafts, and however many, the tokens are those of plain decoding. The heads' drafts of random models are
//! mostly wrong, so an oracle that is right with a given probability makes every accept length occur. And the accepted
//! counts are not only plausible: walking the plain output with the training graph predicts them exactly.

mod models;

use foretoken::Result;
use foretoken::data::{Tokenizer, corpus};
use foretoken::exec::{Exec, Rows, Train};
use foretoken::infer::{
    Drafter, Generated, HeadDrafter, NoDrafts, Options, Sampler, Sequence, generate,
};
use foretoken::kernels::par::Threads;
use foretoken::model::{HeadKind, Model};
use foretoken::ops::SelectRows;
use foretoken::simd::Isa;
use models::{random_model, trained_model};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

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
        &mut HeadDrafter::new(model, options.sampler),
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
        let options = Options { max_tokens, drafts, chunk, sampler, ..Options::default() };
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
        sampler in samplers(),
    ) {
        let model = trained_model(kind);
        let options = Options { max_tokens, sampler, ..Options::default() };
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
                let prompt = Tokenizer::bytes()
                    .encode(corpus::stories(100 + seed, 10).as_bytes())
                    .expect("bytes");
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
        let options = Options {
            max_tokens: 60,
            sampler,
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

/// Drafts a different number of tokens each step, and compares each draft with that of a drafter that sees the text for
/// the first time.
struct Irregular {
    heads: HeadDrafter,
    step: usize,
}

impl Drafter for Irregular {
    fn draft(&mut self, sequence: &mut Sequence<'_>, wanted: usize) -> Result<Vec<u32>> {
        let pattern = [4, 1, 3, 0, 4, 2, 1, 3, 3, 1, 1, 4, 4, 2, 4];
        let wanted = wanted.min(pattern[self.step % pattern.len()]);
        self.step += 1;
        let drafts = self.heads.draft(sequence, wanted)?;
        assert_eq!(self.heads.draft(sequence, wanted)?, drafts, "asked twice");
        assert_eq!(
            first_draft(sequence.model(), sequence.tokens(), wanted),
            drafts
        );
        Ok(drafts)
    }
}

/// What the heads draft after these tokens, without a past.
fn first_draft(model: &Model, tokens: &[u32], wanted: usize) -> Vec<u32> {
    struct Record(HeadDrafter, Option<Vec<u32>>);
    impl Drafter for Record {
        fn draft(&mut self, sequence: &mut Sequence<'_>, wanted: usize) -> Result<Vec<u32>> {
            let drafts = self.0.draft(sequence, wanted)?;
            Ok(self.1.get_or_insert(drafts).clone())
        }
    }
    let options = Options {
        max_tokens: wanted + 2,
        drafts: wanted,
        ..Options::default()
    };
    let mut record = Record(HeadDrafter::new(model, Sampler::GREEDY), None);
    // The prefill of all but the last token decides that last one, as it did the first time.
    let (last, prompt) = tokens.split_last().expect("known tokens");
    let again = run(model, prompt, &options, &mut record);
    assert_eq!(again.tokens[0], *last);
    record.1.unwrap_or_default()
}

#[test]
fn drafts_do_not_depend_on_the_past() {
    for kind in HeadKind::ALL {
        let random = random_model(kind, 4, 5);
        for model in [&random, trained_model(kind)] {
            let options = Options {
                max_tokens: 40,
                ..Options::default()
            };
            let mut drafter = Irregular {
                heads: HeadDrafter::new(model, Sampler::GREEDY),
                step: 0,
            };
            let prompt = [84, 104, 101, 114];
            let got = run(model, &prompt, &options, &mut drafter);
            assert_eq!(got.tokens, plain(model, &prompt, &options));
        }
    }
}

/// A drafter that knows no bounds.
struct Wild;

impl Drafter for Wild {
    fn draft(&mut self, sequence: &mut Sequence<'_>, wanted: usize) -> Result<Vec<u32>> {
        let token = sequence.tokens().len() as u32 % 300;
        Ok(vec![token; wanted.min(500) + 3])
    }
}

#[test]
fn a_drafter_without_bounds_changes_nothing() {
    let model = trained_model(HeadKind::Parallel);
    let options = Options {
        max_tokens: 1000,
        ..Options::default()
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
