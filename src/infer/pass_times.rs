//! Measured times: the cost of a pass by its number of rows.

/// Assumed time of a further row, as a fraction of the pass, until two numbers of rows have been measured.
const ROW_GUESS: f64 = 0.05;

/// Samples before a minimum is used.
pub(super) const MIN_SAMPLES: usize = 2;

/// The last few samples of a time. Noise only ever makes a time longer, so that the minimum is the best estimate.
#[derive(Clone, Debug, Default)]
struct RecentTimes {
    samples: [f64; 5],
    count: usize,
}

impl RecentTimes {
    fn add(&mut self, seconds: f64) {
        self.samples[self.count % self.samples.len()] = seconds;
        self.count += 1;
    }

    /// The smallest sample, if there are [`MIN_SAMPLES`].
    fn min(&self) -> Option<f64> {
        if self.count < MIN_SAMPLES {
            return None;
        }
        let known = &self.samples[..self.count.min(self.samples.len())];
        known.iter().copied().min_by(f64::total_cmp)
    }
}

/// Seconds by a number: of passes by their rows, of heads by how many there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Times(Vec<RecentTimes>);

impl Times {
    pub fn add(&mut self, number: usize, seconds: f64) {
        if self.0.len() <= number {
            self.0.resize(number + 1, RecentTimes::default());
        }
        self.0[number].add(seconds);
    }

    /// The numbers that were measured, and their smallest times.
    pub fn known(&self) -> impl Iterator<Item = (usize, f64)> {
        let times = self.0.iter().enumerate();
        times.filter_map(|(number, times)| Some((number, times.min()?)))
    }

    /// The current estimate for passes. It never falls: if more rows were measured to be faster, the machine was slower
    /// when fewer were measured.
    pub fn curve(&self) -> CostCurve {
        let mut max = 0.0;
        let point = |(rows, seconds): (usize, f64)| {
            max = seconds.max(max);
            (rows as f64, max)
        };
        CostCurve(self.known().map(point).collect())
    }
}

/// Seconds of a pass by its rows, interpolated between measured points (rows, seconds).
#[derive(Clone, Debug)]
pub(super) struct CostCurve(Vec<(f64, f64)>);

impl CostCurve {
    /// Seconds of a pass over so many rows; if nothing was measured, in units of a pass over one row.
    pub fn at(&self, rows: usize) -> f64 {
        let rows = rows as f64;
        let guess = |m: f64| 1.0 + ROW_GUESS * (m - 1.0);
        let above = self.0.partition_point(|(m, _)| *m < rows);
        let below = above.checked_sub(1).map(|i| self.0[i]);
        match (below, self.0.get(above).copied()) {
            (_, Some((m, t))) if m == rows => t,
            (Some((m0, t0)), Some((m, t))) => t0 + (t - t0) * (rows - m0) / (m - m0),
            (Some((m, t)), None) | (None, Some((m, t))) => t * guess(rows) / guess(m),
            (None, None) => guess(rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_meets_what_was_measured() {
        let mut passes = Times::default();
        assert_eq!(passes.curve().at(1), 1.0);
        for (rows, seconds) in [
            (2, 3.0),
            (2, 2.0),
            (2, 9.0),
            (6, 4.0),
            (6, 4.0),
            (6, 8.0),
            (4, 90.0),
        ] {
            passes.add(rows, seconds);
        }
        let curve = passes.curve();
        assert_eq!([2, 4, 6].map(|rows| curve.at(rows)), [2.0, 3.0, 4.0]);
        assert!(curve.at(1) < 2.0 && curve.at(8) > 4.0);
        // A pass over more rows that was faster counts as equally fast.
        (0..3).for_each(|_| passes.add(7, 1.0));
        assert_eq!(passes.curve().at(7), 4.0);
        // Only the last few count.
        (0..5).for_each(|_| passes.add(2, 5.0));
        assert_eq!(passes.curve().at(2), 5.0);
    }
}
