//! Regimes: which heads are active at which step, how much they weigh, and whether they may change the trunk.
//!
//! Everything here is a pure function of the configuration and the step's number.

use super::TrainConfig;
use crate::model::{GradFlow, JointLoss, layout};
use serde::{Deserialize, Serialize};

/// How trunk and heads are trained together.
///
/// Training to predict more future tokens often does not improve a small model's main loss, so there is a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Regime {
    /// All heads are active throughout.
    #[default]
    Joint,
    /// K+1 equal stages with 0, 1, .., K active heads: a small model learns the next token first.
    Curriculum,
    /// K+1 equal stages with K, .., 1, 0 active heads.
    Reverse,
    /// All heads are active, and none of their gradients reaches the trunk, the embedding or the LM head.
    Detached,
}

names!(Regime {
    Joint = "joint",
    Curriculum = "curriculum",
    Reverse = "reverse",
    Detached = "detached"
});

impl Regime {
    /// Number of active heads at step 0..`steps`.
    fn active_heads(self, num_heads: usize, step: u64, steps: u64) -> usize {
        let stages = num_heads as u128 + 1;
        let stage = u128::from(step) * stages / u128::from(steps.max(1));
        let stage = stage.min(num_heads as u128) as usize;
        match self {
            Self::Joint | Self::Detached => num_heads,
            Self::Curriculum => stage,
            Self::Reverse => num_heads - stage,
        }
    }
}

impl TrainConfig {
    /// Whether some step may change the parameter of that name.
    pub fn trains(&self, name: &str) -> bool {
        !self.freeze_trunk || layout::is_head(name)
    }

    /// The loss of step 0..`steps` for a model with `num_heads` heads.
    pub fn joint_loss(&self, num_heads: usize, step: u64) -> JointLoss {
        let done = step as f64 / self.steps.saturating_sub(1).max(1) as f64;
        let end = self.lambda_end.unwrap_or(self.lambda);
        JointLoss {
            lambda: self.lambda + (end - self.lambda) * done,
            beta: self.beta,
            active_heads: Some(self.regime.active_heads(num_heads, step, self.steps)),
            grad_flow: match self.regime {
                _ if self.freeze_trunk => GradFlow::Frozen,
                Regime::Detached => GradFlow::Detached,
                _ => GradFlow::Joint,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active_heads(regime: Regime, num_heads: usize, steps: u64) -> Vec<usize> {
        let config = TrainConfig {
            regime,
            steps,
            ..TrainConfig::default()
        };
        let at = |step| config.joint_loss(num_heads, step).active_heads;
        (0..steps).map(|step| at(step).unwrap()).collect()
    }

    #[test]
    fn stages_are_equal_and_in_order() {
        let up = [0, 0, 1, 1, 2, 2, 3, 3];
        assert_eq!(active_heads(Regime::Curriculum, 3, 8), up);
        assert_eq!(active_heads(Regime::Reverse, 3, 8), up.map(|d| 3 - d));
        assert_eq!(active_heads(Regime::Joint, 3, 2), [3, 3]);
        assert_eq!(active_heads(Regime::Detached, 3, 2), [3, 3]);
        assert_eq!(active_heads(Regime::Curriculum, 0, 3), [0, 0, 0]);
        // Stages that do not divide the run differ by one step at most.
        for steps in 4..40 {
            let run = active_heads(Regime::Curriculum, 3, steps);
            let length = |d| run.iter().filter(|x| **x == d).count() as u64;
            assert!((0..4).all(|d| length(d) == steps / 4 || length(d) == steps.div_ceil(4)));
            assert!(run.is_sorted());
        }
        // A number of steps that no run reaches does not overflow.
        let last = Regime::Curriculum.active_heads(3, u64::MAX - 1, u64::MAX);
        assert_eq!(last, 3);
    }

    #[test]
    fn lambda_goes_from_one_end_to_the_other() {
        let lambda = |lambda_end, steps, step| {
            let config = TrainConfig {
                lambda: 1.0,
                lambda_end,
                steps,
                ..TrainConfig::default()
            };
            config.joint_loss(2, step).lambda
        };
        let run = [0, 1, 2, 3].map(|step| lambda(Some(0.25), 4, step));
        assert_eq!(run, [1.0, 0.75, 0.5, 0.25]);
        assert_eq!(lambda(None, 4, 3), 1.0);
        assert_eq!(lambda(Some(0.25), 1, 0), 1.0);
    }
}
