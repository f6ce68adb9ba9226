//! Sampling in a sliding window, by hand: the noise of a token belongs to its place in the whole text, in the drafter
//! and in the text alike.

use super::common::Fixture;
use foretoken::exec::{Rows, TapeExec};
use foretoken::infer::{
    DraftLength, Drafter, GenerateOptions, HeadDrafter, NoDrafts, Sampler, generate, sample,
};
use foretoken::model::{HeadKind, Model};

/// A model with heads of kind `medusa`, whose drafts need one row each, and a way to sample from it.
struct Medusa {
    model: Model,
    sampler: Sampler,
}

const DEPTH: usize = 3;

/// Positions, and how many tokens stay when all are used.
#[derive(Clone, Copy, Debug)]
struct Window {
    context: usize,
    keep: usize,
}

/// Tokens after the prompt; how often depth 1, 2, .. drafted, and was right.
#[derive(Debug, PartialEq)]
struct Decoded {
    tokens: Vec<u32>,
    drafted: Vec<usize>,
    accepted: Vec<usize>,
}

impl Medusa {
    fn new() -> Self {
        let fixture = Fixture {
            depth: DEPTH,
            ..Fixture::small(HeadKind::Medusa, false, true)
        };
        let sampler = Sampler {
            temperature: 4.0,
            seed: 11,
            ..Sampler::GREEDY
        };
        Self {
            model: fixture.model(3),
            sampler,
        }
    }

    /// What head k (0 for the main head) says after `seen`, for index `token_index` of the whole text.
    fn token(&self, k: usize, seen: &[u32], token_index: usize) -> u32 {
        let mut exec = TapeExec::no_grad(self.model.params());
        let rows = Rows::one(0, 0, seen.len());
        let mut h = self.model.trunk(&mut exec, seen, &rows);
        if k > 0 {
            h = self.model.head(&mut exec, k, &h, &[], &rows);
        }
        let logits = self.model.logits(&mut exec, &h);
        let last = logits.value().row(seen.len() - 1);
        // The tokens before have no part in the choice; there are as many as the index says.
        sample(last, token_index, self.sampler).expect("finite logits")
    }

    fn generate(&self, prompt: &[u32], max_tokens: usize, window: Window, drafts: bool) -> Decoded {
        let options = GenerateOptions {
            max_tokens,
            draft_length: DraftLength::All,
            sampler: self.sampler,
            context: Some(window.context),
            window: Some(window.keep),
            ..GenerateOptions::default()
        };
        let (mut heads, mut none) = (HeadDrafter, NoDrafts);
        let drafter: &mut dyn Drafter = if drafts { &mut heads } else { &mut none };
        let got = generate(&self.model, prompt, &options, drafter);
        let got = got.expect("a prompt that fits");
        Decoded {
            tokens: got.tokens,
            drafted: got.drafted_by_depth,
            accepted: got.accepted_by_depth,
        }
    }
}

/// The text and the drafts that were right, from fresh forward passes over the window and one call of `sample` for each
/// token.
fn by_hand(model: &Medusa, prompt: &[u32], max_tokens: usize, window: Window) -> Decoded {
    let (mut text, mut base) = (prompt.to_vec(), 0);
    let (mut drafted, mut accepted) = ([0; DEPTH], [0; DEPTH]);
    text.push(model.token(0, &text, text.len()));
    while text.len() < prompt.len() + max_tokens {
        // The newest token is the first that has no position in the window.
        if text.len() - 1 - base == window.context {
            base = text.len() - window.keep;
            // The window is a prompt again: its pass decides one token, and nothing is drafted.
            text.push(model.token(0, &text[base..], text.len()));
            continue;
        }
        let position = text.len() - 1 - base;
        let left = prompt.len() + max_tokens - text.len() - 1;
        let room = left.min(window.context - 1 - position).min(DEPTH);
        // Head k reads the window without the newest token, which the trunk has not seen yet.
        let draft = |k: usize| {
            let seen = &text[base..text.len() - 1];
            model.token(k, seen, text.len() - 1 + k)
        };
        let drafts: Vec<u32> = match position {
            0 => Vec::new(),
            _ => (1..=room).map(draft).collect(),
        };
        (0..drafts.len()).for_each(|k| drafted[k] += 1);
        let mut right = drafts.iter();
        for accepted in accepted.iter_mut().chain([&mut 0]) {
            let token = model.token(0, &text[base..], text.len());
            text.push(token);
            if right.next() != Some(&token) {
                break;
            }
            *accepted += 1;
        }
    }
    Decoded {
        tokens: text.split_off(prompt.len()),
        drafted: drafted.to_vec(),
        accepted: accepted.to_vec(),
    }
}

#[test]
fn noise_belongs_to_the_place_in_the_text() {
    let model = Medusa::new();
    let prompt = [3, 1, 4, 1, 5];
    let (mut drafted, mut accepted) = (0, 0);
    for (context, keep) in [(12, 5), (9, 8), (16, 2)] {
        let window = Window { context, keep };
        let expected = by_hand(&model, &prompt, 60, window);
        drafted += expected.drafted[0];
        accepted += expected.accepted[0];
        assert_eq!(
            model.generate(&prompt, 60, window, true),
            expected,
            "{keep} of {context}"
        );
        let plain = model.generate(&prompt, 60, window, false);
        assert_eq!(
            plain.tokens, expected.tokens,
            "{keep} of {context}, no drafts"
        );
    }
    assert!(
        accepted > 15 && drafted > accepted,
        "{accepted} of {drafted} drafts are right"
    );
}
