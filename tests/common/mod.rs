//! What the tests of whole models share: small models of every kind, painted tokens, a training forward pass, a driver
//! of the decoding executor, and comparisons that name the first difference.

// Every test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

pub mod decoder;

use foretoken::autograd::Var;
use foretoken::exec::{Exec, Rows, Span, TapeExec};
use foretoken::kernels::par::Threads;
use foretoken::model::{Config, HeadKind, Model, Preset, WeightFormat};
use foretoken::ops::SelectRows;
use foretoken::simd::Isa;
use foretoken::tensor::Tensor;
use proptest::test_runner::{Config as ProptestConfig, FileFailurePersistence};

/// Sizes on, below and above the widths of lanes, tiles and panels.
pub const LENGTHS: [usize; 14] = [1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 65];

/// A small model to be: what the models of the tests differ in.
#[derive(Clone, Copy, Debug)]
pub struct Fixture {
    pub kind: HeadKind,
    /// Heads of half the width.
    pub narrow: bool,
    /// Two query heads share a key head.
    pub grouped: bool,
    /// K
    pub depth: usize,
    /// F
    pub width: usize,
    /// V
    pub vocab: usize,
}

impl Fixture {
    /// C 32, D 8, H 4, L 2, V 37, K 3. V and F are no multiples of a panel's width.
    pub fn small(kind: HeadKind, narrow: bool, grouped: bool) -> Self {
        Self {
            kind,
            narrow,
            grouped,
            depth: 3,
            width: 40,
            vocab: 37,
        }
    }

    /// Every kind, full width and narrow, with and without grouped heads.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for kind in HeadKind::ALL {
            for (narrow, grouped) in [(false, false), (true, false), (false, true), (true, true)] {
                all.push(Self::small(kind, narrow, grouped));
            }
        }
        all
    }

    /// Matrix multiplications large enough to be split over threads and, with F beyond any block's length, over blocks
    /// of k.
    pub fn wide(kind: HeadKind) -> Self {
        Self {
            width: 803,
            vocab: 259,
            ..Self::small(kind, true, true)
        }
    }

    pub fn config(&self) -> Config {
        let mut config = Config {
            hidden_size: 32,
            intermediate_size: self.width,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: if self.grouped { 2 } else { 4 },
            head_dim: 8,
            max_position_embeddings: 1024,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            // The two switches change together with a switch each, so that all four combinations occur.
            tie_word_embeddings: self.narrow,
            use_qk_norm: self.grouped,
            // The remaining fields play no part in a computation.
            ..Preset::Tiny.config(self.vocab, self.kind, self.depth)
        };
        config.set_head_width(if self.narrow { 16 } else { 32 });
        config
    }

    pub fn model(&self, seed: u64) -> Model {
        let mut model = Model::new(self.config(), seed).expect("valid sizes");
        excite(&mut model);
        model
    }

    /// The same model with its matrices packed.
    pub fn packed(&self, seed: u64) -> Model {
        self.stored(seed, WeightFormat::F32)
    }

    /// The same model with its matrices packed, and rounded, in a format.
    pub fn stored(&self, seed: u64, format: WeightFormat) -> Model {
        let mut model = self.model(seed);
        model.pack(format);
        model
    }
}

/// Initial values hide mistakes: weights of one, heads of zero, logits near zero. So constant tensors are painted, and
/// the embedding and the LM head are scaled up. A new value depends on the tensor's name only, as the initial one does.
fn excite(model: &mut Model) {
    for id in model.params().ids() {
        let name = model.params().name(id).to_owned();
        let salt = name.bytes().map(usize::from).sum::<usize>();
        let cols = model.params().get(id).cols();
        let data = model.params_mut().get_mut(id).data_mut();
        let (middle, spread) = match data[0] {
            _ if name.ends_with("embed_tokens.weight") || name == "lm_head.weight" => {
                data.iter_mut().for_each(|x| *x *= 16.0);
                continue;
            }
            first if data.iter().any(|x| *x != first) => continue,
            0.0 => (0.0, 1.0 / (cols as f32).sqrt()),
            first => (first, 0.4),
        };
        for (x, p) in data.iter_mut().zip(painted(salt)) {
            *x = middle + spread * p;
        }
    }
}

/// Values in −1..1 with a prime period.
pub fn painted(salt: usize) -> impl Iterator<Item = f32> {
    (0..).map(move |i: usize| ((i * 29 + salt * 17) % 241) as f32 / 120.0 - 1.0)
}

/// n tokens below `vocab` that do not repeat soon; different for each `salt`.
pub fn tokens(n: usize, vocab: usize, salt: usize) -> Vec<u32> {
    let token = |i: usize| ((i * i * 7 + i * 31 + salt * 53) % 241 % vocab) as u32;
    (0..n).map(token).collect()
}

/// Logits of one sequence of n tokens by depth 0..=K: [n − k, V] at depth k.
pub type Logits = Vec<Vec<f32>>;

/// The training forward pass on whole sequences in one batch -> [sequence] logits by depth.
///
/// Depth k is fed what [`Model::losses`] feeds it: positions i with i + k inside the sequence.
pub fn train_logits(exec: &mut TapeExec<'_>, model: &Model, sequences: &[Vec<u32>]) -> Vec<Logits> {
    let spans = sequences.iter().enumerate().map(|(slot, x)| Span {
        slot,
        first: 0,
        len: x.len(),
    });
    let whole = Rows::new(spans.collect());
    let h0 = model.trunk(exec, &sequences.concat(), &whole);
    let mut results = vec![Vec::new(); sequences.len()];
    split(&model.logits(exec, &h0), &whole, &mut results);
    let (mut h, mut rows) = (h0.clone(), whole.clone());
    for k in 1..=model.config().mtp_depth {
        let (source, of, drop) = match model.config().mtp_kind.chained() {
            true => (&h, &rows, 1),
            false => (&h0, &whole, k),
        };
        let (fewer, indices) = of.without_last(drop);
        if fewer.is_empty() {
            results.iter_mut().for_each(|logits| logits.push(vec![]));
            (h, rows) = (h.clone(), fewer);
            continue;
        }
        let selected = exec.apply(SelectRows { indices }, [source]);
        let head_inputs = sequences.iter().flat_map(|x| x.iter().skip(k));
        let head_inputs: Vec<u32> = head_inputs.copied().collect();
        h = model.head(exec, k, &selected, &head_inputs, &fewer);
        rows = fewer;
        split(&model.logits(exec, &h), &rows, &mut results);
    }
    let all = results.iter().flatten().flatten();
    assert!({ all }.all(|x| x.is_finite()), "logits are numbers");
    results
}

/// Gives each sequence its rows.
fn split(y: &Var, rows: &Rows, results: &mut [Logits]) {
    let (mut rest, cols) = (y.value().data(), y.value().cols());
    for (span, result) in rows.spans().iter().zip(results) {
        let (own, others) = rest.split_at(span.len * cols);
        result.push(own.to_vec());
        rest = others;
    }
}

/// [`train_logits`] of one sequence with nothing recorded: the answer that other ways of computing are compared with.
///
/// The sequence is lengthened by K tokens, so that there is an answer for every row of every depth: a kind that reads
/// h^0 only can draft before x_{i+k} is known.
pub fn answer(model: &Model, x: &[u32]) -> Logits {
    let config = model.config();
    let more = tokens(config.mtp_depth, config.vocab_size, 7);
    let mut exec = TapeExec::no_grad(model.params());
    train_logits(&mut exec, model, &[[x, &more].concat()]).remove(0)
}

/// Runs on an instruction set and a number of threads.
pub fn on<R: Send>(isa: Isa, threads: usize, f: impl FnOnce() -> R + Send) -> R {
    let pool = Threads::new(threads).expect("a small pool");
    isa.scope(|| pool.scope(f))
}

/// The bits that count: NaN is one value.
pub fn bits(x: f32) -> u32 {
    if x.is_nan() { f32::NAN } else { x }.to_bits()
}

/// Panics at the first element whose bits differ; rows of `cols` elements.
#[track_caller]
pub fn same_bits(what: &str, cols: usize, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}: number of elements");
    let pairs = || got.iter().zip(expected).enumerate();
    let mut different = pairs().filter(|(_, (a, b))| bits(**a) != bits(**b));
    if let Some((i, (a, b))) = different.next() {
        panic!(
            "{what}: row {}, column {}: {a:e} ({:08x}) instead of {b:e} ({:08x}), and {} more of {} differ",
            i / cols,
            i % cols,
            a.to_bits(),
            b.to_bits(),
            different.count(),
            got.len(),
        );
    }
}

/// [`same_bits`] of every depth's logits, for as many rows as there are; there may be more expected.
#[track_caller]
pub fn same_logits(what: &str, vocab: usize, got: &Logits, expected: &Logits) {
    assert_eq!(got.len(), expected.len(), "{what}: number of depths");
    for (k, (got, expected)) in got.iter().zip(expected).enumerate() {
        let what = format!("{what}, depth {k}");
        assert!(got.len() <= expected.len(), "{what}: too many rows");
        same_bits(&what, vocab, got, &expected[..got.len()]);
    }
}

/// A tensor of rows [n, cols].
pub fn matrix(cols: usize, data: Vec<f32>) -> Tensor {
    Tensor::new(&[data.len() / cols, cols], data)
}

/// Cases of a property test. A failure is saved next to the test's file, so that it can be committed.
pub fn cases(cases: u32) -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("regressions");
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(beside)),
        ..ProptestConfig::default()
    }
}
