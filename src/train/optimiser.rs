//! AdamW or Muon over all parameters, after clipping by norm (rule R9).

use super::TrainConfig;
use crate::autograd::Gradients;
use crate::kernels::{adamw, muon, reduce};
use crate::model::layout;
use crate::simd::scalar;
use crate::tensor::{Params, Tensor};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// An optimiser and its hyperparameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Optimiser {
    /// AdamW for every parameter.
    AdamW(AdamW),
    /// Muon for every matrix but the embedding and the LM head, AdamW for the rest. Queries, keys and values have
    /// matrices of their own and are orthogonalised one by one. The default, because its losses are lower at equal
    /// steps by more than its dearer steps cost (`docs/log.md`, "Optimiser and schedule side by side").
    Muon {
        /// μ
        momentum: f64,
        /// For the other parameters.
        adamw: AdamW,
    },
}

/// Hyperparameters of AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    /// β₁
    pub beta1: f64,
    /// β₂
    pub beta2: f64,
    /// ε
    pub eps: f64,
}

impl AdamW {
    /// The usual hyperparameters.
    pub const DEFAULT: Self = Self {
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
    };
}

impl Default for Optimiser {
    fn default() -> Self {
        Self::MUON
    }
}

impl Optimiser {
    /// AdamW with the default hyperparameters.
    pub const ADAMW: Self = Self::AdamW(AdamW::DEFAULT);
    /// Muon with the default hyperparameters.
    pub const MUON: Self = Self::Muon {
        momentum: 0.95,
        adamw: AdamW::DEFAULT,
    };
    /// Both, with the default hyperparameters.
    pub const ALL: [Self; 2] = [Self::ADAMW, Self::MUON];

    /// The optimiser's name, as files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdamW(_) => "adamw",
            Self::Muon { .. } => "muon",
        }
    }

    /// Checks that the hyperparameters are in range, in the `f32` that weights are updated in.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] for the first that is not.
    pub(super) fn check(self) -> Result<()> {
        let AdamW { beta1, beta2, eps } = self.adamw();
        let momentum = match self {
            Self::Muon { momentum, .. } => momentum,
            Self::AdamW(_) => 0.0,
        };
        for (field, value) in [("momentum", momentum), ("beta1", beta1), ("beta2", beta2)] {
            if !(0.0..1.0).contains(&(value as f32)) {
                return Err(Error::setting(field, "0 to 1, less than 1", value));
            }
        }
        if !(f32::MIN_POSITIVE..=f32::MAX).contains(&(eps as f32)) {
            return Err(Error::setting("eps", "more than 0, at most 3.4e38", eps));
        }
        Ok(())
    }

    fn adamw(self) -> AdamW {
        match self {
            Self::AdamW(adamw) | Self::Muon { adamw, .. } => adamw,
        }
    }

    /// Muon's μ for the parameter of that name and shape; `None` if AdamW moves it.
    fn momentum(self, name: &str, shape: &[usize]) -> Option<f64> {
        // An embedding has gradients only for the tokens of the batch; an orthogonal update has no such zero rows.
        let by_token = name == "model.embed_tokens.weight" || name == "lm_head.weight";
        match self {
            Self::Muon { momentum, .. } if shape.len() == 2 && !by_token => Some(momentum),
            _ => None,
        }
    }

    /// Whether Muon moves the parameter of that name and shape.
    pub fn moves_by_muon(self, name: &str, shape: &[usize]) -> bool {
        self.momentum(name, shape).is_some()
    }

    /// Name prefixes of the tensors that are kept for a parameter.
    pub(super) fn kept(self, name: &str, shape: &[usize]) -> &'static [&'static str] {
        if self.moves_by_muon(name, shape) {
            &["momentum/"]
        } else {
            &["first_moment/", "second_moment/"]
        }
    }
}

/// An optimiser with the tensors that it keeps for each parameter that is trained: AdamW's two moments, or Muon's
/// momentum.
///
/// Matrices decay; norm weights and biases do not. Trunk and heads are clipped by norms of their own, so a head's
/// gradient never changes the size of the trunk's step.
#[derive(Clone, Debug)]
pub struct OptimiserState {
    optimiser: Optimiser,
    weight_decay: f64,
    clip_norm: f64,
    /// Steps done.
    pub(super) steps: u64,
    /// By parameter; empty for one that is not trained.
    kept: Vec<Vec<Tensor>>,
}

/// Norms of a step's gradient before clipping.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Norms {
    /// Over the trunk's parameters.
    pub trunk: f64,
    /// Over the heads' parameters.
    pub heads: f64,
}

/// Returns the tensor of that name and shape.
type Take<'a> = &'a mut dyn FnMut(&str, &[usize]) -> Result<Vec<f32>>;

impl OptimiserState {
    /// The state before the first step: zeros for every parameter that is trained.
    pub fn new(config: &TrainConfig, params: &Params) -> Self {
        let zeros = &mut |_: &str, shape: &[usize]| Ok(vec![0.0; shape.iter().product()]);
        Self::restore(config, 0, params, zeros).expect("zeros are always there")
    }

    /// The state after `steps` steps, from tensors that `take` returns by name and shape.
    ///
    /// # Errors
    /// Returns the errors of `take`.
    pub fn restore(
        config: &TrainConfig,
        steps: u64,
        params: &Params,
        take: Take<'_>,
    ) -> Result<Self> {
        let mut kept = Vec::new();
        for (name, t) in params.iter() {
            let parts: &[_] = if config.trains(name) {
                config.optimiser.kept(name, t.shape())
            } else {
                &[]
            };
            let tensors = parts.iter().map(|part| {
                let data = take(&format!("{part}{name}"), t.shape())?;
                Ok(Tensor::new(t.shape(), data))
            });
            kept.push(tensors.collect::<Result<_>>()?);
        }
        Ok(Self {
            optimiser: config.optimiser,
            weight_decay: config.weight_decay,
            clip_norm: config.clip_norm,
            steps,
            kept,
        })
    }

    /// The tensors by name.
    pub fn tensors(&self, params: &Params) -> impl Iterator<Item = (String, &Tensor)> {
        params.iter().zip(&self.kept).flat_map(|((name, t), kept)| {
            let parts = self.optimiser.kept(name, t.shape()).iter().zip(kept);
            parts.map(move |(part, kept)| (format!("{part}{name}"), kept))
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

    /// One step at this learning rate, of the trained parameters whose name is `active`. The others keep their values
    /// and their state, and do not decay. There is one number of steps for all, which AdamW's bias correction uses.
    pub fn step(
        &mut self,
        params: &mut Params,
        gradients: &Gradients,
        norms: Norms,
        lr: f64,
        active: &dyn Fn(&str) -> bool,
    ) {
        self.steps += 1;
        let clip = |norm: f64| (self.clip_norm / norm).min(1.0) as f32;
        let clips = [norms.trunk, norms.heads].map(clip);
        let base = self.adamw_step(lr);
        for id in params.ids().collect::<Vec<_>>() {
            let kept = self.kept[id.index()].as_mut_slice();
            let name = params.name(id);
            if kept.is_empty() || !active(name) {
                continue;
            }
            let shape = params.get(id).shape();
            let is_matrix = shape.len() == 2;
            let step = adamw::Step {
                clip: clips[usize::from(layout::is_head(name))],
                weight_decay: if is_matrix { base.weight_decay } else { 0.0 },
                ..base
            };
            let momentum = self.optimiser.momentum(name, shape);
            let gradient = gradients.get(id).data();
            let tensor = params.get_mut(id);
            let (rows, cols) = (tensor.rows(), tensor.cols());
            let w = tensor.data_mut();
            match (kept, momentum) {
                ([m], Some(momentum)) => {
                    let step = muon::Step {
                        lr: step.lr,
                        momentum: momentum as f32,
                        clip: step.clip,
                        weight_decay: step.weight_decay,
                    };
                    muon::update(step, rows, cols, w, m.data_mut(), gradient);
                }
                ([m, v], None) => adamw::update(step, w, m.data_mut(), v.data_mut(), gradient),
                _ => unreachable!("one tensor for Muon, two for AdamW"),
            }
        }
    }

    /// AdamW's numbers for this step and a parameter that decays, without clipping.
    fn adamw_step(&self, lr: f64) -> adamw::Step {
        let AdamW { beta1, beta2, eps } = self.optimiser.adamw();
        let unbias = |beta| (1.0 / (1.0 - scalar::powi(beta, self.steps))) as f32;
        adamw::Step {
            lr: lr as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            one_minus_beta1: (1.0 - beta1) as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            bias_correction1: unbias(beta1),
            bias_correction2: unbias(beta2),
            eps: eps as f32,
            clip: 1.0,
            weight_decay: self.weight_decay as f32,
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
                let config = TrainConfig {
                    optimiser: Optimiser::ADAMW,
                    ..TrainConfig::default()
                };
                let mut state = OptimiserState::new(&config, &params);
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
                    let norms = OptimiserState::norms(&params, &gradients);
                    assert!((norms.trunk - size).abs() < 1e-5 && (norms.heads - size).abs() < 1e-5);
                    state.step(&mut params, &gradients, norms, 0.01, &|_| true);
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
