//! Sampling in a sliding window, by hand: the noise of a token belongs to its place in the whole text, in the drafter
//! and in the text alike.

use super::ours::{self, Decoded};

/// The text and the drafts that were right, from fresh forward passes over the window and one call of `pick` for each
/// token.
fn by_hand(
    model: &ours::Medusa,
    prompt: &[u32],
    max_tokens: usize,
    window: ours::Window,
) -> Decoded {
    let (mut text, mut base) = (prompt.to_vec(), 0);
    let (mut drafted, mut accepted) = ([0; ours::DEPTH], [0; ours::DEPTH]);
    text.push(model.token(0, &text, text.len()));
    while text.len() < prompt.len() + max_tokens {
        // The newest token is the first that has no position in the window.
        if text.len() - 1 - base == window.context {
            base = text.len() - window.keep;
        }
        let position = text.len() - 1 - base;
        let left = prompt.len() + max_tokens - text.len() - 1;
        let room = left.min(window.context - 1 - position).min(ours::DEPTH);
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
        for k in 0..=drafts.len() {
            let token = model.token(0, &text[base..], text.len());
            text.push(token);
            if drafts.get(k) != Some(&token) {
                break;
            }
            accepted[k] += 1;
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
    let model = ours::Medusa::new();
    let prompt = [3, 1, 4, 1, 5];
    for (context, keep) in [(12, 5), (9, 8), (16, 2)] {
        let window = ours::Window { context, keep };
        let expected = by_hand(&model, &prompt, 60, window);
        assert!(
            expected.accepted[0] > 5,
            "{expected:?}: drafts are right now and then"
        );
        assert!(
            expected.accepted[0] < expected.drafted[0],
            "{expected:?}: and wrong"
        );
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
}
