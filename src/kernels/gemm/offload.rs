//! Products that something else than this machine's CPU computes.
//!
//! Inside [`scope`] each product is offered to [`Products`] first. Rule R1 gives a product one answer, so whoever
//! computes it, nobody can see it in the result. Only the thread that opened the scope offers: kernels divide work
//! among threads below this level.

use super::{Start, View};
use crate::simd::matrix::MatrixMut;
use std::cell::RefCell;
use std::rc::Rc;

/// Who computes products.
pub trait Products {
    /// a [M, K], b [K, N] -> c [M, N] = a · b, or c + a · b, to the bit what rule R1 says. Or nothing: then c is as it
    /// was, false is returned, and the CPU does it.
    fn matmul(&self, a: View<'_>, b: View<'_>, c: &mut MatrixMut<'_>, start: Start) -> bool;
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<dyn Products>>> = const { RefCell::new(None) };
}

/// Runs `f`; products of this thread are offered to `products` meanwhile.
pub fn scope<R>(products: Rc<dyn Products>, f: impl FnOnce() -> R) -> R {
    /// Puts back what was there, also where `f` panics.
    struct Before(Option<Rc<dyn Products>>);
    impl Drop for Before {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _before = Before(CURRENT.replace(Some(products)));
    f()
}

/// Whether this thread is inside a scope.
pub(super) fn active() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// Offers a product; says whether it was computed.
pub(super) fn matmul(a: View<'_>, b: View<'_>, c: &mut MatrixMut<'_>, start: Start) -> bool {
    // A copy, so that whoever computes it may use products of its own.
    let current = CURRENT.with_borrow(Clone::clone);
    current.is_some_and(|products| products.matmul(a, b, c, start))
}

#[cfg(test)]
mod tests {
    use super::super::{Right, ScratchPanels, matmul, matmul_many};
    use super::*;

    /// Computes by the definition, some of the products only, and counts.
    #[derive(Default)]
    struct Slow {
        done: RefCell<Vec<(usize, usize, usize)>>,
        most: usize,
    }

    impl Products for Slow {
        fn matmul(&self, a: View<'_>, b: View<'_>, c: &mut MatrixMut<'_>, start: Start) -> bool {
            let (m, k, n) = (a.rows(), a.cols(), b.cols());
            if m * k * n > self.most {
                return false;
            }
            for i in 0..m {
                for j in 0..n {
                    let from = match start {
                        Start::Zero => 0.0,
                        Start::Continue => c.row(i)[j],
                    };
                    let chain = |sum: f32, p| a.at(i, p).mul_add(b.at(p, j), sum);
                    c.row_mut(i)[j] = (0..k).fold(from, chain);
                }
            }
            self.done.borrow_mut().push((m, k, n));
            true
        }
    }

    fn pattern(n: usize, salt: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 29 + salt * 17) % 241) as f32 / 120.0 - 1.0)
            .collect()
    }

    /// Every kind of right operand, twice into one c; two products side by side.
    fn work() -> Vec<u32> {
        let (a, b) = (pattern(7 * 20, 1), pattern(40 * 20, 2));
        let (a, b) = (View::new(&a, 7, 20), View::new(&b, 40, 20).t());
        let mut c = vec![f32::NAN; 7 * 80];
        let mut whole = MatrixMut::new(&mut c, 7, 80);
        let packed = ScratchPanels::new(b);
        let rights = [Right::Scratch(&packed), Right::View(b)];
        matmul_many(a, rights.into_iter(), whole.reborrow());
        for (right, part) in rights.into_iter().zip(whole.into_col_blocks(40)) {
            matmul(a, right, part, Start::Continue);
        }
        c.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn who_computes_does_not_show() {
        let expected = work();
        for most in [0, 7 * 20 * 40] {
            let slow = Rc::new(Slow {
                most,
                ..Slow::default()
            });
            assert_eq!(scope(slow.clone(), work), expected);
            let done = if most == 0 { 0 } else { 4 };
            assert_eq!(*slow.done.borrow(), vec![(7, 20, 40); done]);
        }
        assert!(!active());
    }

    #[test]
    fn a_scope_ends_where_it_panics() {
        let slow = Rc::new(Slow::default());
        let panics = || scope(slow, || panic!("on purpose"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert!(!active());
    }
}
