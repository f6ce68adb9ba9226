//! Matrix products against matrixmultiply and the crate gemm: `cargo bench --bench gemm`.
//!
//! Each scenario alternates the libraries and compares medians, so that a slow moment of the machine meets all of them.
//! matrixmultiply reads its number of threads from the environment once, so each number of threads is a process of
//! its own. GFLOP/s count 2 · M · N · K operations a product. All three are asked for x Wᵀ; in the scenarios of decoding
//! our weights are packed once, as a decoder holds them, and theirs are as they are.

mod peers;

use foretoken::kernels::gemm::{Panels, Right, Start, View, product};
use foretoken::kernels::par::Threads;
use foretoken::simd::{Isa, Kernel, LANES, Simd, matrix::MatrixMut, run};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Interleaved repeats of a scenario.
const REPEATS: usize = 15;
/// A sample lasts at least this long.
const SAMPLE: Duration = Duration::from_millis(8);

fn main() {
    if let Some(threads) =
        std::env::args().find_map(|a| a.strip_prefix("threads=").map(str::to_owned))
    {
        let threads = threads.parse().expect("a number of threads");
        return Threads::new(threads)
            .expect("a pool")
            .scope(|| scenarios(threads));
    }
    println!("instruction set: {}", Isa::current().name());
    println!(
        "register-only multiply-add peak, one core: {:.0} GFLOP/s",
        peak()
    );
    let program = std::env::current_exe().expect("this program");
    for threads in ["1", "2"] {
        let status = std::process::Command::new(&program)
            .arg(format!("threads={threads}"))
            .env("MATMUL_NUM_THREADS", threads)
            .status()
            .expect("a child process");
        assert!(status.success(), "{threads} threads: {status}");
    }
}

fn scenarios(threads: usize) {
    println!("\n{threads} thread(s)");
    println!(
        "{:28} {:>10} {:>14} {:>7} {:>8} {:>7}",
        "", "foretoken", "matrixmultiply", "ratio", "gemm", "ratio"
    );
    for n in [512, 1024, 2048] {
        compare(&format!("{n} x {n} x {n}"), [n; 3], false, threads);
    }
    for (k, n) in [(256, 256), (256, 704), (704, 256), (256, 4096)] {
        compare(
            &format!("train 4096 rows {k} -> {n}"),
            [4096, k, n],
            false,
            threads,
        );
    }
    for rows in [1, 2, 4, 8, 16] {
        for (k, n) in [(512, 512), (512, 1376), (512, 4096)] {
            let name = format!("decode {rows} rows {k} -> {n}");
            compare(&name, [rows, k, n], true, threads);
        }
    }
}

/// x [m, k] · Wᵀ [k, n]; with `packed` our weights are packed once, as decoding holds them.
fn compare(name: &str, sizes: [usize; 3], packed: bool, threads: usize) {
    let [m, k, n] = sizes;
    let fill = |len: usize| {
        (0..len)
            .map(|i| (i % 251) as f32 * 0.01 - 1.0)
            .collect::<Vec<_>>()
    };
    let (x, w) = (fill(m * k), fill(n * k));
    let mut y = vec![0.0; m * n];
    let weights = View::new(&w, n, k).t();
    let panels = Panels::pack(weights);
    let right = if packed {
        Right::Packed(&panels)
    } else {
        Right::Matrix(weights)
    };
    let mut ours = || {
        product(
            View::new(&x, m, k),
            right,
            MatrixMut::new(black_box(&mut y), m, n),
            Start::Zero,
        );
    };
    let mut z = vec![0.0; m * n];
    let mut first = || peers::matrixmultiply(sizes, &x, &w, black_box(&mut z));
    let mut z = vec![0.0; m * n];
    let mut second = || peers::gemm(sizes, &x, &w, black_box(&mut z), threads);
    let mut all: [&mut dyn FnMut(); 3] = [&mut ours, &mut first, &mut second];
    let counts = all.each_mut().map(|f| {
        f();
        let once = seconds(1, f);
        (SAMPLE.as_secs_f64() / once.max(1e-9)).ceil() as usize
    });
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..REPEATS {
        for ((f, count), times) in all.iter_mut().zip(counts).zip(&mut times) {
            times.push(seconds(count, f));
        }
    }
    let flops = 2.0 * (m * n * k) as f64 * 1e-9;
    let [ours, first, second] = times.map(|times| flops / median(times));
    println!(
        "{name:28} {ours:>10.1} {first:>14.1} {:>7.2} {second:>8.1} {:>7.2}",
        ours / first,
        ours / second
    );
}

fn seconds(count: usize, f: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        f();
    }
    start.elapsed().as_secs_f64() / count as f64
}

fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}

/// Ten independent chains of multiply-adds in registers: what one core can do at most.
struct Peak(usize);

impl Kernel for Peak {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (x, y) = (s.splat(black_box(0.999)), s.splat(black_box(1e-3)));
        let mut acc = [s.splat(0.0); 10];
        for _ in 0..self.0 {
            for a in &mut acc {
                *a = s.fma(*a, x, y);
            }
        }
        let mut total = s.splat(0.0);
        for a in acc {
            total = s.add(total, a);
        }
        s.sum(total)
    }
}

/// GFLOP/s of [`Peak`], median.
fn peak() -> f64 {
    let steps = 2_000_000;
    let time = |_| {
        seconds(1, &mut || {
            black_box(run(Peak(black_box(steps))));
        })
    };
    (steps * 10 * LANES * 2) as f64 * 1e-9 / median((0..REPEATS).map(time).collect())
}
