//! One panel: its ranges, ticks and curves.

use super::canvas::{Anchor, Canvas};
use super::figure::INK;

const GRID: [u8; 3] = [225, 225, 225];
/// Room for what stands around the curves: left, top, right, bottom.
const MARGINS: [f64; 4] = [78.0, 34.0, 24.0, 46.0];

/// A line through points.
pub(super) struct Curve {
    points: Vec<(f64, f64)>,
    colour: [u8; 3],
    dashes: &'static [f64],
    width: f64,
    dots: bool,
}

impl Curve {
    /// A line.
    pub(super) fn thin(points: Vec<(f64, f64)>, colour: [u8; 3], dashes: &'static [f64]) -> Self {
        Self {
            points,
            colour,
            dashes,
            width: 2.0,
            dots: false,
        }
    }

    /// A stronger line with a dot at each point.
    pub(super) fn dotted(points: Vec<(f64, f64)>, colour: [u8; 3], dashes: &'static [f64]) -> Self {
        Self {
            width: 2.5,
            dots: true,
            ..Self::thin(points, colour, dashes)
        }
    }
}

/// Curves over the same steps.
pub(super) struct Panel {
    title: &'static str,
    curves: Vec<Curve>,
    from_zero: bool,
}

impl Panel {
    pub(super) fn new(title: &'static str) -> Self {
        Self {
            title,
            curves: Vec::new(),
            from_zero: false,
        }
    }

    /// The vertical axis begins at 0.
    pub(super) fn above_zero(self) -> Self {
        Self {
            from_zero: true,
            ..self
        }
    }

    pub(super) fn add(&mut self, curve: Curve) {
        self.curves.push(curve);
    }

    /// Draws the panel at left, top, width, height.
    pub(super) fn draw(&self, canvas: &mut Canvas, [x, y, width, height]: [f64; 4]) {
        let (left, right) = (x + MARGINS[0], x + width - MARGINS[2]);
        let (top, bottom) = (y + MARGINS[1], y + height - MARGINS[3]);
        canvas.text((left, y + 16.0), Anchor::Left, INK, self.title);
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        if points().next().is_none() {
            let middle = ((left + right) / 2.0, (top + bottom) / 2.0);
            canvas.text(middle, Anchor::Middle, INK, "nothing was reported");
            return;
        }
        let steps = Range::of(points().map(|p| p.0), false);
        let values = Range::of(points().map(|p| p.1), self.from_zero);
        let across = |step: f64| left + steps.share(step) * (right - left);
        let up = |value: f64| bottom - values.share(value) * (bottom - top);
        for (value, label) in values.ticks(6) {
            canvas.line(&[(left, up(value)), (right, up(value))], GRID, 1.0, &[]);
            canvas.text((left - 8.0, up(value)), Anchor::Right, INK, &label);
        }
        for (step, label) in steps.ticks(6) {
            canvas.line(
                &[(across(step), top), (across(step), bottom)],
                GRID,
                1.0,
                &[],
            );
            canvas.text((across(step), bottom + 14.0), Anchor::Middle, INK, &label);
        }
        canvas.text(
            ((left + right) / 2.0, bottom + 32.0),
            Anchor::Middle,
            INK,
            "step",
        );
        let frame = [(left, top), (left, bottom), (right, bottom)];
        canvas.line(&frame, INK, 1.0, &[]);
        // Pale lines first, so that none hides a dot.
        for dots in [false, true] {
            for curve in self.curves.iter().filter(|curve| curve.dots == dots) {
                let place = |p: &(f64, f64)| (across(p.0), up(p.1));
                let places: Vec<(f64, f64)> = curve.points.iter().map(place).collect();
                canvas.line(&places, curve.colour, curve.width, curve.dashes);
                if curve.dots || places.len() == 1 {
                    places
                        .iter()
                        .for_each(|p| canvas.dot(*p, 3.0, curve.colour));
                }
            }
        }
    }
}

/// What an axis shows.
pub(super) struct Range {
    low: f64,
    high: f64,
}

impl Range {
    /// A range that holds all values, with a little room above and below them.
    pub(super) fn of(values: impl Iterator<Item = f64>, from_zero: bool) -> Self {
        let (mut low, mut high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
                (low.min(x), high.max(x))
            });
        if from_zero {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        // Beyond this a difference would overflow. Files say what they like.
        (low, high) = (low.clamp(-1e300, 1e300), high.clamp(-1e300, 1e300));
        let mut room = (high - low) * 0.04;
        if room <= high.abs().max(low.abs()) * 1e-9 {
            // All the same: a range around it, wide enough to have ticks.
            room = if high == 0.0 { 1.0 } else { high.abs() * 0.1 };
        }
        Self {
            low: if from_zero && low == 0.0 {
                0.0
            } else {
                low - room
            },
            high: high + room,
        }
    }

    /// 0 at the lower end, 1 at the upper.
    pub(super) fn share(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// At most `most` + 1 round numbers inside, with their labels.
    pub(super) fn ticks(&self, most: usize) -> Vec<(f64, String)> {
        let wanted = (self.high - self.low) / most as f64;
        // 1, 2 or 5 times a power of ten. The powers of f64 are less than 700 apart.
        let mut unit = 1.0;
        for _ in 0..700 {
            match wanted {
                w if w < unit => unit /= 10.0,
                w if w >= 10.0 * unit => unit *= 10.0,
                _ => break,
            }
        }
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|n| n * unit)
            .into_iter()
            .find(|s| *s >= wanted);
        let Some(step) = step.filter(|s| *s > 0.0 && s.is_finite()) else {
            return Vec::new();
        };
        let first = (self.low / step).ceil();
        (0..=most)
            .map(|n| (first + n as f64) * step)
            .take_while(|x| *x <= self.high)
            .map(|x| (x, label(x, step, self.low.abs().max(self.high.abs()))))
            .collect()
    }
}

/// A round number, with as many decimals as the step between two of them needs; `size` is the largest on the axis.
fn label(value: f64, step: f64, size: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(1e-6..1e9).contains(&size) {
        return format!("{value:e}");
    }
    let (scale, unit) = match size {
        s if s >= 1e6 && step >= 1e4 => (1e6, "M"),
        s if s >= 1e4 && step >= 1e2 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let (mut decimals, mut step) = (0, step / scale);
    // A hair below 1, as 0.1 times 10 need not be 1.
    while step < 0.999 && decimals < 9 {
        step *= 10.0;
        decimals += 1;
    }
    format!("{:.decimals$}{unit}", value / scale)
}

/// A name of at most so many characters, its end kept, fit for a picture.
pub(super) fn short(name: &str, most: usize) -> String {
    let shown: Vec<char> = name
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    match shown.len() > most {
        true => "..."
            .chars()
            .chain(shown[shown.len() - most + 3..].iter().copied())
            .collect(),
        false => shown.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64) -> Vec<String> {
        Range { low, high }
            .ticks(6)
            .into_iter()
            .map(|(_, label)| label)
            .collect()
    }

    #[test]
    fn ticks_are_round_numbers_inside_the_range() {
        assert_eq!(labels(1.13, 2.57), ["1.5", "2.0", "2.5"]);
        assert_eq!(labels(0.0, 0.0031), ["0", "0.001", "0.002", "0.003"]);
        assert_eq!(labels(0.0, 21_000.0), ["0", "5k", "10k", "15k", "20k"]);
        assert_eq!(labels(0.0, 150.0), ["0", "50", "100", "150"]);
        assert_eq!(labels(-0.4, 0.4), ["-0.4", "-0.2", "0", "0.2", "0.4"]);
    }

    #[test]
    fn whatever_a_file_says_there_is_a_range_and_few_ticks() {
        let values = [
            0.0,
            1e-320,
            1e-300,
            1.0,
            -1.0,
            1e300,
            -f64::MAX,
            f64::MAX,
            f64::MIN_POSITIVE,
        ];
        for a in values {
            for b in values {
                for from_zero in [false, true] {
                    let range = Range::of([a, b].into_iter(), from_zero);
                    assert!(
                        range.low < range.high && (range.high - range.low).is_finite(),
                        "{a} {b}"
                    );
                    let ticks = range.ticks(6);
                    assert!(ticks.len() <= 7, "{a} {b}");
                    assert!(
                        ticks
                            .iter()
                            .all(|(x, text)| *x >= range.low && text.len() < 30),
                        "{a} {b}"
                    );
                    assert!((0.0..=1.0).contains(&range.share(a)), "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(short("abc", 3), "abc");
        assert_eq!(short("abcdefgh", 6), "...fgh");
        assert_eq!(short("a\n\u{1b}", 6), "a??");
    }
}
