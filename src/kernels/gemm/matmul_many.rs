//! Several multiplications of one left operand, side by side: with few rows they are shared out to the threads as one.
//!
//! Decoding is a sequence of small multiplications, and the threads meet after each. Queries, keys and values together
//! are one meeting instead of three.

use super::View;
use super::matmul::{Beta, FEW_ROWS, Rhs, block, matmul};
use super::panels::{Panels, WIDTH};
use crate::kernels::par;
use crate::profile;
use crate::simd::matrix::MatrixMut;

/// a [M, K], b_i [K, N_i] -> c [M, Σ N_i] = [a · b_0, a · b_1, ..], each by rule R1.
///
/// # Panics
/// Panics if the shapes do not fit.
#[track_caller]
pub fn matmul_many<'a>(a: View<'_>, b: impl Iterator<Item = Rhs<'a>> + Clone, c: MatrixMut<'_>) {
    let packed = |b| match b {
        Rhs::Panels(panels) => Some(panels),
        Rhs::View(_) => None,
    };
    let width: usize = b.clone().map(|b| b.n()).sum();
    assert!(
        a.rows() == c.rows() && width == c.cols(),
        "matmul_many: [{}, {}] x .. -> [{}, {}] for {width} columns",
        a.rows(),
        a.cols(),
        c.rows(),
        c.cols()
    );
    let threads = par::count();
    let apart = threads > 1
        && a.rows() <= FEW_ROWS
        && a.rows() * a.cols() * c.cols() >= par::WORTH_SPLITTING
        && b.clone().all(|b| packed(b).is_some());
    if !apart {
        let mut rest = c;
        for b in b {
            let (part, right) = rest.split_cols(b.n());
            rest = right;
            matmul(a, b, part, Beta::Zero);
        }
        return;
    }
    profile::matmul(a.rows(), width, a.cols());
    // Cut at the ends of the threads' shares of the panels and at the ends of the matrices.
    let count: usize = b.clone().filter_map(packed).map(Panels::count).sum();
    let share = count.div_ceil(threads);
    // A piece is panels `first`.. of one matrix, as many as its part of c has columns for.
    let mut tasks: Vec<Vec<(&Panels, usize, MatrixMut<'_>)>> = Vec::with_capacity(threads);
    let (mut rest, mut left) = (c, 0);
    for panels in b.filter_map(packed) {
        assert_eq!(panels.k(), a.cols(), "matmul_many: chains of one length");
        let mut first = 0;
        while first < panels.count() {
            if left == 0 {
                tasks.push(Vec::with_capacity(3));
                left = share;
            }
            let end = panels.count().min(first + left);
            let (part, right) = rest.split_cols(panels.n().min(end * WIDTH) - first * WIDTH);
            rest = right;
            let pieces = tasks.last_mut().expect("one was pushed");
            pieces.push((panels, first, part));
            left -= end - first;
            first = end;
        }
    }
    par::for_each(tasks, |pieces| {
        for (panels, first, c) in pieces {
            block(a, panels, first, c, Beta::Zero);
        }
    });
}
