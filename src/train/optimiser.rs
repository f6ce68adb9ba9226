//! AdamW or Muon over all parameters, after clipping by norm (rule R9).

use crate::Result;
use crate::autograd::Gradients;
use crate::kernels::{adamw, muon, reduce};
use crate::model::layout;
use crate::simd::scalar;
use crate::tensor::{Params, Tensor};
use serde::{Deserialize, Serialize};

/// Which rule moves the matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// AdamW for every parameter.
    AdamW,
    /// Muon for every matrix but the embedding and the output matrix, AdamW for the rest. Queries, keys and values have
    /// matrices of their own and are made orthogonal one by one. The default, because its losses are lower at equal steps
    /// by more than its dearer steps cost (`docs/log.md`, "Optimiser and schedule side by side").
    #[default]
    Muon,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::AdamW, Self::Muon];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdamW => "adamw",
            Self::Muon => "muon",
        }
    }
}

/// An optimiser's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The rule.
    pub kind: Kind,
    /// AdamW's β₁ and β₂.
    pub betas: [f64; 2],
    /// AdamW's ε
    pub eps: f64,
    /// Muon's μ
    pub momentum: f64,
    /// Weight decay of matrices.
    pub decay: f64,
    /// The largest norm that a gradient keeps.
    pub clip: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            betas: [0.9, 0.95],
            eps: 1e-8,
            momentum: 0.95,
            decay: 0.1,
            clip: 1.0,
        }
    }
}

impl Settings {
    /// The usual numbers of a kind.
    pub fn of(kind: Kind) -> Self {
        Self {
            kind,
            ..Self::default()
        }
    }

    /// Names of what is kept for a parameter.
    pub(super) fn kept(&self, name: &str, shape: &[usize]) -> &'static [&'static str] {
        match self.moves_by_muon(name, shape) {
            true => &["momentum/"],
            false => &["first_moment/", "second_moment/"],
        }
    }

    /// Whether Muon moves the parameter of that name and shape.
    pub fn moves_by_muon(&self, name: &str, shape: &[usize]) -> bool {
        // Tables of tokens: a row is used where its token occurs, and an orthogonal update has no such zeros.
        let table = name == "model.embed_tokens.weight" || name == "lm_head.weight";
        self.kind == Kind::Muon && shape.len() == 2 && !table
    }
}

/// The optimiser and what it keeps for each parameter that learns: AdamW's two moments, or Muon's momentum.
///
/// Matrices decay, gains and biases do not. Trunk and heads are clipped by their own norms, so that a head's gradient never
/// changes the size of the trunk's step.
#[derive(Clone, Debug)]
pub struct Optimiser {
    /// Its numbers.
    pub settings: Settings,
    steps: u64,
    /// By place; empty for a parameter that does not learn.
    kept: Vec<Vec<Tensor>>,
}

/// Norms of a step's gradient before clipping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norms {
    /// Over the trunk's parameters.
    pub trunk: f64,
    /// Over the heads' parameters.
    pub heads: f64,
}

/// Hands over a tensor of that name and shape.
type Take<'a> = &'a mut dyn FnMut(&str, &[usize]) -> Result<Vec<f32>>;

/// Whether the parameter of that name learns in some step of a run.
pub type Learns<'a> = &'a dyn Fn(&str) -> bool;

impl Optimiser {
    /// For the parameters that learn, all that is kept for them at zero.
    pub fn new(settings: Settings, params: &Params, learns: Learns<'_>) -> Self {
        let zeros = &mut |_: &str, shape: &[usize]| Ok(vec![0.0; shape.iter().product()]);
        Self::restore((settings, 0), params, learns, zeros).expect("zeros are always there")
    }

    /// The optimiser after `steps` steps, of tensors that `take` hands over by name and shape.
    ///
    /// # Errors
    /// What `take` returns.
    pub fn restore(
        (settings, steps): (Settings, u64),
        params: &Params,
        learns: Learns<'_>,
        take: Take<'_>,
    ) -> Result<Self> {
        let mut kept = Vec::new();
        for (name, t) in params.iter() {
            let parts: &[_] = match learns(name) {
                true => settings.kept(name, t.shape()),
                false => &[],
            };
            let tensors = parts.iter().map(|part| {
                let data = take(&format!("{part}{name}"), t.shape())?;
                Ok(Tensor::new(t.shape(), data))
            });
            kept.push(tensors.collect::<Result<_>>()?);
        }
        Ok(Self {
            settings,
            steps,
            kept,
        })
    }

    /// Its tensors by name, of the parameters that it was made for.
    pub fn tensors(&self, params: &Params) -> impl Iterator<Item = (String, &Tensor)> {
        params.iter().zip(&self.kept).flat_map(|((name, t), kept)| {
            let parts = self.settings.kept(name, t.shape()).iter();
            parts
                .zip(kept)
                .map(move |(part, kept)| (format!("{part}{name}"), kept))
        })
    }

    /// Norms of the gradient: squares of each tensor by rule R9, added in name order.
    pub fn norms(params: &Params, gradients: &Gradients) -> Norms {
        let mut squares = [0.0; 2];
        for id in params.ids() {
            let head = usize::from(layout::is_head(params.name(id)));
            squares[head] += reduce::squared_norm(gradients.get(id).data());
        }
        Norms {
            trunk: squares[0].sqrt(),
            heads: squares[1].sqrt(),
        }
    }

    /// One step at this learning rate, of every parameter that learns.
    pub fn step(&mut self, params: &mut Params, gradients: &Gradients, norms: Norms, rate: f64) {
        self.step_some(params, gradients, norms, rate, &|_| true);
    }

    /// One step of those parameters that learn and whose name takes part. The others keep their values and what is kept
    /// for them, and do not decay; the count of steps, which the moments' correction uses, is one for all.
    pub fn step_some(
        &mut self,
        params: &mut Params,
        gradients: &Gradients,
        norms: Norms,
        rate: f64,
        takes_part: &dyn Fn(&str) -> bool,
    ) {
        self.steps += 1;
        let Settings {
            betas: [beta1, beta2],
            eps,
            decay,
            clip: most,
            momentum,
            ..
        } = self.settings;
        let unbias = |beta| (1.0 / (1.0 - scalar::powi(beta, self.steps))) as f32;
        let clip = |norm: f64| {
            let factor = if norm > most { most / norm } else { 1.0 };
            factor as f32
        };
        let mut step = adamw::Step {
            lr: rate as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            one_minus_beta1: (1.0 - beta1) as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            bias_correction1: unbias(beta1),
            bias_correction2: unbias(beta2),
            eps: eps as f32,
            clip: 1.0,
            weight_decay: 0.0,
        };
        for id in params
            .ids()
            .filter(|id| !self.kept[id.index()].is_empty() && takes_part(params.name(*id)))
            .collect::<Vec<_>>()
        {
            let head = layout::is_head(params.name(id));
            step.clip = clip(if head { norms.heads } else { norms.trunk });
            let matrix = params.get(id).shape().len() == 2;
            step.weight_decay = if matrix { decay as f32 } else { 0.0 };
            let by_muon = self
                .settings
                .moves_by_muon(params.name(id), params.get(id).shape());
            let gradient = gradients.get(id).data();
            let kept = self.kept[id.index()].as_mut_slice();
            let tensor = params.get_mut(id);
            let (rows, cols) = (tensor.rows(), tensor.cols());
            match kept {
                [m] if by_muon => {
                    let step = muon::Step {
                        lr: step.lr,
                        momentum: momentum as f32,
                        clip: step.clip,
                        weight_decay: step.weight_decay,
                    };
                    let (w, m) = (tensor.data_mut(), m.data_mut());
                    muon::update(step, rows, cols, w, m, gradient);
                }
                [m, v] => {
                    let (m, v) = (m.data_mut(), v.data_mut());
                    adamw::update(step, tensor.data_mut(), m, v, gradient);
                }
                _ => unreachable!("one tensor for Muon, two for AdamW"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::{Tape, Var};
    use crate::ops::Add;
    use crate::simd::Isa;

    /// Three steps of the textbook's algorithm in `f64`.
    #[test]
    fn steps_follow_the_paper() {
        let start = |n: usize| {
            (0..n)
                .map(|i| (i % 7) as f32 * 0.3 - 0.8)
                .collect::<Vec<_>>()
        };
        for isa in Isa::all() {
            isa.scope(|| {
                let entry = |name: &str, shape: &[usize]| {
                    let n = shape.iter().product();
                    (name.to_owned(), Tensor::new(shape, start(n)))
                };
                let mut params = Params::new(vec![entry("a", &[5, 7]), entry("mtp.g", &[35])]);
                let mut optimiser = Optimiser::new(Settings::of(Kind::AdamW), &params, &|_| true);
                let grad: Vec<f32> = (0..35).map(|i| (i % 5) as f32 * 0.4 - 0.7).collect();
                let size = grad
                    .iter()
                    .map(|g| f64::from(*g).powi(2))
                    .sum::<f64>()
                    .sqrt();
                let mut exact = [(0, 0.1), (1, 0.0)].map(|(_, decay)| (start(35), decay));
                let mut wide: Vec<(Vec<f64>, f64)> = exact
                    .iter_mut()
                    .map(|(w, d)| (w.iter().map(|x| f64::from(*x)).collect(), *d))
                    .collect();
                let mut m = [[0.0f64; 35]; 2];
                let mut v = [[0.0f64; 35]; 2];
                for t in 1..=3 {
                    let gradients = constant_gradients(&params, &grad);
                    let norms = Optimiser::norms(&params, &gradients);
                    assert!((norms.trunk - size).abs() < 1e-5 && (norms.heads - size).abs() < 1e-5);
                    optimiser.step(&mut params, &gradients, norms, 0.01);
                    for (p, (w, decay)) in wide.iter_mut().enumerate() {
                        for i in 0..35 {
                            let g = f64::from(grad[i]) / size.max(1.0);
                            m[p][i] = 0.9 * m[p][i] + 0.1 * g;
                            v[p][i] = 0.95 * v[p][i] + 0.05 * g * g;
                            let m_hat = m[p][i] / (1.0 - 0.9f64.powi(t));
                            let v_hat = v[p][i] / (1.0 - 0.95f64.powi(t));
                            w[i] -= 0.01 * (m_hat / (v_hat.sqrt() + 1e-8) + *decay * w[i]);
                        }
                    }
                }
                for (id, (w, _)) in params.ids().zip(&wide) {
                    for (x, y) in params.get(id).data().iter().zip(w) {
                        assert!((f64::from(*x) - y).abs() < 1e-5, "{x} and {y}");
                    }
                }
            });
        }
    }

    fn constant_gradients(params: &Params, grad: &[f32]) -> Gradients {
        let mut gradients = Gradients::zeros(params);
        for id in params.ids() {
            let mut tape = Tape::default();
            let w = Var::parameter(id, params.get(id).clone());
            let zero = Var::constant(Tensor::zeros(params.get(id).shape()));
            let y = tape.apply(Add, [&w, &zero]);
            let d = Tensor::new(y.value().shape(), grad.to_vec());
            tape.backward(&[(&y, d)], &mut gradients);
        }
        gradients
    }
}
