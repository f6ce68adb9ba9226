//! Flags of `foretoken train` about what is trained, when, and from which start.

use super::output::one_of;
use crate::train::{Regime, TrainConfig};
use clap::Args;
use std::path::PathBuf;
use std::str::FromStr;

/// What is trained, when, and from which start.
#[derive(Clone, Debug, Args)]
pub struct Learning {
    /// How trunk and heads learn together: all heads throughout; K+1 equal stages with 0 to K heads; the same from K to
    /// 0; all heads, with no gradient from them to the trunk
    #[arg(long, default_value = Regime::default().name(), value_parser = one_of(&Regime::ALL, Regime::name))]
    regime: Regime,
    /// Weight of all heads together in the loss; A:B goes from A to B in a straight line over the run
    #[arg(long, value_name = "LAMBDA")]
    #[arg(default_value_t = Lambda { start: TrainConfig::default().lambda, end: None })]
    lambda: Lambda,
    /// Start from the model in DIR: its trunk and tokenizer, and its heads unless the flags specify other heads
    #[arg(long, value_name = "DIR")]
    pub init: Option<PathBuf>,
    /// Train heads alone; the trunk of --init keeps its weights
    #[arg(long, requires = "init")]
    freeze_trunk: bool,
}

/// λ at the first step and at the last.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Lambda {
    start: f64,
    end: Option<f64>,
}

impl FromStr for Lambda {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |part: &str| -> std::result::Result<f64, String> {
            match part.parse::<f64>() {
                Ok(x) if x.is_finite() && x >= 0.0 => Ok(x),
                _ => Err(format!("expected a number, 0 or more, found {part}")),
            }
        };
        let (start, end) = match text.split_once(':') {
            Some((start, end)) => (start, Some(end)),
            None => (text, None),
        };
        let (start, end) = (number(start)?, end.map(number).transpose()?);
        Ok(Self { start, end })
    }
}

impl std::fmt::Display for Lambda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.start)?;
        self.end.map_or(Ok(()), |end| write!(f, ":{end}"))
    }
}

impl Learning {
    /// Sets the flags' values.
    pub fn set(&self, config: &mut TrainConfig) {
        config.regime = self.regime;
        (config.lambda, config.lambda_end) = (self.lambda.start, self.lambda.end);
        config.freeze_trunk = self.freeze_trunk;
    }
}
