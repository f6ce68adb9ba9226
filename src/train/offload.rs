//! Training whose products something else than the CPU computes.

use crate::Result;
use crate::tensor::Params;

/// Who computes a trainer's products. The weights are the same, whoever it is (rule R1).
pub trait Offload {
    /// Runs `f`; the products of this thread may be computed elsewhere meanwhile
    /// ([`gemm::offload`](crate::kernels::gemm::offload)). The parameters are borrowed, so that none changes before `f`
    /// ends: what has been sent of them can be used again.
    ///
    /// # Errors
    /// Where something elsewhere failed. What `f` made is thrown away then.
    fn scope(&mut self, params: &Params, f: &mut dyn FnMut()) -> Result<()>;

    /// Hears that parameters may have changed, before each step and each evaluation: in between they are anybody's.
    fn changed(&mut self);
}

/// Tells an offload, if there is one, that parameters may have changed.
pub(super) fn changed(offload: &mut Option<Box<dyn Offload + Send>>) {
    if let Some(offload) = offload {
        offload.changed();
    }
}

/// Runs `f` in the scope of an offload, if there is one.
pub(super) fn scope<R>(
    offload: &mut Option<Box<dyn Offload + Send>>,
    params: &Params,
    f: impl FnOnce() -> R,
) -> Result<R> {
    let Some(offload) = offload else {
        return Ok(f());
    };
    let (mut f, mut result) = (Some(f), None);
    offload.scope(params, &mut || result = f.take().map(|f| f()))?;
    Ok(result.expect("a scope runs what it is given"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::data::RandomWindows;
    use crate::kernels::gemm::{Start, View, offload};
    use crate::model::{HeadKind, JointLoss, Model, Preset};
    use crate::simd::matrix::MatrixMut;
    use crate::train::Trainer;
    use std::rc::Rc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    /// Leaves all products to the CPU and counts what it is offered; fails in one of its scopes.
    #[derive(Clone, Default)]
    struct Idle {
        offered: Arc<AtomicUsize>,
        /// `true` for a scope, `false` for a change.
        calls: Arc<Mutex<Vec<bool>>>,
        fails_after: usize,
    }

    impl offload::Products for Idle {
        fn matmul(&self, _: View<'_>, _: View<'_>, _: &mut MatrixMut<'_>, _: Start) -> bool {
            self.offered.fetch_add(1, Ordering::Relaxed);
            false
        }
    }

    impl Offload for Idle {
        fn scope(&mut self, _: &Params, f: &mut dyn FnMut()) -> Result<()> {
            offload::scope(Rc::new(self.clone()), f);
            let mut calls = self.calls.lock().unwrap();
            calls.push(true);
            match calls.len() > self.fails_after {
                true => Err(Error::Usage("the device is gone".to_owned())),
                false => Ok(()),
            }
        }

        fn changed(&mut self) {
            self.calls.lock().unwrap().push(false);
        }
    }

    fn trainer() -> Trainer {
        let mut config = Preset::Tiny.config(257, HeadKind::Recursive, 2);
        (config.hidden_size, config.intermediate_size) = (16, 32);
        (config.num_hidden_layers, config.head_dim) = (1, 8);
        (config.num_attention_heads, config.num_key_value_heads) = (2, 1);
        config.set_head_width(8);
        Trainer::new(Model::new(config, 3).expect("sound sizes"))
    }

    fn weights(trainer: &Trainer) -> Vec<u32> {
        let all = trainer.model.params().iter();
        all.flat_map(|(_, t)| t.data().iter().map(|x| x.to_bits()))
            .collect()
    }

    #[test]
    fn steps_are_offered_and_come_out_the_same() {
        let text: Vec<u32> = (0..300).map(|i| i * 7 % 100).collect();
        let windows = RandomWindows::new(text, 12, 2, 5).expect("long enough");
        let (mut plain, mut sent) = (trainer(), trainer());
        let idle = Idle {
            fails_after: 7,
            ..Idle::default()
        };
        sent.offload(Box::new(idle.clone()));
        for step in 0..3 {
            let parts = windows.batch(step).expect("in memory").parts(2);
            let step =
                |trainer: &mut Trainer| trainer.step_in_parts(&parts, JointLoss::default(), 1e-2);
            let expected = step(&mut plain).expect("a finite loss");
            let before = weights(&sent);
            match step(&mut sent) {
                Ok(report) => {
                    assert_eq!(report, expected);
                    assert_eq!(weights(&sent), weights(&plain));
                }
                Err(error) => {
                    assert!(error.to_string().contains("the device is gone"));
                    assert_eq!(weights(&sent), before);
                }
            }
        }
        // A change and two parts, twice; of the third step only the first part.
        let calls = idle.calls.lock().unwrap();
        assert_eq!(*calls, [false, true, true, false, true, true, false, true]);
        assert!(idle.offered.load(Ordering::Relaxed) > 100);
    }
}
