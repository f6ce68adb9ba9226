//! Evaluation: every token but the first is predicted once, in windows that follow each other.

use crate::data::{Tokenizer, Tokens, consecutive};
use crate::exec::{Exec, TapeExec};
use crate::kernels::par;
use crate::model::Model;
use crate::{Error, Result};

/// Tokens held in memory at once, rounded to whole windows. The text is also decoded in these parts, to count its
/// bytes.
const PART: usize = 1 << 20;

/// Losses on a text.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// Mean loss of the main head, in nats per token.
    pub loss: f64,
    /// Total loss of the main head in bits, divided by the number of bytes of the text that the predicted tokens stand
    /// for. A token file does not hold the text: its tokens are decoded, and a vocabulary that changes texts then gives
    /// a different number of bytes.
    pub bits_per_byte: f64,
    /// Mean loss of the main head and of heads 1..=K, in nats per token.
    pub loss_heads: Vec<f64>,
    /// Share of targets that have the largest logit, for the same heads.
    pub accuracy_heads: Vec<f64>,
    /// Number of tokens predicted by the main head.
    pub tokens: usize,
}

/// Evaluates a model on tokens, in windows of `context` inputs.
///
/// Head k is scored if its target lies inside the window. Windows are computed one at a time, and their sums over
/// targets are added in `f64` in order. So the result is a function of model, tokens and context alone.
///
/// # Errors
/// Returns [`Error::TooShort`] if there is no token to predict, [`Error::Setting`] if `context` is not 1 to the model's
/// positions, and the errors of reading the tokens' file.
pub fn evaluate(
    model: &Model,
    tokens: &Tokens,
    tokenizer: &Tokenizer,
    context: usize,
) -> Result<Evaluation> {
    let exec = || TapeExec::no_grad(model.params());
    evaluate_on(&exec, model, tokens, tokenizer, context)
}

/// [`evaluate`] on any executor: `exec` makes one for each window, with empty KV caches. The result is the same.
///
/// # Errors
/// Returns the errors of [`evaluate`], and those of the executor.
pub fn evaluate_on<E: Exec>(
    exec: &dyn Fn() -> E,
    model: &Model,
    tokens: &Tokens,
    tokenizer: &Tokenizer,
    context: usize,
) -> Result<Evaluation> {
    let whole = in_parts(exec, model, tokens, tokenizer, context, PART, &mut || true)?;
    Ok(whole.expect("it is not abandoned"))
}

/// [`evaluate`], which calls `go_on` before each window and returns `None` as soon as that is false.
///
/// # Errors
/// Returns the errors of [`evaluate`].
pub fn evaluate_while(
    model: &Model,
    tokens: &Tokens,
    tokenizer: &Tokenizer,
    context: usize,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Evaluation>> {
    let exec = || TapeExec::no_grad(model.params());
    in_parts(&exec, model, tokens, tokenizer, context, PART, go_on)
}

/// Sums over the targets of one head.
#[derive(Clone, Copy, Default)]
struct Sums {
    loss: f64,
    hits: f64,
    targets: usize,
}

/// Evaluates a model, about `part` tokens at a time.
fn in_parts<E: Exec>(
    exec: &dyn Fn() -> E,
    model: &Model,
    text: &Tokens,
    tokenizer: &Tokenizer,
    context: usize,
    part: usize,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Evaluation>> {
    par::check_environment()?;
    let length = text.len();
    if length < 2 {
        return Err(Error::TooShort {
            text: "the text to evaluate".to_owned(),
            tokens: length,
            needed: 2,
        });
    }
    let positions = model.config().max_position_embeddings;
    if context == 0 || context > positions {
        let expected = format!("1 to the model's {positions} positions");
        return Err(Error::setting("context", expected, context));
    }
    let mut heads = vec![Sums::default(); model.config().mtp_depth + 1];
    let (mut tokens, mut bytes, mut start) = (Vec::new(), 0, 0);
    let part = (part / context).max(1) * context;
    // A part ends where a window ends, and its last token is the next part's first.
    while start + 1 < length {
        let end = length.min(start.saturating_add(part).saturating_add(1));
        tokens.clear();
        text.read(start, end - start, &mut tokens)?;
        let vocab = model.config().vocab_size;
        if let Some(token) = tokens.iter().find(|token| **token as usize >= vocab) {
            let expected = format!("tokens below the vocabulary's size, {vocab}");
            return Err(Error::setting("text", expected, token));
        }
        for batch in consecutive(&tokens, context) {
            if !go_on() {
                return Ok(None);
            }
            let mut exec = exec();
            let reports = model.mean_losses(&mut exec, &batch);
            for (head, report) in heads.iter_mut().zip(&reports) {
                let report = report.on_host(&mut exec)?;
                head.loss += f64::from(report.mean()) * report.targets as f64;
                head.hits += f64::from(report.accuracy()) * report.targets as f64;
                head.targets += report.targets;
            }
        }
        let decoded = || tokenizer.decode(&tokens[1..]).len() as u64;
        bytes += text.text_bytes(start + 1..end).unwrap_or_else(decoded);
        start += tokens.len() - 1;
    }
    let main = heads[0];
    // In a short text the last heads have no target.
    heads.retain(|head| head.targets > 0);
    let means = |sum: fn(&Sums) -> f64| -> Vec<f64> {
        let means = heads.iter().map(|head| sum(head) / head.targets as f64);
        means.collect()
    };
    let loss_heads = means(|head| head.loss);
    Ok(Some(Evaluation {
        loss: loss_heads[0],
        bits_per_byte: main.loss / std::f64::consts::LN_2 / bytes.max(1) as f64,
        loss_heads,
        accuracy_heads: means(|head| head.hits),
        tokens: main.targets,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HeadKind, Preset};

    #[test]
    fn parts_change_no_figure() {
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
            let text = Tokens::from(tokens);
            let whole = evaluate(&model, &text, &tokenizer, 7).unwrap();
            for part in [1, 7, 8, 14, 30] {
                let exec = || TapeExec::no_grad(model.params());
                let found = in_parts(&exec, &model, &text, &tokenizer, 7, part, &mut || true);
                assert_eq!(
                    found.unwrap(),
                    Some(whole.clone()),
                    "{length} tokens in parts of {part}"
                );
            }
            assert_eq!(whole.tokens, text.len() - 1);
        }
    }
}
