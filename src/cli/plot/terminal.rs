//! The loss curves in Braille characters, each of which is two dots wide and four high.
//!
//! Training losses are lines, and validation losses are marked by the letter o. A run that reported no step has its
//! validation losses as lines.

use super::Run;
use super::figure::means;
use super::panel::{Range, short};

/// Lines of a chart.
const HEIGHT: usize = 16;
/// Columns left of a chart, for the values.
const LEFT: usize = 8;
/// Columns right of it, for the heads.
const RIGHT: usize = 18;
/// Columns from one mark of a curve to the next at least, so that the lines can be seen between them.
const APART: usize = 4;

/// Points of a curve, as (step, loss).
type Points = Vec<(f64, f64)>;

/// A chart for each run, all with the same axes, in lines of at most `width` columns.
pub(super) fn draw(runs: &[Run], width: usize) -> String {
    let curves: Vec<Vec<(Points, Points)>> = runs.iter().map(losses).collect();
    let points = || {
        let both = curves.iter().flatten();
        both.flat_map(|(line, marks)| line.iter().chain(marks))
    };
    let steps = Range::of(points().map(|p| p.0), false);
    let values = Range::of(points().map(|p| p.1), false);
    let columns = width - LEFT - RIGHT;
    let mut text = String::new();
    for (run, curves) in runs.iter().zip(&curves) {
        let marked = curves.iter().any(|(_, marks)| !marks.is_empty());
        let what = match (run.metrics.steps.is_empty(), marked) {
            (true, _) => ": validation loss, nats a token",
            (false, true) => ": training loss, nats (o validation)",
            (false, false) => ": training loss, nats a token",
        };
        text += &short(&run.name, width - what.len());
        text += what;
        text.push('\n');
        let mut dots = Dots::new(columns, HEIGHT);
        let mut ends: Vec<(usize, f64, String)> = Vec::new();
        for (head, (line, marks)) in curves.iter().enumerate() {
            let place = |p: &(f64, f64)| {
                let (x, y) = (steps.share(p.0), 1.0 - values.share(p.1));
                let at = |share: f64, count: usize| (share * (count - 1) as f64).round() as i64;
                (at(x, 2 * columns), at(y, 4 * HEIGHT))
            };
            let places: Vec<(i64, i64)> = line.iter().map(place).collect();
            places.iter().for_each(|p| dots.line(*p, *p));
            places
                .windows(2)
                .for_each(|pair| dots.line(pair[0], pair[1]));
            dots.mark(&marks.iter().map(place).collect::<Vec<_>>());
            if let (Some(place), Some(point)) = (places.last(), line.last()) {
                let name = if head == 0 {
                    "main".to_owned()
                } else {
                    format!("h{head}")
                };
                let mut text = format!("{name} {:.2}", point.1);
                if let Some(mark) = marks.last() {
                    text += &format!(" o {:.2}", mark.1);
                }
                ends.push((place.1 as usize / 4, point.1, text));
            }
        }
        let ends = apart(ends);
        let labels = values.ticks(4);
        for (row, end) in ends.iter().enumerate() {
            let here = |value: f64| {
                ((1.0 - values.share(value)) * (4 * HEIGHT - 1) as f64).round() as usize / 4 == row
            };
            let label = labels.iter().find(|(value, _)| here(*value));
            let label = label.map_or("", |(_, label)| label.as_str());
            let end = short(end, RIGHT - 1);
            let line = format!("{label:>6} \u{2502}{} {end}", dots.row(row));
            text += line.trim_end();
            text.push('\n');
        }
        text += &format!("{:>6} \u{2514}{}\n", "", "\u{2500}".repeat(columns));
        text += &below(&steps, columns);
    }
    text
}

/// The line and the marks of each head.
fn losses(run: &Run) -> Vec<(Points, Points)> {
    let (steps, evals) = (&run.metrics.steps, &run.metrics.evals);
    let head = |head: usize| {
        let training = steps
            .iter()
            .filter_map(|p| Some((p.step as f64, *p.loss_heads.get(head)?)));
        let valid = evals
            .iter()
            .filter_map(|p| Some((p.step as f64, *p.loss_heads.get(head)?)));
        match steps.is_empty() {
            true => (means(valid.collect()), Vec::new()),
            false => (means(training.collect()), valid.collect()),
        }
    };
    (0..run.metrics.heads()).map(head).collect()
}

/// Each name on a line of its own, highest value first, as near to where its curve ends as the others allow. Names that
/// find no line are left out.
fn apart(mut ends: Vec<(usize, f64, String)>) -> Vec<String> {
    ends.sort_by(|a, b| b.1.total_cmp(&a.1));
    ends.truncate(HEIGHT);
    let mut lines = vec![String::new(); HEIGHT];
    let (count, mut free) = (ends.len(), 0);
    for (i, (row, _, name)) in ends.into_iter().enumerate() {
        // Below the one before, and high enough for those that follow.
        let line = row.max(free).min(HEIGHT - (count - i));
        lines[line] = name;
        free = line + 1;
    }
    lines
}

/// The line with the steps.
fn below(steps: &Range, columns: usize) -> String {
    let mut line: Vec<char> = vec![' '; LEFT + columns + RIGHT];
    let mut free = 0;
    for (step, label) in steps.ticks(6) {
        let middle = LEFT + (steps.share(step) * (columns - 1) as f64).round() as usize;
        let start = middle.saturating_sub(label.len() / 2).max(free);
        if start + label.len() > line.len() {
            break;
        }
        for (place, letter) in line[start..].iter_mut().zip(label.chars()) {
            *place = letter;
        }
        free = start + label.len() + 1;
    }
    let line: String = line.into_iter().collect();
    let mut line = line.trim_end().to_owned();
    line += if line.len() + 5 <= LEFT + columns + RIGHT {
        " step\n"
    } else {
        "\n"
    };
    line
}

/// A field of Braille characters, some of which have a mark instead.
struct Dots {
    columns: usize,
    /// Eight dots a character, as the bits of its place after U+2800.
    cells: Vec<u8>,
    marked: Vec<bool>,
}

impl Dots {
    fn new(columns: usize, rows: usize) -> Self {
        Self {
            columns,
            cells: vec![0; columns * rows],
            marked: vec![false; columns * rows],
        }
    }

    /// A line of dots from one to the other, both within the field.
    fn line(&mut self, from: (i64, i64), to: (i64, i64)) {
        let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).max(1);
        for i in 0..=steps {
            // Rounded to the nearest dot.
            let at = |from: i64, to: i64| {
                from + ((to - from) * i * 2 + (to - from).signum() * steps) / (steps * 2)
            };
            let (x, y) = (at(from.0, to.0) as usize, at(from.1, to.1) as usize);
            // The dots of a character: 1 2 3 down the left, 4 5 6 down the right, then 7 and 8 below them.
            const BITS: [[u8; 2]; 4] = [[1, 8], [2, 16], [4, 32], [64, 128]];
            self.cells[y / 4 * self.columns + x / 2] |= BITS[y % 4][x % 2];
        }
    }

    /// Marks at the dots of one curve, the last one always and the others where they are not too near to it or to the
    /// one before.
    fn mark(&mut self, places: &[(i64, i64)]) {
        let Some((last, others)) = places.split_last() else {
            return;
        };
        let column = |place: &(i64, i64)| place.0 as usize / 2;
        let (mut free, end) = (0, column(last));
        for place in others {
            if column(place) >= free && column(place) + APART <= end {
                self.set_mark(place);
                free = column(place) + APART;
            }
        }
        self.set_mark(last);
    }

    fn set_mark(&mut self, (x, y): &(i64, i64)) {
        self.marked[*y as usize / 4 * self.columns + *x as usize / 2] = true;
    }

    fn row(&self, row: usize) -> String {
        let cells = row * self.columns..(row + 1) * self.columns;
        let shown = |cell: usize| match self.marked[cell] {
            true => 'o',
            false => char::from_u32(0x2800 + u32::from(self.cells[cell])).unwrap_or(' '),
        };
        cells.map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Metrics;
    use crate::train::metrics::{EvalPoint, StepPoint};

    #[test]
    fn lines_are_drawn_dot_by_dot() {
        let mut dots = Dots::new(2, 1);
        dots.line((0, 0), (3, 3));
        // Dots 1 and 5 of the first character, 3 and 8 of the second.
        assert_eq!(dots.row(0), "\u{2811}\u{2884}");
        let mut dots = Dots::new(1, 2);
        dots.line((1, 7), (1, 0));
        assert_eq!(
            (dots.row(0), dots.row(1)),
            ("\u{28b8}".to_owned(), "\u{28b8}".to_owned())
        );
    }

    #[test]
    fn names_keep_apart() {
        let end = |row, value: f64| (row, value, value.to_string());
        let lines = apart(vec![end(14, 1.0), end(14, 3.0), end(14, 2.0), end(2, 9.0)]);
        let found: Vec<(usize, &str)> = lines
            .iter()
            .map(String::as_str)
            .enumerate()
            .filter(|l| !l.1.is_empty())
            .collect();
        assert_eq!(found, [(2, "9"), (13, "3"), (14, "2"), (15, "1")]);
        let many = apart((0..HEIGHT + 3).map(|i| end(14, i as f64)).collect());
        assert!(many.iter().all(|line| !line.is_empty()) && many[0] == "18");
    }

    #[test]
    fn marks_keep_apart_and_the_last_one_stays() {
        let mut dots = Dots::new(12, 1);
        let at = |column: i64| (2 * column, 0);
        dots.mark(&[at(0), at(3), at(4), at(6), at(8), at(11)]);
        let marks: Vec<bool> = dots.row(0).chars().map(|c| c == 'o').collect();
        let columns: Vec<usize> = (0..12).filter(|i| marks[*i]).collect();
        assert_eq!(columns, [0, 4, 11]);
    }

    #[test]
    fn validation_losses_are_marked_and_named() {
        let step = |step| StepPoint {
            step,
            loss_heads: vec![2.0, 3.0],
            lr: 0.1,
            tokens_per_s: 1.0,
        };
        let eval = |step, loss| EvalPoint {
            step,
            loss_heads: vec![loss, 4.0],
            accuracy_heads: vec![0.5, 0.5],
        };
        let run = |steps: Vec<StepPoint>| Run {
            name: "a-long-name".repeat(9),
            metrics: Metrics {
                steps,
                evals: vec![eval(5, 2.5), eval(10, 1.0)],
            },
        };
        for width in [40, 80] {
            let chart = draw(&[run(vec![step(1), step(10)])], width);
            let lines: Vec<&str> = chart.lines().collect();
            assert!(
                lines.iter().all(|line| line.chars().count() <= width),
                "{chart}"
            );
            assert!(
                lines[0].ends_with("training loss, nats (o validation)"),
                "{chart}"
            );
            assert!(chart.contains("main 2.00 o 1.00"), "{chart}");
            assert!(chart.contains("h1 3.00 o 4.00"), "{chart}");
            // Both of the head are the highest values; the later one of the main head is the lowest.
            let marks = |line: usize| {
                let plot = lines[line].chars().skip(LEFT).take(width - LEFT - RIGHT);
                plot.filter(|c| *c == 'o').count()
            };
            assert_eq!((marks(1), marks(HEIGHT)), (2, 1), "{chart}");
            let alone = draw(&[run(Vec::new())], width);
            assert!(
                alone.contains(": validation loss") && !alone.contains(" o "),
                "{alone}"
            );
            assert!(alone.contains("main 1.00"), "{alone}");
        }
    }

    #[test]
    fn a_chart_has_its_size_and_names_its_heads() {
        let point = |step: u64| StepPoint {
            step,
            loss_heads: vec![5.0 - step as f64, 6.0 - step as f64],
            lr: 0.1,
            tokens_per_s: 1.0,
        };
        let run = |steps: Vec<StepPoint>| Run {
            name: "run".to_owned(),
            metrics: Metrics {
                steps,
                evals: Vec::new(),
            },
        };
        for width in [40, 41, 100, 1000] {
            for steps in [vec![point(1)], (0..4).map(point).collect()] {
                let end = 5.0 - steps.last().unwrap().step as f64;
                let chart = draw(&[run(steps)], width);
                assert_eq!(chart.lines().count(), HEIGHT + 3);
                assert!(
                    chart.lines().all(|line| line.chars().count() <= width),
                    "{width}\n{chart}"
                );
                assert!(chart.contains(&format!("main {end:.2}")), "{chart}");
                assert!(chart.contains(&format!("h1 {:.2}", end + 1.0)), "{chart}");
            }
        }
        let two = draw(&[run(vec![point(1)]), run(vec![point(2)])], 80);
        assert_eq!(two.lines().count(), 2 * (HEIGHT + 3));
    }
}
