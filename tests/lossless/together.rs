//! Several sequences decoded together, windows that slide, callbacks that end a text, and rejection sampling.

use crate::drafters::Oracle;
use crate::models::trained_model;
use crate::{all, fixed, plain, speculative};
use foretoken::data::{Tokenizer, corpus};
use foretoken::exec::{Rows, TapeExec};
use foretoken::infer::{
    DecodeMode, DecodedToken, Distribution, DraftLength, Drafter, GenerateOptions, Generated,
    HeadDrafter, NoDrafts, Request, Sampler, Session, generate, generate_batch, sample,
};
use foretoken::model::{HeadKind, Model};
use std::ops::ControlFlow;

fn together(model: &Model, requests: &[Request], drafter: &mut dyn Drafter) -> Vec<Generated> {
    generate_batch(model, requests, drafter).expect("prompts that fit")
}

/// Prompts of different lengths, each with different options.
pub fn requests(text: &[u32]) -> Vec<Request> {
    let request = |i: usize| Request {
        prompt: text[i * 31..][..1 + i * i % 29].to_vec(),
        options: GenerateOptions {
            max_tokens: [40, 0, 7, 90, 1, 60][i % 6],
            draft_length: [
                DraftLength::All,
                DraftLength::Auto,
                DraftLength::Fixed(2),
                fixed(0),
            ][i % 4],
            chunk: 1 + i * 5,
            stop: if i.is_multiple_of(3) {
                vec![101, 46]
            } else {
                vec![]
            },
            sampler: Sampler {
                temperature: [0.0, 0.7][i % 2],
                seed: i as u64,
                ..Sampler::GREEDY
            },
            ..all()
        },
    };
    (0..11).map(request).collect()
}

#[test]
fn every_sequence_is_as_if_alone() {
    let text = Tokenizer::bytes()
        .encode(corpus::stories(77, 2000).as_bytes())
        .expect("bytes");
    let requests = requests(&text);
    for kind in HeadKind::ALL {
        let model = trained_model(kind);
        let alone: Vec<Vec<u32>> = { requests.iter() }
            .map(|request| plain(model, &request.prompt, &request.options))
            .collect();
        let tokens =
            |results: Vec<Generated>| results.into_iter().map(|g| g.tokens).collect::<Vec<_>>();
        assert_eq!(tokens(together(model, &requests, &mut NoDrafts)), alone);
        assert_eq!(tokens(together(model, &requests, &mut HeadDrafter)), alone);
        for right_of_ten in [0, 5, 9, 10] {
            let pairs = requests.iter().zip(&alone);
            let texts = pairs.map(|(request, new)| [&request.prompt[..], new].concat());
            let mut oracle = Oracle {
                texts: texts.collect(),
                right_of_ten,
                state: 7,
            };
            assert_eq!(tokens(together(model, &requests, &mut oracle)), alone);
        }
        // What fixed drafts do does not depend on company either.
        let fixed: Vec<Request> = { requests.iter().cloned() }
            .filter(|request| request.options.draft_length != DraftLength::Auto)
            .collect();
        let company = together(model, &fixed, &mut HeadDrafter);
        for (request, got) in fixed.iter().zip(company) {
            assert_eq!(got, speculative(model, &request.prompt, &request.options));
        }
    }
    let none = generate_batch(trained_model(HeadKind::Recursive), &[], &mut NoDrafts);
    assert!(none.expect("nothing to do").is_empty());
}

/// The documented window: when the context is full, the last N tokens are taken as the whole text.
#[test]
fn a_window_slides_where_it_says() {
    for kind in HeadKind::ALL {
        let model = trained_model(kind);
        let prompt: Vec<u32> = (0..30).map(|i| 97 + i % 7).collect();
        let warm = Sampler {
            temperature: 0.9,
            seed: 3,
            ..Sampler::GREEDY
        };
        for (context, keep) in [(40, 10), (33, 32), (40, 1), (160, 50)] {
            let options = GenerateOptions {
                max_tokens: 200,
                context: Some(context),
                window: Some(keep),
                ..all()
            };
            let got = plain(model, &prompt, &options);
            let warm = GenerateOptions {
                sampler: warm,
                ..options.clone()
            };
            let drafted = speculative(model, &prompt, &warm).tokens;
            assert_eq!(
                drafted,
                plain(model, &prompt, &warm),
                "{kind:?}, {keep} of {context}"
            );
            // The same by hand: fresh texts, each as long as the context allows.
            let (mut expected, mut view) = (Vec::new(), prompt.clone());
            while expected.len() < 200 {
                let room = context + 1 - view.len();
                let part = GenerateOptions {
                    max_tokens: room.min(200 - expected.len()),
                    context: Some(context),
                    ..all()
                };
                let more = plain(model, &view, &part);
                expected.extend_from_slice(&more);
                let all = [&prompt[..], &expected].concat();
                view = all[all.len() - keep..].to_vec();
            }
            assert_eq!(got, expected, "{kind:?}, {keep} of {context}");
            assert_eq!(speculative(model, &prompt, &options).tokens, expected);
        }
        // The noise is that of the token's place in the whole text, which the training graph on the window can show.
        let options = GenerateOptions {
            max_tokens: 20,
            context: Some(40),
            window: Some(10),
            sampler: warm,
            ..all()
        };
        let whole = [&prompt[..], &plain(model, &prompt, &options)].concat();
        let mut exec = TapeExec::no_grad(model.params());
        for place in 41..48 {
            // With a context of 40, token 40 is the last before the window slides to 10 tokens.
            let window = &whole[41 - 10..place];
            let h = model.trunk(&mut exec, window, &Rows::batch(1, window.len()));
            let logits = model.logits(&mut exec, &h);
            let logits = logits.value().row(window.len() - 1);
            let token = sample(logits, place, warm).expect("numbers");
            assert_eq!(token, whole[place], "{kind:?}, {place}");
        }
        // A prompt longer than the context is cut to the window.
        let long: Vec<u32> = (0..100).map(|i| 97 + i % 11).collect();
        let options = GenerateOptions {
            max_tokens: 30,
            context: Some(48),
            window: Some(20),
            ..all()
        };
        let expected = plain(model, &long[80..], &options);
        assert_eq!(plain(model, &long, &options)[..28], expected[..28]);
        assert_eq!(
            speculative(model, &long, &options).tokens,
            plain(model, &long, &options)
        );
    }
}

#[test]
fn what_does_not_fit_is_said_before_anything_is_computed() {
    let model = trained_model(HeadKind::Recursive);
    let refused = |prompt: &[u32], options: GenerateOptions| {
        let error = generate(model, prompt, &options, &mut NoDrafts).expect_err("refused");
        error.to_string()
    };
    let base = all();
    let too_many = refused(
        &[1; 150],
        GenerateOptions {
            max_tokens: 12,
            ..base.clone()
        },
    );
    for part in [
        "150",
        "found 12",
        "160",
        "at most 11",
        "max_tokens",
        "window",
    ] {
        assert!(too_many.contains(part), "{too_many}");
    }
    assert!(refused(&[], base.clone()).contains("at least one token"));
    assert!(refused(&[257], base.clone()).contains("257"));
    assert!(
        refused(
            &[1],
            GenerateOptions {
                context: Some(161),
                ..base.clone()
            }
        )
        .contains("context")
    );
    let window = GenerateOptions {
        context: Some(20),
        window: Some(20),
        ..base.clone()
    };
    assert!(refused(&[1], window).contains("window"));
    assert!(refused(&[1; 161], base).contains("161"));
}

#[test]
fn a_callback_ends_a_text_at_any_token_and_knows_who_drafted_it() {
    let model = trained_model(HeadKind::Recursive);
    let prompt = [84, 104, 101];
    let options = all();
    let whole = plain(model, &prompt, &options);
    for n in 1..40 {
        let (mut tokens, mut heads, mut rejected) = (Vec::new(), Vec::new(), 0);
        let mut on_token = |_, token: DecodedToken, drafts: &[u32]| {
            tokens.push(token.id());
            heads.push(token.depth());
            rejected += drafts.len();
            assert!(token.depth() == 0 || drafts.is_empty());
            if tokens.len() == n {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let request = Request::new(prompt, options.clone());
        let got = Session::new(model).generate(&[request], &mut HeadDrafter, &mut on_token);
        let got = got.expect("a prompt that fits").remove(0);
        let got = got.expect("the logits are numbers");
        assert_eq!((&got.tokens[..], &tokens[..]), (&whole[..n], &whole[..n]));
        for (k, accepted) in got.accepted_by_depth.iter().enumerate() {
            assert_eq!(
                heads.iter().filter(|head| **head == k + 1).count(),
                *accepted
            );
        }
        let drafted: usize = got.drafted_by_depth.iter().sum();
        let accepted: usize = got.accepted_by_depth.iter().sum();
        // If the text ended inside a step, the drafts after the end were neither.
        assert!(rejected <= drafted - accepted);
    }
}

/// Frequencies of whole texts of four tokens under rejection against their probabilities under plain sampling.
#[test]
fn rejection_keeps_the_distribution_of_a_real_model() {
    let sampler = Sampler {
        temperature: 1.2,
        top_k: 2,
        ..Sampler::GREEDY
    };
    for kind in HeadKind::ALL {
        let model = trained_model(kind);
        let prompt = [84, 104, 101, 32];
        let n = 3000;
        let mut counts = std::collections::BTreeMap::<Vec<u32>, [f64; 2]>::new();
        for (way, mode) in [DecodeMode::Rejection, DecodeMode::Exact]
            .into_iter()
            .enumerate()
        {
            let request = |seed| {
                let options = GenerateOptions {
                    max_tokens: 4,
                    mode,
                    sampler: Sampler { seed, ..sampler },
                    ..all()
                };
                Request::new(prompt, options)
            };
            let requests: Vec<Request> = (0..n).map(request).collect();
            for requests in requests.chunks(250) {
                for result in together(model, requests, &mut HeadDrafter) {
                    counts.entry(result.tokens).or_default()[way] += 1.0;
                }
            }
        }
        // Two samples of one distribution over at most 16 texts: the chi-square of their table.
        let mut chi = 0.0;
        for [a, b] in counts.values() {
            chi += (a - b).powi(2) / (a + b);
        }
        assert!(counts.len() <= 16, "two choices at each of four places");
        // 15 degrees of freedom: 99.99 % of all tables are below 44.3.
        assert!(chi < 44.3, "{kind:?}: {chi}");
    }
}

#[test]
fn rejection_at_temperature_zero_is_plain_decoding() {
    for kind in HeadKind::ALL {
        let model = trained_model(kind);
        let options = GenerateOptions {
            mode: DecodeMode::Rejection,
            ..all()
        };
        let expected = plain(model, &[84, 104], &all());
        let got = speculative(model, &[84, 104], &options);
        assert_eq!(got.tokens, expected);
        assert!(got.steps < got.tokens.len(), "drafts were accepted");
    }
    let point = Distribution::from_logits(&[0.0, 2.0], 0, Sampler::GREEDY).expect("numbers");
    assert_eq!(point, Distribution::one_hot(1, 2));
}
