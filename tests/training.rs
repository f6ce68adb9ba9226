//! A run has one answer: the same weights for every instruction set, number of threads and process, and a loss that
//! stops being finite leaves the last good weights.

mod common;

use common::train_logits;
use foretoken::Error;
use foretoken::checkpoint::ModelDir;
use foretoken::data::{Batch, RandomWindows, Tokenizer, corpus, open_tokens};
use foretoken::exec::{Rows, TapeExec};
use foretoken::kernels::par::Threads;
use foretoken::model::{HeadKind, JointLoss, Model, Preset};
use foretoken::simd::Isa;
use foretoken::train::{Event, Optimiser, Origin, Run, Schedule, TrainConfig, Trainer, evaluate};

fn tokens(bytes: usize) -> Vec<u32> {
    let text = corpus::stories(11, bytes);
    let tokens = Tokenizer::bytes().encode(text.as_bytes());
    tokens.expect("bytes")
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
    Model::new(config, 4).expect("valid sizes")
}

/// AdamW, because it is not the default; `tests/recipes.rs` does the same with Muon.
fn config(steps: u64) -> TrainConfig {
    let mut config = TrainConfig::default();
    (config.steps, config.batch, config.context) = (steps, 3, 20);
    config.seed = 2;
    (config.peak_lr, config.warmup) = (5e-3, Some(2));
    (config.schedule, config.optimiser) = (Schedule::Cosine, Optimiser::ADAMW);
    (config.eval_every, config.log_every) = (4, 1);
    config
}

fn trainer(kind: HeadKind) -> Trainer {
    Trainer::new(small(kind), config(6)).expect("a valid configuration")
}

/// SHA-256 of the weights after a short run.
fn trained(kind: HeadKind) -> String {
    let mut trainer = trainer(kind);
    let data = tokens(20_000);
    let mut sha = String::new();
    let mut watch = |event: &Event| {
        if let Event::Done { sha256, .. } = event {
            sha = sha256.clone();
        }
    };
    let done = trainer.run(
        data.clone(),
        &data[..300],
        &Tokenizer::bytes(),
        None,
        &mut watch,
    );
    done.expect("a finite run");
    assert_eq!(
        sha,
        ModelDir::sha256(trainer.model()).expect("finite weights")
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
    let (tokenizer, path) = (Tokenizer::bytes(), folder.path().join("run"));
    let mut config = config(50);
    // A rate this high sends the weights out of the range of f32 within a few steps.
    config.peak_lr = 1e30;
    config.eval_every = 1000;
    let mut trainer =
        Trainer::new(small(HeadKind::Recursive), config).expect("a valid configuration");
    let run = Run::create(&path, &trainer, &tokenizer, Origin::default(), false);
    let mut run = run.expect("a new directory");
    let data = tokens(20_000);
    let quiet = &mut |_: &Event| {};
    let ran = trainer.run(
        data.clone(),
        &data[..300],
        &tokenizer,
        Some(&mut run),
        quiet,
    );
    match ran.expect_err("this cannot go well") {
        Error::Diverged { step, reason } => {
            assert_eq!(step, trainer.steps() + 1);
            assert!(
                reason.contains("the checkpoint of step 0 is kept in"),
                "{reason}"
            );
        }
        other => panic!("{other}"),
    }
    let (kept, _) = ModelDir::load(&path).expect("the last good checkpoint");
    assert_eq!(
        ModelDir::sha256(&kept).expect("finite"),
        ModelDir::sha256(&small(HeadKind::Recursive)).expect("finite")
    );
}

/// What a step refuses: what was expected, and what was found. Nothing is computed or changed.
#[test]
fn batches_that_do_not_fit_are_errors() {
    let mut trainer = trainer(HeadKind::Recursive);
    let before = ModelDir::sha256(trainer.model()).expect("finite");
    let batch = |windows: usize, context: usize| {
        let tokens = (0..windows * (context + 1)).map(|i| i as u32 % 257);
        Batch::new(windows, context, tokens.collect())
    };
    let unknown = {
        let mut tokens = batch(3, 5).tokens().to_vec();
        tokens[6 + 4] = 60_000;
        Batch::new(3, 5, tokens)
    };
    let halves = batch(4, 5).micro_batches(2);
    // Parts in order, with 12 rows together, of two batches of 12 rows.
    let mut mixed = batch(4, 3).micro_batches(4)[1..3].to_vec();
    mixed.insert(0, batch(2, 6).micro_batches(2).remove(0));
    let long = batch(1, 2049);
    for (parts, words) in [
        (vec![], &["at least one window"][..]),
        (vec![batch(0, 5)], &["at least one window"]),
        // Two batches, where the parts of one are expected.
        (
            vec![batch(2, 5), batch(2, 5)],
            &["10 rows together", "2 parts with 20 rows"],
        ),
        (
            vec![halves[0].clone()],
            &["20 rows together", "1 parts with 10 rows"],
        ),
        (vec![halves[0].clone(); 2], &["parts of one batch in order"]),
        (mixed, &["parts of one batch"]),
        (vec![long], &["2048 positions", "2049"]),
        (
            vec![unknown],
            &["257", "token 60000 at position 4 of window 1"],
        ),
    ] {
        let step = trainer.step_in_parts(&parts, JointLoss::default(), 1e-3);
        let error = step.expect_err(words[0]);
        assert!(
            matches!(error, Error::Setting { field: "batch", .. }),
            "{error}"
        );
        let message = error.to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
    for lr in [-1e-3, f64::NAN, f64::INFINITY] {
        let step = trainer.step(&batch(2, 5), JointLoss::default(), lr);
        let field = step.expect_err("no learning rate");
        assert!(
            matches!(field, Error::Setting { field: "lr", .. }),
            "{field}"
        );
    }
    let mut wrong = config(6);
    wrong.clip_norm = f64::NAN;
    let new = Trainer::new(small(HeadKind::Recursive), wrong);
    assert!(matches!(
        new.err(),
        Some(Error::Setting {
            field: "clip_norm",
            ..
        })
    ));
    assert_eq!(trainer.steps(), 0);
    assert_eq!(ModelDir::sha256(trainer.model()).expect("finite"), before);
    // A parameter that someone still holds keeps its values.
    let id = trainer
        .model()
        .params()
        .find("model.norm.weight")
        .expect("every model has one");
    let held = trainer.model().params().get(id).clone();
    let copy = held.data().to_vec();
    let step = trainer.step_in_parts(&halves, JointLoss::default(), 1e-3);
    step.expect("the parts of one batch");
    assert_eq!(held.data(), copy);
    assert_ne!(trainer.model().params().get(id).data(), copy);
    // The last token is the vocabulary's last, and it has a window of as many positions as the model.
    let step = trainer.step(&batch(1, 2048), JointLoss::default(), 1e-3);
    step.expect("a window that fits");
}

/// Only the length of a run, and when it is evaluated, reported and saved, may change.
#[test]
fn a_trainers_configuration_changes_only_where_resuming_stays_exact() {
    let mut trainer = trainer(HeadKind::Recursive);
    let mut longer = config(6);
    longer.extend(9);
    longer.save_every = Some(2);
    trainer.set_config(longer.clone()).expect("a longer run");
    assert_eq!(trainer.config(), &longer);
    type Change = fn(&mut TrainConfig);
    let changes: [Change; 5] = [
        |c| c.steps = 8,
        |c| c.seed += 1,
        |c| c.optimiser = Optimiser::MUON,
        |c| c.freeze_trunk = true,
        |c| c.warmup = None,
    ];
    for change in changes {
        let mut other = longer.clone();
        change(&mut other);
        trainer.set_config(other).expect_err("another run");
        assert_eq!(trainer.config(), &longer);
    }
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

/// The main head's loss, computed here in `f64` from the logits of each window. The last window may be shorter.
#[test]
fn evaluation_predicts_every_token_but_the_first_once() {
    let model = small(HeadKind::Recursive);
    let tokenizer = Tokenizer::bytes();
    for n in [2, 20, 21, 22, 41, 50] {
        let text = &tokens(1000)[..n];
        let (mut total, mut hits) = (0.0, 0.0);
        for (w, window) in text[..n - 1].chunks(20).enumerate() {
            let mut exec = TapeExec::no_grad(model.params());
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
        let result = evaluate(&model, &text.into(), &tokenizer, 20).expect("enough text");
        let count = (n - 1) as f64;
        assert_eq!(result.tokens, n - 1);
        assert!((result.loss - total / count).abs() < 1e-5, "{n}");
        assert!(
            (result.accuracy_heads[0].expect("scored") - hits / count).abs() < 1e-6,
            "{n}"
        );
        // One byte per token.
        assert!((result.bits_per_byte - result.loss / 2f64.ln()).abs() < 1e-9);
    }
    assert!(evaluate(&model, &vec![1].into(), &tokenizer, 20).is_err());
    assert!(evaluate(&model, &vec![1, 2].into(), &tokenizer, 0).is_err());
}

/// Each head's loss window by window in `f64`, from logits. Head k has k targets fewer in a window, so it has a smaller
/// share of them in the partial window at the end: a mean over windows would differ.
#[test]
fn evaluation_weighs_every_target_of_a_head_alike() {
    for kind in HeadKind::ALL {
        let model = small(kind);
        for n in [22, 24, 41, 50] {
            let text = &tokens(1000)[..n];
            let (mut totals, mut hits, mut counts) = ([0.0; 3], [0.0; 3], [0.0; 3]);
            for (w, window) in text[..n - 1].chunks(20).enumerate() {
                let mut exec = TapeExec::no_grad(model.params());
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
            let result =
                evaluate(&model, &text.into(), &Tokenizer::bytes(), 20).expect("enough text");
            for k in 0..3 {
                let (loss, share) = (totals[k] / counts[k], hits[k] / counts[k]);
                let what = format!("{kind:?}, {n} tokens, head {k}");
                let scored = |figures: &[Option<f64>]| figures[k].expect("scored");
                assert!((scored(&result.loss_heads) - loss).abs() < 1e-5, "{what}");
                assert!(
                    (scored(&result.accuracy_heads) - share).abs() < 1e-6,
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn real_text_is_learnt_if_it_is_available() {
    let Some(folder) = std::env::var_os("FORETOKEN_DATA") else {
        println!("skipped: FORETOKEN_DATA names no folder with tinyshakespeare.txt");
        return;
    };
    let path = std::path::Path::new(&folder).join("tinyshakespeare.txt");
    let tokens = open_tokens(&[path], &Tokenizer::bytes(), None).expect("a text file");
    let (train, valid) = tokens.split();
    let valid = valid.first(4000).expect("tokens in memory");
    let mut config = config(150);
    (config.batch, config.context, config.eval_every) = (8, 64, 1000);
    let mut trainer =
        Trainer::new(small(HeadKind::Recursive), config).expect("a valid configuration");
    let mut losses = Vec::new();
    let mut watch = |event: &Event| {
        if let Event::Eval { evaluation, .. } = event {
            losses = evaluation.loss_heads.clone();
        }
    };
    let run = trainer.run(train, valid, &Tokenizer::bytes(), None, &mut watch);
    run.expect("finite losses");
    // The entropy of single bytes in this text is about 3.3 nats: less needs context.
    assert!(
        losses.len() == 3 && losses.iter().all(|x| x.is_some_and(|x| x < 3.0)),
        "{losses:?}"
    );
}
