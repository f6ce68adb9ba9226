//! The accepted counts are not only plausible: the training graph on the finished text predicts them exactly.

use crate::models::trained_model;
use crate::{all, fixed, speculative};
use foretoken::data::{Tokenizer, corpus};
use foretoken::exec::{Exec, Rows, TapeExec};
use foretoken::infer::{GenerateOptions, Generated, OfflineReplay, Sampler};
use foretoken::model::{HeadKind, Model};
use foretoken::ops::SelectRows;

/// What each depth guesses at each row of a text: the largest logit of the training graph.
fn guesses(model: &Model, text: &[u32]) -> Vec<Vec<u32>> {
    let depth = model.config().mtp_depth;
    let mut exec = TapeExec::no_grad(model.params());
    let whole = Rows::batch(1, text.len());
    let trunk = model.trunk(&mut exec, text, &whole);
    let mut guesses = Vec::new();
    let (mut h, mut rows) = (trunk.clone(), whole.clone());
    for k in 1..=depth {
        let (source, source_rows, drop) = match model.config().mtp_kind.chained() {
            true => (&h, &rows, 1),
            false => (&trunk, &whole, k),
        };
        let (fewer, indices) = source_rows.without_last(drop);
        let input = exec.apply(SelectRows { indices }, [source]);
        let out = model.head(&mut exec, k, &input, &text[k..], &fewer);
        let logits = model.logits(&mut exec, &out);
        let best = |row: &[f32]| {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter().position(|x| *x == max).expect("a largest logit") as u32
        };
        let logits = logits.value();
        guesses.push(
            (0..logits.rows())
                .map(|r| best(logits.row(r)))
                .collect::<Vec<_>>(),
        );
        (h, rows) = (out, fewer);
    }
    guesses
}

/// How often each depth's guess is the text, from the row before the first generated token on.
fn agreement(model: &Model, text: &[u32], prompt: usize) -> Vec<(usize, usize)> {
    let depth = |(k, guesses): (usize, &Vec<u32>)| {
        let pairs = guesses.iter().zip(&text[k + 1..]).skip(prompt - 1);
        (pairs.clone().filter(|(a, b)| a == b).count(), pairs.count())
    };
    (1..).zip(&guesses(model, text)).map(depth).collect()
}

/// The accepted counts of a fixed number of drafts, from the training graph on the finished text alone.
///
/// If drafts 1..k − 1 are right, head k is fed exactly the text, so its draft is the largest logit of the training
/// graph at the row before the current token.
fn predicted(model: &Model, prompt: usize, text: &[u32], drafts: usize) -> Generated {
    let depth = model.config().mtp_depth;
    let guesses = guesses(model, text);
    let mut result = Generated::default();
    (result.tokens, result.steps) = (text[prompt..].to_vec(), 1);
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
                let options = GenerateOptions {
                    max_tokens: 90,
                    draft_length: fixed(drafts),
                    ..all()
                };
                let live = speculative(model, prompt, &options);
                let text = [prompt, &live.tokens].concat();
                let replay = OfflineReplay::new(model, &text, prompt.len(), options.sampler);
                let replay = replay.expect("logits that are numbers");
                assert_eq!(replay.generated(drafts, options.max_tokens), live);
                assert_eq!(replay.agreement(), agreement(model, &text, prompt.len()));
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

/// The same above temperature 0, where the noise is part of a guess, and where a token ends the text early.
#[test]
fn a_replay_knows_samplers_and_ends() {
    for kind in HeadKind::ALL {
        let model = trained_model(kind);
        let prompt = [84, 104, 101, 32];
        for (seed, stop) in [(0, vec![]), (1, vec![]), (2, vec![101]), (3, vec![46])] {
            for drafts in [1, 3, 6] {
                let options = GenerateOptions {
                    max_tokens: 60,
                    draft_length: fixed(drafts),
                    stop: stop.clone(),
                    sampler: Sampler {
                        temperature: 0.6,
                        seed,
                        ..Sampler::GREEDY
                    },
                    ..all()
                };
                let live = speculative(model, &prompt, &options);
                let text = [&prompt[..], &live.tokens].concat();
                let replay = OfflineReplay::new(model, &text, prompt.len(), options.sampler);
                let replay = replay.expect("logits that are numbers");
                assert_eq!(replay.generated(drafts, 60), live, "{kind:?}, {drafts}");
            }
        }
    }
}

/// A text that fills the context is one token longer than the model has positions.
#[test]
fn a_replay_takes_every_text_that_can_be_generated() {
    let model = trained_model(HeadKind::Recursive);
    let sampler = Sampler::GREEDY;
    let prompt: Vec<u32> = (0..150).map(|i| 97 + i % 7).collect();
    let options = GenerateOptions {
        max_tokens: 11,
        draft_length: fixed(2),
        ..all()
    };
    let live = speculative(model, &prompt, &options);
    let text = [&prompt[..], &live.tokens].concat();
    assert_eq!(text.len(), 161);
    let replay = OfflineReplay::new(model, &text, 150, sampler).expect("a text that fits");
    assert_eq!(replay.generated(2, 11), live);
    let refused = |text: &[u32], prompt| {
        let error = OfflineReplay::new(model, text, prompt, sampler).expect_err("refused");
        error.to_string()
    };
    assert!(refused(&text, 0).contains("prompt: expected 1 to"));
    assert!(refused(&text, 162).contains("162"));
    assert!(refused(&[], 0).contains("prompt"));
    assert!(refused(&[1, 257], 1).contains("257"));
    assert!(refused(&[&text[..], &[1]].concat(), 1).contains("at most 161"));
    let one = OfflineReplay::new(model, &text[..1], 1, sampler).expect("nothing to predict");
    assert_eq!(one.agreement(), vec![(0, 0); 6]);
}
