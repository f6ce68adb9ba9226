//! Evaluation: every token but the first predicted once, in windows that follow each other.

use crate::data::{Tokenizer, consecutive};
use crate::exec::Train;
use crate::model::{JointLoss, Model};
use crate::{Error, Result};

/// Losses on a text.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Evaluation {
    /// Mean loss of the main head, in nats a token.
    pub loss: f64,
    /// The main head's total in bits, over the bytes of the predicted tokens.
    pub bits_per_byte: f64,
    /// Mean loss of the main head and of heads 1..=K, in nats.
    pub loss_heads: Vec<f64>,
    /// Share of targets that were the most likely token, for the same heads.
    pub accuracy_heads: Vec<f64>,
    /// Tokens predicted by the main head.
    pub tokens: usize,
}

/// Evaluates a model on tokens, in windows of `context` inputs.
///
/// Head k is scored where its target lies inside the window. Windows are computed one at a time and their sums added in
/// `f64` in order, so that the figures are a function of model, tokens and context alone.
///
/// # Errors
/// [`Error::Usage`] where there is no token to predict, or the context is not 1 to the model's positions.
pub fn evaluate(
    model: &Model,
    tokens: &[u32],
    tokenizer: &Tokenizer,
    context: usize,
) -> Result<Evaluation> {
    let whole = evaluate_while(model, tokens, tokenizer, context, &|| true)?;
    Ok(whole.expect("nothing abandons it"))
}

/// The same, asking before each window whether to go on; `None` where the answer was no.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_while(
    model: &Model,
    tokens: &[u32],
    tokenizer: &Tokenizer,
    context: usize,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<Evaluation>> {
    if tokens.len() < 2 {
        return Err(Error::Usage(format!(
            "evaluation: expected at least 2 tokens, found {}",
            tokens.len()
        )));
    }
    let most = model.config().max_position_embeddings;
    if context == 0 || context > most {
        return Err(Error::Usage(format!(
            "--context: expected 1 to the model's {most} positions, found {context}"
        )));
    }
    let heads = model.config().mtp_depth + 1;
    let (mut losses, mut hits, mut counts) = (vec![0.0; heads], vec![0.0; heads], vec![0; heads]);
    for batch in consecutive(tokens, context, 1) {
        if !go_on() {
            return Ok(None);
        }
        let mut exec = Train::frozen(model.params());
        let reports = model.losses(&mut exec, &batch, JointLoss::default());
        for (k, report) in reports.iter().enumerate() {
            losses[k] += f64::from(report.mean()) * report.targets as f64;
            hits[k] += f64::from(report.accuracy()) * report.targets as f64;
            counts[k] += report.targets;
        }
    }
    let share = |sums: &[f64]| -> Vec<f64> {
        let pairs = sums.iter().zip(&counts).filter(|(_, n)| **n > 0);
        pairs.map(|(sum, n)| sum / *n as f64).collect()
    };
    let bytes = tokenizer.decode(&tokens[1..]).len();
    let loss_heads = share(&losses);
    Ok(Some(Evaluation {
        loss: loss_heads[0],
        bits_per_byte: losses[0] / std::f64::consts::LN_2 / bytes.max(1) as f64,
        loss_heads,
        accuracy_heads: share(&hits),
        tokens: counts[0],
    }))
}
