//! Matrix multiplication on a GPU compared with cuBLAS in f32: `cargo bench --features cuda --bench cuda`.
//!
//! Each scenario alternates the two and compares medians. cuBLAS runs in its default mode, which does not use TF32; it
//! is loaded at run time, and its columns stay empty if it is missing. A matrix multiplication is 2 · M · N · K
//! operations. GB/s are the bytes of the weights, or those that a copy reads and writes. Times include launches, which
//! do not wait for each other.

#[allow(unsafe_code)]
mod cublas;

use cublas::Cublas;
use foretoken::gpu::{Device, Matrix, matmul_nt};
use std::time::{Duration, Instant};

/// Interleaved repeats of a scenario.
const REPEATS: usize = 15;
/// Approximate length of a sample.
const SAMPLE: Duration = Duration::from_millis(30);

/// y [m, n] = x [m, k] · wᵀ, w [n, k].
#[derive(Clone, Copy)]
struct Sizes {
    m: usize,
    k: usize,
    n: usize,
}

fn main() {
    let device = match Device::open() {
        Ok(device) => device,
        Err(why) => return println!("nothing to measure: {why}"),
    };
    let cublas = Cublas::open();
    println!("{}", device.name());
    if let Err(why) = &cublas {
        println!("no cuBLAS to compare with: {why}");
    }
    let cublas = cublas.ok();
    many_rows(&device, cublas.as_ref());
    few_rows(&device, cublas.as_ref());
}

fn many_rows(device: &Device, cublas: Option<&Cublas>) {
    println!(
        "\n{:32} {:>10} {:>10} {:>7}",
        "TFLOP/s", "foretoken", "cuBLAS", "ratio"
    );
    let show = |name: &str, m, k, n| {
        let work = 2.0 * (m * k * n) as f64 * 1e-12;
        let (ours, theirs) = compare(device, cublas, Sizes { m, k, n }, 1);
        let (ours, theirs) = (work / ours, theirs.map(|time| work / time));
        println!("{name:32} {ours:>10.2} {}", columns(ours, theirs));
    };
    for n in [1024, 4096] {
        show(&format!("square {n}"), n, n, n);
    }
    // A long prefill's matrices from C to N features.
    let rows = 4096;
    for (c, n) in [
        (256, 256),
        (256, 688),
        (512, 1376),
        (1024, 2816),
        (1024, 32768),
    ] {
        show(&format!("prefill {rows} rows {c} -> {n}"), rows, c, n);
    }
}

fn few_rows(device: &Device, cublas: Option<&Cublas>) {
    let words = 1 << 26;
    let (from, to) = (device.empty(words), device.empty(words));
    let mut copy = |_| device.copy(&from, 0..words, &to, 0);
    let times = (0..REPEATS).map(|_| seconds(device, 20, &mut copy));
    let copy = 8.0 * words as f64 * 1e-9 / median(times.collect());
    drop((from, to));
    println!("\ncopy on the device: {copy:.0} GB/s");
    println!(
        "{:32} {:>10} {:>8} {:>6} {:>10} {:>7}",
        "GB/s", "foretoken", "of copy", "cost", "cuBLAS", "ratio"
    );
    // Several weights in turn, more than the second-level cache holds.
    for (k, n, weights) in [(1024, 1024, 64), (4096, 4096, 4), (1024, 32768, 4)] {
        let mut one = None;
        for m in [1, 2, 4, 8, 16, 32] {
            let (ours, theirs) = compare(device, cublas, Sizes { m, k, n }, weights);
            let bytes = 4.0 * (k * n) as f64 * 1e-9;
            // Time relative to one row.
            let cost = ours / *one.get_or_insert(ours);
            let (ours, theirs) = (bytes / ours, theirs.map(|time| bytes / time));
            let share = 100.0 * ours / copy;
            let name = format!("{m} rows {k} -> {n}");
            println!(
                "{name:32} {ours:>10.0} {share:>7.0}% {cost:>6.2} {}",
                columns(ours, theirs)
            );
        }
    }
}

/// The columns for cuBLAS.
fn columns(ours: f64, theirs: Option<f64>) -> String {
    match theirs {
        Some(theirs) => format!("{theirs:>10.2} {:>7.2}", ours / theirs),
        None => format!("{:>10} {:>7}", "-", "-"),
    }
}

/// Seconds per matrix multiplication, ours and theirs, of one x with several weights in turn.
fn compare(
    device: &Device,
    cublas: Option<&Cublas>,
    sizes: Sizes,
    weights: usize,
) -> (f64, Option<f64>) {
    let Sizes { m, k, n } = sizes;
    let x = Matrix::new(&device.upload(&pattern(m * k)), 0, m, k);
    let weight = |_| Matrix::new(&device.upload(&pattern(k * n)), 0, n, k);
    let ws: Vec<Matrix> = (0..weights).map(weight).collect();
    let mut ours = |turn: usize| {
        matmul_nt(&x, &ws[turn % weights]);
    };
    let buffers = cublas.and_then(|cublas| cublas.buffers(sizes, weights).ok());
    let mut theirs = |turn: usize| {
        if let Some(buffers) = &buffers {
            buffers.matmul(turn % weights);
        }
    };
    let mut all: [&mut dyn FnMut(usize); 2] = [&mut ours, &mut theirs];
    let counts = all.each_mut().map(|f| count(device, f));
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..REPEATS {
        for ((f, count), times) in all.iter_mut().zip(counts).zip(&mut times) {
            times.push(seconds(device, count, f));
        }
    }
    let [ours, theirs] = times.map(median);
    (ours, buffers.is_some().then_some(theirs))
}

/// The same numbers for both, because the operands influence a GPU's power and so its clock.
fn pattern(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 251) as f32 * 0.01 - 1.0).collect()
}

/// Launches per sample.
fn count(device: &Device, f: &mut dyn FnMut(usize)) -> usize {
    seconds(device, 2, f);
    let once = seconds(device, 4, f);
    (SAMPLE.as_secs_f64() / once.max(1e-7)).ceil() as usize
}

/// Seconds per launch until all are done.
fn seconds(device: &Device, count: usize, f: &mut dyn FnMut(usize)) -> f64 {
    let last = device.upload(&[0.0]);
    let wait = || device.read(&last, 0..1).expect("a GPU that works");
    wait();
    let start = Instant::now();
    (0..count).for_each(&mut *f);
    wait();
    start.elapsed().as_secs_f64() / count as f64
}

fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}
