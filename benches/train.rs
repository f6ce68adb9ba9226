//! Training steps of the shapes of the performance tables: `cargo bench --bench train`.
//!
//! One step is forward, backward, clipping and AdamW on random tokens, with K = 0 and K = 3 sequential heads. Times are
//! medians. Each case is one JSON line, with the peak memory in units of 2^20 bytes, as other programs report
//! `ru_maxrss`. A window has T + 1 tokens, so head k is trained on T − k positions of each.
//!
//! `-- small base` selects shapes, `k=3` and `threads=1` one of each, `steps=9` the number of timed steps; `profile`
//! prints the time of each operation.

mod shapes;

use foretoken::data::Batch;
use foretoken::kernels::par::Threads;
use foretoken::model::{JointLoss, Model};
use foretoken::profile;
use foretoken::train::event::peak_rss_mb;
use foretoken::train::{Optimiser, TrainConfig, Trainer};
use rand::{Rng, SeedableRng};
use shapes::{SHAPES, Shape, median, number};
use std::time::Instant;

fn main() {
    let named = |name: &str| std::env::args().any(|a| a == name);
    let all = !SHAPES.iter().any(|shape| named(shape.name));
    let steps = number("steps").unwrap_or(9).max(1);
    let threads = number("threads").map_or(vec![1, 2], |n| vec![n]);
    let depths = number("k").map_or(vec![0, 3], |k| vec![k]);
    for shape in SHAPES
        .iter()
        .filter(|s| if all { s.name != "110m" } else { named(s.name) })
    {
        for &depth in &depths {
            for &count in &threads {
                let pool = Threads::new(count).expect("a pool");
                pool.scope(|| measure(shape, depth, count, steps, named("profile")));
            }
        }
    }
}

fn measure(shape: &Shape, depth: usize, threads: usize, steps: usize, profiled: bool) {
    let model = Model::new(shape.config(depth), 1).expect("valid sizes");
    let params = model.params().elements();
    let vocab = model.config().vocab_size as u64;
    let mut config = TrainConfig::default();
    config.optimiser = Optimiser::ADAMW;
    let mut trainer = Trainer::new(model, config).expect("a valid configuration");
    let [context, sequences] = shape.batch;
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut step = || {
        let token = |_| (generator.next_u64() % vocab) as u32;
        let tokens = (0..sequences * (context + 1)).map(token).collect();
        let batch = Batch::new(sequences, context, tokens);
        let start = Instant::now();
        let report = trainer.step(&batch, JointLoss::default(), 3e-4);
        (
            start.elapsed().as_secs_f64(),
            report.expect("finite losses").loss,
        )
    };
    step();
    step();
    if profiled {
        profile::start();
    }
    let (mut times, mut loss) = (Vec::new(), 0.0);
    for _ in 0..steps {
        let (seconds, value) = step();
        times.push(seconds);
        loss = value;
    }
    let entries = profile::stop();
    let seconds = median(&mut times);
    let line = serde_json::json!({
        "impl": "foretoken", "config": shape.name, "k": depth, "threads": threads, "dtype": "f32", "params": params,
        "steps": steps, "ms_per_step": (seconds * 1e4).round() / 10.0, "ms_min": (times[0] * 1e4).round() / 10.0,
        "ms_max": (times[steps - 1] * 1e4).round() / 10.0,
        "tokens_per_s": ((sequences * context) as f64 / seconds).round(),
        "peak_rss_MB": (peak_rss_mb() / 1.048576).round(), "loss": loss,
    });
    println!("{line}");
    if profiled {
        print!("{}", profile::table(&entries, steps as u64));
    }
}
