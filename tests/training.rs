//! A run has one answer: the same weights for every instruction set, number of threads and process, and a loss that
//! stops being finite leaves the last good weights.

mod common;

use common::train_logits;
use foretoken::checkpoint::ModelDir;
use foretoken::data::{RandomWindows, Tokenizer, Tokens, corpus, read_tokens};
use foretoken::exec::{Rows, Train};
use foretoken::kernels::par::Threads;
use foretoken::model::{HeadKind, JointLoss, Model, Preset};
use foretoken::simd::Isa;
use foretoken::train::{Event, Kind, Options, Plan, Schedule, Settings, Shape, Trainer, evaluate};
use std::sync::Arc;

fn tokens(bytes: usize) -> Arc<Vec<u32>> {
    let text = corpus::stories(11, bytes);
    Tokenizer::bytes()
        .encode(text.as_bytes())
        .expect("bytes")
        .into()
}

fn small(kind: HeadKind) -> Model {
    let mut config = Preset::Tiny.config(257, kind, 2);
    (
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
    ) = (32, 48, 2);
    (
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
    ) = (4, 2, 8);
    config.set_head_width(8);
    Model::new(config, 4).expect("sound sizes")
}

fn options(steps: u64) -> Options {
    Options {
        steps,
        batch: 3,
        accumulate: 1,
        context: 20,
        seed: 2,
        schedule: Schedule {
            peak: 5e-3,
            warmup: 2,
            steps,
            floor: 0.1,
            shape: Shape::Cosine,
        },
        joint: JointLoss::default(),
        plan: Plan::default(),
        eval_every: 4,
        log_every: 1,
    }
}

/// AdamW, named because it is not the default; `tests/recipes.rs` does the same by Muon.
fn trainer(kind: HeadKind) -> Trainer {
    Trainer::with(small(kind), Settings::of(Kind::AdamW))
}

/// SHA-256 of the weights after a short run.
fn trained(kind: HeadKind) -> String {
    let mut trainer = trainer(kind);
    let data = tokens(20_000);
    let mut sha = String::new();
    let done = trainer.run(
        &options(6),
        (data.clone(), &data[..300]),
        &Tokenizer::bytes(),
        None,
        &mut |event| {
            if let Event::Done { sha256, .. } = event {
                sha = sha256.clone();
            }
        },
    );
    done.expect("a finite run");
    assert_eq!(
        sha,
        ModelDir::sha256(&trainer.model).expect("finite weights")
    );
    sha
}

#[test]
fn a_run_has_the_same_bits_on_every_machine() {
    for kind in HeadKind::ALL {
        let expected = trained(kind);
        for isa in Isa::all() {
            for threads in [1, 2, 3, 8] {
                let pool = Threads::new(threads).expect("a small pool");
                let got = isa.scope(|| pool.scope(|| trained(kind)));
                assert_eq!(got, expected, "{kind:?}, {}, {threads} threads", isa.name());
            }
        }
    }
}

#[test]
fn every_head_learns() {
    for kind in HeadKind::ALL {
        let mut trainer = trainer(kind);
        let windows = RandomWindows::new(tokens(50_000), 32, 8, 1).expect("enough text");
        let step = |trainer: &mut Trainer, i| {
            let batch = windows.batch(i).expect("in memory");
            trainer
                .step(&batch, JointLoss::default(), 5e-3)
                .expect("finite")
                .loss_heads
        };
        let first = step(&mut trainer, 0);
        let last = (1..80)
            .map(|i| step(&mut trainer, i))
            .last()
            .expect("some steps");
        assert_eq!(first.len(), 3);
        for (k, (first, last)) in first.iter().zip(&last).enumerate() {
            assert!(*last < first - 1.5, "{kind:?}, head {k}: {first} to {last}");
        }
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_keeps_the_weights() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tokenizer = Tokenizer::bytes();
    let model = small(HeadKind::Recursive);
    let path = folder.path().join("run");
    let dir = ModelDir::create(&path, &model, &tokenizer, false).expect("a new directory");
    let mut trainer = Trainer::with(model, Settings::of(Kind::AdamW));
    let mut options = options(50);
    // A rate this high sends the weights out of the range of f32 within a few steps.
    options.schedule.peak = 1e30;
    options.eval_every = 1000;
    let data = tokens(20_000);
    let error = trainer
        .run(
            &options,
            (data.clone(), &data[..300]),
            &tokenizer,
            Some(&dir),
            &mut |_| {},
        )
        .expect_err("this cannot go well");
    assert!(error.to_string().starts_with("step "), "{error}");
    let (kept, _) = ModelDir::load(&path).expect("the last good checkpoint");
    assert_eq!(
        ModelDir::sha256(&kept).expect("finite"),
        ModelDir::sha256(&small(HeadKind::Recursive)).expect("finite")
    );
}

#[test]
fn a_saved_model_is_the_model() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for kind in HeadKind::ALL {
        let model = small(kind);
        let path = folder.path().join(kind.name());
        ModelDir::create(&path, &model, &Tokenizer::bytes(), false).expect("a new directory");
        let (loaded, _) = ModelDir::load(&path).expect("our own directory");
        assert_eq!(loaded.config(), model.config());
        for ((name, a), (other, b)) in loaded.params().iter().zip(model.params().iter()) {
            assert_eq!(name, other);
            assert!(a.data() == b.data() && a.shape() == b.shape(), "{name}");
        }
    }
}

/// The main head's loss window by window in `f64`, from logits; the last window is a partial one.
#[test]
fn evaluation_predicts_every_token_but_the_first_once() {
    let model = small(HeadKind::Recursive);
    let tokenizer = Tokenizer::bytes();
    for n in [2, 20, 21, 22, 41, 50] {
        let text = &tokens(1000)[..n];
        let (mut total, mut hits) = (0.0, 0.0);
        for (w, window) in text[..n - 1].chunks(20).enumerate() {
            let mut exec = Train::no_grad(model.params());
            let h = model.trunk(&mut exec, window, &Rows::batch(1, window.len()));
            let logits = model.logits(&mut exec, &h);
            for i in 0..window.len() {
                let row = logits.value().row(i);
                let target = text[w * 20 + i + 1] as usize;
                let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
                total += sum.ln() - f64::from(row[target]);
                hits += f64::from(row.iter().all(|x| *x <= row[target]));
            }
        }
        let result = evaluate(&model, text, &tokenizer, 20).expect("enough text");
        let count = (n - 1) as f64;
        assert_eq!(result.tokens, n - 1);
        assert!((result.loss - total / count).abs() < 1e-5, "{n}");
        assert!(
            (result.accuracy_heads[0] - hits / count).abs() < 1e-6,
            "{n}"
        );
        // One byte a token.
        assert!((result.bits_per_byte - result.loss / 2f64.ln()).abs() < 1e-9);
    }
    assert!(evaluate(&model, &[1], &tokenizer, 20).is_err());
    assert!(evaluate(&model, &[1, 2], &tokenizer, 0).is_err());
}

/// Each head's loss window by window in `f64`, from logits. Head k has k targets fewer in a window, so it has a smaller
/// share of them in the partial window at the end: a mean over windows would be another number.
#[test]
fn evaluation_weighs_every_target_of_a_head_alike() {
    for kind in HeadKind::ALL {
        let model = small(kind);
        for n in [22, 24, 41, 50] {
            let text = &tokens(1000)[..n];
            let (mut totals, mut hits, mut counts) = ([0.0; 3], [0.0; 3], [0.0; 3]);
            for (w, window) in text[..n - 1].chunks(20).enumerate() {
                let mut exec = Train::no_grad(model.params());
                let logits = train_logits(&mut exec, &model, &[window.to_vec()]).remove(0);
                for (k, logits) in logits.iter().enumerate() {
                    for (i, row) in logits.chunks(257).enumerate() {
                        let target = text[w * 20 + i + k + 1] as usize;
                        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
                        totals[k] += sum.ln() - f64::from(row[target]);
                        hits[k] += f64::from(row.iter().all(|x| *x <= row[target]));
                        counts[k] += 1.0;
                    }
                }
            }
            let result = evaluate(&model, text, &Tokenizer::bytes(), 20).expect("enough text");
            for k in 0..3 {
                let (loss, share) = (totals[k] / counts[k], hits[k] / counts[k]);
                let what = format!("{kind:?}, {n} tokens, head {k}");
                assert!((result.loss_heads[k] - loss).abs() < 1e-5, "{what}");
                assert!((result.accuracy_heads[k] - share).abs() < 1e-6, "{what}");
            }
        }
    }
}

#[test]
fn real_text_is_learnt_where_it_is_at_hand() {
    let Some(folder) = std::env::var_os("FORETOKEN_DATA") else {
        println!("skipped: FORETOKEN_DATA names no folder with tinyshakespeare.txt");
        return;
    };
    let path = std::path::Path::new(&folder).join("tinyshakespeare.txt");
    let tokens = read_tokens(&[path], &Tokenizer::bytes()).expect("a text file");
    let (train, valid) = Tokens::from(tokens).split();
    let valid = valid.first(4000).expect("tokens in memory");
    let mut options = options(150);
    (options.batch, options.context, options.eval_every) = (8, 64, 1000);
    let mut trainer = trainer(HeadKind::Recursive);
    let mut losses = Vec::new();
    let data = (train, &*valid);
    let run = trainer.run(&options, data, &Tokenizer::bytes(), None, &mut |event| {
        if let Event::Eval { evaluation, .. } = event {
            losses = evaluation.loss_heads.clone();
        }
    });
    run.expect("finite losses");
    // The entropy of single bytes in this text is about 3.3 nats: less needs context.
    assert!(
        losses.len() == 3 && losses.iter().all(|x| *x < 3.0),
        "{losses:?}"
    );
}
