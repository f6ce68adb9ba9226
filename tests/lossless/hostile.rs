//! Drafters that break every rule: the tokens are still those of plain decoding, and the session is still usable.

use crate::drafters::drafts;
use crate::models::{config, random_model, trained_model};
use crate::{all, plain, run};
use foretoken::infer::{
    DecodeMode, Distribution, Draft, DraftContext, DraftLength, Drafter, FinishReason,
    GenerateOptions, HeadDrafter, NoDrafts, Request, Sampler, SequenceId, Session, generate,
};
use foretoken::model::{HeadKind, Model};
use foretoken::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A drafter made of a function of the step's number.
struct By<F>(F, usize);

impl<F> Drafter for By<F>
where
    F: FnMut(usize, &mut DraftContext<'_>) -> Result<Vec<Vec<Draft>>>,
{
    fn draft(&mut self, context: &mut DraftContext<'_>) -> Result<Vec<Vec<Draft>>> {
        self.1 += 1;
        (self.0)(self.1, context)
    }
}

/// Two requests, one of them greedy.
fn requests() -> Vec<Request> {
    let options = GenerateOptions {
        max_tokens: 60,
        ..all()
    };
    let warm = GenerateOptions {
        sampler: Sampler {
            temperature: 0.8,
            seed: 5,
            ..Sampler::GREEDY
        },
        ..options.clone()
    };
    vec![
        Request::new([84, 104, 101], options),
        Request::new([65, 110], warm),
    ]
}

fn plain_texts(model: &Model, requests: &[Request]) -> Vec<Vec<u32>> {
    let text = |r: &Request| plain(model, &r.prompt, &r.options);
    requests.iter().map(text).collect()
}

/// Runs both requests in a session whose drafter may fail; other steps are plain. Returns the texts and the number of
/// failures.
fn survive(model: &Model, drafter: &mut dyn Drafter) -> (Vec<Vec<u32>>, usize) {
    let mut session = Session::new(model);
    let add = |request| session.add(request).expect("a prompt that fits");
    let ids: Vec<SequenceId> = requests().into_iter().map(add).collect();
    let mut gained = vec![Vec::new(); 2];
    let mut failures = 0;
    while session.unfinished() > 0 {
        let known: Vec<Vec<u32>> = session.sequences().map(|s| s.tokens().to_vec()).collect();
        let step = catch_unwind(AssertUnwindSafe(|| session.step(&mut *drafter)));
        let outputs = match step {
            Ok(Ok(outputs)) => outputs,
            _ => {
                failures += 1;
                let now: Vec<Vec<u32>> = session.sequences().map(|s| s.tokens().to_vec()).collect();
                assert_eq!(now, known, "a step that failed changes no sequence");
                session.step(&mut NoDrafts).expect("plain decoding works")
            }
        };
        for output in outputs {
            let i = ids
                .iter()
                .position(|id| *id == output.id)
                .expect("one of ours");
            gained[i].extend(output.tokens.iter().map(|token| token.id()));
            assert!(!matches!(output.finish, Some(FinishReason::Failed(_))));
        }
    }
    for (id, gained) in ids.iter().zip(&gained) {
        let sequence = session.sequence(*id).expect("it was not removed");
        assert_eq!(sequence.generated(), gained);
    }
    (gained, failures)
}

/// What a drafter returns in a step.
type Answer = fn(usize, &mut DraftContext<'_>) -> Vec<Vec<Draft>>;

#[test]
fn wrong_answers_change_nothing() {
    for kind in HeadKind::ALL {
        let model = trained_model(kind);
        let expected = plain_texts(model, &requests());
        let answers: [Answer; 7] = [
            // For no sequence, for one, for more than there are.
            |_, _| vec![],
            |step, _| vec![drafts(vec![step as u32 % 257; 3])],
            |step, _| vec![drafts(vec![32; step % 5]); 9],
            // Too many, none, and ids outside the vocabulary before and after others.
            |_, _| vec![drafts(vec![101; 1000]); 2],
            |_, _| vec![vec![]; 2],
            |_, _| vec![drafts(vec![32, 257, 32]), drafts(vec![u32::MAX, 32])],
            // The other sequence's heads.
            |_, context| {
                let mut drafts = context.run_heads(&[6, 6]).expect("the CPU works");
                drafts.reverse();
                drafts
            },
        ];
        for (i, answer) in answers.into_iter().enumerate() {
            let mut drafter = By(
                |step, context: &mut DraftContext<'_>| Ok(answer(step, context)),
                0,
            );
            assert_eq!(
                survive(model, &mut drafter),
                (expected.clone(), 0),
                "{kind:?}, {i}"
            );
            assert!(drafter.1 > 5, "it was asked");
        }
    }
}

#[test]
fn a_drafter_that_fails_ends_its_step_only() {
    let failed = || Err(Error::NotFinite("the drafter failed".to_owned()));
    for kind in HeadKind::ALL {
        let model = trained_model(kind);
        let expected = plain_texts(model, &requests());
        let mut errors = By(
            |step, context: &mut DraftContext<'_>| match step % 3 {
                0 => failed(),
                1 => context.run_heads(&[2, 6]).and(failed()),
                _ => HeadDrafter.draft(context),
            },
            0,
        );
        let (got, failures) = survive(model, &mut errors);
        assert!(got == expected && failures > 5, "{kind:?}, {failures}");
        let mut panics = By(
            |step, context: &mut DraftContext<'_>| {
                let drafts = context.run_heads(&[6, 1 + step % 3])?;
                assert!(step % 2 == 0, "a panic that the test expects");
                Ok(drafts)
            },
            0,
        );
        let (got, failures) = survive(model, &mut panics);
        assert!(got == expected && failures > 5, "{kind:?}, {failures}");
        // The simple functions return the error.
        let error = generate(
            model,
            &[84],
            &all(),
            &mut By(|_, _: &mut DraftContext<'_>| failed(), 0),
        );
        let error = error.expect_err("the drafter's error");
        assert_eq!(error.to_string(), "the drafter failed");
    }
}

/// A drafter may decode with the model that it drafts for.
#[test]
fn a_session_inside_a_session() {
    let model = trained_model(HeadKind::Recursive);
    let expected = plain_texts(model, &requests());
    let mut nested = By(
        |_, context: &mut DraftContext<'_>| {
            let mut all = Vec::new();
            for request in context.requests() {
                // Plain decoding with the same sampler at the same positions: every draft is right.
                let mut inner = Session::new(context.model());
                let options = GenerateOptions {
                    max_tokens: request.max_drafts().min(4),
                    sampler: request.sequence().options().sampler,
                    ..GenerateOptions::default()
                };
                inner.add(Request::new(request.sequence().tokens(), options))?;
                let mut heads = HeadDrafter;
                let tokens = inner.stream(&mut heads).map(|token| Ok(token?.1?.id()));
                all.push(drafts(tokens.collect::<Result<_>>()?));
            }
            Ok(all)
        },
        0,
    );
    let (got, failures) = survive(model, &mut nested);
    assert_eq!((got, failures), (expected, 0));
    assert!(nested.1 <= 13, "five tokens per step: {}", nested.1);
}

/// A small model of its own, the request's sampler and `sample` are enough for coupled drafts.
#[test]
fn a_foreign_drafter_shares_the_noise() {
    let model = trained_model(HeadKind::Recursive);
    let sampler = Sampler {
        temperature: 1.0,
        seed: 8,
        ..Sampler::GREEDY
    };
    let options = GenerateOptions {
        max_tokens: 60,
        sampler,
        ..all()
    };
    let prompt = [84, 104, 101];
    let expected = plain(model, &prompt, &options);
    let mut accepted = [0; 2];
    for (accepted, seed) in accepted.iter_mut().zip([0, 1]) {
        let mut drafter = By(
            |_, context: &mut DraftContext<'_>| {
                let request = &context.requests()[0];
                let mut options = all();
                options.max_tokens = 1;
                options.sampler = request.sequence().options().sampler;
                options.sampler.seed += seed;
                let draft = generate(
                    context.model(),
                    request.sequence().tokens(),
                    &options,
                    &mut NoDrafts,
                )?;
                Ok(vec![drafts(draft.tokens)])
            },
            0,
        );
        let got = run(model, &prompt, &options, &mut drafter);
        assert_eq!(got.tokens, expected);
        *accepted = got.accepted_by_depth.iter().sum::<usize>();
    }
    // The same model with the same noise is always right; with other noise it is not.
    assert!(accepted[0] == 29 || accepted[0] == 30, "{accepted:?}");
    assert!(accepted[1] < 25, "{accepted:?}");
}

/// A draft that its own distribution excludes cannot have been drawn from it: it counts as certain, and the tokens keep
/// the distribution of plain decoding.
#[test]
fn a_draft_that_its_distribution_excludes_is_a_certain_one() {
    let model = trained_model(HeadKind::Recursive);
    let vocab = model.config().vocab_size;
    for seed in 0..40 {
        let options = GenerateOptions {
            max_tokens: 5,
            mode: DecodeMode::Rejection,
            sampler: Sampler {
                temperature: 1.0,
                seed,
                ..Sampler::GREEDY
            },
            ..all()
        };
        let texts = [false, true].map(|lie| {
            let mut drafter = By(
                |_, _: &mut DraftContext<'_>| {
                    let mut others = vec![1.0; vocab];
                    others[101] = 0.0;
                    let mut draft = Draft::from(101);
                    draft.distribution = lie.then(|| Distribution::new(others)).transpose()?;
                    Ok(vec![vec![draft]])
                },
                0,
            );
            run(model, &[84, 104], &options, &mut drafter).tokens
        });
        assert_eq!(texts[0], texts[1], "seed {seed}");
    }
}

/// Rejection sampling refuses what is not a distribution over the vocabulary, and says so.
#[test]
fn a_wrong_distribution_is_an_error() {
    let model = trained_model(HeadKind::Recursive);
    let options = GenerateOptions {
        mode: DecodeMode::Rejection,
        ..all()
    };
    for (vocab, found) in [(256, "256"), (258, "258")] {
        let mut drafter = By(
            |_, _: &mut DraftContext<'_>| {
                let distribution = Some(Distribution::one_hot(7, vocab));
                Ok(vec![vec![Draft {
                    token: 7,
                    distribution,
                }]])
            },
            0,
        );
        let error = generate(model, &[84], &options, &mut drafter).expect_err("refused");
        let error = error.to_string();
        assert!(error.contains("257") && error.contains(found), "{error}");
    }
    // At temperature 0 a draft that the trunk excludes is never accepted, whatever is said about it.
    let expected = plain(model, &[84], &all());
    let mut drafter = By(
        |step, _: &mut DraftContext<'_>| {
            let token = step as u32 % 257;
            let distribution = Some(Distribution::one_hot((token + 1) % 257, 257));
            Ok(vec![vec![Draft {
                token,
                distribution,
            }]])
        },
        0,
    );
    assert_eq!(run(model, &[84], &options, &mut drafter).tokens, expected);
}

/// Drafts whose logits are NaN, and a sequence whose own are.
#[test]
fn a_sequence_that_fails_leaves_the_others_alone() {
    let poison = 250_u32;
    for kind in HeadKind::ALL {
        let mut config = config(kind, 3, 32);
        config.tie_word_embeddings = false;
        let mut model = Model::new(config, 3).expect("valid sizes");
        let id = model.params().find("model.embed_tokens.weight");
        let embedding = model.params_mut().get_mut(id.expect("every model has one"));
        embedding.data_mut()[poison as usize * 32..][..32].fill(f32::NAN);
        let expected = plain_texts(&model, &requests());
        let mut poisoned = By(
            |_, _: &mut DraftContext<'_>| Ok(vec![drafts(vec![poison; 3]); 3]),
            0,
        );
        assert_eq!(survive(&model, &mut poisoned), (expected.clone(), 0));

        let mut session = Session::new(&model);
        let mut all = requests();
        all.insert(1, Request::new([84, poison], all[0].options.clone()));
        let add = |request| session.add(request).expect("a prompt that fits");
        let ids: Vec<SequenceId> = all.into_iter().map(add).collect();
        let mut reasons = Vec::new();
        while session.unfinished() > 0 {
            for output in session.step(&mut HeadDrafter).expect("no drafter fails") {
                reasons.extend(output.finish.map(|reason| (output.id, reason)));
            }
        }
        let texts = [ids[0], ids[2]].map(|id| session.sequence(id).expect("there").generated());
        assert_eq!(texts, [&expected[0][..], &expected[1]]);
        let (id, reason) = &reasons[0];
        let FinishReason::Failed(error) = reason else {
            panic!("{reason:?}")
        };
        assert_eq!((*id, reasons.len()), (ids[1], 3));
        assert!(error.to_string().contains("not a number"), "{error}");
        let failed = session.sequence(ids[1]).expect("there");
        assert!(failed.is_finished() && failed.generated().is_empty());
    }
}

/// Nothing but the session's own steps makes a sequence longer, also if drafters run one session's heads for another.
#[test]
fn two_sessions_take_turns() {
    let model = random_model(HeadKind::Sequential, 3, 1);
    let expected = plain_texts(&model, &requests());
    let mut outer = Session::new(&model);
    let mut inner = Session::new(&model);
    let mut ids = Vec::new();
    for (session, request) in [&mut outer, &mut inner].into_iter().zip(requests()) {
        ids.push(session.add(request).expect("a prompt that fits"));
    }
    let mut drafter = By(
        |_, context: &mut DraftContext<'_>| {
            let own = HeadDrafter.draft(context)?;
            let mut stolen = Vec::new();
            let mut steal = By(
                |_, inner: &mut DraftContext<'_>| {
                    stolen = HeadDrafter.draft(inner)?;
                    Ok(own.clone())
                },
                0,
            );
            inner.step(&mut steal)?;
            Ok(stolen)
        },
        0,
    );
    while outer.unfinished() > 0 {
        outer.step(&mut drafter).expect("no drafter fails");
    }
    while inner.unfinished() > 0 {
        inner.step(&mut HeadDrafter).expect("no drafter fails");
    }
    assert_eq!(
        outer.sequence(ids[0]).expect("there").generated(),
        expected[0]
    );
    assert_eq!(
        inner.sequence(ids[1]).expect("there").generated(),
        expected[1]
    );
}

/// A row that is not a number behind accepted drafts: the text has the tokens before it, as in plain decoding.
#[test]
fn drafts_before_a_failure_stay_accepted() {
    let mut config = config(HeadKind::Medusa, 3, 32);
    config.tie_word_embeddings = false;
    for (i, request) in requests().into_iter().enumerate() {
        let mut model = Model::new(config.clone(), 3).expect("valid sizes");
        let text = plain(&model, &request.prompt, &request.options);
        // The first token after some others that is not among them: what follows it cannot be computed.
        let known =
            |j: &usize| text[..*j].contains(&text[*j]) || request.prompt.contains(&text[*j]);
        let last = (4..text.len()).find(|j| !known(j)).expect("a new token");
        let id = model.params().find("model.embed_tokens.weight");
        let embedding = model.params_mut().get_mut(id.expect("every model has one"));
        embedding.data_mut()[text[last] as usize * 32..][..32].fill(f32::NAN);
        let finish = |request: &Request, drafter: &mut dyn Drafter| {
            let mut session = Session::new(&model);
            let id = session.add(request.clone()).expect("a prompt that fits");
            loop {
                for output in session.step(drafter).expect("a step") {
                    if let Some(finish) = output.finish {
                        let tokens = session.remove(id).expect("a sequence").generated().to_vec();
                        return (tokens, format!("{finish:?}"));
                    }
                }
            }
        };
        let modes: &[DecodeMode] = match i {
            0 => &[DecodeMode::Exact, DecodeMode::Rejection],
            _ => &[DecodeMode::Exact],
        };
        for stop in [vec![], vec![text[last]]] {
            let mut request = request.clone();
            request.options.stop = stop;
            let expected = finish(&request, &mut NoDrafts);
            assert_eq!(expected.0, text[..=last]);
            for (mode, ahead) in modes.iter().flat_map(|m| (1..8).map(|n| (*m, n))) {
                let mut oracle = By(
                    |_, context: &mut DraftContext<'_>| {
                        let known = context.requests()[0].sequence().generated().len();
                        let end = (known + ahead).min(text.len());
                        Ok(vec![drafts(text[known..end].to_vec())])
                    },
                    0,
                );
                request.options.mode = mode;
                request.options.draft_length = DraftLength::All;
                assert_eq!(finish(&request, &mut oracle), expected, "{mode:?}, {ahead}");
            }
        }
    }
}

/// A drafter may claim any number of drafts.
#[test]
fn a_boundless_drafter_costs_no_memory() {
    struct Boundless;
    impl Drafter for Boundless {
        fn draft(&mut self, context: &mut DraftContext<'_>) -> Result<Vec<Vec<Draft>>> {
            Ok(vec![drafts(vec![7; 3]); context.requests().len()])
        }
        fn max_drafts(&self, _: &Model) -> usize {
            usize::MAX
        }
    }
    let model = trained_model(HeadKind::Recursive);
    for choice in [
        DraftLength::All,
        DraftLength::Auto,
        DraftLength::Fixed(usize::MAX),
    ] {
        let options = GenerateOptions {
            draft_length: choice,
            ..all()
        };
        let expected = plain(model, &[84], &options);
        assert_eq!(run(model, &[84], &options, &mut Boundless).tokens, expected);
    }
}
