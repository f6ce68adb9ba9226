//! The crate under test. Apart from `noise`, nothing else here calls its kernels, operations and models.

use super::graph::Heads;
use super::model::{EPS, Kind, Recipe, Sizes, THETA};
use super::rules::{AdamW, Mat, Muon};
use foretoken::autograd::{GradSink, Gradients, Op, Tape, Var};
use foretoken::checkpoint::ModelDir;
use foretoken::data::Batch;
use foretoken::kernels::attention::AttentionHeads;
use foretoken::kernels::par::Threads;
use foretoken::kernels::rope::RopeTable;
use foretoken::kernels::{adamw, linear_cross_entropy, muon, reduce, swiglu};
use foretoken::model::{Config, HeadKind, JointLoss, Model, Preset};
use foretoken::ops;
use foretoken::simd::Isa;
use foretoken::simd::matrix::MatrixMut;
use foretoken::tensor::{Params, Tensor};
use foretoken::train::{Optimiser, Schedule, TrainConfig, Trainer};
use std::sync::{Arc, OnceLock};

/// Runs `f` on every instruction set, with 1, 2 and 3 threads.
pub fn everywhere(f: impl Fn(&str) + Sync) {
    static POOLS: OnceLock<Vec<Threads>> = OnceLock::new();
    let pools = POOLS.get_or_init(|| {
        let pool = |n| Threads::new(n).expect("a small pool");
        (1..=3).map(pool).collect()
    });
    for isa in Isa::all() {
        for (i, pool) in pools.iter().enumerate() {
            let place = format!("{}, {} threads", isa.name(), i + 1);
            isa.scope(|| pool.scope(|| f(&place)));
        }
    }
}

/// y, the gradients of all inputs after one backward pass, and after a second that continues from them.
pub type Ran = Vec<Vec<f32>>;

fn matrix(x: &Mat) -> Tensor {
    Tensor::new(&[x.rows(), x.cols], x.data.clone())
}

fn vector(x: &Mat) -> Tensor {
    Tensor::new(&[x.cols], x.data.clone())
}

fn run<O, const N: usize>(op: O, inputs: [Tensor; N], dy: &Mat) -> Ran
where
    O: Op<N> + Clone + 'static,
    O::Saved: 'static,
{
    let entries = inputs.into_iter().enumerate();
    let params = Params::new(entries.map(|(i, t)| (i.to_string(), t)).collect());
    let ids: Vec<_> = params.ids().collect();
    let mut gradients = Gradients::zeros(&params);
    let mut ran = Vec::new();
    for _ in 0..2 {
        let mut tape = Tape::default();
        let vars: [Var; N] =
            std::array::from_fn(|i| Var::parameter(ids[i], Arc::clone(params.get(ids[i]))));
        let y = tape.apply(op.clone(), vars.each_ref());
        if ran.is_empty() {
            ran.push(y.value().data().to_vec());
        }
        tape.backward(&[(&y, matrix(dy))], &mut gradients);
        ran.extend(ids.iter().map(|id| gradients.get(*id).data().to_vec()));
    }
    ran
}

fn attention_heads(heads: Heads) -> AttentionHeads {
    AttentionHeads {
        num_heads: heads.query,
        num_kv_heads: heads.key_value,
        head_dim: heads.size,
    }
}

pub fn embedding(x: &[Mat], ids: &[u32], dy: &Mat) -> Ran {
    run(ops::Embedding { ids: ids.into() }, [matrix(&x[0])], dy)
}

pub fn linear(x: &[Mat], dy: &Mat) -> Ran {
    match x {
        [x, w] => run(ops::Linear, [x, w].map(matrix), dy),
        [x, a, b, c] => run(ops::Linear, [x, a, b, c].map(matrix), dy),
        _ => panic!("one or three weights"),
    }
}

/// x, norm weight, three weights.
pub fn rms_norm_linear(x: &[Mat], dy: &Mat) -> Ran {
    let [a, b, c] = [&x[2], &x[3], &x[4]].map(matrix);
    let op = ops::RmsNormLinear { eps: EPS as f32 };
    run(op, [matrix(&x[0]), vector(&x[1]), a, b, c], dy)
}

/// x, norm weight, gate, up, down.
pub fn rms_norm_mlp(x: &[Mat], dy: &Mat) -> Ran {
    let [gate, up, down] = [&x[2], &x[3], &x[4]].map(matrix);
    let op = ops::RmsNormMlp { eps: EPS as f32 };
    run(op, [matrix(&x[0]), vector(&x[1]), gate, up, down], dy)
}

pub fn rms_norm(x: &[Mat], dy: &Mat) -> Ran {
    let op = ops::RmsNorm { eps: EPS as f32 };
    run(op, [matrix(&x[0]), vector(&x[1])], dy)
}

pub fn qk_norm(x: &[Mat], heads: Heads, dy: &Mat) -> Ran {
    let op = ops::QkNorm {
        heads: attention_heads(heads),
        eps: EPS as f32,
    };
    run(op, [matrix(&x[0]), vector(&x[1]), vector(&x[2])], dy)
}

pub fn rope(x: &[Mat], heads: Heads, lengths: &[usize], dy: &Mat) -> Ran {
    let positions = lengths.iter().flat_map(|n| 0..*n as u32);
    let op = ops::Rope {
        table: Arc::new(RopeTable::new(256, heads.size, THETA)),
        heads: attention_heads(heads),
        positions: positions.collect(),
    };
    run(op, [matrix(&x[0])], dy)
}

pub fn attention(x: &[Mat], heads: Heads, lengths: &[usize], dy: &Mat) -> Ran {
    let op = ops::Attention {
        heads: attention_heads(heads),
        lengths: lengths.into(),
    };
    run(op, [matrix(&x[0])], dy)
}

/// The kernel of a gated MLP as an operation of its own.
#[derive(Clone)]
struct SwiGlu;

impl Op<1> for SwiGlu {
    type Saved = Arc<Tensor>;

    fn forward(&self, [gu]: [&Arc<Tensor>; 1]) -> (Tensor, Arc<Tensor>) {
        let f = gu.cols() / 2;
        let mut y = Tensor::empty(&[gu.rows(), f]);
        swiglu::forward(gu.data(), f, y.data_mut());
        (y, Arc::clone(gu))
    }

    fn backward(&self, gu: Arc<Tensor>, mut dy: Tensor, sink: &mut GradSink<'_, 1>) {
        let mut dgu = Arc::unwrap_or_clone(gu);
        let f = dgu.cols() / 2;
        swiglu::backward(dgu.data_mut(), f, dy.data_mut());
        sink.add(0, dgu);
    }
}

pub fn swiglu(x: &[Mat], dy: &Mat) -> Ran {
    run(SwiGlu, [matrix(&x[0])], dy)
}

pub fn silu(x: &[Mat], dy: &Mat) -> Ran {
    run(ops::Silu, [matrix(&x[0])], dy)
}

pub fn add(x: &[Mat], dy: &Mat) -> Ran {
    run(ops::Add, [&x[0], &x[1]].map(matrix), dy)
}

pub fn add_bias(x: &[Mat], dy: &Mat) -> Ran {
    run(ops::AddBias, [matrix(&x[0]), vector(&x[1])], dy)
}

pub fn concat(x: &[Mat], dy: &Mat) -> Ran {
    run(ops::Concat, [&x[0], &x[1]].map(matrix), dy)
}

pub fn select_rows(x: &[Mat], keep: &[u32], dy: &Mat) -> Ran {
    let op = ops::SelectRows {
        indices: keep.into(),
    };
    run(op, [matrix(&x[0])], dy)
}

/// The loss as an operation: weighted loss, mean, fraction of hits; then the gradient of the logits.
pub fn cross_entropy(z: &Mat, targets: &[u32], weight: f64, total_targets: usize) -> Ran {
    let op = ops::CrossEntropy {
        targets: targets.into(),
        weight,
        total_targets,
    };
    let dy = Mat {
        cols: 3,
        data: vec![1.0, 0.0, 0.0],
    };
    run(op, [matrix(z)], &dy)
}

/// h [rows, C], W [V, C] -> losses, hits, dh, and dW continued from `dw`.
pub fn linear_cross_entropy(h: &Mat, w: &Mat, targets: &[u32], factor: f32, dw: &Mat) -> Ran {
    let rows = h.rows();
    let (mut dh, mut dw) = (Mat::zeros(rows, h.cols), dw.clone());
    let (left, right) = (matrix(h), matrix(w));
    let inputs = linear_cross_entropy::Inputs {
        h: left.matrix(),
        w: right.matrix(),
        targets,
        factor,
    };
    let gradients = linear_cross_entropy::Gradients {
        dh: Some(MatrixMut::new(&mut dh.data, rows, h.cols)),
        dw: Some(MatrixMut::new(&mut dw.data, w.rows(), w.cols)),
    };
    let [losses, hits] = linear_cross_entropy::forward_backward(inputs, gradients);
    vec![losses, hits, dh.data, dw.data]
}

pub fn squared_norm(x: &[f32]) -> f64 {
    reduce::squared_norm(x)
}

pub fn total(x: &[f32]) -> f64 {
    reduce::total(x)
}

pub fn adamw(s: AdamW, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    let unbias = |b: f64| (1.0 / (1.0 - foretoken::simd::scalar::powi(b, s.step))) as f32;
    let step = adamw::Step {
        lr: s.rate as f32,
        beta1: s.betas[0] as f32,
        beta2: s.betas[1] as f32,
        one_minus_beta1: (1.0 - s.betas[0]) as f32,
        one_minus_beta2: (1.0 - s.betas[1]) as f32,
        bias_correction1: unbias(s.betas[0]),
        bias_correction2: unbias(s.betas[1]),
        eps: s.eps as f32,
        clip: s.clip as f32,
        weight_decay: s.decay as f32,
    };
    adamw::update(step, w, m, v, g);
}

pub fn muon(s: Muon, w: &mut Mat, m: &mut [f32], g: &[f32]) {
    let step = muon::Step {
        lr: s.rate as f32,
        momentum: s.momentum as f32,
        clip: s.clip as f32,
        weight_decay: s.decay as f32,
    };
    muon::update(step, w.rows(), w.cols, &mut w.data, m, g);
}

fn config(sizes: &Sizes) -> Config {
    let kind = match sizes.kind {
        Kind::Recursive => HeadKind::Recursive,
        Kind::Sequential => HeadKind::Sequential,
        Kind::Parallel => HeadKind::Parallel,
        Kind::Medusa => HeadKind::Medusa,
    };
    let trunk = sizes.trunk;
    let mut config = Config {
        hidden_size: trunk.hidden,
        intermediate_size: trunk.mlp,
        num_hidden_layers: sizes.layers,
        num_attention_heads: trunk.heads.query,
        num_key_value_heads: trunk.heads.key_value,
        head_dim: trunk.heads.size,
        rms_norm_eps: EPS,
        rope_theta: THETA,
        tie_word_embeddings: sizes.tied,
        use_qk_norm: sizes.qk_norm,
        ..Preset::Tiny.config(sizes.vocab, kind, sizes.depth)
    };
    config.set_head_width(sizes.head.hidden);
    config
}

pub fn model(sizes: &Sizes, seed: u64) -> Model {
    Model::new(config(sizes), seed).expect("valid sizes")
}

/// A parameter with the gradient of the last step.
pub struct Param {
    pub name: String,
    pub shape: Vec<usize>,
    pub value: Vec<f32>,
    pub gradient: Vec<f32>,
}

/// A model in training.
pub struct Run {
    trainer: Trainer,
    recipe: Recipe,
}

/// Mean losses, their weighted sum, norms of trunk and heads.
pub struct Report {
    pub losses: Vec<f64>,
    pub loss: f64,
    pub norms: [f64; 2],
}

impl Run {
    pub fn new(sizes: &Sizes, seed: u64, recipe: Recipe) -> Self {
        let mut config = TrainConfig::default();
        config.optimiser = if recipe.muon {
            Optimiser::MUON
        } else {
            Optimiser::ADAMW
        };
        let trainer = Trainer::new(model(sizes, seed), config).expect("a valid configuration");
        Self { trainer, recipe }
    }

    pub fn step(&mut self, windows: &[Vec<u32>], rate: f64) -> Report {
        let batch = Batch::new(windows.len(), windows[0].len() - 1, windows.concat());
        let joint = JointLoss {
            lambda: self.recipe.lambda,
            beta: self.recipe.beta,
            ..JointLoss::default()
        };
        let report = self.trainer.step(&batch, joint, rate);
        let report = report.expect("finite losses");
        Report {
            losses: report.loss_heads,
            loss: report.loss,
            norms: [report.norms.trunk, report.norms.heads],
        }
    }

    /// Every parameter, in name order.
    pub fn params(&self) -> Vec<Param> {
        let (params, gradients) = (self.trainer.model().params(), self.trainer.gradients());
        let each = params.ids().map(|id| Param {
            name: params.name(id).to_owned(),
            shape: params.get(id).shape().to_vec(),
            value: params.get(id).data().to_vec(),
            gradient: gradients.get(id).data().to_vec(),
        });
        each.collect()
    }

    pub fn sha256(&self) -> String {
        ModelDir::sha256(self.trainer.model()).expect("finite weights")
    }
}

pub fn rate(peak: f64, step: u64, warmup: u64, steps: u64, wsd: bool) -> f64 {
    let mut config = TrainConfig::default();
    (config.peak_lr, config.steps, config.warmup) = (peak, steps, Some(warmup));
    config.schedule = if wsd { Schedule::Wsd } else { Schedule::Cosine };
    config.lr(step)
}
