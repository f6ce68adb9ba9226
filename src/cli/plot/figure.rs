//! Which curves go into which panel, and what they look like.

use super::Run;
use super::canvas::{Anchor, Canvas};
use super::panel::{Curve, Panel, short};

/// Width and height of a figure.
pub(super) const SIZE: (f64, f64) = (1200.0, 900.0);

/// Colours that the colour-blind can tell apart (Okabe and Ito 2008), without yellow, which is too pale for a line.
const COLOURS: [[u8; 3]; 7] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [230, 159, 0],
    [86, 180, 233],
    [0, 0, 0],
];

/// Runs that colours tell apart: as many go into one picture.
pub(super) const MOST_RUNS: usize = COLOURS.len();

/// Lengths of dash and gap, again and again; none for a solid line.
const DASHES: [&[f64]; 4] = [&[], &[8.0, 4.0], &[2.0, 3.0], &[9.0, 3.0, 2.0, 3.0]];

pub(super) const INK: [u8; 3] = [40, 40, 40];
const GREY: [u8; 3] = [110, 110, 110];

/// Points of a curve at most; more would be finer than the picture.
const POINTS: usize = 600;

/// Colour and dashes of a head's curve: heads differ in colour where there is one run, and in dashes where colours tell
/// runs apart.
fn look(run: usize, runs: usize, head: usize) -> ([u8; 3], &'static [f64]) {
    match runs {
        1 => (COLOURS[head % 7], DASHES[head / 7 % 4]),
        _ => (COLOURS[run % 7], DASHES[head % 4]),
    }
}

/// Draws the whole figure.
pub(super) fn draw(runs: &[Run], canvas: &mut Canvas) {
    let top = legend(runs, canvas);
    let (width, height) = (SIZE.0 / 2.0, (SIZE.1 - top) / 2.0);
    for (i, panel) in panels(runs).iter().enumerate() {
        let (x, y) = ((i % 2) as f64 * width, top + (i / 2) as f64 * height);
        panel.draw(canvas, [x, y, width, height]);
    }
}

/// Length of the line that shows what an entry of the legend stands for.
const SAMPLE: f64 = 34.0;

/// What the lines mean. Gives the height that it takes.
fn legend(runs: &[Run], canvas: &mut Canvas) -> f64 {
    if let [run] = runs {
        canvas.text((20.0, 22.0), Anchor::Left, INK, &short(&run.name, 80));
    }
    let (entries, height) = arranged(runs);
    for Entry {
        place,
        text,
        colour,
        dashes,
    } in entries
    {
        canvas.line(&[place, (place.0 + SAMPLE, place.1)], colour, 2.0, dashes);
        canvas.text((place.0 + SAMPLE + 8.0, place.1), Anchor::Left, INK, &text);
    }
    height
}

/// A line of the legend, where its sample begins.
struct Entry {
    place: (f64, f64),
    text: String,
    colour: [u8; 3],
    dashes: &'static [f64],
}

/// Characters of an entry at most.
const NAME: usize = 40;

/// The legend's entries, and the height of all. Both are bounded, whatever runs are called and however many heads they
/// have: an entry stands for a look, and there are few of these.
fn arranged(runs: &[Run]) -> (Vec<Entry>, f64) {
    let heads = runs
        .iter()
        .map(|run| run.metrics.heads())
        .max()
        .unwrap_or(0);
    let name = |head: usize| match head {
        0 => "main head".to_owned(),
        head => format!("head {head}"),
    };
    // Heads of one look share an entry: of one run those from the 29th on, of several runs those from the fifth on.
    let alike = |head: usize, looks: usize| {
        let others = (head..heads).step_by(looks).skip(1);
        let others: String = others.map(|h| format!(", {h}")).take(NAME).collect();
        let text = name(head) + &others;
        match text.chars().count() > NAME {
            true => text.chars().take(NAME - 3).chain("...".chars()).collect(),
            false => text,
        }
    };
    let mut entries: Vec<(String, [u8; 3], &[f64])> = Vec::new();
    if runs.len() == 1 {
        let looks = COLOURS.len() * DASHES.len();
        for head in 0..heads.min(looks) {
            let (colour, dashes) = look(0, 1, head);
            entries.push((alike(head, looks), colour, dashes));
        }
    } else {
        for (i, run) in runs.iter().enumerate() {
            entries.push((short(&run.name, NAME), look(i, runs.len(), 0).0, &[]));
        }
        for (head, dashes) in DASHES.iter().enumerate().take(heads) {
            entries.push((alike(head, DASHES.len()), GREY, dashes));
        }
    }
    let mut placed = Vec::new();
    let mut place = (20.0, if runs.len() == 1 { 46.0 } else { 22.0 });
    for (text, colour, dashes) in entries {
        let width = SAMPLE + 8.0 + Canvas::width(&text) + 26.0;
        if place.0 > 20.0 && place.0 + width > SIZE.0 {
            place = (20.0, place.1 + 22.0);
        }
        placed.push(Entry {
            place,
            text,
            colour,
            dashes,
        });
        place.0 += width;
    }
    (placed, place.1 + 16.0)
}

/// The four panels: loss, accuracy, learning rate, throughput.
fn panels(runs: &[Run]) -> [Panel; 4] {
    let mut loss = Panel::new("loss, nats a token (pale: training, dots: validation)");
    let mut accuracy = Panel::new("accuracy on validation, % of the tokens");
    let mut rate = Panel::new("learning rate").above_zero();
    let mut speed = Panel::new("training tokens a second").above_zero();
    for (i, run) in runs.iter().enumerate() {
        let (steps, evals) = (&run.metrics.steps, &run.metrics.evals);
        for head in 0..run.metrics.heads() {
            let (colour, dashes) = look(i, runs.len(), head);
            let training = steps
                .iter()
                .filter_map(|p| Some((p.step as f64, *p.loss_heads.get(head)?)));
            loss.add(Curve::thin(means(training.collect()), pale(colour), dashes));
            let valid = evals
                .iter()
                .filter_map(|p| Some((p.step as f64, *p.loss_heads.get(head)?)));
            loss.add(Curve::dotted(valid.collect(), colour, dashes));
            let share = evals
                .iter()
                .filter_map(|p| Some((p.step as f64, 100.0 * p.accuracy_heads.get(head)?)));
            accuracy.add(Curve::dotted(share.collect(), colour, dashes));
        }
        let (colour, _) = look(i, runs.len(), 0);
        let curve = |points: Vec<(f64, f64)>| Curve::thin(points, colour, &[]);
        rate.add(curve(means(
            steps.iter().map(|p| (p.step as f64, p.lr)).collect(),
        )));
        speed.add(curve(means(
            steps
                .iter()
                .map(|p| (p.step as f64, p.tokens_per_s))
                .collect(),
        )));
    }
    [loss, accuracy, rate, speed]
}

/// Half way to white.
fn pale(colour: [u8; 3]) -> [u8; 3] {
    colour.map(|part| part / 2 + 127)
}

/// Means of neighbouring points, so many that [`POINTS`] are left at most.
pub(super) fn means(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(POINTS).max(1);
    let mean = |part: &[(f64, f64)]| {
        let sum = part
            .iter()
            .fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
        (sum.0 / part.len() as f64, sum.1 / part.len() as f64)
    };
    points.chunks(size).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Metrics;
    use std::collections::HashSet;

    #[test]
    fn means_keep_the_mean_and_bound_the_number() {
        for n in [0, 1, 599, 600, 601, 6000, 100_001] {
            let points: Vec<(f64, f64)> = (0..n).map(|i| (i as f64, 2.0)).collect();
            let means = means(points.clone());
            assert!(means.len() <= POINTS && means.is_empty() == points.is_empty());
            assert!(means.iter().all(|p| p.1 == 2.0));
            assert!(n > POINTS || means == points);
        }
        assert_eq!(
            means((0..1200).map(|i| (f64::from(i), 0.0)).collect())[1].0,
            2.5
        );
    }

    /// However long names are and however many heads there are, two rows of panels have room below the legend.
    #[test]
    fn the_legend_is_bounded() {
        for (count, heads) in [(1, 1), (1, 28), (1, 5000), (2, 4), (MOST_RUNS, 5000)] {
            let run = |i: usize| {
                let point = crate::train::metrics::EvalPoint {
                    step: 1,
                    loss_heads: vec![1.0; heads],
                    accuracy_heads: vec![0.5; heads],
                };
                let metrics = Metrics {
                    evals: vec![point],
                    ..Metrics::default()
                };
                let name = "W".repeat(3000) + &i.to_string();
                Run { name, metrics }
            };
            let runs: Vec<Run> = (0..count).map(run).collect();
            let (entries, height) = arranged(&runs);
            assert!(height < SIZE.1 / 2.0, "{count} runs, {heads} heads");
            for entry in &entries {
                let right = entry.place.0 + SAMPLE + 8.0 + Canvas::width(&entry.text);
                assert!(right < SIZE.0 && entry.place.1 < height, "{}", entry.text);
            }
            let looks: HashSet<_> = entries
                .iter()
                .map(|e| (e.colour, format!("{:?}", e.dashes)))
                .collect();
            assert_eq!(looks.len(), entries.len(), "{count} runs, {heads} heads");
        }
    }

    #[test]
    fn curves_of_one_run_and_of_several_look_different() {
        let one: HashSet<_> = (0..28)
            .map(|head| format!("{:?}", look(0, 1, head)))
            .collect();
        assert_eq!(one.len(), 28);
        let runs: HashSet<_> = (0..7)
            .flat_map(|run| (0..4).map(move |head| format!("{:?}", look(run, 7, head))))
            .collect();
        assert_eq!(runs.len(), 28);
    }
}
