//! Lines and letters on the backends of plotters: a vector picture whose letters are text, and one of pixels.
//!
//! Both have the same layout, in units of which the figure is 1200 wide.

use super::figure::{self, SIZE};
use super::{Run, glyphs};
use crate::files::write;
use crate::{Error, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::fs::DirBuilder;
use std::io;
use std::path::{Path, PathBuf};

/// Pixels of a unit: twice as many as the figure is wide, for screens that are that fine.
const SCALE: f64 = 2.0;

/// Width of a letter. A font's letters differ; those of dots have just this.
const LETTER: f64 = 9.0;

/// Which end of a text is at its place; its middle line always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Left,
    Middle,
    Right,
}

/// What drawing needs of a backend.
trait Surface {
    fn path(&self, points: Vec<(i32, i32)>, style: ShapeStyle);
    fn circle(&self, place: (i32, i32), radius: i32, style: ShapeStyle);
    fn rectangle(&self, corners: [(i32, i32); 2], style: ShapeStyle);
    fn text(&self, place: (i32, i32), anchor: HPos, colour: RGBColor, size: f64, text: &str);
}

/// A place to draw on.
pub(super) struct Canvas<'a> {
    surface: &'a dyn Surface,
    /// Whether letters are made of dots.
    dots: bool,
}

impl Canvas<'_> {
    /// A line through points, solid or in dashes.
    pub(super) fn line(
        &mut self,
        points: &[(f64, f64)],
        colour: [u8; 3],
        width: f64,
        dashes: &[f64],
    ) {
        let style = colour_of(colour).stroke_width((width * SCALE) as u32);
        for part in dashed(points, dashes) {
            self.surface
                .path(part.into_iter().map(pixel).collect(), style);
        }
    }

    pub(super) fn dot(&mut self, place: (f64, f64), radius: f64, colour: [u8; 3]) {
        let style = colour_of(colour).filled();
        self.surface
            .circle(pixel(place), (radius * SCALE) as i32, style);
    }

    pub(super) fn text(&mut self, place: (f64, f64), anchor: Anchor, colour: [u8; 3], text: &str) {
        let (x, y) = pixel(place);
        if !self.dots {
            let anchor = match anchor {
                Anchor::Left => HPos::Left,
                Anchor::Middle => HPos::Center,
                Anchor::Right => HPos::Right,
            };
            // plotters divides a font's size by 1.24.
            let size = 14.0 * SCALE * 1.24;
            return self
                .surface
                .text((x, y), anchor, colour_of(colour), size, text);
        }
        let size = (LETTER * SCALE) as i32 / glyphs::ADVANCE;
        // The gap after the last letter is not part of the text.
        let width = (text.chars().count() as i32 * glyphs::ADVANCE - 1) * size;
        let left = match anchor {
            Anchor::Left => x,
            Anchor::Middle => x - width / 2,
            Anchor::Right => x - width,
        };
        let top = y - glyphs::BODY * size / 2;
        for (letter, i) in text.chars().zip(0..) {
            for (column, row) in glyphs::dots(letter) {
                let corner = (
                    left + (i * glyphs::ADVANCE + column) * size,
                    top + row * size,
                );
                // plotters leaves the last row and column of a filled rectangle out.
                let end = (corner.0 + size, corner.1 + size);
                self.surface
                    .rectangle([corner, end], colour_of(colour).filled());
            }
        }
    }

    /// How wide a text is, or a little more.
    pub(super) fn width(text: &str) -> f64 {
        text.chars().count() as f64 * LETTER
    }
}

fn pixel((x, y): (f64, f64)) -> (i32, i32) {
    ((x * SCALE).round() as i32, (y * SCALE).round() as i32)
}

fn colour_of([red, green, blue]: [u8; 3]) -> RGBColor {
    RGBColor(red, green, blue)
}

/// The parts of a line that are drawn.
fn dashed(points: &[(f64, f64)], dashes: &[f64]) -> Vec<Vec<(f64, f64)>> {
    let Some(first) = points.first() else {
        return Vec::new();
    };
    if dashes.is_empty() {
        return vec![points.to_vec()];
    }
    let (mut parts, mut part) = (Vec::new(), vec![*first]);
    let (mut number, mut left) = (0, dashes[0]);
    for pair in points.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = (dx * dx + dy * dy).sqrt();
        let mut done = 0.0;
        while length - done > left {
            done += left;
            let place = (from.0 + dx * done / length, from.1 + dy * done / length);
            part.push(place);
            if number % 2 == 0 {
                parts.push(std::mem::take(&mut part));
            }
            part = vec![place];
            number += 1;
            left = dashes[number % dashes.len()];
        }
        left -= length - done;
        part.push(to);
    }
    if number % 2 == 0 && part.len() > 1 {
        parts.push(part);
    }
    parts
}

/// An area of plotters. Drawing in memory cannot fail, so its results are dropped.
struct Area<DB: DrawingBackend>(DrawingArea<DB, Shift>);

impl<DB: DrawingBackend> Surface for Area<DB> {
    fn path(&self, points: Vec<(i32, i32)>, style: ShapeStyle) {
        let _ = self.0.draw(&PathElement::new(points, style));
    }

    fn circle(&self, place: (i32, i32), radius: i32, style: ShapeStyle) {
        let _ = self.0.draw(&Circle::new(place, radius, style));
    }

    fn rectangle(&self, corners: [(i32, i32); 2], style: ShapeStyle) {
        let _ = self.0.draw(&Rectangle::new(corners, style));
    }

    fn text(&self, place: (i32, i32), anchor: HPos, colour: RGBColor, size: f64, text: &str) {
        let style = TextStyle::from(("sans-serif", size).into_font())
            .color(&colour)
            .pos(Pos::new(anchor, VPos::Center));
        let _ = self.0.draw(&Text::new(text, place, style));
    }
}

/// The figure's size in pixels.
fn size() -> (u32, u32) {
    ((SIZE.0 * SCALE) as u32, (SIZE.1 * SCALE) as u32)
}

/// The figure as SVG.
pub(super) fn svg(runs: &[Run]) -> String {
    let mut text = String::new();
    {
        let area = Area(SVGBackend::with_string(&mut text, size()).into_drawing_area());
        let _ = area.0.fill(&WHITE);
        let mut canvas = Canvas {
            surface: &area,
            dots: false,
        };
        figure::draw(runs, &mut canvas);
        let _ = area.0.present();
    }
    // Drawn in fine units, shown in ordinary ones.
    let (width, height) = size();
    let fine = format!("width=\"{width}\" height=\"{height}\"");
    text.replacen(
        &fine,
        &format!("width=\"{}\" height=\"{}\"", SIZE.0, SIZE.1),
        1,
    )
}

/// Writes the figure as PNG.
///
/// # Errors
/// [`Error::Io`] or [`Error::File`] where `out` cannot be written.
pub(super) fn png(runs: &[Run], out: &Path) -> Result<()> {
    // plotters writes a picture to a path, through whatever link lies there. So it writes where nobody else can put one,
    // and the bytes are then put in place.
    let failed = |reason: String| Error::file(out, format!("cannot be written: {reason}"));
    let folder = Private::beside(out).map_err(|error| failed(error.to_string()))?;
    let draft = folder.0.join("figure.png");
    draw_png(runs, &draft).map_err(failed)?;
    let bytes = std::fs::read(&draft).map_err(Error::io("read", &draft))?;
    write(out, &bytes)
}

/// A new directory, into which only this user may look, as long as the value lives.
struct Private(PathBuf);

impl Private {
    /// Makes it in the directory of `out`. What has its name already is left alone, and another name is tried.
    fn beside(out: &Path) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
        for number in 0..100 {
            let name = format!(".foretoken.{}.{number}.drawn", std::process::id());
            let path = out.with_file_name(name);
            match builder.create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = error,
                Err(error) => return Err(error),
            }
        }
        Err(taken)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // Whatever went wrong before is what the user has to know.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn draw_png(runs: &[Run], path: &Path) -> std::result::Result<(), String> {
    let area = Area(BitMapBackend::new(path, size()).into_drawing_area());
    area.0.fill(&WHITE).map_err(|error| error.to_string())?;
    let mut canvas = Canvas {
        surface: &area,
        dots: true,
    };
    figure::draw(runs, &mut canvas);
    area.0.present().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_follow_the_line() {
        let line = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0)];
        assert_eq!(dashed(&line, &[]), [line.to_vec()]);
        assert_eq!(
            dashed(&line, &[6.0, 3.0]),
            [
                vec![(0.0, 0.0), (6.0, 0.0)],
                vec![(9.0, 0.0), (10.0, 0.0), (10.0, 5.0)],
                vec![(10.0, 8.0), (10.0, 10.0)],
            ]
        );
        assert!(dashed(&[], &[1.0, 1.0]).is_empty());
        assert!(dashed(&[(1.0, 1.0)], &[1.0, 1.0]).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn a_picture_is_not_drawn_through_a_link() {
        use crate::train::metrics::{Metrics, StepPoint};
        use std::fs;
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let planted =
            |number: u32| at(&format!(".foretoken.{}.{number}.drawn", std::process::id()));
        fs::create_dir(at("theirs")).unwrap();
        fs::write(at("theirs/figure.png"), "theirs").unwrap();
        fs::write(at("letter"), "theirs").unwrap();
        std::os::unix::fs::symlink(at("theirs"), planted(0)).unwrap();
        std::os::unix::fs::symlink(at("letter"), planted(1)).unwrap();
        std::os::unix::fs::symlink(at("missing"), planted(2)).unwrap();
        std::os::unix::fs::symlink(at("letter"), at("out.png")).unwrap();
        let point = StepPoint {
            step: 1,
            loss_heads: vec![1.0],
            lr: 0.1,
            tokens_per_s: 1.0,
        };
        let metrics = Metrics {
            steps: vec![point],
            evals: Vec::new(),
        };
        let name = "run".to_owned();
        png(&[Run { name, metrics }], &at("out.png")).unwrap();
        assert!(fs::read(at("out.png")).unwrap().starts_with(b"\x89PNG"));
        assert!(fs::symlink_metadata(at("out.png")).unwrap().is_file());
        for file in ["letter", "theirs/figure.png"] {
            assert_eq!(fs::read(at(file)).unwrap(), b"theirs", "{file}");
        }
        assert!(!at("missing").exists() && !planted(3).exists());
    }

    #[test]
    fn a_folder_for_drawing_is_gone_when_dropped() {
        let root = tempfile::tempdir().unwrap();
        let folder = Private::beside(&root.path().join("a.png")).unwrap();
        std::fs::write(folder.0.join("figure.png"), "half").unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&folder.0).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0);
        }
        drop(folder);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
