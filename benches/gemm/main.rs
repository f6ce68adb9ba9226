//! Matrix multiplication compared with the crates matrixmultiply and gemm: `cargo bench --bench gemm`.
//!
//! Each scenario alternates the libraries and compares medians, so that a slow moment of the machine affects all of
//! them. matrixmultiply reads its number of threads from the environment once, so each number of threads is a process
//! of its own. A multiplication is 2 · M · N · K operations. All three compute x Wᵀ; in the decoding scenarios our
//! weights are packed once, as a decoder holds them, and theirs are not.

#[allow(unsafe_code)]
mod peers;

use foretoken::kernels::gemm::{Beta, Panels, Rhs, View, matmul};
use foretoken::kernels::par::Threads;
use foretoken::simd::{Isa, Kernel, LANES, Simd, matrix::MatrixMut, run};
use peers::Sizes;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Interleaved repeats of a scenario.
const REPEATS: usize = 15;
/// A sample lasts at least this long.
const SAMPLE: Duration = Duration::from_millis(8);

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    if let Some(threads) = args.iter().find_map(|a| a.strip_prefix("threads=")) {
        let threads = threads.parse().expect("a number of threads");
        let pool = Threads::new(threads).expect("a pool");
        let words: Vec<String> = { args.iter().filter(|a| !a.starts_with("threads=")) }
            .cloned()
            .collect();
        return pool.scope(|| scenarios(threads, &words));
    }
    println!("instruction set: {}", Isa::current().name());
    let program = std::env::current_exe().expect("this program");
    for threads in ["1", "2"] {
        let status = std::process::Command::new(&program)
            .arg(format!("threads={threads}"))
            .args(&args)
            .env("MATMUL_NUM_THREADS", threads)
            .status()
            .expect("a child process");
        assert!(status.success(), "{threads} threads: {status}");
    }
}

/// All whose name has one of the words in it, or all.
fn scenarios(threads: usize, words: &[String]) {
    let peak = peak();
    println!(
        "\n{threads} thread(s); register-only multiply-add peak of one core: {peak:.0} GFLOP/s"
    );
    println!(
        "{:30} {:>10} {:>8} {:>14} {:>7} {:>8} {:>7}",
        "", "foretoken", "of peak", "matrixmultiply", "ratio", "gemm", "ratio"
    );
    let show = |name: &str, sizes: Sizes, packed: bool| {
        if words.is_empty() || words.iter().any(|word| name.contains(word.as_str())) {
            compare(name, sizes, packed, threads, peak);
        }
    };
    let forward = |m, k, n| Sizes {
        m,
        k,
        n,
        transposed: [false, true],
    };
    for n in [512, 1024, 2048] {
        show(&format!("square {n}"), forward(n, n, n), false);
    }
    // The matrices of a training step from C to N features, over the rows of a batch or, for the LM head, of a chunk.
    let rows = 4096;
    for (rows, c, n) in [
        (rows, 256, 256),
        (rows, 256, 688),
        (rows, 688, 256),
        (rows, 512, 1376),
        (256, 256, 4096),
    ] {
        show(
            &format!("train {rows} rows {c} -> {n}"),
            forward(rows, c, n),
            false,
        );
        let dx = Sizes {
            m: rows,
            k: n,
            n: c,
            transposed: [false; 2],
        };
        show(&format!("train {rows} rows {c} <- {n} dx"), dx, false);
        let dw = Sizes {
            m: n,
            k: rows,
            n: c,
            transposed: [true, false],
        };
        show(&format!("train {rows} rows {c} x {n} dW"), dw, false);
    }
    for rows in [1, 2, 4, 8, 16] {
        for (k, n) in [(512, 512), (512, 1376), (512, 4096)] {
            show(
                &format!("decode {rows} rows {k} -> {n}"),
                forward(rows, k, n),
                true,
            );
        }
    }
}

/// With `packed` our right operand is packed once, as decoding holds its weights.
fn compare(name: &str, sizes: Sizes, packed: bool, threads: usize, peak: f64) {
    let Sizes {
        m,
        k,
        n,
        transposed,
    } = sizes;
    let fill = |len: usize| {
        (0..len)
            .map(|i| (i % 251) as f32 * 0.01 - 1.0)
            .collect::<Vec<_>>()
    };
    let (a, b) = (fill(m * k), fill(n * k));
    let mut y = vec![0.0; m * n];
    let view = |data, rows, cols, transposed| {
        if transposed {
            View::new(data, cols, rows).t()
        } else {
            View::new(data, rows, cols)
        }
    };
    let (left, right) = (
        view(&a[..], m, k, transposed[0]),
        view(&b[..], k, n, transposed[1]),
    );
    let panels = Panels::pack(right);
    let right = if packed {
        Rhs::Panels(&panels)
    } else {
        Rhs::View(right)
    };
    let mut ours = || {
        matmul(
            left,
            right,
            MatrixMut::new(black_box(&mut y), m, n),
            Beta::Zero,
        )
    };
    let mut z = vec![0.0; m * n];
    let mut first = || peers::matrixmultiply(sizes, &a, &b, black_box(&mut z));
    let mut z = vec![0.0; m * n];
    let mut second = || peers::gemm(sizes, &a, &b, black_box(&mut z), threads);
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
        "{name:30} {ours:>10.1} {:>7.0}% {first:>14.1} {:>7.2} {second:>8.1} {:>7.2}",
        100.0 * ours / (peak * threads as f64),
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

/// Independent chains of a core: more than two units of four cycles' latency need, and no more than AVX-512 has
/// registers for. With AVX2 a chain takes two of sixteen registers and with NEON four of 32, so that some are kept in
/// memory and the peak comes out too low.
const CHAINS: usize = 12;

/// Chains of multiply-adds in registers: the peak of one core.
struct Peak(usize);

impl Kernel<f32> for Peak {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (x, y) = (s.splat(black_box(0.999)), s.splat(black_box(1e-3)));
        let mut acc = [s.splat(0.0); CHAINS];
        for _ in 0..self.0 {
            // By index: a reference to each chain would keep them in memory.
            #[allow(clippy::needless_range_loop)]
            for i in 0..CHAINS {
                acc[i] = s.fma(acc[i], x, y);
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
    (steps * CHAINS * LANES * 2) as f64 * 1e-9 / median((0..REPEATS).map(time).collect())
}
