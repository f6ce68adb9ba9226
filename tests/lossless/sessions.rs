//! Sessions: sequences join, leave, are cut short and continued, and each has the tokens that it has alone.

use crate::models::trained_model;
use crate::together::requests;
use crate::{all, fixed, plain, run, speculative};
use foretoken::Result;
use foretoken::data::{Tokenizer, corpus};
use foretoken::infer::{
    DecodedToken, Drafter, FinishReason, GenerateOptions, Generated, HeadDrafter, NoDrafts,
    Request, Sampler, SequenceId, Session, StepOutput,
};
use foretoken::model::HeadKind;
use std::collections::BTreeMap;

fn text(seed: u64) -> Vec<u32> {
    let text = corpus::stories(seed, 2000);
    Tokenizer::bytes().encode(text.as_bytes()).expect("bytes")
}

fn step(session: &mut Session<'_>, drafter: &mut dyn Drafter) -> Vec<StepOutput> {
    session.step(drafter).expect("no drafter fails")
}

fn finish(session: &mut Session<'_>, drafter: &mut dyn Drafter) {
    while session.unfinished() > 0 {
        step(session, drafter);
    }
}

/// Finishes with the heads' drafts; returns how many were drafted and how many accepted.
fn finish_counting(session: &mut Session<'_>) -> [usize; 2] {
    let mut counts = [0; 2];
    while session.unfinished() > 0 {
        for output in step(session, &mut HeadDrafter) {
            counts[0] += output.drafted;
            counts[1] += output.tokens.iter().filter(|t| t.depth() > 0).count();
        }
    }
    counts
}

fn drafted_and_accepted(generated: &Generated) -> [usize; 2] {
    [&generated.drafted_by_depth, &generated.accepted_by_depth].map(|counts| counts.iter().sum())
}

fn generated(session: &Session<'_>, id: SequenceId) -> Vec<u32> {
    session
        .sequence(id)
        .expect("it was not removed")
        .generated()
        .to_vec()
}

/// Sequences join at every step, and some leave before they are finished.
#[test]
fn sequences_join_and_leave_between_steps() {
    let text = text(77);
    for kind in HeadKind::ALL {
        let model = trained_model(kind);
        let mut session = Session::new(model);
        let mut expected = BTreeMap::new();
        let mut left = Vec::new();
        for (i, request) in requests(&text)
            .into_iter()
            .chain(requests(&text))
            .enumerate()
        {
            let whole = plain(model, &request.prompt, &request.options);
            let id = session.add(request).expect("a prompt that fits");
            expected.insert(id, whole);
            for _ in 0..i % 3 {
                step(&mut session, &mut HeadDrafter);
            }
            if i % 4 == 3 {
                let leaves = session
                    .sequences()
                    .map(|s| s.id())
                    .nth(i % 3)
                    .expect("some are there");
                let removed = session.remove(leaves).expect("it is there");
                assert!(expected[&leaves].starts_with(removed.generated()));
                assert!(session.sequence(leaves).is_none() && session.remove(leaves).is_none());
                left.push(leaves);
            }
        }
        finish(&mut session, &mut HeadDrafter);
        for (id, expected) in &expected {
            match left.contains(id) {
                true => assert!(session.sequence(*id).is_none()),
                false => assert_eq!(generated(&session, *id), *expected, "{kind:?}"),
            }
        }
        assert_eq!(step(&mut session, &mut HeadDrafter).len(), 0);
    }
}

/// A long prompt takes several steps, in which others decode, and prompts that came later are computed.
#[test]
fn a_long_prompt_delays_no_other_sequence() {
    let model = trained_model(HeadKind::Recursive);
    let text = text(5);
    let options = |max_tokens| GenerateOptions {
        max_tokens,
        chunk: 10,
        ..all()
    };
    let mut session = Session::new(model);
    let short = session
        .add(Request::new(&text[..4], options(50)))
        .expect("fits");
    step(&mut session, &mut NoDrafts);
    let long = session
        .add(Request::new(&text[..95], options(5)))
        .expect("fits");
    let later = session
        .add(Request::new(&text[..20], options(1)))
        .expect("fits");
    for i in 0..10 {
        let outputs = step(&mut session, &mut NoDrafts);
        let gained: Vec<SequenceId> = outputs.iter().map(|output| output.id).collect();
        let expected = match i {
            1 => vec![short, later],
            9 => vec![short, long],
            _ => vec![short],
        };
        assert_eq!(gained, expected, "step {i}");
    }
    finish(&mut session, &mut NoDrafts);
    assert_eq!(
        generated(&session, long),
        plain(model, &text[..95], &options(5))
    );
}

/// What outputs say: which head drafted a token, what was rejected, and how a text ended.
#[test]
fn outputs_tell_a_text_from_start_to_end() {
    for kind in HeadKind::ALL {
        let model = trained_model(kind);
        let mut options = all();
        let whole = speculative(model, &[84, 104, 101], &options);
        for stop in [None, Some(whole.tokens[50])] {
            options.stop = stop.into_iter().collect();
            let whole = speculative(model, &[84, 104, 101], &options);
            let mut session = Session::new(model);
            let request = Request::new([84, 104, 101], options.clone());
            let id = session.add(request).expect("a prompt that fits");
            let (mut tokens, mut steps, mut drafted, mut accepted) = (Vec::new(), 0, 0, 0);
            let mut last = None;
            while session.unfinished() > 0 {
                for output in step(&mut session, &mut HeadDrafter) {
                    assert!(output.id == id && last.is_none(), "nothing follows the end");
                    let heads: Vec<usize> = output.tokens.iter().map(|t| t.depth()).collect();
                    let right = heads.iter().filter(|head| **head > 0).count();
                    let ended = heads.last() != Some(&0);
                    let mut in_order: Vec<usize> = (1..=right).collect();
                    in_order.extend((!ended).then_some(0));
                    assert_eq!(heads, in_order);
                    let rejected = if ended { 0 } else { output.drafted - right };
                    assert_eq!(output.rejected.len(), rejected);
                    // The token that stands in place of a rejected draft is a different one.
                    if let Some(draft) = output.rejected.first() {
                        assert_ne!(Some(*draft), output.tokens.last().map(|t| t.id()));
                    }
                    tokens.extend(output.tokens.iter().map(|token| token.id()));
                    (steps, drafted, accepted) =
                        (steps + 1, drafted + output.drafted, accepted + right);
                    last = output.finish;
                }
            }
            assert_eq!((&tokens, steps), (&whole.tokens, whole.steps));
            assert_eq!(drafted, whole.drafted_by_depth.iter().sum::<usize>());
            assert_eq!(accepted, whole.accepted_by_depth.iter().sum::<usize>());
            match stop {
                None => assert!(matches!(last, Some(FinishReason::Length))),
                Some(_) => assert!(matches!(last, Some(FinishReason::Stop))),
            }
        }
    }
}

/// A conversation: each turn has the tokens of a fresh session over the whole text, and so do the heads' drafts.
#[test]
fn a_conversation_continues_as_a_fresh_text() {
    let text = text(9);
    let turns = [(0, 5, 20), (5, 3, 1), (8, 0, 12), (8, 40, 15), (48, 1, 10)];
    for kind in HeadKind::ALL {
        let model = trained_model(kind);
        for (temperature, drafts) in [(0.0, 6), (0.0, 2), (0.9, 3), (0.9, 0)] {
            let options = |max_tokens, turn: usize| GenerateOptions {
                max_tokens,
                draft_length: fixed(drafts),
                chunk: 7,
                // Some turns end inside accepted drafts.
                stop: if turn.is_multiple_of(2) {
                    vec![32]
                } else {
                    vec![]
                },
                sampler: Sampler {
                    temperature,
                    seed: 4,
                    ..Sampler::GREEDY
                },
                ..all()
            };
            let mut session = Session::new(model);
            let (mut whole, mut talk) = (Vec::new(), None);
            for (turn, (from, len, max_tokens)) in turns.into_iter().enumerate() {
                let new = &text[from..from + len];
                let options = options(max_tokens, turn);
                let id = match talk {
                    None => session.add(Request::new(new, options.clone())),
                    Some(id) => session.extend(id, new, options.clone()).map(|()| id),
                };
                let id = *talk.insert(id.expect("a prompt that fits"));
                whole.extend_from_slice(new);
                let counts = finish_counting(&mut session);
                let fresh = speculative(model, &whole, &options);
                assert_eq!(
                    generated(&session, id),
                    fresh.tokens,
                    "{kind:?}, turn {turn}"
                );
                let expected = drafted_and_accepted(&fresh);
                assert_eq!(counts, expected, "{kind:?}, turn {turn}");
                assert_eq!(fresh.tokens, plain(model, &whole, &options));
                whole.extend(fresh.tokens);
                assert_eq!(session.sequence(id).expect("there").tokens(), whole);
            }
        }
    }
}

/// The same with a window that has slid, or slides because of the new tokens, or is no longer needed.
#[test]
fn a_conversation_in_a_window() {
    let text = text(10);
    let model = trained_model(HeadKind::Sequential);
    let windows = [
        (Some(30), Some(10)),
        (Some(30), Some(20)),
        (None, None),
        (Some(60), Some(1)),
        (Some(90), Some(80)),
    ];
    let mut session = Session::new(model);
    let (mut whole, mut talk) = (Vec::new(), None);
    for (turn, (context, window)) in windows.into_iter().enumerate() {
        let options = GenerateOptions {
            max_tokens: 25,
            context,
            window,
            ..all()
        };
        let new = &text[turn * 20..][..10];
        let id = match talk {
            None => session.add(Request::new(new, options.clone())),
            Some(id) => session.extend(id, new, options.clone()).map(|()| id),
        };
        let id = *talk.insert(id.expect("a prompt that fits"));
        whole.extend_from_slice(new);
        finish(&mut session, &mut HeadDrafter);
        let expected = plain(model, &whole, &options);
        assert_eq!(generated(&session, id), expected, "turn {turn}");
        whole.extend(expected);
    }
}

/// A text that is cut anywhere continues as if it had never been longer.
#[test]
fn a_text_that_was_cut_continues_from_there() {
    for kind in HeadKind::ALL {
        let model = trained_model(kind);
        let prompt = [84, 104, 101, 32];
        let options = GenerateOptions {
            max_tokens: 30,
            context: Some(40),
            window: Some(8),
            ..all()
        };
        for len in [1, 2, 4, 5, 20, 33, 34] {
            for steps in [0, 1, 3, 50] {
                let mut session = Session::new(model);
                let id = session
                    .add(Request::new(prompt, options.clone()))
                    .expect("fits");
                for _ in 0..steps {
                    step(&mut session, &mut HeadDrafter);
                }
                let known = session.sequence(id).expect("there").tokens().to_vec();
                if len > known.len() {
                    let error = session.truncate(id, len).expect_err("not so many");
                    assert!(
                        error.to_string().contains(&known.len().to_string()),
                        "{error}"
                    );
                    continue;
                }
                session.truncate(id, len).expect("so many");
                assert_eq!(session.unfinished(), 0);
                let whole = [&known[..len], &[65, 66]].concat();
                session
                    .extend(id, &[65, 66], options.clone())
                    .expect("fits");
                let counts = finish_counting(&mut session);
                let case = format!("{kind:?}, {len}, {steps}");
                let fresh = speculative(model, &whole, &options);
                assert_eq!(generated(&session, id), fresh.tokens, "{case}");
                assert_eq!(fresh.tokens, plain(model, &whole, &options), "{case}");
                // Nothing of the longer text is left in a head's cache.
                assert_eq!(counts, drafted_and_accepted(&fresh), "{case}");
            }
        }
    }
}

#[test]
fn ids_are_never_used_again() {
    let model = trained_model(HeadKind::Recursive);
    let (mut one, mut two) = (Session::new(model), Session::new(model));
    let request = || Request::new([84], all());
    let first = one.add(request()).expect("fits");
    one.remove(first).expect("it is there");
    let second = one.add(request()).expect("fits");
    let other = two.add(request()).expect("fits");
    assert!(first != second && second != other && first != other);
    for id in [first, other] {
        assert!(one.sequence(id).is_none() && one.remove(id).is_none());
        let error = one.extend(id, &[1], all()).expect_err("not there");
        assert!(error.to_string().contains(&id.to_string()), "{error}");
        one.truncate(id, 1).expect_err("not there");
    }
    one.truncate(second, 0).expect_err("a text has a token");
    // A refused extension leaves the text as it is.
    finish(&mut one, &mut NoDrafts);
    let before = generated(&one, second);
    one.extend(second, &[257], all()).expect_err("no token");
    assert_eq!((generated(&one, second), one.unfinished()), (before, 0));
}

#[test]
fn a_request_for_no_tokens_is_finished_at_once() {
    let model = trained_model(HeadKind::Recursive);
    let mut options = all();
    options.max_tokens = 0;
    let mut session = Session::new(model);
    let id = session.add(Request::new([84, 104], options)).expect("fits");
    assert_eq!(
        (
            session.unfinished(),
            session.step(&mut NoDrafts).expect("idle").len()
        ),
        (0, 0)
    );
    session.extend(id, &[101], all()).expect("fits");
    finish(&mut session, &mut HeadDrafter);
    assert_eq!(
        generated(&session, id),
        plain(model, &[84, 104, 101], &all())
    );
}

/// An iterator over tokens, sequence by sequence within a step.
#[test]
fn tokens_come_as_an_iterator() {
    let model = trained_model(HeadKind::Recursive);
    let text = text(3);
    let mut session = Session::new(model);
    let mut expected = BTreeMap::new();
    for request in requests(&text) {
        let tokens = plain(model, &request.prompt, &request.options);
        expected.insert(session.add(request).expect("fits"), tokens);
    }
    let mut got: BTreeMap<SequenceId, Vec<u32>> = expected.keys().map(|id| (*id, vec![])).collect();
    for token in session.stream(&mut HeadDrafter) {
        let (id, token): (SequenceId, Result<DecodedToken>) = token.expect("no drafter fails");
        let token = token.expect("the logits are numbers");
        got.get_mut(&id).expect("one of ours").push(token.id());
    }
    assert_eq!(got, expected);
}

/// Tokens that an iterator was dropped with are returned by the next one, and a removed or cut text has none.
#[test]
fn tokens_come_in_portions() {
    let model = trained_model(HeadKind::Recursive);
    let text = text(3);
    for portion in [1, 3, 4] {
        let mut session = Session::new(model);
        let mut expected = BTreeMap::new();
        for request in requests(&text) {
            let tokens = plain(model, &request.prompt, &request.options);
            expected.insert(session.add(request).expect("fits"), tokens);
        }
        expected.retain(|_, tokens| !tokens.is_empty());
        let mut got: BTreeMap<SequenceId, Vec<u32>> = BTreeMap::new();
        loop {
            let portion: Vec<_> = session.stream(&mut HeadDrafter).take(portion).collect();
            if portion.is_empty() {
                break;
            }
            for item in portion {
                let (id, token) = item.expect("no drafter fails");
                got.entry(id)
                    .or_default()
                    .push(token.expect("numbers").id());
            }
        }
        assert_eq!(got, expected);
    }
    let mut session = Session::new(model);
    let request = || Request::new(&text[..9], all());
    let [cut, removed] = [(); 2].map(|()| session.add(request()).expect("fits"));
    session.stream(&mut HeadDrafter).next();
    let known = session.sequence(cut).expect("there").tokens().len();
    session.truncate(cut, known).expect("so many");
    session.remove(removed).expect("there");
    assert_eq!(session.stream(&mut HeadDrafter).count(), 0);
}

/// A program can hold a session, also in another thread than the one that made it.
#[test]
fn a_session_can_be_sent() {
    let model = trained_model(HeadKind::Recursive);
    let mut session = Session::new(model);
    let id = session
        .add(Request::new([84, 104, 101], all()))
        .expect("fits");
    step(&mut session, &mut HeadDrafter);
    let tokens = std::thread::scope(|scope| {
        let run = move || {
            finish(&mut session, &mut HeadDrafter);
            generated(&session, id)
        };
        scope.spawn(run).join().expect("no panic")
    });
    assert_eq!(
        tokens,
        run(model, &[84, 104, 101], &all(), &mut NoDrafts).tokens
    );
}
