//! Regimes: which heads count at which step, how much, and whether they may change the trunk.
//!
//! Everything here is a pure function of the options and the step's number.

use super::schedule::positive;
use crate::model::{GradFlow, JointLoss, Objective, layout};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How trunk and heads learn together.
///
/// Training on more tokens often does not improve a small model's own loss, so a user can choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Regime {
    /// All heads from the first step to the last.
    #[default]
    Joint,
    /// K+1 equal stages with 0, 1, .., K heads: a small model learns the next token first.
    Curriculum,
    /// K+1 equal stages with K, .., 1, 0 heads.
    Reverse,
    /// All heads, and none of their gradients reaches the trunk, the embedding or the output matrix.
    Detached,
}

impl Regime {
    /// Every regime.
    pub const ALL: [Self; 4] = [Self::Joint, Self::Curriculum, Self::Reverse, Self::Detached];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joint => "joint",
            Self::Curriculum => "curriculum",
            Self::Reverse => "reverse",
            Self::Detached => "detached",
        }
    }

    /// Heads that count at a step 0..`steps`, of `depth`.
    fn depths(self, depth: usize, step: u64, steps: u64) -> usize {
        let stages = depth as u128 + 1;
        let stage = u128::from(step) * stages / u128::from(steps.max(1));
        let stage = stage.min(depth as u128) as usize;
        match self {
            Self::Joint | Self::Detached => depth,
            Self::Curriculum => stage,
            Self::Reverse => depth - stage,
        }
    }
}

/// What changes between the steps of a run, beside the learning rate. The default is λ and all heads throughout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Which heads count when.
    pub regime: Regime,
    /// λ of the last step, reached in a straight line from that of the first; `None` keeps λ.
    pub lambda_end: Option<f64>,
    /// Whether the trunk keeps its weights, so that only heads learn.
    pub freeze_trunk: bool,
}

impl Plan {
    /// Whether some step may change the parameter of that name.
    pub fn learns(&self, name: &str) -> bool {
        !self.freeze_trunk || layout::is_head(name)
    }

    /// Whether a model with `depth` heads can be trained so, from the λ of `joint`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a λ or β that no loss can have, and where a frozen trunk would leave nothing to learn.
    pub fn check(&self, joint: JointLoss, depth: usize) -> Result<()> {
        for lambda in [Some(joint.lambda), self.lambda_end].into_iter().flatten() {
            if !(lambda.is_finite() && lambda >= 0.0) {
                return Err(Error::Usage(format!(
                    "--lambda: expected a number, 0 or more, found {lambda}"
                )));
            }
        }
        positive("--beta", joint.beta)?;
        if !self.freeze_trunk {
            return Ok(());
        }
        let reason = match self.regime {
            Regime::Curriculum | Regime::Reverse => format!(
                "expected --regime joint or detached, found {}, which has steps without heads",
                self.regime.name()
            ),
            _ if depth == 0 => "expected heads to train, found --heads 0".to_owned(),
            _ => return Ok(()),
        };
        Err(Error::Usage(format!("--freeze-trunk: {reason}")))
    }

    /// What step 0..`steps` of a model with `depth` heads minimises, where `joint` holds the λ of the first step.
    pub fn objective(&self, joint: JointLoss, depth: usize, step: u64, steps: u64) -> Objective {
        let done = match steps {
            0 | 1 => 0.0,
            _ => step as f64 / (steps - 1) as f64,
        };
        let end = self.lambda_end.unwrap_or(joint.lambda);
        Objective {
            joint: JointLoss {
                lambda: joint.lambda + (end - joint.lambda) * done,
                ..joint
            },
            depths: self.regime.depths(depth, step, steps),
            flow: match (self.freeze_trunk, self.regime) {
                (true, _) => GradFlow::Frozen,
                (false, Regime::Detached) => GradFlow::Detached,
                (false, _) => GradFlow::Joint,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depths(regime: Regime, depth: usize, steps: u64) -> Vec<usize> {
        let plan = Plan {
            regime,
            ..Plan::default()
        };
        let at = |step| plan.objective(JointLoss::default(), depth, step, steps);
        (0..steps).map(|step| at(step).depths).collect()
    }

    #[test]
    fn stages_are_equal_and_in_order() {
        let up = [0, 0, 1, 1, 2, 2, 3, 3];
        assert_eq!(depths(Regime::Curriculum, 3, 8), up);
        assert_eq!(depths(Regime::Reverse, 3, 8), up.map(|d| 3 - d));
        assert_eq!(depths(Regime::Joint, 3, 2), [3, 3]);
        assert_eq!(depths(Regime::Detached, 3, 2), [3, 3]);
        assert_eq!(depths(Regime::Curriculum, 0, 3), [0, 0, 0]);
        // Stages that do not divide the run differ by one step at most.
        for steps in 4..40 {
            let run = depths(Regime::Curriculum, 3, steps);
            let count = |d| run.iter().filter(|x| **x == d).count() as u64;
            assert!((0..4).all(|d| count(d) == steps / 4 || count(d) == steps.div_ceil(4)));
            assert!(run.is_sorted());
        }
        // A count of steps that no run reaches does not overflow.
        let last = Regime::Curriculum.depths(3, u64::MAX - 1, u64::MAX);
        assert_eq!(last, 3);
    }

    #[test]
    fn lambda_goes_from_one_end_to_the_other() {
        let joint = JointLoss {
            lambda: 1.0,
            beta: 0.5,
        };
        let plan = Plan {
            lambda_end: Some(0.25),
            ..Plan::default()
        };
        let lambda = |plan: Plan, step| plan.objective(joint, 2, step, 4).joint.lambda;
        let run = [0, 1, 2, 3].map(|step| lambda(plan, step));
        assert_eq!(run, [1.0, 0.75, 0.5, 0.25]);
        assert_eq!(lambda(Plan::default(), 3), 1.0);
        assert_eq!(plan.objective(joint, 2, 0, 1).joint.lambda, 1.0);
    }
}
