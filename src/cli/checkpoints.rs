//! Flags of `foretoken train` about checkpoints and resuming.

use super::failure::{Failure, Result};
use crate::train::{Intervals, Saving};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Flags about checkpoints and going on from them.
#[derive(Clone, Debug, Args)]
pub struct Checkpoints {
    /// Go on with the run in this directory, with its own options, to the same weights as if it had never stopped
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "force"])]
    pub resume: Option<PathBuf>,
    /// With --resume: allow a larger --steps; learning rates from there on are those of the longer run: its decay, also
    /// one of wsd that was finished, the stages of --regime curriculum or reverse and a --lambda A:B move with the
    /// length
    #[arg(long)]
    pub extend: bool,
    /// Steps between checkpoints; a run keeps it when it is resumed [default: after each evaluation]
    #[arg(long, value_name = "N")]
    pub save_every: Option<u64>,
    /// Minutes between checkpoints, beside the others; a run keeps it when it is resumed
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    pub save_minutes: Option<f64>,
}

impl Checkpoints {
    /// When checkpoints are made. Signals are not listened to yet.
    ///
    /// # Errors
    /// [`Failure::Usage`] for intervals that no run can have.
    pub fn saving(&self) -> Result<Saving> {
        if self.extend && self.resume.is_none() {
            return Err(Failure::Usage(
                "--extend: expected --resume beside it, whose run it makes longer".to_owned(),
            ));
        }
        if self.save_every == Some(0) {
            return Err(Failure::Usage(
                "--save-every: expected at least 1, found 0".to_owned(),
            ));
        }
        let after = |minutes: f64| {
            let wrong = || {
                let what = "--save-minutes: expected a number, more than 0";
                Failure::Usage(format!("{what}, found {minutes}"))
            };
            let seconds = Some(minutes * 60.0)
                .filter(|s| *s > 0.0)
                .ok_or_else(wrong)?;
            Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
        };
        Ok(Saving {
            intervals: Intervals {
                every: self.save_every,
                after: self.save_minutes.map(after).transpose()?,
            },
            ..Saving::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_sixty_seconds() {
        for (minutes, seconds) in [(1.5, 90.0), (0.001, 0.06), (60.0, 3600.0)] {
            let flags = Checkpoints {
                resume: None,
                extend: false,
                save_every: None,
                save_minutes: Some(minutes),
            };
            let after = flags.saving().unwrap().intervals.after;
            assert_eq!(after, Some(Duration::from_secs_f64(seconds)));
        }
    }
}
