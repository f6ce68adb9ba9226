//! Memory, failures, and what the emulation notices in kernels that are wrong on purpose.

use super::*;
use std::io::Write;

/// The crate's emulation, or loudly nothing.
fn device() -> Option<Device> {
    told(Emulated::new(Order::Ascending))
}

fn told(machine: std::result::Result<Emulated, String>) -> Option<Device> {
    match machine {
        Ok(machine) => Some(Device::of(Box::new(machine))),
        Err(why) => {
            assert!(why.starts_with("no C++ compiler"), "{why}");
            // Not by a macro, whose output tests that pass keep to themselves.
            let _ = writeln!(std::io::stderr(), "NOTHING WAS TESTED: {why}");
            None
        }
    }
}

/// The emulation of other kernels, in both orders.
fn devices(kernels: &str) -> Vec<Device> {
    let orders = [Order::Ascending, Order::Descending];
    let device = |order| told(Emulated::of(kernels, order));
    orders.into_iter().filter_map(device).collect()
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32 - 3.5).collect()
}

#[test]
fn numbers_come_back() {
    let Some(device) = device() else { return };
    for n in [0, 1, 63, 64, 65, 1000] {
        let array = device.upload(&numbers(n));
        assert_eq!(array.len(), n);
        assert_eq!(device.download(&array).expect("a device"), numbers(n));
    }
    let words = [0, 1, u32::MAX, 0x7fc0_1234];
    let array = device.upload_u32(&words);
    assert_eq!(device.download_u32(&array).expect("a device"), words);
}

#[test]
fn parts_are_written_copied_and_read() {
    let Some(device) = device() else { return };
    let (x, y) = (device.upload(&numbers(100)), device.upload(&[0.0; 50]));
    device.write(&[7.0, 8.0], &x, 98);
    device.copy(&x, 90..100, &y, 40);
    device.copy(&x, 10..20, &x, 0);
    device.copy(&x, 5..5, &y, 50);
    let mut expected = vec![0.0; 50];
    expected[40..].copy_from_slice(&numbers(100)[90..]);
    expected[48..].copy_from_slice(&[7.0, 8.0]);
    assert_eq!(device.download(&y).expect("a device"), expected);
    assert_eq!(
        device.read(&x, 8..12).expect("a device"),
        [14.5, 15.5, 6.5, 7.5]
    );
}

#[test]
fn memory_is_used_again() {
    let Some(device) = device() else { return };
    let first = device.empty(1000);
    let (copy, address) = (first.clone(), first.block().address);
    drop(first);
    // One clone is left.
    let other = device.empty(1000);
    assert_ne!(other.block().address, address);
    drop(copy);
    // A like length will do.
    let again = device.empty(990);
    assert_eq!(again.block().address, address);
    let stale = device.download(&again).expect("a device");
    assert!(stale.iter().all(|x| x.is_nan()));
}

#[test]
fn blocks_have_few_sizes_and_room() {
    let mut sizes: Vec<usize> = (0..100_000).map(size_of_block).collect();
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
    let (Some(one), Some(other)) = (device(), device()) else {
        panic!("another device cannot be had");
    };
    let array = one.upload(&[1.0]);
    other.write(&[2.0], &array, 0);
}

/// Each thread tells its number to its neighbour, with a barrier or without.
const NEIGHBOURS: &str = "
template <bool WAITS> static void tell(float *y) {
    static float all[64];
    all[threadIdx.x] = 0.0f;
    __syncthreads();
    all[(threadIdx.x + 1) % 64] = float(threadIdx.x);
    if (WAITS) __syncthreads();
    y[blockIdx.x * 64 + threadIdx.x] = all[threadIdx.x];
}
KERNEL(sound)(float *y) { tell<true>(y); }
EXPORT(sound)
KERNEL(faulty)(float *y) { tell<false>(y); }
EXPORT(faulty)
";

#[test]
fn a_missing_barrier_shows_in_one_of_the_orders() {
    let expected: Vec<f32> = (0..192).map(|i| ((i + 63) % 64) as f32).collect();
    let devices = devices(NEIGHBOURS);
    let mut wrong = 0;
    for device in &devices {
        for kernel in ["sound", "faulty"] {
            let y = device.empty(192);
            device.launch(kernel, [3, 1, 1], 64, &[(&y).into()]);
            let found = device.download(&y).expect("a device");
            assert!(kernel == "faulty" || found == expected, "{device:?}");
            wrong += usize::from(found != expected);
        }
    }
    assert!(devices.is_empty() || wrong > 0);
}

#[test]
fn threads_that_part_are_a_failure_that_stays() {
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
    for device in devices(kernels) {
        let y = device.empty(8);
        device.launch("meet", [1, 1, 1], 8, &[(&y).into()]);
        assert_eq!(device.download(&y).expect("a device"), [2.0; 8]);
        device.launch("part", [1, 1, 1], 8, &[(&y).into()]);
        device.launch("meet", [1, 1, 1], 8, &[(&y).into()]);
        for _ in 0..2 {
            let why = device.download(&y).expect_err("a failure").to_string();
            assert_eq!(why, "part: threads of a block wait at different barriers");
        }
    }
}

#[test]
fn writing_behind_an_array_is_a_failure() {
    let kernels = "
        KERNEL(fill)(float *y, unsigned n) {
            for (unsigned i = threadIdx.x; i < n; i += blockDim.x) y[i] = 1.0f;
        }
        EXPORT(fill)";
    for device in devices(kernels) {
        for (len, written) in [(10, 10), (64, 64), (10, 11), (64, 65)] {
            let other = device.upload(&[1.0]);
            let y = device.empty(len);
            device.launch(
                "fill",
                [1, 1, 1],
                16,
                &[(&y).into(), (written as u32).into()],
            );
            drop(y);
            let failed = device.download(&other).is_err();
            assert_eq!(failed, written > len, "{written} of {len}");
            if failed {
                break;
            }
        }
    }
}

/// Products and sums are fused where a kernel says so, and nowhere else.
#[test]
fn nothing_is_contracted() {
    let kernels = "
        KERNEL(both)(const float *x, float *y, double z) {
            y[0] = x[0] * x[1] + x[2];
            y[1] = __fadd_rn(__fmul_rn(x[0], x[1]), x[2]);
            y[2] = __fmaf_rn(x[0], x[1], x[2]);
            y[3] = float(z);
            y[4] = x[3] * 0.5f;
        }
        EXPORT(both)";
    // (1 + e)² - 1, e = 2⁻¹³: the square needs one bit more than there are.
    let e = (-13.0_f32).exp2();
    let least = f32::from_bits(2);
    for device in devices(kernels) {
        let x = device.upload(&[1.0 + e, 1.0 + e, -1.0, least]);
        let y = device.empty(5);
        let args = [(&x).into(), (&y).into(), 0.75_f64.into()];
        device.launch("both", [1, 1, 1], 1, &args);
        let rounded = 2.0 * e;
        let exact = 2.0 * e + e * e;
        assert_ne!(rounded, exact);
        let expected = [rounded, rounded, exact, 0.75, f32::from_bits(1)];
        assert_eq!(device.download(&y).expect("a device"), expected);
    }
}
