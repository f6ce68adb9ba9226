//! Whole training steps against the reference: initial values, losses, gradients, norms, weights, and the file of
//! weights.

use super::common::{same_bits, tokens};
use super::graph::Heads;
use super::model::{Kind, Layer, Model, Recipe, Sizes};
use super::ours::{self, everywhere};
use super::rules::rate;
use sha2::{Digest, Sha256};

const STEPS: u64 = 3;
const WINDOWS: usize = 2;
/// Rows of a batch are more than two chunks of 32.
const CONTEXT: usize = 40;

/// What the cases differ in.
#[derive(Clone, Copy)]
struct Case {
    kind: Kind,
    narrow: bool,
    /// Two query heads share a key head.
    grouped: bool,
    tied: bool,
    qk_norm: bool,
    muon: bool,
}

impl Case {
    /// C 32, L 2, K 2; the gated layer's matrices have more than 4,096 elements.
    fn sizes(self) -> Sizes {
        let heads = |query, key_value| Heads {
            query,
            key_value,
            size: 8,
        };
        let trunk = Layer {
            hidden: 32,
            heads: heads(4, if self.grouped { 2 } else { 4 }),
            mlp: 131,
        };
        // Half the width, half the heads, half the gated layer rounded up to a multiple of 16.
        let narrow = Layer {
            hidden: 16,
            heads: heads(2, if self.grouped { 1 } else { 2 }),
            mlp: 80,
        };
        Sizes {
            vocab: 41,
            layers: 2,
            trunk,
            kind: self.kind,
            depth: 2,
            head: if self.narrow { narrow } else { trunk },
            tied: self.tied,
            qk_norm: self.qk_norm,
        }
    }
}

fn windows(step: u64) -> Vec<Vec<u32>> {
    let window = |w| tokens(CONTEXT + 1, 41, step as usize * WINDOWS + w);
    (0..WINDOWS).map(window).collect()
}

#[track_caller]
fn same_numbers(what: &str, got: &[f64], expected: &[f64]) {
    let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(
        bits(got) == bits(expected),
        "{what}: {got:?} instead of {expected:?}"
    );
}

fn check(case: Case) {
    let (sizes, seed) = (case.sizes(), 5);
    // The heads' losses weigh far more than usual, so that both parts of the gradient are clipped. Their weights are
    // not `f32` numbers, so that it shows if λ w_k / n is rounded twice.
    let recipe = Recipe {
        muon: case.muon,
        lambda: 53.0,
        beta: 0.7,
    };
    // The reference after 0, 1, .. steps.
    let mut model = Model::new(sizes, seed);
    let (mut reports, mut params) = (Vec::new(), vec![model.params.clone()]);
    for step in 0..STEPS {
        let rate = rate(0.01, step, 1, STEPS, true);
        reports.push(model.step(&windows(step), recipe, rate));
        params.push(model.params.clone());
    }
    for report in &reports {
        let [trunk, heads] = report.norms;
        assert!(
            trunk > 1.0 && heads > 1.0 && trunk != heads,
            "{report:?}: both are clipped"
        );
    }
    let digest = Sha256::digest(model.file());
    let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();

    everywhere(|place| {
        let mut run = ours::Run::new(&sizes, seed, recipe);
        let compare = |run: &ours::Run, done: usize, gradients: bool| {
            let got = run.params();
            assert_eq!(
                got.len(),
                params[done].len(),
                "{place}: number of parameters"
            );
            for (got, (name, param)) in got.into_iter().zip(&params[done]) {
                let what = format!("{place}, {done} steps done, {name}");
                assert_eq!((&got.name, &got.shape), (name, &param.shape), "{what}");
                let cols = param.value.cols;
                if gradients {
                    let what = format!("{what}, gradient");
                    same_bits(&what, cols, &got.gradient, &param.gradient.data);
                }
                same_bits(&what, cols, &got.value, &param.value.data);
            }
        };
        compare(&run, 0, false);
        for step in 0..STEPS {
            let got = run.step(&windows(step), rate(0.01, step, 1, STEPS, true));
            let (expected, what) = (&reports[step as usize], format!("{place}, step {step}"));
            same_numbers(&format!("{what}, losses"), &got.losses, &expected.losses);
            same_numbers(&format!("{what}, loss"), &[got.loss], &[expected.loss]);
            compare(&run, step as usize + 1, true);
            same_numbers(&format!("{what}, norms"), &got.norms, &expected.norms);
        }
        assert_eq!(run.sha256(), sha256, "{place}: the file of weights");
    });
}

const CASE: Case = Case {
    kind: Kind::Recursive,
    narrow: false,
    grouped: false,
    tied: true,
    qk_norm: true,
    muon: false,
};

#[test]
fn recursive() {
    check(Case {
        grouped: true,
        ..CASE
    });
    check(Case {
        narrow: true,
        muon: true,
        ..CASE
    });
}

#[test]
fn sequential() {
    let kind = Kind::Sequential;
    check(Case {
        kind,
        tied: false,
        ..CASE
    });
    check(Case {
        kind,
        narrow: true,
        grouped: true,
        muon: true,
        ..CASE
    });
}

#[test]
fn parallel() {
    let kind = Kind::Parallel;
    check(Case {
        kind,
        muon: true,
        ..CASE
    });
    check(Case {
        kind,
        narrow: true,
        grouped: true,
        qk_norm: false,
        ..CASE
    });
}

#[test]
fn medusa() {
    let kind = Kind::Medusa;
    check(Case { kind, ..CASE });
    check(Case {
        kind,
        narrow: true,
        tied: false,
        muon: true,
        ..CASE
    });
}
