//! `foretoken plot`: the curves of one or several runs as an SVG picture of four charts.

use super::failure::{Failure, Result};
use super::output::Output;
use super::target::{Inputs, Kind, Target};
use crate::files::{read_start, write};
use crate::train::Metrics;
use crate::train::metrics::{EvalPoint, StepPoint};
use clap::Args;
use plotters::coord::Shift;
use plotters::coord::combinators::IntoLogRange;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Flags of `foretoken plot`.
#[derive(Clone, Debug, Args)]
pub struct Plot {
    /// Model directories of runs, or their metrics.jsonl; at most 7
    #[arg(required = true, value_name = "DIR")]
    runs: Vec<PathBuf>,
    /// Picture to write, an .svg file; an earlier picture of `plot` is replaced
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Draw losses on a logarithmic scale
    #[arg(long)]
    log: bool,
}

/// What the command writes.
const PICTURE: Kind = Kind {
    name: "picture",
    wrote: drawn_here,
};

/// Whether a file begins like a picture of `plot`: with its size.
fn drawn_here(path: &Path) -> bool {
    let (width, height) = SIZE;
    let start =
        format!("<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" ");
    read_start(path, start.len()).is_ok_and(|found| found == start.as_bytes())
}

/// A run, named by its path.
struct Run {
    name: String,
    metrics: Metrics,
}

impl Plot {
    /// Runs the command.
    ///
    /// # Errors
    /// If a run cannot be read, or the picture cannot be written.
    pub fn run(self) -> Result {
        let ending = self.out.extension().unwrap_or_default();
        if !ending.eq_ignore_ascii_case("svg") {
            return Err(Failure::Usage(format!(
                "--out {}: expected a name that ends in .svg",
                self.out.display()
            )));
        }
        if self.runs.len() > COLOURS.len() {
            return Err(Failure::Usage(format!(
                "expected at most {} runs, one for each colour, found {}",
                COLOURS.len(),
                self.runs.len()
            )));
        }
        let files: Vec<PathBuf> = self.runs.iter().map(|path| Metrics::file(path)).collect();
        let inputs = Inputs::default().files("the metrics", &files);
        // A picture is drawn again and again while a run trains, so one that `plot` drew needs no flag.
        let target = Target::file(&self.out, PICTURE, true, &inputs)?;
        let read = |path: &PathBuf| {
            let metrics = Metrics::read(path)?;
            let name = short(&path.display().to_string());
            Ok(Run { name, metrics })
        };
        let runs = self.runs.iter().map(read).collect::<Result<Vec<Run>>>()?;
        write(&self.out, draw(&runs, self.log).as_bytes())?;
        target.written();
        let mut output = Output::new(false);
        output.line(&self.out.display().to_string());
        Ok(output.finish()?)
    }
}

/// Colours that colour-blind readers can tell apart (Okabe and Ito 2008), without yellow, which is too pale for a line.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    BLACK,
];

/// Lengths of dash and gap; the first is a solid line.
const DASHES: [(i32, i32); 4] = [(1_000_000, 0), (8, 4), (2, 3), (14, 3)];

/// Maximum number of points of a curve; more would be finer than the picture.
const POINTS: usize = 600;

/// Larger values are drawn as this one: a metrics file may hold any number.
const LARGEST: f64 = 1e12;

const SIZE: (u32, u32) = (1400, 900);

const LEGEND_WIDTH: u32 = 230;
/// Characters of a name in the legend.
const NAME_LENGTH: usize = 22;

/// Colour and dashes of a curve.
#[derive(Clone, Copy, PartialEq)]
struct Look {
    colour: RGBColor,
    dashes: (i32, i32),
}

impl Look {
    /// Heads differ in colour if there is one run. Otherwise colours tell runs apart, and dashes heads.
    fn of(run: usize, runs: usize, head: usize) -> Self {
        let (colour, dashes) = match runs {
            1 => (head, head / COLOURS.len()),
            _ => (run, head),
        };
        Self {
            colour: COLOURS[colour % COLOURS.len()],
            dashes: DASHES[dashes % DASHES.len()],
        }
    }
}

/// Values by step, steps ascending.
type Points = Vec<(f64, f64)>;

struct Curve {
    points: Points,
    look: Look,
    /// Drawn with dots.
    validation: bool,
}

/// The charts, in the order of [`charts`].
const TITLES: [&str; 4] = [
    "loss, nats per token (pale: training, dots: validation)",
    "validation accuracy, % of the tokens",
    "learning rate",
    "training tokens per second",
];

/// The whole picture.
fn draw(runs: &[Run], log: bool) -> String {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    draw_on(&root, runs, log).expect("a string takes all that is written");
    drop(root);
    svg
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw_on(root: &Area<'_>, runs: &[Run], log: bool) -> Drawn {
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(SIZE.0 - LEGEND_WIDTH);
    for (i, (name, look)) in legend(runs).into_iter().enumerate() {
        let y = 40 + 22 * i as i32;
        let sample = [(0, y), (34, y)];
        if let Some(Look { colour, dashes }) = look {
            let style = colour.stroke_width(2);
            right.draw(&DashedPathElement::new(sample, dashes.0, dashes.1, style))?;
        }
        let x = if look.is_some() { 42 } else { 0 };
        let style = ("sans-serif", 18).into_text_style(root);
        let style = style.pos(Pos::new(HPos::Left, VPos::Center));
        right.draw(&Text::new(name, (x, y), style))?;
    }
    let charts = charts(runs);
    let steps = range_of(charts.iter().flatten(), |p| p.0, true);
    for (i, area) in left.split_evenly((2, 2)).iter().enumerate() {
        let (is_loss, from_zero) = (i == 0, i >= 2);
        let steps = steps.clone();
        let values = range_of(&charts[i], |p| p.1, from_zero);
        if log && is_loss {
            let high = values.end.max(1e-9);
            let low = values.start.max(high * 1e-6);
            let axis = (low..high).log_scale();
            let axis = axis.with_key_points(log_ticks(low, high));
            draw_chart(area, TITLES[i], &charts[i], steps, axis, low..high)?;
        } else {
            let axis = values.clone();
            draw_chart(area, TITLES[i], &charts[i], steps, axis, values)?;
        }
    }
    Ok(())
}

/// Draws a chart; values outside `range` are drawn on its border.
fn draw_chart<Y>(
    area: &Area<'_>,
    title: &str,
    curves: &[Curve],
    steps: Range<f64>,
    axis: Y,
    range: Range<f64>,
) -> Drawn
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut context = ChartBuilder::on(area)
        .margin(12)
        .margin_right(24)
        .caption(title, ("sans-serif", 20))
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(steps, axis)?;
    context
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_labels(6)
        .y_labels(6)
        .x_desc("step")
        .x_label_formatter(&|x| label(*x))
        .y_label_formatter(&|y| label(*y))
        .label_style(("sans-serif", 17))
        .draw()?;
    let validated = curves.iter().any(|curve| curve.validation);
    for curve in curves {
        let inside = |p: &(f64, f64)| (p.0, p.1.clamp(range.start, range.end));
        let points: Points = curve.points.iter().map(inside).collect();
        let Look { colour, dashes } = curve.look;
        let pale = validated && !curve.validation;
        let colour = colour.mix(if pale { 0.45 } else { 1.0 });
        let style = colour.stroke_width(2);
        if curve.validation || points.len() == 1 {
            let dots = points.iter().map(|p| Circle::new(*p, 3, colour.filled()));
            context.draw_series(dots)?;
        }
        let points = points.into_iter();
        context.draw_series(DashedLineSeries::new(points, dashes.0, dashes.1, style))?;
    }
    Ok(())
}

/// The curves of loss, accuracy, learning rate and throughput.
fn charts(runs: &[Run]) -> [Vec<Curve>; 4] {
    let mut charts: [Vec<Curve>; 4] = Default::default();
    for (i, run) in runs.iter().enumerate() {
        let steps = |of: &dyn Fn(&StepPoint) -> Option<f64>| -> Points {
            let points = run.metrics.steps.iter();
            means(points.filter_map(|p| Some((p.step as f64, of(p)?))))
        };
        let evals = |of: &dyn Fn(&EvalPoint) -> Option<f64>| -> Points {
            let point = |p: &EvalPoint| Some((p.step as f64, of(p)?));
            run.metrics.evals.iter().filter_map(point).collect()
        };
        let mut add = |chart: usize, head: usize, points: Points, validation: bool| {
            charts[chart].push(Curve {
                points,
                look: Look::of(i, runs.len(), head),
                validation,
            });
        };
        for head in 0..run.metrics.heads() {
            add(0, head, steps(&|p| *p.loss_heads.get(head)?), false);
            add(0, head, evals(&|p| *p.loss_heads.get(head)?), true);
            let percent = |p: &EvalPoint| Some(100.0 * (*p.accuracy_heads.get(head)?)?);
            add(1, head, evals(&percent), true);
        }
        add(2, 0, steps(&|p| Some(p.lr)), false);
        add(3, 0, steps(&|p| Some(p.tokens_per_s)), false);
    }
    charts
}

/// Names and looks. The looks repeat, so the legend is bounded for any number of heads.
fn legend(runs: &[Run]) -> Vec<(String, Option<Look>)> {
    let several = runs.len() > 1;
    let names = runs.iter().enumerate().map(|(i, run)| {
        let look = several.then(|| Look::of(i, runs.len(), 0));
        (run.name.clone(), look)
    });
    let looks = DASHES.len() * if several { 1 } else { COLOURS.len() };
    let heads = runs.iter().map(|run| run.metrics.heads()).max();
    let heads = (0..heads.unwrap_or(0).min(looks)).map(|head| {
        let name = match head {
            0 => "main head".to_owned(),
            head => format!("head {head}"),
        };
        let mut look = Look::of(0, runs.len(), head);
        if several {
            look.colour = RGBColor(110, 110, 110);
        }
        (name, Some(look))
    });
    names.chain(heads).collect()
}

/// The range of an axis. A single outlier among its neighbours does not widen it.
fn range_of<'a>(
    curves: impl IntoIterator<Item = &'a Curve>,
    of: fn(&(f64, f64)) -> f64,
    from_zero: bool,
) -> Range<f64> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for curve in curves {
        let values: Vec<f64> = curve.points.iter().map(of).collect();
        for (i, value) in values.iter().enumerate() {
            let mut near = [*value; 3];
            if i > 0 && i + 1 < values.len() {
                near.copy_from_slice(&values[i - 1..i + 2]);
                near.sort_by(f64::total_cmp);
            }
            let value = near[1].clamp(-LARGEST, LARGEST);
            (low, high) = (low.min(value), high.max(value));
        }
    }
    if low > high {
        (low, high) = (0.0, 1.0);
    }
    if from_zero {
        (low, high) = (low.min(0.0), high.max(0.0));
    }
    let size = high.abs().max(low.abs());
    let room = match (high - low) * 0.04 {
        room if room > size * 1e-9 => room,
        // All values are the same: a range around them, wide enough for ticks.
        _ if size == 0.0 => 1.0,
        _ => size * 0.1,
    };
    let below = if from_zero && low == 0.0 { 0.0 } else { room };
    low - below..high + room
}

/// Round numbers between `low` and `high`, both above 0.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    if high < 10.0 * low {
        return RangedCoordf64::from(low..high).key_points(6);
    }
    let decade = |k: i32| [1, 2, 5].map(|digit| format!("{digit}e{k}"));
    let number = |text: String| text.parse().expect("a number");
    let ticks = (-20..=13).flat_map(decade).map(number);
    ticks.filter(|tick| (low..=high).contains(tick)).collect()
}

/// A number with at most four digits that matter.
fn label(value: f64) -> String {
    let rounded: f64 = format!("{value:.3e}").parse().expect("a number");
    if rounded == 0.0 || (1e-3..1e7).contains(&rounded.abs()) {
        rounded.to_string()
    } else {
        format!("{rounded:e}")
    }
}

/// A name that fits into the legend; its end is kept.
fn short(name: &str) -> String {
    let shown = |c: char| if c.is_control() { '?' } else { c };
    let letters: Vec<char> = name.chars().map(shown).collect();
    match letters.len().saturating_sub(NAME_LENGTH) {
        0 => letters.into_iter().collect(),
        more => format!("...{}", String::from_iter(&letters[more + 3..])),
    }
}

/// Means of neighbouring points, at most [`POINTS`] of them, each at the step of its first point.
fn means(points: impl Iterator<Item = (f64, f64)>) -> Points {
    let points: Points = points.collect();
    let size = points.len().div_ceil(POINTS).max(1);
    let mean = |part: &[(f64, f64)]| {
        let values = part.iter().map(|p| p.1.clamp(-LARGEST, LARGEST));
        (part[0].0, values.sum::<f64>() / part.len() as f64)
    };
    points.chunks(size).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(losses: &[f64], heads: usize) -> Run {
        let step = |(step, loss): (u64, &f64)| StepPoint {
            step,
            loss_heads: vec![Some(*loss); heads],
            lr: *loss,
            tokens_per_s: *loss,
        };
        let eval = |p: &StepPoint| EvalPoint {
            step: p.step,
            loss_heads: p.loss_heads.clone(),
            accuracy_heads: p.loss_heads.clone(),
        };
        let steps: Vec<StepPoint> = (1..).zip(losses).map(step).collect();
        let evals = steps.iter().map(eval).collect();
        let name = short(&"a\u{1b}<name>".repeat(300));
        Run {
            name,
            metrics: Metrics { steps, evals },
        }
    }

    /// A file may hold any number, and a run any number of heads.
    #[test]
    fn any_metrics_can_be_drawn() {
        let values = [
            0.0,
            1e-320,
            1e-300,
            1e-17,
            1.0,
            1.0 + f64::EPSILON,
            -1.0,
            1e300,
            f64::MAX,
            f64::MIN,
        ];
        for a in values {
            for b in values {
                for log in [false, true] {
                    for losses in [&[a][..], &[a, b]] {
                        let svg = draw(&[run(losses, 2)], log);
                        assert!(svg.ends_with("</svg>\n") && svg.len() < 100_000, "{a} {b}");
                        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{a} {b}");
                    }
                }
            }
        }
        for (runs, heads) in [(1, 5000), (7, 5000), (1, 0), (2, 1)] {
            let runs: Vec<Run> = (0..runs).map(|_| run(&[1.0, 2.0], heads)).collect();
            let entries = legend(&runs);
            assert!(40 + 22 * entries.len() < SIZE.1 as usize);
            assert!(entries.iter().all(|e| e.0.chars().count() <= NAME_LENGTH));
            assert!(!draw(&runs, false).contains('\u{1b}'));
        }
    }

    #[test]
    fn one_outlier_does_not_widen_the_range() {
        let loss = |losses: &[f64]| {
            let [loss, ..] = charts(&[run(losses, 1)]);
            range_of(&loss, |p| p.1, false)
        };
        let calm = loss(&[5.0, 4.0, 3.0, 3.0, 2.0]);
        assert_eq!(loss(&[5.0, 4.0, 900.0, 3.0, 2.0]), calm);
        assert!(calm.contains(&5.0) && calm.contains(&2.0) && calm.end < 6.0);
        assert!(loss(&[5.0, 4.0, 900.0, 900.0, 2.0]).contains(&900.0));
    }

    #[test]
    fn labels_are_short() {
        let shown = [0.1 + 0.2, 20_000.0, 0.0005, 0.0, 1e12, -2.5].map(label);
        assert_eq!(shown, ["0.3", "20000", "5e-4", "0", "1e12", "-2.5"]);
        assert_eq!(log_ticks(0.3, 40.0), [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]);
        assert_eq!(log_ticks(1.0, 3.0), [1.0, 1.5, 2.0, 2.5, 3.0]);
    }

    #[test]
    fn means_keep_the_mean_and_bound_the_number() {
        for n in [0, 1, POINTS, POINTS + 1, 10 * POINTS] {
            let points: Points = (0..n).map(|i| (i as f64, 2.0)).collect();
            let means = means(points.iter().copied());
            assert!(means.len() <= POINTS && means.is_empty() == points.is_empty());
            assert!(means.iter().all(|p| p.1 == 2.0));
            assert!(n > POINTS || means == points);
        }
    }
}
