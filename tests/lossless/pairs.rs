//! Every pair of settings: at least 100,000 generated tokens compared with plain decoding, none different.
//!
//! A longer soak: `FORETOKEN_SOAK_TOKENS=1000000 cargo test --release --test lossless soak -- --nocapture`

use crate::models::{cut, random_model, trained_model};
use crate::plain;
use foretoken::data::{Tokenizer, corpus};
use foretoken::infer::{
    DraftLength, GenerateOptions, HeadDrafter, Request, Sampler, generate_batch,
};
use foretoken::kernels::par::Threads;
use foretoken::model::{HeadKind, Model, WeightFormat};

/// Tokens that a full run compares.
const TOKENS: usize = 100_000;
/// Tokens of a continuation.
const LENGTH: usize = 110;

const DEPTHS: [usize; 6] = [1, 2, 3, 4, 5, 6];
const TEMPERATURES: [f32; 4] = [0.0, 0.3, 0.8, 1.5];
const TOP_K: [usize; 4] = [0, 1, 5, 40];
const TOP_P: [f32; 3] = [1.0, 0.9, 0.3];
const MIN_P: [f32; 2] = [0.0, 0.05];
const DRAFTS: [DraftLength; 8] = [
    DraftLength::Auto,
    DraftLength::All,
    DraftLength::Fixed(0),
    DraftLength::Fixed(1),
    DraftLength::Fixed(2),
    DraftLength::Fixed(3),
    DraftLength::Fixed(4),
    DraftLength::Fixed(6),
];
const THREADS: [usize; 4] = [1, 2, 3, 8];
const BATCHES: [usize; 4] = [1, 2, 3, 5];
const CHUNKS: [usize; 3] = [1, 7, 256];
/// None, and one that slides several times in a text.
const WINDOWS: [Option<usize>; 2] = [None, Some(20)];
/// Three of four models have learnt something.
const LEARNT: [bool; 4] = [true, true, true, false];

/// Levels of each setting, in the order in which [`compare`] reads them.
fn levels() -> Vec<usize> {
    vec![
        HeadKind::ALL.len(),
        DEPTHS.len(),
        LEARNT.len(),
        TEMPERATURES.len(),
        TOP_K.len(),
        TOP_P.len(),
        MIN_P.len(),
        WeightFormat::ALL.len(),
        DRAFTS.len(),
        THREADS.len(),
        BATCHES.len(),
        CHUNKS.len(),
        WINDOWS.len(),
    ]
}

/// Rows of settings in which every pair of levels of every two settings occurs, found greedily.
fn all_pairs(levels: &[usize]) -> Vec<Vec<usize>> {
    let mut open = std::collections::BTreeSet::new();
    for i in 0..levels.len() {
        for j in i + 1..levels.len() {
            for a in 0..levels[i] {
                open.extend((0..levels[j]).map(|b| (i, a, j, b)));
            }
        }
    }
    let covered = |row: &[usize]| {
        let mut pairs = Vec::new();
        for i in 0..row.len() {
            pairs.extend((i + 1..row.len()).map(|j| (i, row[i], j, row[j])));
        }
        pairs
    };
    let (mut rows, mut state) = (Vec::new(), 1u64);
    while let Some(&(i, a, j, b)) = open.first() {
        let mut draw = |n: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % n
        };
        let mut candidate = || {
            let mut row: Vec<usize> = levels.iter().map(|n| draw(*n)).collect();
            (row[i], row[j]) = (a, b);
            row
        };
        let weight = |row: &Vec<usize>| covered(row).iter().filter(|p| open.contains(p)).count();
        let best = (0..60).map(|_| candidate()).max_by_key(weight);
        let best = best.expect("some candidates");
        covered(&best).iter().for_each(|pair| {
            open.remove(pair);
        });
        rows.push(best);
    }
    rows
}

#[test]
fn rows_hold_every_pair() {
    let levels = [3, 2, 4, 1, 3];
    let rows = all_pairs(&levels);
    for i in 0..levels.len() {
        for j in i + 1..levels.len() {
            for a in 0..levels[i] {
                for b in 0..levels[j] {
                    assert!(rows.iter().any(|row| row[i] == a && row[j] == b));
                }
            }
        }
    }
    assert!(
        rows.len() < 24,
        "fewer than the whole product of 72: {}",
        rows.len()
    );
}

/// One row of settings, run until `tokens` tokens were compared; returns how many were, and how many were drafted
/// right.
fn compare(row: &[usize], number: usize, tokens: usize) -> (usize, usize) {
    let [kind, depth, learnt, ..] = row[..3] else {
        unreachable!("a row of settings")
    };
    let kind = HeadKind::ALL[kind];
    let format = WeightFormat::ALL[row[7]];
    let mut model: Model = match LEARNT[learnt] {
        true => cut(trained_model(kind), DEPTHS[depth]),
        false => random_model(kind, DEPTHS[depth], number as u64),
    };
    model.pack(format);
    let sampler = Sampler {
        temperature: TEMPERATURES[row[3]],
        top_k: TOP_K[row[4]],
        top_p: TOP_P[row[5]],
        min_p: MIN_P[row[6]],
        seed: number as u64,
    };
    let options = |i: usize| GenerateOptions {
        max_tokens: LENGTH,
        draft_length: DRAFTS[row[8]],
        chunk: CHUNKS[row[11]],
        context: WINDOWS[row[12]].map(|_| 64),
        window: WINDOWS[row[12]],
        sampler: Sampler {
            seed: sampler.seed + 1000 * i as u64,
            ..sampler
        },
        ..GenerateOptions::default()
    };
    let pool = Threads::new(THREADS[row[9]]).expect("a small pool");
    let text = Tokenizer::bytes()
        .encode(corpus::stories(number as u64, 20_000).as_bytes())
        .expect("bytes");
    let (mut compared, mut accepted, mut next) = (0, 0, 0);
    while compared < tokens {
        let prompts: Vec<&[u32]> = (next..next + BATCHES[row[10]])
            .map(|i| &text[i * 37 % 19_000..][..1 + i * 11 % 40])
            .collect();
        let requests: Vec<Request> = (next..)
            .zip(&prompts)
            .map(|(i, prompt)| Request::new(*prompt, options(i)))
            .collect();
        next += prompts.len();
        let results = pool.scope(|| generate_batch(&model, &requests, &mut HeadDrafter));
        for (request, result) in requests.iter().zip(results.expect("prompts that fit")) {
            let one = GenerateOptions {
                chunk: 256,
                ..request.options.clone()
            };
            let expected = plain(&model, &request.prompt, &one);
            assert_eq!(
                result.tokens,
                expected,
                "settings {row:?} ({kind:?}, K = {}, {options:?})",
                DEPTHS[depth],
                options = request.options
            );
            compared += expected.len();
            accepted += result.accepted_by_depth.iter().sum::<usize>();
        }
    }
    (compared, accepted)
}

#[test]
fn soak_over_all_pairs_of_settings() {
    let asked = std::env::var("FORETOKEN_SOAK_TOKENS").ok();
    let tokens = asked.map_or(TOKENS, |n| {
        n.parse().expect("FORETOKEN_SOAK_TOKENS: a number")
    });
    let rows = all_pairs(&levels());
    let (mut compared, mut accepted) = (0, 0);
    for (number, row) in rows.iter().enumerate() {
        let (more, right) = compare(row, number, tokens.div_ceil(rows.len()));
        compared += more;
        accepted += right;
    }
    println!(
        "{} rows of settings, {compared} tokens compared, none different; {accepted} of them were drafted",
        rows.len()
    );
    assert!(
        compared >= tokens && accepted > compared / 10,
        "{compared}, {accepted}"
    );
}
