//! `foretoken plot`: the curves of one or several runs, as a picture or on the terminal.
//!
//! * `figure`: which curves go into which panel, and what they look like.
//! * `panel`: one panel: ranges, ticks, curves.
//! * `canvas`: lines and letters on the backends of plotters.
//! * `glyphs`: letters of dots, for pictures of pixels.
//! * `terminal`: the loss curves in Braille characters, validation losses as marks.

mod canvas;
mod figure;
mod glyphs;
mod panel;
mod terminal;

use super::output::Output;
use crate::files::write;
use crate::train::Metrics;
use crate::{Error, Result};
use clap::Args;
use std::path::{Path, PathBuf};

/// Flags of `foretoken plot`.
#[derive(Clone, Debug, Args)]
pub struct Plot {
    /// Model directories of runs, or their metrics.jsonl; a picture has at most 7
    #[arg(required = true, value_name = "DIR")]
    runs: Vec<PathBuf>,
    /// Picture to write, .svg or .png; without it the losses are drawn on the terminal
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Draw the losses on the terminal, beside a picture too
    #[arg(long)]
    terminal: bool,
    /// Columns of the terminal [default: $COLUMNS, or 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(40..=1000))]
    width: Option<u16>,
}

/// A run with the name that the legend gives it.
struct Run {
    name: String,
    metrics: Metrics,
}

impl Plot {
    /// Runs the command.
    ///
    /// # Errors
    /// A run that cannot be read, or a picture that cannot be written.
    pub fn run(self) -> Result<()> {
        let read = |path: &PathBuf| {
            let metrics = Metrics::read(path)?;
            let name = name_of(path, &self.runs);
            Ok(Run { name, metrics })
        };
        let kind = self.out.as_deref().map(kind_of).transpose()?;
        if kind.is_some() && self.runs.len() > figure::MOST_RUNS {
            return Err(Error::Usage(format!(
                "--out: expected at most {} runs, which is how many colours tell apart, found {}",
                figure::MOST_RUNS,
                self.runs.len()
            )));
        }
        let runs = self.runs.iter().map(read).collect::<Result<Vec<Run>>>()?;
        let mut output = Output::new(false);
        if self.terminal || self.out.is_none() {
            let columns = std::env::var("COLUMNS")
                .ok()
                .and_then(|text| text.parse().ok());
            let width = self.width.or(columns).unwrap_or(100).clamp(40, 1000);
            output.text(&terminal::draw(&runs, usize::from(width)));
        }
        if let (Some(out), Some(kind)) = (&self.out, kind) {
            match kind {
                Kind::Svg => write(out, canvas::svg(&runs).as_bytes())?,
                Kind::Png => canvas::png(&runs, out)?,
            }
            output.line(&out.display().to_string());
        }
        output.finish()
    }
}

/// Formats of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Svg,
    Png,
}

/// The format that a file's ending asks for.
fn kind_of(out: &Path) -> Result<Kind> {
    let ending = out.extension().unwrap_or_default().to_ascii_lowercase();
    match ending.to_str() {
        Some("svg") => Ok(Kind::Svg),
        Some("png") => Ok(Kind::Png),
        _ => Err(Error::Usage(format!(
            "--out {}: expected a name that ends in .svg or .png",
            out.display()
        ))),
    }
}

/// A run's name: the last part of its path, or the whole path where another run has the same last part.
fn name_of(path: &Path, all: &[PathBuf]) -> String {
    let last = |path: &Path| match path.file_name() {
        Some(name) if name == "metrics.jsonl" => path.parent()?.file_name().map(|n| n.to_owned()),
        name => name.map(|n| n.to_owned()),
    };
    let same = all.iter().filter(|other| last(other) == last(path)).count();
    match last(path) {
        Some(name) if same == 1 => name.to_string_lossy().into_owned(),
        _ => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_named_by_what_tells_them_apart() {
        let paths: Vec<PathBuf> = ["a/x", "b/y/", "c/x/metrics.jsonl", "."]
            .map(PathBuf::from)
            .to_vec();
        let names: Vec<String> = paths.iter().map(|path| name_of(path, &paths)).collect();
        assert_eq!(names, ["a/x", "y", "c/x/metrics.jsonl", "."]);
        assert_eq!(name_of(&paths[2], &paths[2..]), "x");
    }

    #[test]
    fn the_ending_decides_the_format() {
        assert_eq!(kind_of(Path::new("a.SVG")).unwrap(), Kind::Svg);
        assert_eq!(kind_of(Path::new("a.b.png")).unwrap(), Kind::Png);
        for wrong in ["a", "a.jpg", "svg", ".png"] {
            assert!(
                kind_of(Path::new(wrong))
                    .unwrap_err()
                    .to_string()
                    .contains("--out")
            );
        }
    }
}
