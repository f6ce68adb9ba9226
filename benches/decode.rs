//! The cost of rows in decoding, and the fraction of the memory's bandwidth that one row reaches.
//!
//! `cargo bench --bench decode` runs it.
//!
//! Random weights in the shapes of the performance tables, no query and key norm, vocabulary 4096 (110m: 32000). After
//! a prefill of 128 tokens, passes of 1, 2, 4, 8 and 16 rows with their logits alternate with a plain read of as many
//! bytes as the stored weights have. Times are medians.
//!
//! `-- small base` picks shapes, `weights=q8` the format of the weights (default: f32, bf16 and q8), `threads=1` the
//! number of threads, `rows=1` one number of rows; `profile` prints the time of each operation; `save=DIR` writes the
//! model of a shape and measures nothing, for `foretoken generate DIR` and others. A pass of many rows, with `rows=128`
//! say, is a prefill.

mod shapes;

use foretoken::checkpoint::ModelDir;
use foretoken::data::Tokenizer;
use foretoken::exec::{CacheExec, Rows, SequenceCache};
use foretoken::kernels::par::Threads;
use foretoken::kernels::stream;
use foretoken::model::{Model, WeightFormat};
use foretoken::profile;
use shapes::{SHAPES, median, number};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Rows of a pass.
const ROWS: [usize; 5] = [1, 2, 4, 8, 16];
/// Position of the first row.
const POSITION: usize = 128;
/// All repeats of a shape together last this long.
const BUDGET: Duration = Duration::from_secs(6);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let threads = number("threads").map_or(vec![1, 2], |n| vec![n]);
    let rows = number("rows").map_or(ROWS.to_vec(), |n| vec![n]);
    let weights = args.iter().find_map(|a| a.strip_prefix("weights="));
    let formats =
        { WeightFormat::ALL.into_iter() }.filter(|f| weights.is_none_or(|w| w == f.name()));
    let formats: Vec<WeightFormat> = formats.collect();
    assert!(!formats.is_empty(), "weights: expected f32, bf16 or q8");
    let named = |name: &str| args.iter().any(|a| a == name);
    let all = !SHAPES.iter().any(|shape| named(shape.name));
    println!(
        "{:6} {:>7} {:>7} {:>8} {:>9} {:>10} {:>6}   cost of 2, 4, 8, 16 rows",
        "", "weights", "threads", "MB", "tokens/s", "GB/s", "share"
    );
    for shape in SHAPES.iter().filter(|s| all || named(s.name)) {
        let name = shape.name;
        if let Some(dir) = std::env::args().find_map(|a| a.strip_prefix("save=").map(String::from))
        {
            let model = Model::new(shape.config(0), 1).expect("valid sizes");
            ModelDir::create(dir.as_ref(), &model, &Tokenizer::bytes(), false)
                .expect("a new directory");
            return;
        }
        for format in &formats {
            let mut model = Model::new(shape.config(0), 1).expect("valid sizes");
            model.pack(*format);
            for &count in &threads {
                Threads::new(count)
                    .expect("a pool")
                    .scope(|| measure([name, format.name()], &model, count, &rows));
            }
        }
    }
}

fn measure([name, format]: [&str; 2], model: &Model, threads: usize, rows: &[usize]) {
    let layers = model.config().num_hidden_layers;
    let bytes = model.weight_bytes();
    let mut decode = CacheExec::new(model.params());
    let sequence = decode.add_sequence();
    let mut pass = |first: usize, rows: usize| {
        let tokens: Vec<u32> = (0..rows as u32).map(|i| i * 17 % 250).collect();
        let h = model.trunk(&mut decode, &tokens, &Rows::one(sequence, first, rows));
        black_box(model.logits(&mut decode, &h));
        for layer in 0..layers {
            decode.truncate(sequence, layer, POSITION.min(first + rows));
        }
    };
    pass(0, POSITION);
    // Random bits would do as well; that the pages are written matters.
    let memory = vec![1.0f32; bytes / 4];
    let (mut times, mut reads) = (vec![Vec::new(); rows.len()], Vec::new());
    let start = Instant::now();
    while start.elapsed() < BUDGET || reads.len() < 5 {
        reads.push(seconds(|| {
            black_box(stream::read(&memory));
        }));
        // The read leaves other memory in the caches, which a decoder would not find there.
        pass(POSITION, rows[0]);
        for (rows, times) in rows.iter().zip(&mut times) {
            times.push(seconds(|| pass(POSITION, *rows)));
        }
    }
    if std::env::args().any(|a| a == "profile") {
        for rows in rows {
            profile::start();
            const PASSES: u64 = 50;
            (0..PASSES).for_each(|_| pass(POSITION, *rows));
            println!(
                "{rows} row(s)\n{}",
                profile::table(&profile::stop(), PASSES)
            );
        }
    }
    let one = median(&mut times[0]);
    let share = median(&mut reads) / one;
    let cost: Vec<String> = times[1..]
        .iter_mut()
        .map(|t| format!("{:.2}", median(t) / one))
        .collect();
    println!(
        "{name:6} {format:>7} {threads:>7} {:>8.1} {:>9.0} {:>10.1} {share:>6.2}   {}",
        bytes as f64 * 1e-6,
        1.0 / one,
        bytes as f64 * 1e-9 / one,
        cost.join(", ")
    );
}

fn seconds(mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64()
}
