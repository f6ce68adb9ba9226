//! The learning rate: linear warm-up, then a cosine down to a share of the peak (Loshchilov and Hutter 2017).

use crate::simd::scalar;
use serde::{Deserialize, Serialize};

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
}

impl Schedule {
    /// The rate of step 0, 1, ..
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * ((step + 1) as f64 / self.warmup as f64);
        }
        let span = self.steps.saturating_sub(self.warmup).max(1) as f64;
        let done = ((step - self.warmup) as f64 / span).min(1.0);
        let (_, cos) = scalar::sin_cos(std::f64::consts::PI * done);
        self.peak * (self.floor + (1.0 - self.floor) * (0.5 + 0.5 * cos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    #[test]
    fn up_then_down() {
        let schedule = Schedule {
            peak: 2.0,
            warmup: 10,
            steps: 110,
            floor: 0.1,
        };
        assert_eq!(schedule.rate(0), 0.2);
        assert_eq!(schedule.rate(9), 2.0);
        assert_eq!(schedule.rate(10), 2.0);
        assert_abs_diff_eq!(schedule.rate(60), 1.1, epsilon = 1e-12);
        assert_abs_diff_eq!(schedule.rate(110), 0.2, epsilon = 1e-12);
        let falls = (10..109).all(|s| schedule.rate(s) > schedule.rate(s + 1));
        assert!(falls);
    }
}
