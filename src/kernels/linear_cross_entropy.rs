//! Output matrix and cross entropy in one pass over chunks of rows, so that all logits never exist at once (rule R8).
//!
//! ```text
//! for chunks of rows, ascending:
//!     z   = h Wᵀ                       one chain over C each (rule R1)
//!     dz  = (softmax(z) − [j = target]) · factor
//!     dh  = dz W                       one chain over V each
//!     dW += dzᵀ h                      the accumulator's chain goes on over the rows (rule R7)
//! ```
//!
//! A row's logits and gradient know no other row, and the chains of dW run over rows ascending, so the length of a chunk
//! cannot be seen in the result: it is what the two operations give, one after the other.

use super::cross_entropy;
use super::gemm::{Right, ScratchPanels, Start, View, matmul};
use crate::profile;
use crate::simd::matrix::MatrixMut;
use std::cell::Cell;

thread_local! {
    /// Logits of the last chunk.
    static SPARE: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Logits of a chunk, 4 MiB: they stay in the cache between the four steps.
const ELEMENTS: usize = 1 << 20;
/// Fewer rows would read and write dW more often than they are worth, for a large vocabulary.
const FEWEST: usize = 128;
/// Logits of a chunk at most, 64 MiB.
const MOST: usize = 1 << 24;

/// Rows of a chunk for a vocabulary.
fn rows_a_chunk(vocab: usize) -> usize {
    let vocab = vocab.max(1);
    (ELEMENTS / vocab).max(FEWEST.min(MOST / vocab)).max(1)
}

/// What the loss is of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// h [rows, C]
    pub h: View<'a>,
    /// W [V, C]
    pub w: View<'a>,
    /// `[rows]`, each below V.
    pub targets: &'a [u32],
    /// λ w / n, multiplied into the gradient.
    pub factor: f32,
}

/// Where the gradients go; nobody has to want them.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// dh [rows, C], overwritten.
    pub dh: Option<MatrixMut<'a>>,
    /// dW [V, C], gone on with.
    pub dw: Option<MatrixMut<'a>>,
}

/// Loss and hit of each row, as [`cross_entropy::forward_backward`] says, and the gradients that are wanted.
pub fn forward_backward(
    inputs: Inputs<'_>,
    losses: &mut [f32],
    hits: &mut [f32],
    gradients: Gradients<'_>,
) {
    let chunk = rows_a_chunk(inputs.w.rows());
    in_chunks(chunk, inputs, losses, hits, gradients);
}

fn in_chunks(
    chunk: usize,
    inputs: Inputs<'_>,
    losses: &mut [f32],
    hits: &mut [f32],
    gradients: Gradients<'_>,
) {
    let columns = ScratchPanels::new(inputs.w.t());
    let rows = gradients.dh.is_some().then(|| ScratchPanels::new(inputs.w));
    let weights = (Right::Scratch(&columns), rows.as_ref().map(Right::Scratch));
    each_chunk(chunk, inputs, weights, (losses, hits), gradients);
}

/// `columns` are Wᵀ packed and `rows` W, of which the latter is for dh.
fn each_chunk(
    chunk: usize,
    Inputs {
        h,
        w,
        targets,
        factor,
    }: Inputs<'_>,
    (columns, rows): (Right<'_>, Option<Right<'_>>),
    (losses, hits): (&mut [f32], &mut [f32]),
    Gradients { mut dh, mut dw }: Gradients<'_>,
) {
    let vocab = w.rows();
    let mut buffer = SPARE.take();
    buffer.resize(chunk.min(targets.len()) * vocab, 0.0);
    for from in (0..targets.len()).step_by(chunk) {
        let to = targets.len().min(from + chunk);
        let (n, h) = (to - from, h.row_range(from, to));
        let z = &mut buffer[..n * vocab];
        let logits = MatrixMut::new(z, n, vocab);
        profile::time("Output", "logits", || {
            matmul(h, columns, logits, Start::Zero);
        });
        let results = (&mut losses[from..to], &mut hits[from..to]);
        profile::time("Output", "cross entropy", || {
            cross_entropy::forward_backward(z, &targets[from..to], factor, results.0, results.1);
        });
        let dz = View::new(z, n, vocab);
        if let (Some(dh), Some(rows)) = (&mut dh, rows) {
            let (_, rest) = dh.reborrow().split_rows(from);
            let (dh, _) = rest.split_rows(n);
            profile::time("Output", "dh", || {
                matmul(dz, rows, dh, Start::Zero);
            });
        }
        if let Some(dw) = &mut dw {
            profile::time("Output", "dW", || {
                matmul(dz.t(), Right::View(h), dw.reborrow(), Start::Continue);
            });
        }
    }
    SPARE.set(buffer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::par::Threads;
    use crate::simd::Isa;

    const ROWS: usize = 37;
    const C: usize = 19;
    const V: usize = 53;

    fn pattern(n: usize, salt: usize) -> Vec<f32> {
        let value = |i: usize| ((i * 29 + salt * 17) % 241) as f32 / 120.0 - 1.0;
        (0..n).map(value).collect()
    }

    /// Losses, hits, dh and dW, whose accumulator does not start at zero.
    type Results = [Vec<f32>; 4];

    fn start() -> Results {
        let stale = f32::NAN;
        [
            vec![stale; ROWS],
            vec![stale; ROWS],
            vec![stale; ROWS * C],
            pattern(V * C, 3),
        ]
    }

    fn targets() -> Vec<u32> {
        (0..ROWS as u32).map(|i| i * i % V as u32).collect()
    }

    fn chunked(chunk: usize) -> Results {
        let (h, w, targets) = (pattern(ROWS * C, 1), pattern(V * C, 2), targets());
        let [mut losses, mut hits, mut dh, mut dw] = start();
        let inputs = Inputs {
            h: View::new(&h, ROWS, C),
            w: View::new(&w, V, C),
            targets: &targets,
            factor: 0.3,
        };
        let gradients = Gradients {
            dh: Some(MatrixMut::new(&mut dh, ROWS, C)),
            dw: Some(MatrixMut::new(&mut dw, V, C)),
        };
        in_chunks(chunk, inputs, &mut losses, &mut hits, gradients);
        [losses, hits, dh, dw]
    }

    /// Three products and a loss over all rows.
    fn whole() -> Results {
        let (h, w, targets) = (pattern(ROWS * C, 1), pattern(V * C, 2), targets());
        let [mut losses, mut hits, mut dh, mut dw] = start();
        let (h, w) = (View::new(&h, ROWS, C), View::new(&w, V, C));
        let mut z = vec![0.0; ROWS * V];
        let logits = MatrixMut::new(&mut z, ROWS, V);
        matmul(h, Right::View(w.t()), logits, Start::Zero);
        cross_entropy::forward_backward(&mut z, &targets, 0.3, &mut losses, &mut hits);
        let dz = View::new(&z, ROWS, V);
        let (to_h, to_w) = (
            MatrixMut::new(&mut dh, ROWS, C),
            MatrixMut::new(&mut dw, V, C),
        );
        matmul(dz, Right::View(w), to_h, Start::Zero);
        matmul(dz.t(), Right::View(h), to_w, Start::Continue);
        [losses, hits, dh, dw]
    }

    #[test]
    fn chunks_do_not_show() {
        let bits = |r: Results| r.map(|x| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        let expected = bits(whole());
        for isa in Isa::all() {
            for threads in [1, 3] {
                let pool = Threads::new(threads).expect("a small pool");
                for chunk in [1, 2, 12, 16, ROWS - 1, ROWS, ROWS + 1] {
                    let got = isa.scope(|| pool.scope(|| bits(chunked(chunk))));
                    assert!(got == expected, "{}, chunks of {chunk}", isa.name());
                }
            }
        }
    }

    #[test]
    fn gradients_that_nobody_wants_are_left_out() {
        let (h, w, targets) = (pattern(ROWS * C, 1), pattern(V * C, 2), targets());
        let inputs = Inputs {
            h: View::new(&h, ROWS, C),
            w: View::new(&w, V, C),
            targets: &targets,
            factor: 0.3,
        };
        let [mut losses, mut hits, ..] = start();
        forward_backward(inputs, &mut losses, &mut hits, Gradients::default());
        let expected = whole();
        assert_eq!((&losses, &hits), (&expected[0], &expected[1]));
    }

    #[test]
    fn a_chunk_has_at_least_one_row_and_at_most_64_mib() {
        assert_eq!(rows_a_chunk(257), 4080);
        for vocab in [1, 257, 4096, 32_000, 1 << 17, 1 << 24] {
            let rows = rows_a_chunk(vocab);
            assert!(rows >= 1 && rows * vocab <= MOST, "{vocab}");
        }
    }
}
