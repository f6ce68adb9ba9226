//! Ways of training: which bits gradient accumulation keeps, and Muon; each with one answer on every machine.

use foretoken::data::{Batch, RandomWindows, Tokenizer, corpus};
use foretoken::kernels::par::Threads;
use foretoken::model::{GradFlow, HeadKind, JointLoss, Model, Preset, layout};
use foretoken::simd::Isa;
use foretoken::train::{Event, Optimiser, TrainConfig, Trainer};
use std::collections::BTreeMap;

fn tokens() -> Vec<u32> {
    let text = corpus::stories(11, 20_000);
    let tokens = Tokenizer::bytes().encode(text.as_bytes());
    tokens.expect("bytes")
}

fn small(kind: HeadKind, depth: usize, tied: bool) -> Model {
    let mut config = Preset::Tiny.config(257, kind, depth);
    (config.hidden_size, config.intermediate_size) = (24, 40);
    (config.num_hidden_layers, config.head_dim) = (2, 8);
    (config.num_attention_heads, config.num_key_value_heads) = (3, 1);
    config.tie_word_embeddings = tied;
    config.set_head_width(8);
    Model::new(config, 4).expect("valid sizes")
}

/// Gradients by name after one step on six windows, in this many parts, with the losses of all active heads.
fn gradients(
    model: Model,
    joint: JointLoss,
    parts: usize,
) -> (BTreeMap<String, Vec<f32>>, Vec<f64>) {
    let batch = RandomWindows::new(tokens(), 21, 6, 3)
        .expect("enough text")
        .batch(0)
        .expect("in memory");
    let parts: Vec<Batch> = batch.micro_batches(parts);
    let mut trainer = Trainer::new(model, TrainConfig::default()).expect("a valid configuration");
    let report = trainer.step_in_parts(&parts, joint, 1e-3);
    let report = report.expect("finite");
    let params = trainer.model().params();
    let gradient = |id| {
        let data = trainer.gradients().get(id).data().to_vec();
        (params.name(id).to_owned(), data)
    };
    (params.ids().map(gradient).collect(), report.loss_heads)
}

/// Whether exactly one use of that matrix in the loss passes a gradient to it.
fn used_once(name: &str, kind: HeadKind, tied: bool, joint: JointLoss) -> bool {
    let active = joint.active_heads.expect("a number");
    // Whether heads pass gradients to the trunk's matrices too.
    let shared = joint.grad_flow == GradFlow::Joint && active > 0;
    match name {
        "lm_head.weight" => !shared,
        // Looked up by the trunk, and once more by each head that reads tokens.
        "model.embed_tokens.weight" => !(tied || shared && kind.chained()),
        _ if layout::is_head(name) => kind != HeadKind::Recursive || active <= 1,
        _ => true,
    }
}

#[test]
fn accumulation_keeps_the_bits_of_what_is_used_once_and_only_of_that() {
    let joint =
        (HeadKind::ALL.into_iter()).flat_map(|kind| [0, 1, 2].map(|k| (kind, k, GradFlow::Joint)));
    let apart = (HeadKind::ALL.into_iter())
        .flat_map(|kind| [GradFlow::Detached, GradFlow::Frozen].map(|flow| (kind, 2, flow)));
    for ((kind, active, grad_flow), tied) in
        joint.chain(apart).flat_map(|x| [(x, true), (x, false)])
    {
        let joint = JointLoss {
            active_heads: Some(active),
            grad_flow,
            ..JointLoss::default()
        };
        let model = || small(kind, 2, tied);
        let (whole, losses) = gradients(model(), joint, 1);
        assert_eq!(losses.len(), active + 1);
        for count in [2, 3] {
            let what = format!("{kind:?}, {joint:?}, tied {tied}, {count} parts");
            let (parts, other_losses) = gradients(model(), joint, count);
            for (name, whole) in &whole {
                let part = &parts[name];
                let is_matrix = !name.contains("norm") && !name.ends_with("bias");
                // Inactive heads and a frozen trunk have no gradient at all.
                let idle = match layout::first_head(name) {
                    Some(k) => k > active,
                    None => grad_flow == GradFlow::Frozen,
                };
                // The first matrix of a narrow Medusa head has none until the second one, which starts at zero, has
                // changed.
                let waits = kind == HeadKind::Medusa && name.ends_with("down.weight");
                let still = whole.iter().all(|x| *x == 0.0);
                assert_eq!(still, idle || waits, "{what}: {name}");
                let same = whole
                    .iter()
                    .zip(part)
                    .all(|(a, b)| a.to_bits() == b.to_bits());
                let expected = idle || is_matrix && used_once(name, kind, tied, joint);
                assert_eq!(same, expected, "{what}: {name}");
                // Other differences are rounding.
                let size = whole.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
                let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * size;
                assert!(whole.iter().zip(part).all(near), "{what}: {name}");
            }
            for (a, b) in losses.iter().zip(&other_losses) {
                assert!((a - b).abs() < 1e-5, "{what}: {a} and {b}");
            }
        }
    }
}

/// SHA-256 of the weights after a short run with Muon, accumulation and the schedule `wsd`.
fn trained(kind: HeadKind) -> String {
    let mut config = TrainConfig::default();
    (config.steps, config.batch, config.accumulate) = (7, 2, 3);
    (config.context, config.seed) = (20, 2);
    (config.peak_lr, config.warmup) = (5e-3, Some(2));
    let mut trainer = Trainer::new(small(kind, 2, true), config).expect("a valid configuration");
    let (data, mut sha) = (tokens(), String::new());
    let mut watch = |event: &Event| {
        if let Event::Done { sha256, .. } = event {
            sha = sha256.clone();
        }
    };
    let run = trainer.run(
        data.clone(),
        &data[..300],
        &Tokenizer::bytes(),
        None,
        &mut watch,
    );
    run.expect("a finite run");
    sha
}

#[test]
fn a_run_with_muon_has_the_same_bits_on_every_machine() {
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
fn muon_learns_and_leaves_the_embedding_and_the_lm_head_to_adamw() {
    let model = small(HeadKind::Recursive, 2, false);
    for (name, t) in model.params().iter() {
        let by_muon =
            name.contains("_proj") || name.ends_with(".fc.weight") || name.ends_with(".up.weight");
        let moves = |optimiser: Optimiser| optimiser.moves_by_muon(name, t.shape());
        assert_eq!(moves(Optimiser::MUON), by_muon, "{name}");
        assert!(!moves(Optimiser::ADAMW), "{name}");
    }
    let mut trainer = Trainer::new(model, TrainConfig::default()).expect("a valid configuration");
    let windows = RandomWindows::new(tokens(), 32, 8, 1).expect("enough text");
    let losses = (0..80).map(|i| {
        let batch = windows.batch(i).expect("in memory");
        let step = trainer.step(&batch, JointLoss::default(), 5e-3);
        step.expect("finite").loss_heads
    });
    let losses: Vec<Vec<f64>> = losses.collect();
    for (first, last) in losses[0].iter().zip(&losses[79]) {
        assert!(*last < first - 1.5, "{first} to {last}");
    }
}

/// Matrices by name, as bits.
fn bits(model: &Model, head: bool) -> BTreeMap<String, Vec<u32>> {
    let params = model.params().iter();
    let wanted = params.filter(|(name, _)| layout::is_head(name) == head);
    wanted
        .map(|(name, t)| {
            let bits = t.data().iter().map(|x| x.to_bits()).collect();
            (name.to_owned(), bits)
        })
        .collect()
}

#[test]
fn muon_leaves_inactive_parameters_alone() {
    let windows = RandomWindows::new(tokens(), 21, 4, 3).expect("enough text");
    let after = |model: Model, joint: JointLoss| {
        let mut trainer =
            Trainer::new(model, TrainConfig::default()).expect("a valid configuration");
        for step in 0..3 {
            let batch = windows.batch(step).expect("in memory");
            trainer.step(&batch, joint, 5e-3).expect("finite");
        }
        trainer.into_model()
    };
    for kind in HeadKind::ALL {
        let start = small(kind, 2, true);
        let trained = |active, grad_flow| {
            let joint = JointLoss {
                active_heads: Some(active),
                grad_flow,
                ..JointLoss::default()
            };
            after(small(kind, 2, true), joint)
        };
        // Inactive heads and a frozen trunk do not move: they have no decay and no momentum either.
        let without = trained(0, GradFlow::Joint);
        assert_eq!(bits(&without, true), bits(&start, true), "{kind:?}");
        let frozen = trained(2, GradFlow::Frozen);
        assert_eq!(bits(&frozen, false), bits(&start, false), "{kind:?}");
        for (name, bits) in bits(&frozen, true) {
            assert_ne!(bits, self::bits(&start, true)[&name], "{kind:?}: {name}");
        }
        // Detached heads leave the trunk as it is without them; joint ones do not.
        let detached = trained(2, GradFlow::Detached);
        assert_eq!(bits(&detached, false), bits(&without, false), "{kind:?}");
        let joint = trained(2, GradFlow::Joint);
        assert_ne!(bits(&joint, false), bits(&without, false), "{kind:?}");
    }
}
