//! Every gradient right, for whole models.
//!
//! 1. The joint loss, computed here in `f64` from the logits of a frozen training graph, changes along random
//!    directions of every parameter as the gradient from `backward` says (central differences).
//! 2. [`Model::backward`], which keeps little, equals the whole tape run backwards, in every bit.
//! 3. What holds exactly under rule R7 is compared exactly: a batch's gradient goes on with the chains of its sequences,
//!    a head's gradient is linear in λ, and heads that do not count leave the trunk's gradient alone.

mod common;

use common::{Fixture, same_bits, tokens, train_logits};
use foretoken::autograd::Gradients;
use foretoken::data::Batch;
use foretoken::exec::Train;
use foretoken::model::{GradFlow, HeadKind, JointLoss, Model, Objective, layout};
use foretoken::tensor::ParamId;

const JOINT: JointLoss = JointLoss {
    // More than usual, so that the heads' share of shared gradients is no rounding error.
    lambda: 0.75,
    beta: 0.5,
};

fn batch(fixture: &Fixture, sequences: usize, context: usize, salt: usize) -> Batch {
    let n = sequences * (context + 1);
    Batch::new(sequences, context, tokens(n, fixture.vocab, salt))
}

/// Adds the gradient of the joint loss.
fn add_gradient(model: &Model, batch: &Batch, joint: JointLoss, gradients: &mut Gradients) {
    let mut exec = Train::new(model.params());
    let losses: Vec<_> = { model.losses(&mut exec, batch, joint).into_iter() }
        .map(|report| report.value)
        .collect();
    exec.backward(&losses, gradients);
}

fn gradient(model: &Model, batches: &[&Batch], joint: JointLoss) -> Gradients {
    let mut gradients = Gradients::zeros(model.params());
    for batch in batches {
        add_gradient(model, batch, joint, &mut gradients);
    }
    gradients
}

/// L_0 + λ Σ_k w_k L_k in `f64`, written from the design: no part of it is the crate's own loss.
fn joint_loss(model: &Model, batch: &Batch) -> f64 {
    let (b, t, vocab) = (
        batch.batch_size(),
        batch.seq_len(),
        model.config().vocab_size,
    );
    let (inputs, next) = (batch.inputs(), batch.targets(0));
    let sequences: Vec<_> = inputs.chunks(t).map(<[u32]>::to_vec).collect();
    let logits = train_logits(&mut Train::no_grad(model.params()), model, &sequences);
    let depth = model.config().mtp_depth;
    let powers: Vec<f64> = (0..depth).map(|k| JOINT.beta.powi(k as i32)).collect();
    let mut total = 0.0;
    for k in 0..=depth {
        let mut sum = 0.0;
        for (s, logits) in logits.iter().enumerate() {
            for i in 0..t - k {
                // Head k's row i predicts x_{i+k+1}, which is the token after x_{i+k}.
                let target = next[s * t + i + k] as usize;
                let z = &logits[k][i * vocab..][..vocab];
                let exps: f64 = z.iter().map(|z| f64::from(*z).exp()).sum();
                sum += exps.ln() - f64::from(z[target]);
            }
        }
        let weight = match k {
            0 => 1.0,
            _ => JOINT.lambda * powers[k - 1] / powers.iter().sum::<f64>(),
        };
        total += weight * sum / (b * (t - k)) as f64;
    }
    total
}

/// Numbers in −1..1 for directions, which need no quality but no period either (Marsaglia's xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// A direction of length 1 along which the slope is not small: a random half of the gradient's own elements, which
/// alone would never look where the gradient is wrongly zero, plus as much of a random direction. Both are chosen to
/// point uphill: the larger half, and the random direction or its opposite.
fn direction(gradient: &[f32], noise: &mut Noise) -> Vec<f64> {
    let gradient: Vec<f64> = gradient.iter().map(|d| f64::from(*d)).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let unit = |d: Vec<f64>| {
        let norm = dot(&d, &d).sqrt();
        d.iter().map(|x| x / norm).collect::<Vec<_>>()
    };
    let half = { gradient.iter() }.map(|d| if noise.next() > 0.0 { *d } else { 0.0 });
    let half: Vec<_> = half.collect();
    let other: Vec<_> = gradient.iter().zip(&half).map(|(d, h)| d - h).collect();
    let larger = if dot(&half, &half) > dot(&other, &other) {
        half
    } else {
        other
    };
    let random = unit(gradient.iter().map(|_| noise.next()).collect());
    let uphill = dot(&random, &gradient).signum();
    let steep = unit(larger);
    unit(
        steep
            .iter()
            .zip(random)
            .map(|(a, b)| a + uphill * b)
            .collect(),
    )
}

/// Slope of the loss along a direction, by central differences with a step that moves the tensor by a share of its
/// size: rounding of the logits then stays far below the change, and the third derivative does not show.
fn measured_slope(model: &mut Model, batch: &Batch, id: ParamId, direction: &[f64]) -> f64 {
    let original = model.params().get(id).data().to_vec();
    let size = original
        .iter()
        .map(|x| f64::from(x * x))
        .sum::<f64>()
        .sqrt();
    let step = size / 512.0;
    let mut loss = [0.0; 2];
    // What the rounded parameters really moved by, along the direction.
    let mut moved = 0.0;
    for (loss, sign) in loss.iter_mut().zip([1.0, -1.0]) {
        let data = model.params_mut().get_mut(id).data_mut();
        for ((x, first), d) in data.iter_mut().zip(&original).zip(direction) {
            *x = (f64::from(*first) + sign * step * d) as f32;
            moved += sign * (f64::from(*x) - f64::from(*first)) * d;
        }
        *loss = joint_loss(model, batch);
    }
    model
        .params_mut()
        .get_mut(id)
        .data_mut()
        .copy_from_slice(&original);
    (loss[0] - loss[1]) / moved
}

#[test]
fn every_parameter_along_random_directions() {
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    let mut worst = (0.0, String::new());
    for fixture in Fixture::all() {
        let mut model = fixture.model(12);
        let batch = batch(&fixture, 3, 17, 5);
        let gradients = gradient(&model, &[&batch], JOINT);
        for id in model.params().ids() {
            let name = model.params().name(id).to_owned();
            let d = gradients.get(id).data();
            assert!(
                d.iter().any(|d| *d != 0.0),
                "{fixture:?}: {name} has no gradient"
            );
            for _ in 0..3 {
                let direction = direction(d, &mut noise);
                let slope: f64 = { d.iter().zip(&direction) }
                    .map(|(g, d)| f64::from(*g) * d)
                    .sum();
                let measured = measured_slope(&mut model, &batch, id, &direction);
                let error = (measured - slope).abs() / slope.abs();
                let what = format!("{fixture:?}, {name}: slope {slope:e}, measured {measured:e}");
                assert!(error < 5e-3, "{what}");
                if error > worst.0 {
                    worst = (error, what);
                }
            }
        }
    }
    eprintln!("largest relative error {:.1e}: {}", worst.0, worst.1);
}

/// Every kind, flow of gradients and number of heads that count; a window too short for the last head among them.
#[test]
fn little_memory_changes_no_bit() {
    for fixture in Fixture::all() {
        let model = fixture.model(12);
        let batches = [(3, 17), (2, 2), (1, 1)].map(|(b, t)| batch(&fixture, b, t, 5));
        for flow in [GradFlow::Joint, GradFlow::Detached, GradFlow::Frozen] {
            for (batch, depths) in batches
                .iter()
                .flat_map(|b| [0, 1, 2, usize::MAX].map(|d| (b, d)))
            {
                let joint = JOINT;
                let objective = Objective {
                    joint,
                    depths,
                    flow,
                };
                // An accumulator that is not empty, so that adding shows where a chain should go on.
                let start = gradient(&model, &[batch], JOINT);
                let (mut expected, mut got) = (start.clone(), start);
                let mut tape = Train::new(model.params());
                let reports = model.losses(&mut tape, batch, objective);
                let losses: Vec<_> = reports.iter().map(|r| r.value.clone()).collect();
                tape.backward(&losses, &mut expected);
                let lean = model.backward(batch, objective, &mut got);
                let what = format!("{fixture:?}, {flow:?}, {depths} heads");
                assert_eq!(lean.len(), reports.len(), "{what}");
                for (a, b) in lean.iter().zip(&reports) {
                    same_bits(&what, 3, a.value.value().data(), b.value.value().data());
                    assert_eq!(a.targets, b.targets, "{what}");
                }
                for id in model.params().ids() {
                    let (name, cols) = (model.params().name(id), expected.get(id).cols());
                    let what = format!("{what}, {name}");
                    same_bits(&what, cols, got.get(id).data(), expected.get(id).data());
                }
            }
        }
    }
}

/// The crate's report of the loss is the loss.
#[test]
fn the_reported_losses_add_up() {
    for fixture in Fixture::all() {
        let (model, batch) = (fixture.model(12), batch(&fixture, 3, 17, 5));
        let reports = model.losses(&mut Train::no_grad(model.params()), &batch, JOINT);
        let weighted = |r: &foretoken::model::LossReport| f64::from(r.value.value().data()[0]);
        let sum: f64 = reports.iter().map(weighted).sum();
        let expected = joint_loss(&model, &batch);
        // Each term is one f32, so the sum has a few roundings of 2^-24.
        assert!((sum - expected).abs() < 1e-6 * expected, "{sum} {expected}");
        let targets: Vec<_> = reports.iter().map(|r| r.targets).collect();
        assert_eq!(targets, [51, 48, 45, 42]);
    }
}

/// The gradient of a mean over two sequences is half of the one's, gone on with the other's, to the last bit, where one
/// product or one table lookup makes the whole gradient: its chain runs over the rows ascending (R1, R7), and the halves
/// are exact because losses are means and two is a power of two. A weight's gradient is a tree over all rows and a tensor
/// used several times has its uses in another order, so for them it need not hold.
#[test]
fn a_batch_goes_on_with_the_chains_of_its_sequences() {
    for fixture in Fixture::all() {
        let model = fixture.model(13);
        let alone = [1, 2].map(|salt| batch(&fixture, 1, 33, salt));
        let joined = [1, 2].map(|salt| tokens(34, fixture.vocab, salt)).concat();
        let together = Batch::new(2, 33, joined);
        let chained = gradient(&model, &[&alone[0], &alone[1]], JOINT);
        let backwards = gradient(&model, &[&alone[1], &alone[0]], JOINT);
        let whole = gradient(&model, &[&together], JOINT);
        let (mut compared, mut order_shows) = (0, false);
        for id in model.params().ids() {
            let (name, tensor) = (model.params().name(id), model.params().get(id));
            let table = name == "model.embed_tokens.weight" || name == "lm_head.weight";
            let recursive = layout::is_head(name) && fixture.kind == HeadKind::Recursive;
            if tensor.shape().len() != 2 || table || recursive {
                continue;
            }
            let half =
                |d: &Gradients| -> Vec<f32> { d.get(id).data().iter().map(|d| d * 0.5).collect() };
            let (cols, expected) = (tensor.cols(), half(&chained));
            let what = format!("{fixture:?}, {name}");
            same_bits(&what, cols, whole.get(id).data(), &expected);
            order_shows |= half(&backwards) != expected;
            compared += 1;
        }
        assert!(
            compared >= 14,
            "the trunk's two layers have 7 matrices each"
        );
        assert!(order_shows, "the order of sequences must show somewhere");
    }
}

/// Twice λ is twice the gradient of every tensor that only heads use, exactly: λ w / n is one factor, and two is a power
/// of two (R8). It holds through all K uses of a recursive head.
#[test]
fn gradients_of_heads_are_linear_in_lambda() {
    for fixture in Fixture::all() {
        let (model, batch) = (fixture.model(14), batch(&fixture, 2, 20, 3));
        let [once, twice] = [0.25, 0.5].map(|lambda| {
            let joint = JointLoss { lambda, beta: 0.6 };
            gradient(&model, &[&batch], joint)
        });
        let mut compared = 0;
        for id in model.params().ids() {
            let name = model.params().name(id);
            if layout::is_head(name) {
                let doubled: Vec<_> = once.get(id).data().iter().map(|d| 2.0 * d).collect();
                let got = twice.get(id);
                let what = format!("{fixture:?}, {name}");
                same_bits(&what, got.cols(), got.data(), &doubled);
                compared += 1;
            }
        }
        assert!(compared > 0);
    }
}

/// What the heads learn from a batch does not depend on where their gradients go: a head's own gradient comes from its
/// loss and from the depths after it, through states and not through what the trunk owns. The trunk's is that of a model
/// whose heads do not count where they are detached, and none at all where it is frozen.
#[test]
fn gradients_of_heads_are_the_same_wherever_they_flow() {
    for fixture in Fixture::all() {
        let (model, batch) = (fixture.model(17), batch(&fixture, 3, 17, 5));
        let lean = |depths, flow| {
            let joint = JOINT;
            let objective = Objective {
                joint,
                depths,
                flow,
            };
            let mut gradients = Gradients::zeros(model.params());
            model.backward(&batch, objective, &mut gradients);
            gradients
        };
        let flows = [GradFlow::Joint, GradFlow::Detached, GradFlow::Frozen];
        let [joint, detached, frozen] = flows.map(|flow| lean(9, flow));
        let bare = lean(0, GradFlow::Joint);
        for id in model.params().ids() {
            let (name, cols) = (model.params().name(id), joint.get(id).cols());
            let what = format!("{fixture:?}, {name}");
            let same = |a: &Gradients, b: &Gradients| {
                same_bits(&what, cols, a.get(id).data(), b.get(id).data());
            };
            if layout::is_head(name) {
                assert!(joint.get(id).data().iter().any(|d| *d != 0.0), "{what}");
                same(&detached, &joint);
                same(&frozen, &joint);
            } else {
                same(&detached, &bare);
                assert!(joint.get(id).data() != bare.get(id).data(), "{what}");
                assert!(frozen.get(id).data().iter().all(|d| *d == 0.0), "{what}");
            }
        }
    }
}

/// With λ = 0 the heads' gradients are zero and the trunk's are those of a model without heads.
///
/// Values are compared, not bits: a head's logits then have gradients of +0 and −0, an activation's first gradient is
/// assigned, and −0 + −0 is −0 where a model without heads may have +0. No sum of anything else can tell them apart.
#[test]
fn heads_that_do_not_count_leave_the_trunk_alone() {
    for fixture in Fixture::all() {
        let bare = Fixture {
            depth: 0,
            ..fixture
        };
        let (model, bare) = (fixture.model(15), bare.model(15));
        let batch = batch(&fixture, 3, 33, 7);
        let silent = JointLoss {
            lambda: 0.0,
            beta: 0.6,
        };
        let (got, expected) = (
            gradient(&model, &[&batch], silent),
            gradient(&bare, &[&batch], silent),
        );
        let loud = gradient(&model, &[&batch], JOINT);
        let mut shared = 0;
        for id in model.params().ids() {
            let name = model.params().name(id);
            let d = got.get(id).data();
            if layout::is_head(name) {
                assert!(d.iter().all(|d| *d == 0.0), "{fixture:?}, {name}");
                continue;
            }
            let place = bare.params().find(name).expect("the same trunk");
            let expected = expected.get(place).data();
            assert!(d == expected, "{fixture:?}, {name}: heads of weight 0 show");
            // So that this can fail: heads that count do change the trunk's gradient.
            assert!(loud.get(id).data() != expected, "{fixture:?}, {name}");
            shared += 1;
        }
        assert_eq!(shared, bare.params().len());
    }
}

/// A gradient is added to what is there, and `clear` makes it +0 again.
#[test]
fn gradients_accumulate_until_they_are_cleared() {
    let fixture = Fixture::all()[0];
    let (model, batch) = (fixture.model(16), batch(&fixture, 2, 9, 1));
    let once = gradient(&model, &[&batch], JOINT);
    let mut again = gradient(&model, &[&batch, &batch], JOINT);
    for id in model.params().ids() {
        assert!(once.get(id).data() != again.get(id).data());
    }
    again.clear();
    add_gradient(&model, &batch, JOINT, &mut again);
    for id in model.params().ids() {
        let (name, cols) = (model.params().name(id), once.get(id).cols());
        same_bits(name, cols, again.get(id).data(), once.get(id).data());
    }
}
