//! Reading memory as fast as the threads can: the bound of decoding, whose time goes into reading the weights.
//!
//! `foretoken speed` and `benches/decode.rs` report passes relative to this read, so it has to load and prefetch like
//! the matrix multiplications do and lives next to them.

use super::par;
use crate::simd::{self, Kernel, LANES, Simd};

/// Bytes that are prefetched ahead: one page, which is far enough for loads with nearly no arithmetic between them.
const AHEAD: usize = 4096;
/// Vectors that are added independently of each other, so that no addition waits.
const CHAINS: usize = 8;

/// Reads every element once and returns their sum, in an unspecified order.
pub fn read(data: &[f32]) -> f32 {
    let part = par::part(data.len().max(1), CHAINS * LANES, 1);
    let mut sums = vec![0.0; data.len().div_ceil(part)];
    let tasks = data.chunks(part).zip(&mut sums);
    par::for_each(tasks, |(data, sum)| *sum = simd::run(Read(data)));
    sums.iter().sum()
}

struct Read<'a>(&'a [f32]);

impl Kernel<f32> for Read<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(0.0); CHAINS];
        let (vectors, tail) = self.0.as_chunks::<LANES>();
        let (blocks, rest) = vectors.as_chunks::<CHAINS>();
        for block in blocks {
            for (sum, x) in sums.iter_mut().zip(block) {
                // Without it a plain read is slower than a matrix multiplication, which prefetches too.
                s.prefetch(x, AHEAD);
                *sum = s.add(*sum, s.load(x));
            }
        }
        for x in rest {
            sums[0] = s.add(sums[0], s.load(x));
        }
        sums[1] = s.add(sums[1], s.load_partial(tail, 0.0));
        let mut total = sums[0];
        for sum in &sums[1..] {
            total = s.add(total, *sum);
        }
        s.sum(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::par::Threads;

    #[test]
    fn every_element_is_read_once() {
        for threads in [1, 2, 3, 8] {
            Threads::new(threads).expect("a small pool").scope(|| {
                for n in [0, 1, 15, 16, 17, 127, 128, 129, 5000] {
                    let data: Vec<f32> = (0..n).map(|i| (i % 7) as f32).collect();
                    // Whole numbers this small have exact sums in any order.
                    assert_eq!(read(&data), data.iter().sum::<f32>());
                }
            });
        }
    }
}
