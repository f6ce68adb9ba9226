//! Evaluation: every token but the first is predicted once, in windows that follow each other, or only the tokens of
//! some windows, spread evenly over the text.

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
    /// Total loss of the main head in bits, divided by the number of bytes of the predicted tokens.
    pub bits_per_byte: f64,
    /// Mean loss of the main head and of heads 1..=K, in nats per token; `None` for a head that has no target, because
    /// the text is too short.
    pub loss_heads: Vec<Option<f64>>,
    /// Fraction of targets that have the largest logit, for the same heads.
    pub accuracy_heads: Vec<Option<f64>>,
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
/// positions, [`Error::NotFinite`] if a head's loss is not finite, and the errors of reading the tokens' file.
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
    let windows = Windows::whole(context);
    let whole = in_windows(exec, model, tokens, tokenizer, windows, &mut || true)?;
    Ok(whole.expect("it is not abandoned"))
}

/// [`evaluate`] on some windows only, spread evenly over the text, of `max_tokens` tokens in all, rounded up to whole
/// windows. Which these are depends on the text's length, the context and `max_tokens` alone. Calls `go_on` before each
/// window and returns `None` as soon as that is false.
///
/// # Errors
/// Returns the errors of [`evaluate`].
pub fn evaluate_while(
    model: &Model,
    tokens: &Tokens,
    tokenizer: &Tokenizer,
    context: usize,
    max_tokens: usize,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Evaluation>> {
    let exec = || TapeExec::no_grad(model.params());
    let windows = Windows {
        max_tokens,
        ..Windows::whole(context)
    };
    in_windows(&exec, model, tokens, tokenizer, windows, go_on)
}

/// The windows of an evaluation.
#[derive(Clone, Copy)]
struct Windows {
    context: usize,
    max_tokens: usize,
    /// Tokens read at a time, if all windows are evaluated.
    part: usize,
}

impl Windows {
    fn whole(context: usize) -> Self {
        Self {
            context,
            max_tokens: usize::MAX,
            part: PART,
        }
    }
}

/// Sums over the targets of one head.
#[derive(Clone, Copy, Default)]
struct Sums {
    loss: f64,
    hits: f64,
    targets: usize,
}

fn in_windows<E: Exec>(
    exec: &dyn Fn() -> E,
    model: &Model,
    text: &Tokens,
    tokenizer: &Tokenizer,
    windows: Windows,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Evaluation>> {
    par::check_environment()?;
    let Windows {
        context,
        max_tokens,
        part,
    } = windows;
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
    let (mut tokens, mut bytes) = (Vec::new(), 0);
    let windows = (length - 1).div_ceil(context);
    let selected = max_tokens.div_ceil(context).clamp(1, windows);
    // All windows are read in parts: a part ends where a window ends, and its last token is the next part's first.
    let per_part = if selected < windows {
        1
    } else {
        (part / context).max(1)
    };
    for i in (0..selected).step_by(per_part) {
        let start = i * windows / selected * context;
        let end = length.min(start + per_part * context + 1);
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
        bytes += tokenizer.decode(&tokens[1..]).len();
    }
    let means = |sum: fn(&Sums) -> f64| -> Vec<Option<f64>> {
        let mean = |head: &Sums| (head.targets > 0).then(|| sum(head) / head.targets as f64);
        heads.iter().map(mean).collect()
    };
    let loss_heads = means(|head| head.loss);
    for (k, loss) in loss_heads.iter().enumerate() {
        if let Some(loss) = loss.filter(|loss| !loss.is_finite()) {
            return Err(Error::NotFinite(format!(
                "the loss of head {k} on the text is {loss}"
            )));
        }
    }
    let main = heads[0];
    Ok(Some(Evaluation {
        loss: main.loss / main.targets as f64,
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

    fn model() -> Model {
        let mut config = Preset::Tiny.config(257, HeadKind::Recursive, 2);
        (config.hidden_size, config.intermediate_size) = (16, 32);
        (config.num_hidden_layers, config.head_dim) = (1, 8);
        (config.num_attention_heads, config.num_key_value_heads) = (2, 1);
        config.set_head_width(8);
        Model::new(config, 3).unwrap()
    }

    #[test]
    fn a_few_windows_are_spread_evenly() {
        let (model, tokenizer) = (model(), Tokenizer::bytes());
        let tokens: Vec<u32> = (0..37).map(|i| i * 29 % 257).collect();
        let text = Tokens::from(tokens.clone());
        let some = |max_tokens| {
            let go_on = &mut || true;
            let some = evaluate_while(&model, &text, &tokenizer, 7, max_tokens, go_on);
            some.unwrap().unwrap()
        };
        // The windows begin at 0, 7, 14, 21, 28 and 35, and the last has one target.
        for (max_tokens, starts) in [(1, &[0][..]), (14, &[0, 21]), (15, &[0, 14, 28])] {
            let found = some(max_tokens);
            let (mut loss, mut targets) = (0.0, 0);
            for start in starts {
                let window = Tokens::from(tokens[*start..start + 8].to_vec());
                let alone = evaluate(&model, &window, &tokenizer, 7).unwrap();
                loss += alone.loss * alone.tokens as f64;
                targets += alone.tokens;
            }
            assert_eq!(found.tokens, targets);
            assert!(
                (found.loss - loss / targets as f64).abs() < 1e-12,
                "{max_tokens}"
            );
        }
        let whole = evaluate(&model, &text, &tokenizer, 7).unwrap();
        assert_eq!([some(36), some(usize::MAX)], [whole.clone(), whole]);
    }

    #[test]
    fn a_head_without_a_target_has_no_loss() {
        let (model, tokenizer) = (model(), Tokenizer::bytes());
        let evaluation = evaluate(&model, &vec![1, 2, 3].into(), &tokenizer, 7).unwrap();
        let json = serde_json::to_value(&evaluation).unwrap();
        for figures in ["loss_heads", "accuracy_heads"] {
            let figures = json[figures].as_array().unwrap();
            let numbers: Vec<bool> = figures.iter().map(|x| x.is_number()).collect();
            assert_eq!(numbers, [true, true, false]);
            assert!(figures[2].is_null());
        }
    }

    #[test]
    fn a_loss_that_is_not_finite_is_an_error() {
        let mut model = model();
        let id = model.params().find("model.norm.weight").unwrap();
        model.params_mut().get_mut(id).data_mut()[0] = f32::NAN;
        let text = Tokens::from(vec![1, 2, 3]);
        let error = evaluate(&model, &text, &Tokenizer::bytes(), 7).unwrap_err();
        assert!(matches!(error, Error::NotFinite(_)), "{error}");
    }

    #[test]
    fn parts_change_no_figure() {
        let (model, tokenizer) = (model(), Tokenizer::bytes());
        // Windows of 7: none left over, one token left over, and no whole one.
        for length in [2, 7, 8, 36, 37, 41] {
            // An end of text has no byte.
            let tokens: Vec<u32> = (0..length).map(|i| i * 29 % 257).collect();
            let text = Tokens::from(tokens);
            let whole = evaluate(&model, &text, &tokenizer, 7).unwrap();
            for part in [1, 7, 8, 14, 30] {
                let exec = || TapeExec::no_grad(model.params());
                let windows = Windows {
                    part,
                    ..Windows::whole(7)
                };
                let found = in_windows(&exec, &model, &text, &tokenizer, windows, &mut || true);
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
