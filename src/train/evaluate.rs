//! Evaluation: every token but the first predicted once, in windows that follow each other.

use crate::data::{Tokenizer, Tokens, consecutive};
use crate::exec::{Exec, Train};
use crate::model::{JointLoss, Model};
use crate::{Error, Result};
use std::borrow::Cow;
use std::ops::Range;

/// Tokens that are in memory at once, as whole windows. What is decoded to count bytes is cut there too.
const PART: usize = 1 << 20;

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
    let read = |range: Range<usize>| Ok(Cow::Borrowed(&tokens[range]));
    in_parts(
        &|| Train::no_grad(model.params()),
        model,
        (tokens.len(), &read),
        tokenizer,
        context,
        PART,
        go_on,
    )
}

/// [`evaluate`] on tokens that may lie in a file larger than memory. The figures are the same.
///
/// # Errors
/// As [`evaluate`], and where the file cannot be read.
pub fn evaluate_stored(
    model: &Model,
    tokens: &Tokens,
    tokenizer: &Tokenizer,
    context: usize,
) -> Result<Evaluation> {
    let exec = || Train::no_grad(model.params());
    evaluate_stored_on(&exec, model, tokens, tokenizer, context)
}

/// [`evaluate_stored`] on any executor: `exec` makes one for each window, in which sequence 0 has no position yet. The
/// figures are the same.
///
/// # Errors
/// As [`evaluate_stored`], and where the executor's machine failed.
pub fn evaluate_stored_on<E: Exec>(
    exec: &dyn Fn() -> E,
    model: &Model,
    tokens: &Tokens,
    tokenizer: &Tokenizer,
    context: usize,
) -> Result<Evaluation> {
    let read = |range: Range<usize>| {
        let mut some = Vec::with_capacity(range.len());
        tokens.read(range.start, range.len(), &mut some)?;
        Ok(Cow::Owned(some))
    };
    let whole = in_parts(
        exec,
        model,
        (tokens.len(), &read),
        tokenizer,
        context,
        PART,
        &|| true,
    )?;
    Ok(whole.expect("nothing abandons it"))
}

/// Gives the tokens of a range.
type Read<'a> = dyn Fn(Range<usize>) -> Result<Cow<'a, [u32]>> + 'a;

/// Evaluates `length` tokens, about `part` of them at a time, while `go_on` says so.
fn in_parts<E: Exec>(
    exec: &dyn Fn() -> E,
    model: &Model,
    (length, read): (usize, &Read),
    tokenizer: &Tokenizer,
    context: usize,
    part: usize,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<Evaluation>> {
    if length < 2 {
        return Err(Error::Usage(format!(
            "evaluation: expected at least 2 tokens, found {length}"
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
    let (mut bytes, mut start) = (0, 0);
    let part = (part / context).max(1) * context;
    // A part ends where a window does, and its last token is the next one's first.
    while start + 1 < length {
        let tokens = read(start..length.min(start.saturating_add(part).saturating_add(1)))?;
        for batch in consecutive(&tokens, context, 1) {
            if !go_on() {
                return Ok(None);
            }
            let mut exec = exec();
            let reports = model.losses(&mut exec, &batch, JointLoss::default());
            for (k, report) in reports.iter().enumerate() {
                let report = report.on_host(&mut exec)?;
                losses[k] += f64::from(report.mean()) * report.targets as f64;
                hits[k] += f64::from(report.accuracy()) * report.targets as f64;
                counts[k] += report.targets;
            }
        }
        bytes += tokenizer.decode(&tokens[1..]).len();
        start += tokens.len() - 1;
    }
    let share = |sums: &[f64]| -> Vec<f64> {
        let pairs = sums.iter().zip(&counts).filter(|(_, n)| **n > 0);
        pairs.map(|(sum, n)| sum / *n as f64).collect()
    };
    let loss_heads = share(&losses);
    Ok(Some(Evaluation {
        loss: loss_heads[0],
        bits_per_byte: losses[0] / std::f64::consts::LN_2 / bytes.max(1) as f64,
        loss_heads,
        accuracy_heads: share(&hits),
        tokens: counts[0],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HeadKind, Preset};

    #[test]
    fn parts_and_files_change_no_figure() {
        let mut config = Preset::Tiny.config(257, HeadKind::Recursive, 2);
        (config.hidden_size, config.intermediate_size) = (16, 32);
        (config.num_hidden_layers, config.head_dim) = (1, 8);
        (config.num_attention_heads, config.num_key_value_heads) = (2, 1);
        config.set_head_width(8);
        let model = Model::new(config, 3).unwrap();
        let tokenizer = Tokenizer::bytes();
        // Windows of 7: none left over, one token left over, and no whole one.
        for length in [2, 7, 8, 36, 37, 41] {
            // An end of text has no byte.
            let tokens: Vec<u32> = (0..length).map(|i| i * 29 % 257).collect();
            let read = |range: Range<usize>| Ok(Cow::Borrowed(&tokens[range]));
            let whole = evaluate(&model, &tokens, &tokenizer, 7).unwrap();
            for part in [1, 7, 8, 14, 30] {
                let exec = || Train::no_grad(model.params());
                let found = in_parts(
                    &exec,
                    &model,
                    (tokens.len(), &read),
                    &tokenizer,
                    7,
                    part,
                    &|| true,
                );
                assert_eq!(
                    found.unwrap(),
                    Some(whole.clone()),
                    "{length} tokens in parts of {part}"
                );
            }
            let stored = Tokens::from(tokens.clone());
            let found = evaluate_stored(&model, &stored, &tokenizer, 7).unwrap();
            assert_eq!(found, whole);
            assert_eq!(whole.tokens, tokens.len() - 1);
        }
    }
}
