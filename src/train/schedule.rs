//! The learning rate of each step: linear warm-up, then one of two shapes.
//!
//! ```text
//! cosine   floor + (1 − floor) · (1 + cos πx) / 2     x from 0 after the warm-up to 1 at the end
//!          (Loshchilov and Hutter 2017)
//! wsd      1, and over the last fifth of the run floor + (1 − floor) · (1 − √x)     x from 0 to 1 over that fifth
//!          (warm-up, stable, decay: Hu et al. 2024, "MiniCPM", section 4; this decay: Hägele et al. 2024, section 3)
//! ```
//!
//! All are shares of the peak. In the stable part of `wsd` a rate does not depend on the length of the run, so that a run
//! may be made longer from there.

use crate::simd::scalar;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// What comes after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Half a cosine down to the floor.
    Cosine,
    /// The peak, and over the last fifth down to the floor. The default, because its losses are lower on short runs
    /// (`docs/log.md`, "Schedule `wsd` against `cosine`").
    #[default]
    Wsd,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 2] = [Self::Cosine, Self::Wsd];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Wsd => "wsd",
        }
    }
}

/// Learning rates of a run, in `f64` by our own functions (rule R9).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// The rate at the end, as a share of the peak.
    pub floor: f64,
    /// What comes after the warm-up.
    pub shape: Shape,
}

impl Schedule {
    /// The usual rates of a run of `steps` steps: up over a twentieth of it, at the end a tenth of the peak.
    pub fn new(peak: f64, steps: u64) -> Self {
        Self {
            peak,
            warmup: steps / 20,
            steps,
            floor: 0.1,
            shape: Shape::default(),
        }
    }

    /// The rate of step 0, 1, ..
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * ((step + 1) as f64 / self.warmup as f64);
        }
        let share = match self.shape {
            Shape::Cosine => {
                let x = self.progress(step, self.warmup);
                let (_, cos) = scalar::sin_cos(std::f64::consts::PI * x);
                0.5 + 0.5 * cos
            }
            Shape::Wsd => {
                let decay = (self.steps - self.steps / 5).max(self.warmup);
                1.0 - self.progress(step, decay).sqrt()
            }
        };
        self.peak * (self.floor + (1.0 - self.floor) * share)
    }

    /// How far a step is from `first` to the end: 0 before it, 1 at the end.
    fn progress(&self, step: u64, first: u64) -> f64 {
        let span = self.steps.saturating_sub(first).max(1) as f64;
        (step.saturating_sub(first) as f64 / span).min(1.0)
    }
}

/// Whether the number that a flag stands for is one, and more than 0.
///
/// # Errors
/// [`Error::Usage`] naming the flag where it is not.
pub(super) fn positive(flag: &str, value: f64) -> Result<()> {
    match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(Error::Usage(format!(
            "{flag}: expected a number, more than 0, found {value}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    fn schedule(shape: Shape) -> Schedule {
        Schedule {
            peak: 2.0,
            warmup: 10,
            steps: 110,
            floor: 0.1,
            shape,
        }
    }

    #[test]
    fn up_then_down() {
        let schedule = schedule(Shape::Cosine);
        assert_eq!(schedule.rate(0), 0.2);
        assert_eq!(schedule.rate(9), 2.0);
        assert_eq!(schedule.rate(10), 2.0);
        assert_abs_diff_eq!(schedule.rate(60), 1.1, epsilon = 1e-12);
        assert_abs_diff_eq!(schedule.rate(110), 0.2, epsilon = 1e-12);
        let falls = (10..109).all(|s| schedule.rate(s) > schedule.rate(s + 1));
        assert!(falls);
    }

    #[test]
    fn up_then_flat_then_down() {
        let schedule = schedule(Shape::Wsd);
        assert_eq!((schedule.rate(0), schedule.rate(9)), (0.2, 2.0));
        // The last fifth of 110 steps begins at 88.
        assert!((10..=88).all(|s| schedule.rate(s) == 2.0));
        assert!((88..109).all(|s| schedule.rate(s) > schedule.rate(s + 1)));
        // Half of the way down.
        let exact = 2.0 * (0.1 + 0.9 * (1.0 - (11.0f64 / 22.0).sqrt()));
        assert_abs_diff_eq!(schedule.rate(99), exact, epsilon = 1e-12);
        assert_abs_diff_eq!(schedule.rate(110), 0.2, epsilon = 1e-12);
        let longer = Schedule {
            steps: 1000,
            ..schedule
        };
        assert!((0..88).all(|s| longer.rate(s) == schedule.rate(s)));
    }

    #[test]
    fn rates_of_the_shortest_runs_are_numbers() {
        for shape in Shape::ALL {
            for (steps, warmup) in [(1, 0), (1, 5), (4, 0), (5, 5), (2, 1)] {
                let schedule = Schedule {
                    steps,
                    warmup,
                    ..schedule(shape)
                };
                let sound = |s| schedule.rate(s) > 0.0 && schedule.rate(s) <= 2.0;
                assert!(
                    (0..steps).all(sound),
                    "{shape:?}: {steps} steps, {warmup} up"
                );
            }
        }
    }
}
