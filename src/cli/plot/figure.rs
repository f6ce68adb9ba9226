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

/// What the lines mean. Gives the height that it takes.
fn legend(runs: &[Run], canvas: &mut Canvas) -> f64 {
    const SAMPLE: f64 = 34.0;
    let heads = runs
        .iter()
        .map(|run| run.metrics.heads())
        .max()
        .unwrap_or(0);
    let name = |head: usize| match head {
        0 => "main head".to_owned(),
        head => format!("head {head}"),
    };
    let mut entries: Vec<(String, [u8; 3], &[f64])> = Vec::new();
    if let [run] = runs {
        canvas.text((20.0, 22.0), Anchor::Left, INK, &short(&run.name, 80));
        for head in 0..heads {
            let (colour, dashes) = look(0, 1, head);
            entries.push((name(head), colour, dashes));
        }
    } else {
        for (i, run) in runs.iter().enumerate() {
            entries.push((short(&run.name, 40), look(i, runs.len(), 0).0, &[]));
        }
        for (head, dashes) in DASHES.iter().enumerate().take(heads) {
            // From the fifth on, dashes repeat.
            let same = (head..heads)
                .step_by(DASHES.len())
                .skip(1)
                .map(|h| format!(", {h}"));
            entries.push((name(head) + &same.collect::<String>(), GREY, dashes));
        }
    }
    let mut place = (20.0, if runs.len() == 1 { 46.0 } else { 22.0 });
    for (text, colour, dashes) in entries {
        let width = SAMPLE + 8.0 + canvas.width(&text) + 26.0;
        if place.0 > 20.0 && place.0 + width > SIZE.0 {
            place = (20.0, place.1 + 22.0);
        }
        canvas.line(&[place, (place.0 + SAMPLE, place.1)], colour, 2.0, dashes);
        canvas.text((place.0 + SAMPLE + 8.0, place.1), Anchor::Left, INK, &text);
        place.0 += width;
    }
    place.1 + 16.0
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
