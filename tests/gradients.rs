//! Every gradient right, for whole models.
//!
//! 1. The joint loss, computed here in `f64` from the logits of a training graph without gradients, changes along
//!    random directions of every parameter as the gradient from `backward` says (central differences).
//! 2. [`Model::backward`], which works head by head, equals one whole tape run backwards, bit for bit.
//! 3. What holds exactly under rule R7 is compared exactly: a batch's gradient continues the chains of its sequences,
//!    a head's gradient is linear in λ, and heads of weight 0 leave the trunk's gradient alone.

mod common;

use common::{Fixture, same_bits, tokens, train_logits};
use foretoken::autograd::Gradients;
use foretoken::data::Batch;
use foretoken::exec::TapeExec;
use foretoken::model::{GradFlow, HeadKind, JointLoss, Model, layout};
use foretoken::tensor::ParamId;

const JOINT: JointLoss = JointLoss {
    // More than usual, so that the heads' part of shared gradients is no rounding error.
    lambda: 0.75,
    beta: 0.5,
    active_heads: None,
    grad_flow: GradFlow::Joint,
};

fn batch(fixture: &Fixture, sequences: usize, context: usize, salt: usize) -> Batch {
    let n = sequences * (context + 1);
    Batch::new(sequences, context, tokens(n, fixture.vocab, salt))
}

/// Adds the gradient of the joint loss.
fn add_gradient(model: &Model, batch: &Batch, joint: JointLoss, gradients: &mut Gradients) {
    let mut exec = TapeExec::new(model.params());
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

/// L_0 + λ Σ_k w_k L_k in `f64`, written from the formula: no part of it is the crate's own loss.
fn joint_loss(model: &Model, batch: &Batch) -> f64 {
    let (b, t, vocab) = (
        batch.batch_size(),
        batch.seq_len(),
        model.config().vocab_size,
    );
    let (inputs, next) = (batch.inputs(), batch.targets(0));
    let sequences: Vec<_> = inputs.chunks(t).map(<[u32]>::to_vec).collect();
    let logits = train_logits(&mut TapeExec::no_grad(model.params()), model, &sequences);
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

/// Numbers in −1..1 for directions (Marsaglia's xorshift). They need no quality, but no short period either.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// A direction of length 1 along which the slope is not small: a random half of the gradient's own elements, plus as
/// much of a random direction, because the gradient alone would never look where it is wrongly zero. Both point uphill:
/// of the two halves the larger is taken, and the random direction or its opposite.
fn direction(gradient: &[f32], noise: &mut Noise) -> Vec<f64> {
    let gradient: Vec<f64> = gradient.iter().map(|d| f64::from(*d)).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let unit = |d: Vec<f64>| {
        let norm = dot(&d, &d).sqrt();
        d.iter().map(|x| x / norm).collect::<Vec<_>>()
    };
    let mut some = |d: &f64| if noise.next() > 0.0 { *d } else { 0.0 };
    let half: Vec<_> = gradient.iter().map(&mut some).collect();
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

/// Slope of the loss along a direction, by central differences with a step in proportion to the tensor's norm: rounding
/// of the logits then stays far below the change, and the third derivative does not show.
fn measured_slope(model: &mut Model, batch: &Batch, id: ParamId, direction: &[f64]) -> f64 {
    let original = model.params().get(id).data().to_vec();
    let size = original
        .iter()
        .map(|x| f64::from(x * x))
        .sum::<f64>()
        .sqrt();
    let step = size / 512.0;
    let mut loss = [0.0; 2];
    // How far the rounded parameters really moved along the direction.
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
                let pairs = d.iter().zip(&direction);
                let slope: f64 = pairs.map(|(g, d)| f64::from(*g) * d).sum();
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

/// Every kind, flow of gradients and number of active heads, also with a window too short for the last head.
#[test]
fn head_by_head_has_the_bits_of_one_tape() {
    for fixture in Fixture::all() {
        let model = fixture.model(12);
        let batches = [(3, 17), (2, 2), (1, 1)].map(|(b, t)| batch(&fixture, b, t, 5));
        for grad_flow in [GradFlow::Joint, GradFlow::Detached, GradFlow::Frozen] {
            for (batch, active_heads) in batches
                .iter()
                .flat_map(|b| [Some(0), Some(1), Some(2), None].map(|n| (b, n)))
            {
                let joint = JointLoss {
                    active_heads,
                    grad_flow,
                    ..JOINT
                };
                // Accumulators that are not +0, so that adding shows if a chain should have been continued.
                let start = gradient(&model, &[batch], JOINT);
                let (mut expected, mut got) = (start.clone(), start);
                let mut tape = TapeExec::new(model.params());
                let reports = model.losses(&mut tape, batch, joint);
                let losses: Vec<_> = reports.iter().map(|r| r.value.clone()).collect();
                tape.backward(&losses, &mut expected);
                let by_head = model.backward(batch, joint, &mut got);
                let what = format!("{fixture:?}, {joint:?}");
                assert_eq!(by_head.len(), reports.len(), "{what}");
                for (a, b) in by_head.iter().zip(&reports) {
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

/// The reported losses sum to the joint loss.
#[test]
fn the_reported_losses_add_up() {
    for fixture in Fixture::all() {
        let (model, batch) = (fixture.model(12), batch(&fixture, 3, 17, 5));
        let reports = model.losses(&mut TapeExec::no_grad(model.params()), &batch, JOINT);
        let weighted = |r: &foretoken::model::LossReport| f64::from(r.value.value().data()[0]);
        let sum: f64 = reports.iter().map(weighted).sum();
        let expected = joint_loss(&model, &batch);
        // Each term is one f32, so the sum has a few roundings of 2^-24.
        assert!((sum - expected).abs() < 1e-6 * expected, "{sum} {expected}");
        let targets: Vec<_> = reports.iter().map(|r| r.targets).collect();
        assert_eq!(targets, [51, 48, 45, 42]);
    }
}

/// The gradient of a mean over two sequences is half of that of the first continued with the second, to the last bit,
/// if one matrix multiplication makes the whole gradient: its chain runs over the rows ascending (R1, R7), and the
/// halves are exact because losses are means and two is a power of two. It need not hold for a norm weight, whose
/// gradient is a tree over all rows, or for a tensor used several times, whose uses come in a different order.
#[test]
fn a_batch_continues_the_chains_of_its_sequences() {
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

/// Twice λ is exactly twice the gradient of every tensor that only heads use: λ w / n is one factor, and two is a
/// power of two (R8). It holds through all K uses of a recursive head.
#[test]
fn gradients_of_heads_are_linear_in_lambda() {
    for fixture in Fixture::all() {
        let (model, batch) = (fixture.model(14), batch(&fixture, 2, 20, 3));
        let [once, twice] = [0.25, 0.5].map(|lambda| {
            let joint = JointLoss { lambda, ..JOINT };
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

/// The heads' own gradients do not depend on how far gradients flow: they come from the losses of a head and of the
/// heads after it, through hidden states and not through the trunk's parameters. If the heads are detached, the
/// trunk's gradient is that without active heads; if the trunk is frozen, it is zero.
#[test]
fn gradients_of_heads_are_the_same_wherever_they_flow() {
    for fixture in Fixture::all() {
        let (model, batch) = (fixture.model(17), batch(&fixture, 3, 17, 5));
        let gradients = |active, grad_flow| {
            let joint = JointLoss {
                active_heads: Some(active),
                grad_flow,
                ..JOINT
            };
            let mut gradients = Gradients::zeros(model.params());
            model.backward(&batch, joint, &mut gradients);
            gradients
        };
        let flows = [GradFlow::Joint, GradFlow::Detached, GradFlow::Frozen];
        let [joint, detached, frozen] = flows.map(|flow| gradients(9, flow));
        let bare = gradients(0, GradFlow::Joint);
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
/// assigned, and −0 + −0 is −0 while a model without heads may have +0.
#[test]
fn heads_of_weight_zero_leave_the_trunk_alone() {
    for fixture in Fixture::all() {
        let bare = Fixture {
            depth: 0,
            ..fixture
        };
        let (model, bare) = (fixture.model(15), bare.model(15));
        let batch = batch(&fixture, 3, 33, 7);
        let silent = JointLoss {
            lambda: 0.0,
            ..JOINT
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
            // So that this can fail: heads with a weight do change the trunk's gradient.
            assert!(loud.get(id).data() != expected, "{fixture:?}, {name}");
            shared += 1;
        }
        assert_eq!(shared, bare.params().len());
    }
}

/// Gradients accumulate until `clear` sets them to +0.
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
