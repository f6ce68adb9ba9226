//! Matrix products on a GPU against cuBLAS in f32: `cargo bench --features cuda --bench cuda`.
//!
//! Each scenario alternates the two and compares medians. cuBLAS runs in its default mode, which is without TF32
//! for products of f32; it is loaded at run time, and where it is missing its columns stay empty. TFLOP/s count 2 · M · N · K
//! operations a product, GB/s the bytes of the weights, and those that a copy reads and writes. Times include launches,
//! and products are launched without waiting for the one before.

#[allow(unsafe_code)]
mod cublas;

use cublas::Cublas;
use foretoken::gpu::products::{Matrix, matmul};
use foretoken::gpu::{Array, Device};
use foretoken::kernels::gemm::Start;
use std::time::{Duration, Instant};

/// Interleaved repeats of a scenario.
const REPEATS: usize = 15;
/// A sample lasts about this long.
const SAMPLE: Duration = Duration::from_millis(30);

/// c [m, n] = a [m, k] · b [k, n], each packed in rows; a or b may be kept transposed.
#[derive(Clone, Copy)]
struct Sizes {
    m: usize,
    k: usize,
    n: usize,
    /// Whether a is kept as [k, m] and b as [n, k].
    transposed: [bool; 2],
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
    let show = |name: &str, m, k, n, transposed| {
        let sizes = Sizes {
            m,
            k,
            n,
            transposed,
        };
        let work = 2.0 * (m * k * n) as f64 * 1e-12;
        let (ours, theirs) = compare(device, cublas, sizes, 1);
        let (ours, theirs) = (work / ours, theirs.map(|time| work / time));
        println!("{name:32} {ours:>10.2} {}", beside(ours, theirs));
    };
    for n in [1024, 4096] {
        show(&format!("square {n}"), n, n, n, [false, true]);
    }
    // A training step's matrices from C to N features.
    let rows = 4096;
    for (c, n) in [
        (256, 256),
        (256, 688),
        (512, 1376),
        (1024, 2816),
        (1024, 32768),
    ] {
        show(
            &format!("train {rows} rows {c} -> {n}"),
            rows,
            c,
            n,
            [false, true],
        );
        show(
            &format!("train {rows} rows {c} <- {n} dx"),
            rows,
            n,
            c,
            [false; 2],
        );
        show(
            &format!("train {rows} rows {c} x {n} dW"),
            n,
            rows,
            c,
            [true, false],
        );
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
    // Several weights one after the other, more than the second-level cache holds.
    for (k, n, weights) in [(1024, 1024, 64), (4096, 4096, 4), (1024, 32768, 4)] {
        let mut one = None;
        for m in [1, 2, 4, 8, 16, 32] {
            let transposed = [false, true];
            let sizes = Sizes {
                m,
                k,
                n,
                transposed,
            };
            let (ours, theirs) = compare(device, cublas, sizes, weights);
            let bytes = 4.0 * (k * n) as f64 * 1e-9;
            // What so many rows cost, when one row costs 1.
            let cost = ours / *one.get_or_insert(ours);
            let (ours, theirs) = (bytes / ours, theirs.map(|time| bytes / time));
            let share = 100.0 * ours / copy;
            let name = format!("{m} rows {k} -> {n}");
            println!(
                "{name:32} {ours:>10.0} {share:>7.0}% {cost:>6.2} {}",
                beside(ours, theirs)
            );
        }
    }
}

/// The columns of cuBLAS.
fn beside(ours: f64, theirs: Option<f64>) -> String {
    match theirs {
        Some(theirs) => format!("{theirs:>10.2} {:>7.2}", ours / theirs),
        None => format!("{:>10} {:>7}", "-", "-"),
    }
}

/// Seconds a product, ours and theirs, of one left operand with so many right ones in turn.
fn compare(
    device: &Device,
    cublas: Option<&Cublas>,
    sizes: Sizes,
    rights: usize,
) -> (f64, Option<f64>) {
    let Sizes {
        m,
        k,
        n,
        transposed,
    } = sizes;
    let (a, c) = (device.upload(&pattern(m * k)), device.empty(m * n));
    let bs: Vec<Array> = (0..rights)
        .map(|_| device.upload(&pattern(k * n)))
        .collect();
    let view = |array, rows, cols, transposed| match transposed {
        false => Matrix::new(array, rows, cols),
        true => Matrix::new(array, cols, rows).t(),
    };
    let mut ours = |turn: usize| {
        let b = view(&bs[turn % rights], k, n, transposed[1]);
        let c = Matrix::new(&c, m, n);
        matmul(device, view(&a, m, k, transposed[0]), b, c, Start::Zero);
    };
    let buffers = cublas.and_then(|cublas| cublas.buffers(sizes, rights).ok());
    let mut theirs = |turn: usize| {
        if let Some(buffers) = &buffers {
            buffers.matmul(turn % rights);
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

/// The same numbers for both: what is multiplied shows in the power that a GPU takes, and so in its clock.
fn pattern(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 251) as f32 * 0.01 - 1.0).collect()
}

/// How often in a sample.
fn count(device: &Device, f: &mut dyn FnMut(usize)) -> usize {
    seconds(device, 2, f);
    let once = seconds(device, 4, f);
    (SAMPLE.as_secs_f64() / once.max(1e-7)).ceil() as usize
}

/// Seconds until what is launched so often is done, a launch.
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
