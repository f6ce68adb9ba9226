//! Flags of `foretoken train` that say what learns, when and from what.

use super::output::one_of;
use crate::Result;
use crate::checkpoint::ModelDir;
use crate::data::Tokenizer;
use crate::model::{JointLoss, Model};
use crate::train::{Plan, Regime};
use clap::Args;
use std::path::PathBuf;
use std::str::FromStr;

/// What learns, when and from what.
#[derive(Clone, Debug, Args)]
pub struct Learning {
    /// How trunk and heads learn together: all heads throughout; K+1 equal stages with 0 to K heads; the same from K to 0;
    /// all heads, none of which changes the trunk
    #[arg(long, default_value = Regime::default().name(), value_parser = one_of(&Regime::ALL, Regime::name))]
    regime: Regime,
    /// Weight of all heads together in the loss; A:B goes from A to B in a straight line over the run
    #[arg(long, default_value_t = Lambda::default(), value_name = "LAMBDA", allow_negative_numbers = true)]
    lambda: Lambda,
    /// Start from the model in DIR: its trunk and tokenizer, and its heads unless other heads are asked for
    #[arg(long, value_name = "DIR")]
    init: Option<PathBuf>,
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

impl Default for Lambda {
    fn default() -> Self {
        let start = JointLoss::default().lambda;
        Self { start, end: None }
    }
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
        Ok(match text.split_once(':') {
            None => Self {
                start: number(text)?,
                end: None,
            },
            Some((start, end)) => Self {
                start: number(start)?,
                end: Some(number(end)?),
            },
        })
    }
}

impl std::fmt::Display for Lambda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.start)?;
        self.end.map_or(Ok(()), |end| write!(f, ":{end}"))
    }
}

impl Learning {
    /// λ of the first step.
    pub fn lambda(&self) -> f64 {
        self.lambda.start
    }

    /// What changes between steps.
    pub fn plan(&self) -> Plan {
        Plan {
            regime: self.regime,
            lambda_end: self.lambda.end,
            freeze_trunk: self.freeze_trunk,
        }
    }

    /// The model and the tokenizer to start from, where there are some.
    ///
    /// # Errors
    /// What [`ModelDir::load`] returns.
    pub fn start(&self) -> Result<Option<(Model, Tokenizer)>> {
        self.init.as_deref().map(ModelDir::load).transpose()
    }
}
