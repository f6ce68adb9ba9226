//! Whole models on a device: logits, tokens and evaluations are bitwise identical to the CPU's.

use super::device;
use crate::data::{Tokenizer, Tokens};
use crate::exec::{CacheExec, Rows, Span};
use crate::gpu::{DeviceParams, GpuExec};
use crate::infer::{
    DecodeExec, DecodeMode, DraftLength, Drafter, GenerateOptions, Generated, HeadDrafter,
    NoDrafts, OfflineReplay, Request, Sampler, Session,
};
use crate::model::{HeadKind, Model, Preset, WeightFormat};
use crate::train::{evaluate, evaluate_on};
use std::ops::ControlFlow;

const VOCAB: usize = 257;
const DEPTH: usize = 2;

/// Two layers with half as many key heads as query heads; `variant` sets the other switches of the configuration.
fn model(kind: HeadKind, variant: usize) -> Model {
    let mut config = Preset::Tiny.config(VOCAB, kind, DEPTH);
    (config.hidden_size, config.intermediate_size) = (32, 48);
    (config.num_hidden_layers, config.head_dim) = (2, 8);
    (config.num_attention_heads, config.num_key_value_heads) = (4, 2);
    config.max_position_embeddings = 64;
    // The first variant has heads of full width.
    config.set_head_width(if variant == 0 { 32 } else { 8 });
    config.use_qk_norm = variant != 1;
    config.tie_word_embeddings = variant != 2;
    Model::new(config, 11 + variant as u64).expect("valid sizes")
}

/// One model of each kind of head.
fn models() -> impl Iterator<Item = (HeadKind, Model)> {
    let all = HeadKind::ALL.into_iter().enumerate();
    all.map(|(variant, kind)| (kind, model(kind, variant)))
}

fn text(n: usize, salt: usize) -> Vec<u32> {
    let token = |i: usize| (i * i * 7 + i * 13 + salt * 31) % 200;
    (0..n).map(|i| token(i) as u32).collect()
}

/// All logits of trunk and heads, for two sequences that advance in chunks, alone and together, with some positions
/// truncated and computed again.
fn logits<E: DecodeExec>(mut exec: E, model: &Model) -> Vec<Vec<u32>> {
    let mut all = Vec::new();
    let (a, b) = (exec.add_sequence(), exec.add_sequence());
    let texts = [text(40, 1), text(40, 2)];
    let config = model.config();
    // (first position, rows) of each sequence.
    let passes = [
        [(0, 7), (0, 0)],
        [(7, 1), (0, 17)],
        [(8, 3), (17, 1)],
        [(9, 1), (18, 4)],
    ];
    let mut say = |exec: &mut E, h: &E::Value| {
        let logits = model.logits(exec, h);
        let logits = exec.host(&logits).expect("a device that works");
        all.push(logits.data().iter().map(|x| x.to_bits()).collect());
    };
    for pass in passes {
        let span = |(slot, (first, len)): (usize, (usize, usize))| Span { slot, first, len };
        let spans = [a, b].into_iter().zip(pass).map(span);
        let rows = Rows::new(spans.filter(|s| s.len > 0).collect());
        let tokens = |k: usize| -> Vec<u32> {
            let of = |s: &Span| texts[s.slot][s.first + k..][..s.len].to_vec();
            rows.spans().iter().flat_map(of).collect()
        };
        for span in rows.spans() {
            for layer in 0..config.num_hidden_layers {
                exec.truncate(span.slot, layer, span.first);
            }
        }
        let h = model.trunk(&mut exec, &tokens(0), &rows);
        exec.store_hidden(0, &rows, &h);
        say(&mut exec, &h);
        for k in 1..=DEPTH {
            let cache = model.head_cache(k);
            for span in rows.spans() {
                exec.truncate(span.slot, cache, span.first);
            }
            let h = exec.load_hidden(config.mtp_kind.source(k), &rows, config.hidden_size);
            let h = model.head(&mut exec, k, &h, &tokens(k), &rows);
            exec.store_hidden(k, &rows, &h);
            say(&mut exec, &h);
        }
    }
    all
}

#[test]
fn logits_have_the_bits_of_the_cpu() {
    let Some(device) = device() else { return };
    for (kind, mut model) in models() {
        for format in [None, Some(WeightFormat::Q8)] {
            if let Some(format) = format {
                model.pack(format);
            }
            let expected = logits(CacheExec::new(model.params()), &model);
            let weights = DeviceParams::new(&device, model.params()).expect("room");
            let found = logits(GpuExec::new(&weights), &model);
            assert_eq!(found.len(), expected.len());
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(found == expected, "{kind:?}, {format:?}, logits {i}");
            }
        }
    }
}

fn sampler(temperature: f32, seed: u64) -> Sampler {
    Sampler {
        temperature,
        seed,
        ..Sampler::GREEDY
    }
}

/// Several requests together: at temperature 0 and above, filtered, with a window that slides, and rejecting.
fn requests(prompts: &[Vec<u32>], drafts: usize) -> Vec<Request> {
    let base = GenerateOptions {
        max_tokens: 12,
        draft_length: DraftLength::Fixed(drafts),
        chunk: 9,
        ..GenerateOptions::default()
    };
    let with = |sampler| GenerateOptions {
        sampler,
        ..base.clone()
    };
    let options = [
        base.clone(),
        with(sampler(0.9, 3)),
        with(Sampler {
            top_k: 20,
            top_p: 0.9,
            ..sampler(1.1, 4)
        }),
        GenerateOptions {
            context: Some(20),
            window: Some(8),
            ..with(sampler(0.0, 0))
        },
        GenerateOptions {
            mode: DecodeMode::Rejection,
            ..with(sampler(0.8, 5))
        },
    ];
    let both = prompts.iter().zip(options);
    both.map(|(prompt, options)| Request::new(&prompt[..], options))
        .collect()
}

/// Runs requests in a session.
fn generate(
    mut session: Session<'_>,
    requests: &[Request],
    drafter: &mut dyn Drafter,
) -> crate::Result<Vec<Generated>> {
    let on_token = &mut |_, _, _: &[u32]| ControlFlow::Continue(());
    let results = session.generate(requests, drafter, on_token)?;
    results.into_iter().collect()
}

#[test]
fn tokens_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let prompts: Vec<Vec<u32>> = (0..5).map(|i| text(3 + 4 * i, i)).collect();
    for (kind, model) in models() {
        for drafts in [0, DEPTH] {
            let requests = requests(&prompts, drafts);
            let drafter = || -> Box<dyn Drafter> {
                match drafts {
                    0 => Box::new(NoDrafts),
                    _ => Box::new(HeadDrafter),
                }
            };
            let expected = generate(Session::new(&model), &requests, &mut *drafter());
            let expected = expected.expect("finite logits");
            let weights = DeviceParams::new(&device, model.params()).expect("room");
            let session = Session::with_executor(GpuExec::new(&weights), &model);
            let found = generate(session, &requests, &mut *drafter()).expect("finite logits");
            // Tokens, steps, and how many drafts of each depth were made and accepted.
            assert_eq!(found, expected, "{kind:?}, {drafts} drafts");
            assert!(expected.iter().all(|g| g.tokens.len() == 12));
        }
    }
}

#[test]
fn nan_logits_are_the_same_error() {
    let Some(device) = device() else { return };
    let mut broken = model(HeadKind::Recursive, 0);
    let params = broken.params_mut();
    let norm = params.find("model.norm.weight").expect("a trunk has one");
    params.get_mut(norm).data_mut()[3] = f32::NAN;
    let prompt = text(5, 1);
    for temperature in [0.0, 1.0] {
        let options = GenerateOptions {
            sampler: sampler(temperature, 1),
            ..GenerateOptions::default()
        };
        let requests = [Request::new(&prompt[..], options)];
        let expected = generate(Session::new(&broken), &requests, &mut NoDrafts);
        let weights = DeviceParams::new(&device, broken.params()).expect("room");
        let session = Session::with_executor(GpuExec::new(&weights), &broken);
        let found = generate(session, &requests, &mut NoDrafts);
        assert_eq!(
            found.expect_err("NaN logits").to_string(),
            expected.expect_err("NaN logits").to_string()
        );
    }
}

#[test]
fn evaluations_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let tokenizer = Tokenizer::bytes();
    let tokens = Tokens::from(text(50, 3));
    for (kind, model) in models() {
        let expected = evaluate(&model, &tokens, &tokenizer, 18).expect("enough tokens");
        let weights = DeviceParams::new(&device, model.params()).expect("room");
        let exec = || GpuExec::with_sequence(&weights);
        let found = evaluate_on(&exec, &model, &tokens, &tokenizer, 18);
        assert_eq!(found.expect("enough tokens"), expected, "{kind:?}");

        let text = text(30, 4);
        let expected = OfflineReplay::new(&model, &text, 10, Sampler::GREEDY).expect("finite");
        let mut exec = GpuExec::with_sequence(&weights);
        let found = OfflineReplay::with_executor(&mut exec, &model, &text, 10, Sampler::GREEDY);
        let found = found.expect("finite");
        assert_eq!(found.agreement(), expected.agreement(), "{kind:?}");
        assert_eq!(
            found.generated(DEPTH, 20),
            expected.generated(DEPTH, 20),
            "{kind:?}"
        );
    }
}

/// Values computed after a failure never become results.
#[test]
fn a_device_that_failed_gives_errors() {
    let Some(device) = device() else { return };
    let model = model(HeadKind::Recursive, 0);
    let weights = DeviceParams::new(&device, model.params()).expect("room");
    // More than any device has.
    device.empty(1 << 61);
    device.working().expect_err("no room");
    let tokens = Tokens::from(text(40, 3));
    let exec = || GpuExec::with_sequence(&weights);
    let tokenizer = Tokenizer::bytes();
    evaluate_on(&exec, &model, &tokens, &tokenizer, 16).expect_err("no loss");
    let prompt = text(5, 1);
    let options = GenerateOptions {
        max_tokens: 3,
        ..GenerateOptions::default()
    };
    let request = Request::new(prompt, options);
    let session = Session::with_executor(GpuExec::new(&weights), &model);
    generate(session, &[request], &mut NoDrafts).expect_err("no tokens");
    assert!(DeviceParams::new(&device, model.params()).is_err());
}
