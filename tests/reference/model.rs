//! A whole model and its training step: names, initial values, losses, gradients, clipping, the optimiser, the file.

use super::graph::{Graph, Heads, Id, cross_entropy, total};
use super::rules::{AdamW, Mat, Muon, clip, normal, squared_norm};
use std::collections::BTreeMap;

pub const EPS: f64 = 1e-6;
pub const THETA: f64 = 10_000.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Recursive,
    Sequential,
    Parallel,
    Medusa,
}

/// A transformer layer's sizes: C, its heads and F.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    pub hidden: usize,
    pub heads: Heads,
    pub mlp: usize,
}

#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub vocab: usize,
    pub layers: usize,
    pub trunk: Layer,
    pub kind: Kind,
    /// K
    pub depth: usize,
    /// A head's block; may be narrower than the trunk.
    pub head: Layer,
    pub tied: bool,
    pub qk_norm: bool,
}

/// How a run trains.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    pub muon: bool,
    pub lambda: f64,
    pub beta: f64,
}

#[derive(Clone, Debug)]
pub struct Param {
    pub shape: Vec<usize>,
    pub value: Mat,
    pub gradient: Mat,
    kept: [Vec<f32>; 2],
}

/// What a step reports: mean losses in nats, their weighted sum, norms of trunk and heads before clipping.
#[derive(Debug)]
pub struct Report {
    pub losses: Vec<f64>,
    pub loss: f64,
    pub norms: [f64; 2],
}

pub struct Model {
    sizes: Sizes,
    seed: u64,
    pub params: BTreeMap<String, Param>,
    steps: u64,
}

impl Model {
    /// A forward pass creates each parameter when it first uses it, so one is run here.
    pub fn new(sizes: Sizes, seed: u64) -> Self {
        let mut model = Self {
            sizes,
            seed,
            params: BTreeMap::new(),
            steps: 0,
        };
        Pass::new(&mut model).forward(&[vec![0; sizes.depth + 2]]);
        model
    }

    /// One step on windows of T + 1 tokens.
    pub fn step(&mut self, windows: &[Vec<u32>], recipe: Recipe, rate: f64) -> Report {
        let depth = self.sizes.depth;
        let powers = (1..depth).scan(1.0, |power, _| {
            *power *= recipe.beta;
            Some(*power)
        });
        let powers: Vec<f64> = std::iter::once(1.0).chain(powers).collect();
        let all: f64 = powers.iter().sum();
        let heads = powers.iter().map(|w| recipe.lambda * (w / all));
        let weights: Vec<f64> = std::iter::once(1.0).chain(heads).collect();

        let mut pass = Pass::new(self);
        let logits = pass.forward(windows);
        let (mut losses, mut roots) = (Vec::new(), Vec::new());
        for (k, z) in logits.into_iter().enumerate() {
            let targets: Vec<u32> = windows.iter().flat_map(|w| &w[k + 1..]).copied().collect();
            let factor = (weights[k] / targets.len() as f64) as f32;
            let (each, _, dz) = cross_entropy(&pass.graph.value(z), &targets, factor);
            losses.push(f64::from((total(&each) / targets.len() as f64) as f32));
            roots.push((z, dz));
        }
        let ids = pass.ids;
        let mut gradients = pass.graph.backward(roots);
        for (name, id) in ids {
            let param = self.params.get_mut(&name).expect("a parameter");
            param.gradient = gradients.accumulator(id).clone();
        }

        let mut squares = [0.0; 2];
        for (name, param) in &self.params {
            squares[of_heads(name)] += squared_norm(&param.gradient.data);
        }
        let norms = squares.map(f64::sqrt);
        self.steps += 1;
        for (name, param) in &mut self.params {
            param.update(
                name,
                recipe.muon,
                rate,
                clip(norms[of_heads(name)]),
                self.steps,
            );
        }
        let loss = losses.iter().zip(&weights).map(|(l, w)| l * w).sum();
        Report {
            losses,
            loss,
            norms,
        }
    }

    /// The bytes of `model.safetensors`: the length of the header, the header padded with spaces, the values.
    pub fn file(&self) -> Vec<u8> {
        let (mut header, mut values) = (r#"{"__metadata__":{"format":"pt"}"#.to_owned(), vec![]);
        for (name, param) in &self.params {
            let from = values.len();
            values.extend(param.value.data.iter().flat_map(|x| x.to_le_bytes()));
            let shape: Vec<String> = param.shape.iter().map(usize::to_string).collect();
            let (shape, end) = (shape.join(","), values.len());
            header += &format!(
                r#","{name}":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{from},{end}]}}"#
            );
        }
        header.push('}');
        let header = format!("{header:<0$}", header.len().next_multiple_of(8));
        [
            &(header.len() as u64).to_le_bytes(),
            header.as_bytes(),
            &values,
        ]
        .concat()
    }
}

/// Trunk or heads.
fn of_heads(name: &str) -> usize {
    usize::from(name.starts_with("mtp."))
}

impl Param {
    /// Matrices decay. Muon updates them, except those with a row per token.
    fn update(&mut self, name: &str, muon: bool, rate: f64, clip: f64, step: u64) {
        let matrix = self.shape.len() == 2;
        let decay = if matrix { 0.1 } else { 0.0 };
        let tokens = ["model.embed_tokens.weight", "lm_head.weight"].contains(&name);
        let [m, v] = &mut self.kept;
        if muon && matrix && !tokens {
            let muon = Muon {
                rate,
                momentum: 0.95,
                clip,
                decay,
            };
            return muon.update(&mut self.value, m, &self.gradient.data);
        }
        let adamw = AdamW {
            rate,
            betas: [0.9, 0.95],
            eps: 1e-8,
            clip,
            decay,
            step,
        };
        adamw.update(&mut self.value.data, m, v, &self.gradient.data);
    }
}

/// Initial values.
enum Init {
    One,
    Zero,
    /// Normally distributed, with this standard deviation.
    Normal(f64),
}

/// A forward pass, with the parameters that it has used so far.
struct Pass<'a> {
    model: &'a mut Model,
    graph: Graph,
    ids: BTreeMap<String, Id>,
}

impl<'a> Pass<'a> {
    fn new(model: &'a mut Model) -> Self {
        let (graph, ids) = (Graph::new(), BTreeMap::new());
        Self { model, graph, ids }
    }

    fn param(&mut self, name: String, shape: &[usize], init: Init) -> Id {
        let (graph, seed) = (&mut self.graph, self.model.seed);
        let param = { self.model.params.entry(name.clone()) }.or_insert_with(|| {
            let n = shape.iter().product();
            let data = match init {
                Init::One => vec![1.0; n],
                Init::Zero => vec![0.0; n],
                Init::Normal(deviation) => normal(seed, &name, n, deviation),
            };
            let cols = shape[shape.len() - 1];
            Param {
                shape: shape.to_vec(),
                value: Mat { cols, data },
                gradient: Mat::zeros(n / cols, cols),
                kept: [vec![0.0; n], vec![0.0; n]],
            }
        });
        let zeros = Mat::zeros(param.value.rows(), param.value.cols);
        let make = || graph.parameter(param.value.clone(), zeros);
        *self.ids.entry(name).or_insert_with(make)
    }

    /// A matrix that keeps the size of its input: deviation 1 / √inputs.
    fn matrix(&mut self, name: String, shape: [usize; 2]) -> Id {
        let deviation = 1.0 / (shape[1] as f64).sqrt();
        self.param(name + ".weight", &shape, Init::Normal(deviation))
    }

    /// One of as many matrices that add to a residual stream: deviation 1 / √(inputs · terms).
    fn residual(&mut self, name: String, shape: [usize; 2], terms: f64) -> Id {
        let deviation = 1.0 / (shape[1] as f64 * terms).sqrt();
        self.param(name + ".weight", &shape, Init::Normal(deviation))
    }

    fn tokens(&mut self, name: &str) -> Id {
        let shape = [self.model.sizes.vocab, self.model.sizes.trunk.hidden];
        self.param(name.to_owned(), &shape, Init::Normal(0.02))
    }

    fn norm(&mut self, x: Id, name: String) -> Id {
        let width = self.graph.value(x).cols;
        let weight = self.param(name + ".weight", &[width], Init::One);
        self.graph.norm(x, EPS as f32, vec![(weight, 0, 1)])
    }

    /// One layer of a stack that adds `terms` terms to its residual stream.
    fn layer(&mut self, prefix: &str, x: Id, layer: Layer, terms: f64, lengths: &[usize]) -> Id {
        let Layer {
            hidden: c,
            heads,
            mlp: f,
        } = layer;
        let name = |part: &str| format!("{prefix}{part}");
        let (q, kv) = (heads.query * heads.size, heads.key_value * heads.size);
        let n = self.norm(x, name("input_layernorm"));
        let qkv = [("q", q), ("k", kv), ("v", kv)];
        let qkv = qkv.map(|(part, n)| self.matrix(name(&format!("self_attn.{part}_proj")), [n, c]));
        let mut y = self.graph.linear(n, &qkv);
        if self.model.sizes.qk_norm {
            let weights = ["q", "k"].map(|part| {
                let name = name(&format!("self_attn.{part}_norm.weight"));
                self.param(name, &[heads.size], Init::One)
            });
            let segments = vec![
                (weights[0], 0, heads.query),
                (weights[1], q, heads.key_value),
            ];
            y = self.graph.norm(y, EPS as f32, segments);
        }
        y = self.graph.rope(y, heads, THETA, lengths);
        y = self.graph.attention(y, heads, lengths);
        let o = self.residual(name("self_attn.o_proj"), [c, q], terms);
        y = self.graph.linear(y, &[o]);
        let x = self.graph.add(x, y);
        let n = self.norm(x, name("post_attention_layernorm"));
        let gu = ["gate", "up"].map(|part| self.matrix(name(&format!("mlp.{part}_proj")), [f, c]));
        y = self.graph.linear(n, &gu);
        y = self.graph.swiglu(y);
        let down = self.residual(name("mlp.down_proj"), [c, f], terms);
        y = self.graph.linear(y, &[down]);
        self.graph.add(x, y)
    }

    /// Logits of the main head and of every prediction head.
    fn forward(&mut self, windows: &[Vec<u32>]) -> Vec<Id> {
        let (sizes, t) = (self.model.sizes, windows[0].len() - 1);
        let read = |from: usize, len: usize| -> Vec<u32> {
            windows
                .iter()
                .flat_map(|w| &w[from..from + len])
                .copied()
                .collect()
        };
        let table = self.tokens("model.embed_tokens.weight");
        let output = if sizes.tied {
            table
        } else {
            self.tokens("lm_head.weight")
        };
        let mut x = self.graph.embedding(table, &read(0, t));
        for l in 0..sizes.layers {
            let (prefix, terms) = (format!("model.layers.{l}."), 2.0 * sizes.layers as f64);
            x = self.layer(&prefix, x, sizes.trunk, terms, &vec![t; windows.len()]);
        }
        let mut states = vec![self.norm(x, "model.norm".to_owned())];
        let mut logits = vec![self.graph.linear(states[0], &[output])];
        for k in 1..=sizes.depth {
            let chained = matches!(sizes.kind, Kind::Recursive | Kind::Sequential);
            let source = if chained { k - 1 } else { 0 };
            // Position i has a target if x_{i+k+1} is in the window.
            let row = |w: usize| (0..t - k).map(move |i| (w * (t - source) + i) as u32);
            let keep: Vec<u32> = (0..windows.len()).flat_map(row).collect();
            let h = self.graph.select_rows(states[source], &keep);
            let e = chained.then(|| self.graph.embedding(table, &read(k, t - k)));
            states.push(self.head(k, e, h, &vec![t - k; windows.len()]));
            logits.push(self.graph.linear(states[k], &[output]));
        }
        logits
    }

    /// h^k from the embeddings of x_{i+k}, if it reads them, and from the state that it reads.
    fn head(&mut self, k: usize, e: Option<Id>, h: Id, lengths: &[usize]) -> Id {
        let sizes = self.model.sizes;
        let prefix = match sizes.kind {
            Kind::Recursive => "mtp.".to_owned(),
            _ => format!("mtp.modules.{}.", k - 1),
        };
        let name = |part: &str| format!("{prefix}{part}");
        let (c, width) = (sizes.trunk.hidden, sizes.head.hidden);
        let is_narrow = width != c;
        let mut u = h;
        if is_narrow && e.is_none() {
            let down = self.matrix(name("down"), [width, c]);
            u = self.graph.linear(h, &[down]);
        }
        if sizes.kind == Kind::Medusa {
            let last = if is_narrow { "up" } else { "linear" };
            let shape = [c, width];
            let w = self.param(name(&format!("{last}.weight")), &shape, Init::Zero);
            let b = self.param(name(&format!("{last}.bias")), &[c], Init::Zero);
            u = self.graph.linear(u, &[w]);
            u = self.graph.add_bias(u, b);
            u = self.graph.silu(u);
            return self.graph.add(h, u);
        }
        if let Some(e) = e {
            let e = self.norm(e, name("pre_fc_norm_embedding"));
            let h = self.norm(h, name("pre_fc_norm_hidden"));
            let both = self.graph.concat(e, h);
            let fc = self.matrix(name("fc"), [width, 2 * c]);
            u = self.graph.linear(both, &[fc]);
        }
        // A block has two terms.
        let mut y = self.layer(&name("layers.0."), u, sizes.head, 2.0, lengths);
        if is_narrow {
            let up = self.matrix(name("up"), [c, width]);
            y = self.graph.linear(y, &[up]);
        }
        self.norm(y, name("norm"))
    }
}
