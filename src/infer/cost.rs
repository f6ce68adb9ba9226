//! Measured times: what a pass costs by its rows.

/// Time that a row adds to a pass, as a share of it, before any other was measured.
const ROW: f64 = 0.05;

/// Values before which a guess is better.
pub(super) const ENOUGH: usize = 2;

/// The last few values of something that noise makes larger and never smaller.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    values: [f64; 5],
    count: usize,
}

impl Recent {
    pub fn add(&mut self, x: f64) {
        self.values[self.count % self.values.len()] = x;
        self.count += 1;
    }

    /// The least, once there are enough of them for one to be free of noise.
    pub fn least(&self) -> Option<f64> {
        if self.count < ENOUGH {
            return None;
        }
        let known = &self.values[..self.count.min(self.values.len())];
        known.iter().copied().min_by(f64::total_cmp)
    }
}

/// Seconds of passes by their rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Passes(Vec<Recent>);

impl Passes {
    pub fn add(&mut self, rows: usize, seconds: f64) {
        if self.0.len() <= rows {
            self.0.resize(rows + 1, Recent::default());
        }
        self.0[rows].add(seconds);
    }

    /// What is known now. More rows never take less time; where a measurement says so, the machine was slower when fewer
    /// were measured.
    pub fn line(&self) -> Line {
        let mut most = 0.0;
        let known = |(rows, times): (usize, &Recent)| {
            most = times.least()?.max(most);
            Some((rows as f64, most))
        };
        Line(self.0.iter().enumerate().filter_map(known).collect())
    }
}

/// A line through what was measured: (rows, seconds).
#[derive(Clone, Debug)]
pub(super) struct Line(Vec<(f64, f64)>);

impl Line {
    /// Seconds of a pass over so many rows; 1 for one row before anything was measured.
    pub fn at(&self, rows: usize) -> f64 {
        let rows = rows as f64;
        let guess = |m: f64| 1.0 + ROW * (m - 1.0);
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
    fn a_line_meets_what_was_measured() {
        let mut passes = Passes::default();
        assert_eq!(passes.line().at(1), 1.0);
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
        let line = passes.line();
        assert_eq!([2, 4, 6].map(|rows| line.at(rows)), [2.0, 3.0, 4.0]);
        assert!(line.at(1) < 2.0 && line.at(8) > 4.0);
        // A pass over more rows that was faster counts as equally fast.
        (0..3).for_each(|_| passes.add(7, 1.0));
        assert_eq!(passes.line().at(7), 4.0);
        // Only the last few count.
        (0..5).for_each(|_| passes.add(2, 5.0));
        assert_eq!(passes.line().at(2), 5.0);
    }
}
