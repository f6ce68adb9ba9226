//! LM head and cross entropy in one pass over chunks of rows, so that all logits never exist at once (rule R8).
//!
//! ```text
//! for chunks of rows, ascending:
//!     z   = h Wᵀ                       one chain over C each (rule R1)
//!     dz  = (softmax(z) − [j = target]) · factor
//!     dh  = dz W                       one chain over V each
//!     dW += dzᵀ h                      the accumulator's chains continue over the rows (rule R7)
//! ```
//!
//! A row's logits and gradient depend on no other row, and the chains of dW run over rows ascending, so the result does
//! not depend on the length of a chunk: it is that of the two operations, one after the other.

use super::cross_entropy;
use super::gemm::{Beta, Panels, Rhs, View, matmul};
use super::scratch::Scratch;
use crate::profile;
use crate::simd::matrix::MatrixMut;

/// Logits of a chunk, 4 MiB: they stay in the cache between the four steps.
const CHUNK_LOGITS: usize = 1 << 20;
/// Fewest rows of a chunk if the vocabulary is large: each chunk reads and writes all of dW.
const FEWEST_ROWS: usize = 128;
/// Maximum number of logits of a chunk, 64 MiB.
const MOST_LOGITS: usize = 1 << 24;

/// Rows of a chunk for a vocabulary.
fn rows_per_chunk(vocab: usize) -> usize {
    let vocab = vocab.max(1);
    let fewest = FEWEST_ROWS.min(MOST_LOGITS / vocab);
    (CHUNK_LOGITS / vocab).max(fewest).max(1)
}

/// Inputs of the loss.
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

/// Optional gradient outputs.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// dh [rows, C], overwritten.
    pub dh: Option<MatrixMut<'a>>,
    /// dW [V, C], accumulated into.
    pub dw: Option<MatrixMut<'a>>,
}

/// Losses and hits of the rows, as in [`cross_entropy::forward_backward`], and the gradients that have an output.
///
/// # Panics
/// Panics if the shapes do not fit or a target is not below V.
#[track_caller]
pub fn forward_backward(inputs: Inputs<'_>, gradients: Gradients<'_>) -> [Vec<f32>; 2] {
    in_chunks(rows_per_chunk(inputs.w.rows()), inputs, gradients)
}

#[track_caller]
fn in_chunks(chunk: usize, inputs: Inputs<'_>, gradients: Gradients<'_>) -> [Vec<f32>; 2] {
    let Inputs { h, w, targets, .. } = inputs;
    let Gradients { mut dh, mut dw } = gradients;
    let rows = targets.len();
    let (n, c) = (h.rows(), h.cols());
    assert!(
        n == rows && w.cols() == c && dh.as_ref().is_none_or(|dh| dh.rows() == rows),
        "linear_cross_entropy: {rows} targets, h [{n}, {c}], dh of as many rows, W [V, {c}]"
    );
    let (mut losses, mut hits) = (vec![0.0; rows], vec![0.0; rows]);
    let columns = Panels::pack(w.t());
    let packed = dh.is_some().then(|| Panels::pack(w));
    let vocab = w.rows();
    let mut buffer = Scratch::<f32>::new(chunk.min(rows) * vocab);
    for from in (0..rows).step_by(chunk) {
        let to = rows.min(from + chunk);
        let (n, h) = (to - from, h.row_range(from, to));
        let z = &mut buffer[..n * vocab];
        let logits = MatrixMut::new(z, n, vocab);
        profile::time("Output", "logits", || {
            matmul(h, Rhs::Panels(&columns), logits, Beta::Zero);
        });
        let (losses, hits) = (&mut losses[from..to], &mut hits[from..to]);
        profile::time("Output", "cross entropy", || {
            cross_entropy::forward_backward(z, &targets[from..to], inputs.factor, losses, hits);
        });
        let dz = View::new(z, n, vocab);
        if let (Some(dh), Some(w)) = (&mut dh, &packed) {
            let (_, rest) = dh.reborrow().split_rows(from);
            let (dh, _) = rest.split_rows(n);
            profile::time("Output", "dh", || {
                matmul(dz, Rhs::Panels(w), dh, Beta::Zero);
            });
        }
        if let Some(dw) = &mut dw {
            profile::time("Output", "dW", || {
                matmul(dz.t(), Rhs::View(h), dw.reborrow(), Beta::One);
            });
        }
    }
    [losses, hits]
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
        let [_, _, mut dh, mut dw] = start();
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
        let [losses, hits] = in_chunks(chunk, inputs, gradients);
        [losses, hits, dh, dw]
    }

    /// Three multiplications and a loss over all rows.
    fn whole() -> Results {
        let (h, w, targets) = (pattern(ROWS * C, 1), pattern(V * C, 2), targets());
        let [mut losses, mut hits, mut dh, mut dw] = start();
        let (h, w) = (View::new(&h, ROWS, C), View::new(&w, V, C));
        let mut z = vec![0.0; ROWS * V];
        let logits = MatrixMut::new(&mut z, ROWS, V);
        matmul(h, Rhs::View(w.t()), logits, Beta::Zero);
        cross_entropy::forward_backward(&mut z, &targets, 0.3, &mut losses, &mut hits);
        let dz = View::new(&z, ROWS, V);
        let (to_h, to_w) = (
            MatrixMut::new(&mut dh, ROWS, C),
            MatrixMut::new(&mut dw, V, C),
        );
        matmul(dz, Rhs::View(w), to_h, Beta::Zero);
        matmul(dz.t(), Rhs::View(h), to_w, Beta::One);
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
    fn gradients_are_optional() {
        let (h, w, targets) = (pattern(ROWS * C, 1), pattern(V * C, 2), targets());
        let inputs = Inputs {
            h: View::new(&h, ROWS, C),
            w: View::new(&w, V, C),
            targets: &targets,
            factor: 0.3,
        };
        let [losses, hits, ..] = whole();
        assert_eq!(
            forward_backward(inputs, Gradients::default()),
            [losses, hits]
        );
    }

    #[test]
    fn a_chunk_has_at_least_one_row_and_at_most_64_mib() {
        assert_eq!(rows_per_chunk(257), 4080);
        for vocab in [1, 257, 4096, 32_000, 1 << 17, 1 << 24] {
            let rows = rows_per_chunk(vocab);
            assert!(rows >= 1 && rows * vocab <= MOST_LOGITS, "{vocab}");
        }
    }
}
