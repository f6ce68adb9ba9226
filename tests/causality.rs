//! No leak: changing token x_j never changes, by a single bit, a logit that predicts a token at or before j; nor
//! anything in another sequence of the batch.
//!
//! In rows: the trunk's row i predicts x_{i+1} and may read x_{0..=i}. Head k's row i predicts x_{i+k+1} and may read
//! x_{0..=i+k} if its kind is chained, x_{0..=i} if not. So that these tests can fail in the other direction, the first
//! row that may read x_j must change, and (for painted sequences, where it is certain) rows after it too.

mod common;

use common::{Fixture, LENGTHS, Logits, answer, bits, cases, same_bits, tokens, train_logits};
use foretoken::exec::TapeExec;
use foretoken::model::HeadKind;
use proptest::prelude::*;

/// The first row of depth k that may read x_j.
fn first_reader(kind: HeadKind, k: usize, j: usize) -> usize {
    if kind.chained() {
        j.saturating_sub(k)
    } else {
        j
    }
}

/// Rows that differ in at least one bit.
fn changed(vocab: usize, a: &[f32], b: &[f32]) -> Vec<usize> {
    let rows = a.chunks(vocab).zip(b.chunks(vocab)).enumerate();
    rows.filter(|(_, (a, b))| a.iter().zip(*b).any(|(a, b)| bits(*a) != bits(*b)))
        .map(|(row, _)| row)
        .collect()
}

/// What must not and what must change in the logits of a sequence whose token x_j was changed.
#[track_caller]
fn check(fixture: &Fixture, j: usize, before: &Logits, after: &Logits) {
    for (k, (before, after)) in before.iter().zip(after).enumerate() {
        let first = first_reader(fixture.kind, k, j);
        let rows = before.len() / fixture.vocab;
        let unread = first.min(rows) * fixture.vocab;
        let what = format!("{fixture:?}, depth {k}, x_{j} changed");
        same_bits(&what, fixture.vocab, &after[..unread], &before[..unread]);
        // The promise in its own words: row i predicts x_{i+k+1}.
        for row in changed(fixture.vocab, before, after) {
            assert!(row + k + 1 > j, "{what}: row {row} saw what it predicts");
        }
        if first < rows {
            let changed = changed(fixture.vocab, before, after);
            assert_eq!(changed.first(), Some(&first), "{what}: its first reader");
        }
    }
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn a_token_is_never_seen_by_what_predicts_it(
        fixture in prop::sample::select(Fixture::all()),
        seed in 0..1000_u64,
        n in prop_oneof![prop::sample::select(&LENGTHS[..]), 1..70_usize],
        at in any::<prop::sample::Index>(),
        other in 1..37_u32,
    ) {
        let model = fixture.model(seed);
        let mut x = tokens(n, fixture.vocab, seed as usize);
        let before = answer(&model, &x);
        let j = at.index(n);
        x[j] = (x[j] + other) % fixture.vocab as u32;
        check(&fixture, j, &before, &answer(&model, &x));
    }

    /// Sequences side by side in one batch do not see each other.
    #[test]
    fn nothing_passes_between_sequences(
        fixture in prop::sample::select(Fixture::all()),
        seed in 0..1000_u64,
        lens in prop::collection::vec(1..40_usize, 2..4),
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
    ) {
        let model = fixture.model(seed);
        let logits = |sequences: &[Vec<u32>]| {
            train_logits(&mut TapeExec::no_grad(model.params()), &model, sequences)
        };
        let mut sequences: Vec<_> = { lens.iter().enumerate() }
            .map(|(s, n)| tokens(*n, fixture.vocab, seed as usize + s))
            .collect();
        let before = logits(&sequences);
        let which = which.index(lens.len());
        let j = at.index(lens[which]);
        sequences[which][j] = (sequences[which][j] + 1) % fixture.vocab as u32;
        for (s, (before, after)) in before.iter().zip(&logits(&sequences)).enumerate() {
            if s == which {
                check(&fixture, j, before, after);
                continue;
            }
            for (k, (before, after)) in before.iter().zip(after).enumerate() {
                let what = format!("{fixture:?}, depth {k}, beside x_{j} changed");
                same_bits(&what, fixture.vocab, after, before);
            }
        }
    }
}

/// A model that never looked back would pass everything above. Here every row of every depth that may read x_j does.
/// Only painted sequences can say so: an attention weight may be too small to show in one of many random ones.
#[test]
fn what_may_be_read_is_read() {
    for fixture in Fixture::all() {
        let model = fixture.model(4);
        for j in [0, 1, 15, 16, 30, 31, 32] {
            let mut x = tokens(34, fixture.vocab, 4);
            let before = answer(&model, &x);
            x[j] = (x[j] + 1) % fixture.vocab as u32;
            let after = answer(&model, &x);
            check(&fixture, j, &before, &after);
            for (k, (before, after)) in before.iter().zip(&after).enumerate() {
                let rows = before.len() / fixture.vocab;
                let readers: Vec<_> = (first_reader(fixture.kind, k, j)..rows).collect();
                let changed = changed(fixture.vocab, before, after);
                assert_eq!(changed, readers, "{fixture:?}, depth {k}, readers of x_{j}");
            }
        }
    }
}
