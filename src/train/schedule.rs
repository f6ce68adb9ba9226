//! The learning rate of each step: linear warm-up, then one of two shapes.
//!
//! ```text
//! cosine   minimum + (1 − minimum) · (1 + cos πx) / 2     x from 0 after the warm-up to 1 at the end
//!          (Loshchilov and Hutter 2017)
//! wsd      1, and over the last fifth of the run minimum + (1 − minimum) · (1 − √x)     x from 0 to 1 over that fifth
//!          (warm-up, stable, decay: Hu et al. 2024, "MiniCPM", section 4; this decay: Hägele et al. 2024, section 3)
//! ```
//!
//! These are fractions of [`TrainConfig::peak_lr`], and `minimum` is [`TrainConfig::final_lr`]. In the stable part of
//! `wsd` a rate does not depend on the length of the run, so a run can be made longer from there.

use super::TrainConfig;
use crate::simd::scalar;
use serde::{Deserialize, Serialize};

/// How the learning rate changes after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Schedule {
    /// Half a cosine.
    Cosine,
    /// Constant, then a decay over the last fifth of the run. The default, because its losses are lower on short runs
    /// with either optimiser (`docs/log.md`, "Optimiser and schedule side by side").
    #[default]
    Wsd,
}

names!(Schedule {
    Cosine = "cosine",
    Wsd = "wsd"
});

impl TrainConfig {
    /// Steps of linear warm-up.
    pub fn warmup_steps(&self) -> u64 {
        self.warmup.unwrap_or(self.steps / 20)
    }

    /// The learning rate of step 0, 1, .., in `f64` by our own functions (rule R9).
    pub fn lr(&self, step: u64) -> f64 {
        let warmup = self.warmup_steps();
        if step < warmup {
            return self.peak_lr * ((step + 1) as f64 / warmup as f64);
        }
        let share = match self.schedule {
            Schedule::Cosine => {
                let x = self.progress(step, warmup);
                let (_, cos) = scalar::sin_cos(std::f64::consts::PI * x);
                0.5 + 0.5 * cos
            }
            Schedule::Wsd => {
                let decay = (self.steps - self.steps / 5).max(warmup);
                1.0 - self.progress(step, decay).sqrt()
            }
        };
        self.peak_lr * (self.final_lr + (1.0 - self.final_lr) * share)
    }

    /// The position of a step between `first` and the end of the run: 0 up to `first`, 1 at the end.
    fn progress(&self, step: u64, first: u64) -> f64 {
        let span = self.steps.saturating_sub(first).max(1) as f64;
        (step.saturating_sub(first) as f64 / span).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    fn config(schedule: Schedule) -> TrainConfig {
        TrainConfig {
            peak_lr: 2.0,
            warmup: Some(10),
            steps: 110,
            schedule,
            ..TrainConfig::default()
        }
    }

    #[test]
    fn up_then_down() {
        let config = config(Schedule::Cosine);
        assert_eq!(config.lr(0), 0.2);
        assert_eq!(config.lr(9), 2.0);
        assert_eq!(config.lr(10), 2.0);
        assert_abs_diff_eq!(config.lr(60), 1.1, epsilon = 1e-12);
        assert_abs_diff_eq!(config.lr(110), 0.2, epsilon = 1e-12);
        let falls = (10..109).all(|s| config.lr(s) > config.lr(s + 1));
        assert!(falls);
    }

    #[test]
    fn up_then_flat_then_down() {
        let config = config(Schedule::Wsd);
        assert_eq!((config.lr(0), config.lr(9)), (0.2, 2.0));
        // The last fifth of 110 steps begins at 88.
        assert!((10..=88).all(|s| config.lr(s) == 2.0));
        assert!((88..109).all(|s| config.lr(s) > config.lr(s + 1)));
        // Half of the way down.
        let exact = 2.0 * (0.1 + 0.9 * (1.0 - (11.0f64 / 22.0).sqrt()));
        assert_abs_diff_eq!(config.lr(99), exact, epsilon = 1e-12);
        assert_abs_diff_eq!(config.lr(110), 0.2, epsilon = 1e-12);
        let mut longer = config.clone();
        longer.extend(1000);
        assert!((0..88).all(|s| longer.lr(s) == config.lr(s)));
    }

    #[test]
    fn rates_of_the_shortest_runs_are_numbers() {
        for schedule in Schedule::ALL {
            for (steps, warmup) in [(1, 0), (1, 5), (4, 0), (5, 5), (2, 1)] {
                let config = TrainConfig {
                    steps,
                    warmup: Some(warmup),
                    ..config(schedule)
                };
                let valid = |s| config.lr(s) > 0.0 && config.lr(s) <= 2.0;
                assert!(
                    (0..steps).all(valid),
                    "{schedule:?}: {steps} steps, {warmup} up"
                );
            }
        }
    }
}
