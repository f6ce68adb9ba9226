//! Memory of a training step: `cargo bench --bench memory`.
//!
//! The largest resident memory of a process that makes two steps of `small` (T = 256, B = 16) with a vocabulary of
//! 4096, for every kind of head, K = 0 and K = 3. The heads' own parameters, gradients and moments are subtracted; the
//! rest should hardly depend on K. `per head` is [`Model::backward`], and `tape` records the whole graph, for comparison.
//! Memory is read from `/proc`, so this prints zeros on systems other than Linux. `-- recursive` selects kinds.

use foretoken::autograd::Gradients;
use foretoken::data::RandomWindows;
use foretoken::exec::TapeExec;
use foretoken::model::{HeadKind, JointLoss, Model, Preset};
use foretoken::train::{Optimiser, TrainConfig, Trainer, event::peak_rss_mb};
use std::process::Command;

const VOCAB: usize = 4096;
/// B and T
const BATCH: usize = 16;
const CONTEXT: usize = 256;
/// Parameters, gradients and the two moments of AdamW, which keeps more than Muon.
const COPIES: usize = 4;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["measure", kind, depth, way] = words[..] {
        return measure(kind, depth.parse().expect("a number of heads"), way);
    }
    println!("kind        way    K  largest MB  heads' own MB  the rest / K = 0");
    for way in ["per head", "tape"] {
        let base = peak("recursive", 0, way);
        println!("{:<11} {way}   0  {base:>10.0}", "-");
        for kind in HeadKind::ALL.map(HeadKind::name) {
            let named = |word: &&str| HeadKind::ALL.iter().any(|k| k.name() == *word);
            if words.iter().any(named) && !words.contains(&kind) {
                continue;
            }
            let (max, own) = (peak(kind, 3, way), own_mb(kind, 3));
            let ratio = (max - own) / base;
            println!("{kind:<11} {way}   3  {max:>10.0}  {own:>13.1}  {ratio:.3}");
        }
    }
}

fn model(kind: &str, depth: usize) -> Model {
    let kind = HeadKind::ALL.into_iter().find(|k| k.name() == kind);
    let config = Preset::Small.config(VOCAB, kind.expect("a kind"), depth);
    Model::new(config, 1).expect("valid sizes")
}

/// MB of the heads' parameters, gradients and moments.
fn own_mb(kind: &str, depth: usize) -> f64 {
    let counts = model(kind, depth).parameter_counts();
    (counts.heads * COPIES * size_of::<f32>()) as f64 / 1e6
}

/// The largest resident memory of a process of its own, in MB.
fn peak(kind: &str, depth: usize, way: &str) -> f64 {
    let this = std::env::current_exe().expect("a program");
    let words = ["measure", kind, &depth.to_string(), way];
    let output = Command::new(this).args(words).output().expect("a process");
    let text = String::from_utf8(output.stdout).expect("text");
    text.trim().parse().unwrap_or_else(|_| {
        let errors = String::from_utf8_lossy(&output.stderr);
        panic!("{words:?}: {text}{errors}")
    })
}

fn measure(kind: &str, depth: usize, way: &str) {
    let tokens: Vec<u32> = (0..100_000u32).map(|i| i * 7 % VOCAB as u32).collect();
    let windows = RandomWindows::new(tokens, CONTEXT, BATCH, 1).expect("enough tokens");
    let mut config = TrainConfig::default();
    config.optimiser = Optimiser::ADAMW;
    let mut trainer = Trainer::new(model(kind, depth), config).expect("a valid configuration");
    if way == "tape" {
        let model = trainer.model();
        let mut gradients = Gradients::zeros(model.params());
        for step in 0..2 {
            let mut tape = TapeExec::new(model.params());
            let batch = windows.batch(step).expect("in memory");
            let reports = model.losses(&mut tape, &batch, JointLoss::default());
            let losses: Vec<_> = reports.into_iter().map(|r| r.value).collect();
            tape.backward(&losses, &mut gradients);
        }
    } else {
        for step in 0..2 {
            let batch = windows.batch(step).expect("in memory");
            let done = trainer.step(&batch, JointLoss::default(), 1e-3);
            done.expect("finite losses");
        }
    }
    println!("{}", peak_rss_mb());
}
