//! Ways of training: what gradient accumulation keeps to the bit and what not, Muon, and the two schedules; each with
//! one answer on every machine.

use foretoken::data::{Batch, RandomWindows, Tokenizer, corpus};
use foretoken::kernels::par::Threads;
use foretoken::model::{GradFlow, HeadKind, JointLoss, Model, Objective, Preset, layout};
use foretoken::simd::Isa;
use foretoken::train::{Event, Kind, Options, Plan, Schedule, Settings, Shape, Trainer};
use std::collections::BTreeMap;
use std::sync::Arc;

fn tokens() -> Arc<Vec<u32>> {
    let text = corpus::stories(11, 20_000);
    let tokens = Tokenizer::bytes().encode(text.as_bytes());
    tokens.expect("bytes").into()
}

fn small(kind: HeadKind, depth: usize, tied: bool) -> Model {
    let mut config = Preset::Tiny.config(257, kind, depth);
    (config.hidden_size, config.intermediate_size) = (24, 40);
    (config.num_hidden_layers, config.head_dim) = (2, 8);
    (config.num_attention_heads, config.num_key_value_heads) = (3, 1);
    config.tie_word_embeddings = tied;
    config.set_head_width(8);
    Model::new(config, 4).expect("sound sizes")
}

/// Gradients by name after one step on six windows, in this many parts, with the losses of all heads that count.
fn gradients(
    model: Model,
    objective: Objective,
    parts: usize,
) -> (BTreeMap<String, Vec<f32>>, Vec<f64>) {
    let batch = RandomWindows::new(tokens(), 21, 6, 3)
        .expect("enough text")
        .batch(0)
        .expect("in memory");
    let parts: Vec<Batch> = batch.micro_batches(parts);
    let mut trainer = Trainer::new(model);
    let report = trainer.step_in_parts(&parts, objective, 1e-3);
    let report = report.expect("finite");
    let params = trainer.model.params();
    let gradient = |id| {
        let data = trainer.gradients().get(id).data().to_vec();
        (params.name(id).to_owned(), data)
    };
    (params.ids().map(gradient).collect(), report.loss_heads)
}

/// Whether the loss uses that matrix once, of those uses that pass a gradient on.
fn used_once(name: &str, kind: HeadKind, tied: bool, objective: Objective) -> bool {
    let depth = objective.depths;
    // What the trunk and the main head do with their own, and heads as well where gradients flow there.
    let shared = objective.flow == GradFlow::Joint && depth > 0;
    match name {
        "lm_head.weight" => !shared,
        // Looked up by the trunk, and once more for each depth of a kind that is fed tokens.
        "model.embed_tokens.weight" => !(tied || shared && kind.chained()),
        _ if layout::is_head(name) => kind != HeadKind::Recursive || depth <= 1,
        _ => true,
    }
}

#[test]
fn accumulation_keeps_the_bits_of_what_is_used_once_and_only_of_that() {
    let joint =
        (HeadKind::ALL.into_iter()).flat_map(|kind| [0, 1, 2].map(|k| (kind, k, GradFlow::Joint)));
    let apart = (HeadKind::ALL.into_iter())
        .flat_map(|kind| [GradFlow::Detached, GradFlow::Frozen].map(|flow| (kind, 2, flow)));
    for ((kind, depths, flow), tied) in joint.chain(apart).flat_map(|x| [(x, true), (x, false)]) {
        let joint = JointLoss::default();
        let objective = Objective {
            joint,
            depths,
            flow,
        };
        let model = || small(kind, 2, tied);
        let (whole, losses) = gradients(model(), objective, 1);
        assert_eq!(losses.len(), depths + 1);
        for count in [2, 3] {
            let what = format!("{kind:?}, {objective:?}, tied {tied}, {count} parts");
            let (parts, other_losses) = gradients(model(), objective, count);
            for (name, whole) in &whole {
                let part = &parts[name];
                let is_matrix = !name.contains("norm") && !name.ends_with("bias");
                // Depths that do not count, and a frozen trunk, have no gradient at all.
                let idle = match layout::first_depth(name) {
                    Some(k) => k > depths,
                    None => flow == GradFlow::Frozen,
                };
                // The first matrix of a slim Medusa head waits for the second, which starts at zero.
                let waits = kind == HeadKind::Medusa && name.ends_with("down.weight");
                let still = whole.iter().all(|x| *x == 0.0);
                assert_eq!(still, idle || waits, "{what}: {name}");
                let same = whole
                    .iter()
                    .zip(part)
                    .all(|(a, b)| a.to_bits() == b.to_bits());
                let expected = idle || is_matrix && used_once(name, kind, tied, objective);
                assert_eq!(same, expected, "{what}: {name}");
                // What differs, differs by rounding.
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

fn options() -> Options {
    Options {
        steps: 7,
        batch: 2,
        accumulate: 3,
        context: 20,
        seed: 2,
        schedule: Schedule {
            peak: 5e-3,
            warmup: 2,
            steps: 7,
            floor: 0.1,
            shape: Shape::Wsd,
        },
        joint: JointLoss::default(),
        plan: Plan::default(),
        eval_every: 100,
        log_every: 100,
    }
}

/// SHA-256 of the weights after a short run by Muon, with accumulation and the schedule `wsd`.
fn trained(kind: HeadKind) -> String {
    let mut trainer = Trainer::with(small(kind, 2, true), Settings::of(Kind::Muon));
    let (data, mut sha) = (tokens(), String::new());
    let mut watch = |event: &Event| {
        if let Event::Done { sha256, .. } = event {
            sha = sha256.clone();
        }
    };
    let texts = (data.clone(), &data[..300]);
    let run = trainer.run(&options(), texts, &Tokenizer::bytes(), None, &mut watch);
    run.expect("a finite run");
    sha
}

#[test]
fn a_run_by_muon_has_the_same_bits_on_every_machine() {
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
fn muon_learns_and_leaves_the_tables_to_adamw() {
    let settings = Settings::of(Kind::Muon);
    let model = small(HeadKind::Recursive, 2, false);
    for (name, t) in model.params().iter() {
        let by_muon =
            name.contains("_proj") || name.ends_with(".fc.weight") || name.ends_with(".up.weight");
        assert_eq!(settings.moves_by_muon(name, t.shape()), by_muon, "{name}");
        assert!(
            !Settings::of(Kind::AdamW).moves_by_muon(name, t.shape()),
            "{name}"
        );
    }
    let mut trainer = Trainer::with(model, settings);
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
fn muon_leaves_alone_what_takes_no_part() {
    let windows = RandomWindows::new(tokens(), 21, 4, 3).expect("enough text");
    let after = |model: Model, objective: Objective| {
        let mut trainer = Trainer::with(model, Settings::of(Kind::Muon));
        for step in 0..3 {
            let batch = windows.batch(step).expect("in memory");
            trainer.step(&batch, objective, 5e-3).expect("finite");
        }
        trainer.model
    };
    for kind in HeadKind::ALL {
        let objective = |depths, flow| Objective {
            joint: JointLoss::default(),
            depths,
            flow,
        };
        let start = small(kind, 2, true);
        let trained = |depths, flow| after(small(kind, 2, true), objective(depths, flow));
        // No step of heads that do not count, and none of a frozen trunk: no decay and no momentum either.
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
