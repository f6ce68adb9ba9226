//! Flags of `foretoken train` about checkpoints and resuming.

use super::failure::{Failure, Result};
use crate::Error;
use crate::train::TrainConfig;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Flags about checkpoints and resuming from them.
#[derive(Clone, Debug, Args)]
pub struct Checkpoints {
    /// Resume the run in this directory with its own options; it ends with the weights of an uninterrupted run
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
    /// Minutes between checkpoints, in addition to the others; a run keeps it when it is resumed
    #[arg(long, value_name = "M")]
    pub save_minutes: Option<f64>,
}

impl Checkpoints {
    /// Checks the flags that no configuration holds.
    ///
    /// # Errors
    /// Returns [`Failure::Usage`] for `--extend` without `--resume`.
    pub fn check(&self) -> Result {
        if self.extend && self.resume.is_none() {
            return Err(Failure::Usage(
                "--extend: expected --resume too, with the run to make longer".to_owned(),
            ));
        }
        Ok(())
    }

    /// Sets the values of the flags that are given.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] for a time that is not positive.
    pub fn set(&self, config: &mut TrainConfig) -> Result {
        config.save_every = self.save_every.or(config.save_every);
        if let Some(minutes) = self.save_minutes {
            let after = Duration::try_from_secs_f64(minutes * 60.0).ok();
            let after = after.filter(|_| minutes > 0.0);
            let wrong = || Error::setting("save_minutes", "a number, more than 0", minutes);
            config.save_after = Some(after.ok_or_else(wrong)?);
        }
        Ok(())
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
            let mut config = TrainConfig::default();
            flags.set(&mut config).unwrap();
            assert_eq!(config.save_after, Some(Duration::from_secs_f64(seconds)));
        }
    }
}
