//! Memory, failures, and what the emulation detects in kernels that are wrong on purpose.

use super::emulated::{devices, devices_of};
use crate::gpu::attention::Cache;
use crate::gpu::device::{Array, Device, Matrix, pooled_size};
use crate::gpu::rows;
use crate::gpu::sample::sample;
use crate::infer::{SampleRequest, Sampler};
use crate::kernels::attention::AttentionHeads;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32 - 3.5).collect()
}

#[test]
fn arrays_are_uploaded_and_downloaded() {
    let Some(device) = devices().pop() else {
        return;
    };
    for n in [0, 1, 63, 64, 65, 1000] {
        let array = device.upload(&numbers(n));
        assert_eq!(array.len(), n);
        assert_eq!(device.download(&array).expect("a device"), numbers(n));
    }
    let words = [0, 1, u32::MAX, 0x7fc0_1234];
    let array = device.upload_u32(&words);
    assert_eq!(device.read_u32(&array, 0..4).expect("a device"), words);
}

#[test]
fn parts_are_copied_and_read() {
    let Some(device) = devices().pop() else {
        return;
    };
    let (x, y) = (device.upload(&numbers(100)), device.upload(&[0.0; 50]));
    device.copy(&x, 90..100, &y, 40);
    device.copy(&x, 10..20, &x, 0);
    device.copy(&x, 5..5, &y, 50);
    let mut expected = vec![0.0; 50];
    expected[40..].copy_from_slice(&numbers(100)[90..]);
    assert_eq!(device.download(&y).expect("a device"), expected);
    assert_eq!(
        device.read(&x, 8..12).expect("a device"),
        [14.5, 15.5, 6.5, 7.5]
    );
}

#[test]
fn memory_is_reused() {
    let Some(device) = devices().pop() else {
        return;
    };
    let first = device.empty(1000);
    let (copy, address) = (first.clone(), first.memory().address);
    drop(first);
    // One clone is left.
    let other = device.empty(1000);
    assert_ne!(other.memory().address, address);
    drop(copy);
    // For a similar length too.
    let again = device.empty(990);
    assert_eq!(again.memory().address, address);
    let unwritten = device.download(&again).expect("a device");
    assert!(unwritten.iter().all(|x| x.is_nan()));
}

#[test]
fn allocations_have_few_sizes() {
    let sizes: Option<Vec<usize>> = (0..100_000).map(pooled_size).collect();
    let mut sizes = sizes.expect("sizes far from overflow");
    for (words, &size) in sizes.iter().enumerate() {
        assert!(
            size >= words && size <= 64.max(words + words / 4 + 1),
            "{words} in {size}"
        );
    }
    sizes.dedup();
    assert!(sizes.is_sorted());
    assert!(sizes.len() < 60, "{} sizes", sizes.len());
}

#[test]
#[should_panic(expected = "another device")]
fn arrays_stay_on_their_device() {
    let [one, other] = &devices()[..] else {
        panic!("another device is missing");
    };
    let array = one.upload(&[1.0]);
    let _ = other.download(&array);
}

/// Each thread sends its number to its neighbour, with a barrier and without.
const NEIGHBOURS: &str = "
template <bool WAITS> static void send(float *y) {
    static float all[64];
    all[threadIdx.x] = 0.0f;
    __syncthreads();
    all[(threadIdx.x + 1) % 64] = float(threadIdx.x);
    if (WAITS) __syncthreads();
    y[blockIdx.x * 64 + threadIdx.x] = all[threadIdx.x];
}
KERNEL(valid)(float *y) { send<true>(y); }
EXPORT(valid)
KERNEL(faulty)(float *y) { send<false>(y); }
EXPORT(faulty)
";

#[test]
fn a_missing_barrier_shows_in_one_of_the_orders() {
    let expected: Vec<f32> = (0..192).map(|i| ((i + 63) % 64) as f32).collect();
    let devices = devices_of(NEIGHBOURS);
    let mut wrong = 0;
    for device in &devices {
        for kernel in ["valid", "faulty"] {
            let y = device.empty(192);
            // SAFETY: the kernels take one pointer and write an element per thread.
            unsafe { device.launch(kernel, [3, 1, 1], 64, &[(&y).into()]) };
            let found = device.download(&y).expect("a device");
            assert!(kernel == "faulty" || found == expected, "{device:?}");
            wrong += usize::from(found != expected);
        }
    }
    assert!(devices.is_empty() || wrong > 0);
}

#[test]
fn divergent_barriers_are_a_failure_that_stays() {
    let kernels = "
        KERNEL(part)(float *y) {
            if (threadIdx.x < 3) __syncthreads();
            y[threadIdx.x] = 1.0f;
        }
        EXPORT(part)
        KERNEL(meet)(float *y) {
            __syncthreads();
            y[threadIdx.x] = 2.0f;
        }
        EXPORT(meet)";
    for device in devices_of(kernels) {
        let y = device.empty(8);
        // SAFETY: the kernels take one pointer and write an element per thread.
        let launch = |kernel| unsafe { device.launch(kernel, [1, 1, 1], 8, &[(&y).into()]) };
        launch("meet");
        assert_eq!(device.download(&y).expect("a device"), [2.0; 8]);
        launch("part");
        launch("meet");
        for _ in 0..2 {
            let why = device.download(&y).expect_err("a failure").to_string();
            assert_eq!(why, "part: threads of a block wait at different barriers");
        }
    }
}

#[test]
fn writing_past_an_array_is_a_failure() {
    let kernels = "
        KERNEL(fill)(float *y, unsigned n) {
            for (unsigned i = threadIdx.x; i < n; i += blockDim.x) y[i] = 1.0f;
        }
        EXPORT(fill)";
    for device in devices_of(kernels) {
        for (len, written) in [(10, 10), (64, 64), (10, 11), (64, 65)] {
            let other = device.upload(&[1.0]);
            let y = device.empty(len);
            let args = [(&y).into(), (written as u32).into()];
            // SAFETY: the kernel's parameters; the guard after an allocation has room for what it writes too far.
            unsafe { device.launch("fill", [1, 1, 1], 16, &args) };
            drop(y);
            let failed = device.download(&other).is_err();
            assert_eq!(failed, written > len, "{written} of {len}");
            if failed {
                break;
            }
        }
    }
}

/// Only explicit fused multiply-adds are fused.
#[test]
fn nothing_is_contracted() {
    let kernels = "
        KERNEL(both)(const float *x, float *y) {
            y[0] = x[0] * x[1] + x[2];
            y[1] = __fadd_rn(__fmul_rn(x[0], x[1]), x[2]);
            y[2] = __fmaf_rn(x[0], x[1], x[2]);
            y[3] = x[3] * 0.5f;
        }
        EXPORT(both)";
    // (1 + e)² - 1, e = 2⁻¹³: the square needs one bit more than f32 has.
    let e = (-13.0_f32).exp2();
    let subnormal = f32::from_bits(2);
    for device in devices_of(kernels) {
        let x = device.upload(&[1.0 + e, 1.0 + e, -1.0, subnormal]);
        let y = device.empty(4);
        let args = [(&x).into(), (&y).into()];
        // SAFETY: the kernel's parameters; it reads four elements of x and writes four of y.
        unsafe { device.launch("both", [1, 1, 1], 1, &args) };
        let rounded = 2.0 * e;
        let exact = 2.0 * e + e * e;
        assert_ne!(rounded, exact);
        let expected = [rounded, rounded, exact, f32::from_bits(1)];
        assert_eq!(device.download(&y).expect("a device"), expected);
    }
}

/// Sizes whose products or sums wrap around to small numbers.
#[test]
fn sizes_that_overflow_panic() {
    const HALF: usize = usize::MAX / 2 + 1;
    let Some(device) = devices().pop() else {
        return;
    };
    let heads = AttentionHeads {
        num_heads: 1,
        num_kv_heads: 1,
        head_dim: 2,
    };
    let x = device.upload(&numbers(64));
    type Case<'a> = (&'a str, &'a dyn Fn(&Device, &Array));
    let cases: [Case<'_>; 9] = [
        ("rows of a matrix", &|_, x| _ = Matrix::new(x, 0, HALF, 2)),
        ("a matrix's offset", &|_, x| {
            _ = Matrix::new(x, usize::MAX, 1, 1);
        }),
        ("rows of a norm", &|_, x| {
            let x = Matrix::new(x, 0, HALF, 2);
            _ = rows::rms_norm(&x, &x, 1e-5);
        }),
        ("rows of a result", &|d, _| _ = d.matrix(HALF, 2)),
        ("widths of concat", &|_, x| {
            let one = Matrix::new(x, 0, 0, 1);
            _ = rows::concat(&Matrix::new(x, 0, 0, usize::MAX), &one);
        }),
        ("heads", &|_, x| {
            let head_dim = HALF;
            let x = &Matrix::new(x, 0, 1, 64);
            _ = rows::qk_norm(x, x, x, AttentionHeads { head_dim, ..heads }, 1e-5);
        }),
        ("rows of a cache", &|_, x| {
            let x = Matrix::new(x, 0, 8, 6);
            Cache::new(2).append(heads, &x, usize::MAX, 1);
        }),
        ("a row of logits", &|_, x| {
            let request = SampleRequest {
                row: usize::MAX,
                token_index: 0,
                sampler: Sampler::GREEDY,
                drafts: Vec::new(),
            };
            _ = sample(&Matrix::new(x, 0, 8, 8), &[request]);
        }),
        ("the end of a copy", &|d, x| d.copy(x, 0..2, x, usize::MAX)),
    ];
    for (what, case) in cases {
        let caught = catch_unwind(AssertUnwindSafe(|| case(&device, &x)));
        assert!(caught.is_err(), "{what}");
    }
    // The panics left the device intact.
    assert_eq!(device.download(&x).expect("a device"), numbers(64));
}

#[test]
fn arrays_that_overflow_are_a_failure() {
    for words in [usize::MAX, usize::MAX / 4, 1 << 61] {
        for device in devices() {
            device.empty(words);
            let why = device.working().expect_err("no room").to_string();
            assert!(why.contains("no room"), "{why}");
        }
    }
}

/// Threads that share an array take turns.
#[test]
fn arrays_are_shared_between_threads() {
    let Some(device) = devices().pop() else {
        return;
    };
    let (x, y) = (device.upload(&[1.0; 4096]), device.upload(&[2.0; 4096]));
    std::thread::scope(|scope| {
        scope.spawn(|| (0..100).for_each(|_| device.copy(&y, 0..4096, &x, 0)));
        for _ in 0..100 {
            let found = device.download(&x).expect("a device");
            // Each copy is seen whole or not at all.
            assert!(found.iter().all(|v| *v == found[0]));
        }
    });
}
