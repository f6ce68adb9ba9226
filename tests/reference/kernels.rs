//! The loss, sums over whole tensors, the optimisers and learning rates against the reference, on every instruction
//! set and with 1, 2 and 3 threads.
//!
//! Sizes lie on the boundaries of lanes (16), of chunks of rows (32), of a norm's chunks (4,096 elements), and of what
//! kernels give to one thread.

use super::graph::{cross_entropy, total};
use super::operations::{ROWS, mat, same};
use super::ours::{self, everywhere};
use super::rules::{AdamW, Mat, Muon, matmul, rate, squared_norm};

fn targets(rows: usize, vocab: usize) -> Vec<u32> {
    (0..rows).map(|i| (i * i * 7 % vocab) as u32).collect()
}

#[test]
fn cross_entropies() {
    let mut right = 0.0;
    for rows in [1, 2, 31, 32, 33, 65, 97, 161] {
        for vocab in [1, 2, 15, 16, 17, 31, 32, 33, 300] {
            // A period of 241: a vocabulary of 300 has ties. Some probabilities are 0.
            let z = mat(rows, vocab, 1).map(|_, x| x * 60.0);
            let targets = targets(rows, vocab);
            let (weight, n) = (0.7, rows + 3);
            let factor = (weight / n as f64) as f32;
            let (losses, hits, dz) = cross_entropy(&z, &targets, factor);
            let own = rows as f64;
            let report = [
                weight * (total(&losses) / n as f64),
                total(&losses) / own,
                total(&hits) / own,
            ];
            let report = report.map(|x| x as f32).to_vec();
            let twice = dz.map(|_, d| d + d);
            let expected = [report, dz.data, twice.data];
            everywhere(|place| {
                let what = format!("cross entropy, {rows} of {vocab}, {place}");
                same(
                    &what,
                    &ours::cross_entropy(&z, &targets, weight, n),
                    &expected,
                );
            });
            right += hits.iter().sum::<f32>();
        }
    }
    assert!(right > 100.0, "targets with the largest logit occur");
}

/// The last one is computed in several chunks of rows.
#[test]
fn logits_and_cross_entropy_in_chunks() {
    for (rows, c, vocab) in [(1, 1, 1), (33, 17, 40), (65, 16, 131), (131, 3, 8193)] {
        let (h, w) = (mat(rows, c, 1), mat(vocab, c, 2));
        let (targets, dw, factor) = (targets(rows, vocab), mat(vocab, c, 3), 0.3);
        let z = matmul(&h, &w.t(), Mat::zeros(rows, vocab));
        let (losses, hits, dz) = cross_entropy(&z, &targets, factor);
        let dh = matmul(&dz, &w, Mat::zeros(rows, c)).data;
        let expected = [losses, hits, dh, matmul(&dz.t(), &h, dw.clone()).data];
        everywhere(|place| {
            let what = format!("logits and cross entropy, {rows} of {vocab}, {place}");
            same(
                &what,
                &ours::linear_cross_entropy(&h, &w, &targets, factor, &dw),
                &expected,
            );
        });
    }
}

#[test]
fn sums_of_whole_tensors() {
    let lane = [0, 1, 15, 16, 17, 31, 32, 33];
    let chunk = [4095, 4096, 4097, 8191, 8192, 8193, 12_289, 40_961];
    for n in lane.into_iter().chain(chunk) {
        let x = mat(1, n, 1).data;
        let expected = squared_norm(&x);
        everywhere(|place| {
            let got = ours::squared_norm(&x);
            assert_eq!(got.to_bits(), expected.to_bits(), "{n} elements, {place}");
        });
    }
    for n in ROWS.into_iter().chain([0, 1023, 1025, 4097]) {
        // Of several magnitudes: sums in f64 are rounded too.
        let x = mat(1, n, 2).map(|i, x| x * [1.0, 1e9, 1e-9][i % 3]).data;
        assert_eq!(ours::total(&x).to_bits(), total(&x).to_bits(), "{n} rows");
    }
}

#[test]
fn adamw() {
    for n in [0, 1, 15, 16, 17, 33, 16_383, 16_384, 16_385, 40_000] {
        let mut expected = [mat(1, n, 1).data, vec![0.0; n], vec![0.0; n]];
        let starts = expected.clone();
        let step = |t: usize| AdamW {
            rate: 0.01,
            betas: [0.9, 0.95],
            eps: 1e-8,
            clip: [1.0, 0.3, 0.7][t % 3],
            decay: [0.1, 0.1, 0.0][t % 3],
            step: t as u64 + 1,
        };
        for t in 0..3 {
            let [w, m, v] = &mut expected;
            step(t).update(w, m, v, &mat(1, n, t + 5).data);
        }
        everywhere(|place| {
            let mut got = starts.clone();
            for t in 0..3 {
                let [w, m, v] = &mut got;
                ours::adamw(step(t), w, m, v, &mat(1, n, t + 5).data);
            }
            same(&format!("AdamW, {n} elements, {place}"), &got, &expected);
        });
    }
}

#[test]
fn muon() {
    let shapes = [
        (1, 1),
        (1, 17),
        (16, 16),
        (15, 33),
        (33, 15),
        (3, 50),
        (65, 64),
        (2, 16_400),
    ];
    for (rows, cols) in shapes {
        let n = rows * cols;
        let (start, zeros) = (mat(rows, cols, 1), vec![0.0; n]);
        let (mut w, mut m) = (start.clone(), zeros.clone());
        let step = |t: usize| Muon {
            rate: 0.01,
            momentum: 0.95,
            clip: [1.0, 0.3, 0.7][t % 3],
            decay: 0.1,
        };
        for t in 0..3 {
            step(t).update(&mut w, &mut m, &mat(1, n, t + 5).data);
        }
        everywhere(|place| {
            let (mut got, mut momentum) = (start.clone(), zeros.clone());
            for t in 0..3 {
                ours::muon(step(t), &mut got, &mut momentum, &mat(1, n, t + 5).data);
            }
            let what = format!("Muon, {rows} x {cols}, {place}");
            same(&what, &[got.data, momentum], &[w.data.clone(), m.clone()]);
        });
    }
}

#[test]
fn learning_rates() {
    for (steps, warmup) in [(1, 0), (1, 3), (5, 5), (40, 2), (203, 10)] {
        for (step, wsd) in (0..steps + 2).flat_map(|step| [(step, true), (step, false)]) {
            let got = ours::rate(3e-3, step, warmup, steps, wsd);
            let expected = rate(3e-3, step, warmup, steps, wsd);
            assert_eq!(
                got.to_bits(),
                expected.to_bits(),
                "step {step} of {steps}, wsd {wsd}"
            );
        }
    }
}
