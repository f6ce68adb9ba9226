//! Drafters that are not the model's heads.

use foretoken::Result;
use foretoken::exec::{Exec, Rows, TapeExec};
use foretoken::infer::{
    Distribution, Draft, DraftContext, DraftRequest, Drafter, GenerateOptions, HeadDrafter, Sampler,
};
use foretoken::model::Model;
use foretoken::ops::SelectRows;

use crate::{all, run};

pub fn drafts(tokens: Vec<u32>) -> Vec<Draft> {
    tokens.into_iter().map(Draft::from).collect()
}

/// Knows the plain output of every sequence and lies with a fixed pattern, so that every number of accepted drafts
/// occurs.
pub struct Oracle {
    /// Prompts with what plain decoding makes of them.
    pub texts: Vec<Vec<u32>>,
    pub right_of_ten: u32,
    pub state: u32,
}

impl Oracle {
    fn guess(&mut self, request: &DraftRequest<'_>) -> Vec<u32> {
        let known = request.sequence().tokens();
        let text = self.texts.iter().find(|text| text.starts_with(known));
        let truth = &text.expect("the tokens are those of plain decoding")[known.len()..];
        let mut guesses = Vec::new();
        for token in truth.iter().take(request.max_drafts().min(6)) {
            self.state = self
                .state
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223);
            let right = (self.state >> 16) % 10 < self.right_of_ten;
            guesses.push(if right { *token } else { (token + 1) % 257 });
        }
        guesses
    }
}

impl Drafter for Oracle {
    fn draft(&mut self, context: &mut DraftContext<'_>) -> Result<Vec<Vec<Draft>>> {
        let requests = context.requests().iter();
        Ok(requests
            .map(|request| drafts(self.guess(request)))
            .collect())
    }
}

/// Knows no bounds.
pub struct Wild;

impl Drafter for Wild {
    fn draft(&mut self, context: &mut DraftContext<'_>) -> Result<Vec<Vec<Draft>>> {
        let wild = context.requests().iter().map(|request| {
            let token = request.sequence().tokens().len() as u32 % 300;
            drafts(vec![token; request.max_drafts().min(500) + 3])
        });
        Ok(wild.collect())
    }
}

/// Drafts a different number of tokens in each step, and compares the drafts of a greedy text with those of a drafter
/// that sees it for the first time.
#[derive(Default)]
pub struct Irregular {
    step: usize,
    /// Whether the text is greedy, as that of the other drafter is.
    pub greedy: bool,
}

impl Drafter for Irregular {
    fn draft(&mut self, context: &mut DraftContext<'_>) -> Result<Vec<Vec<Draft>>> {
        let pattern = [4, 1, 3, 0, 4, 2, 1, 3, 3, 1, 1, 4, 4, 2, 4];
        let max = pattern[self.step % pattern.len()];
        let max = [context.requests()[0].max_drafts().min(max)];
        self.step += 1;
        let drafts = context.run_heads(&max)?;
        assert_eq!(context.run_heads(&max)?, drafts, "asked twice");
        if self.greedy {
            let tokens = context.requests()[0].sequence().tokens();
            assert_eq!(first_draft(context.model(), tokens, max[0]), drafts);
        }
        Ok(drafts)
    }
}

/// Runs the heads, as [`Irregular`] does, and returns something else.
pub struct Liar {
    pub oracle: Oracle,
    pub steps: usize,
}

impl Drafter for Liar {
    fn draft(&mut self, context: &mut DraftContext<'_>) -> Result<Vec<Vec<Draft>>> {
        let max = context.requests()[0].max_drafts().min(1 + self.steps % 4);
        self.steps += 1;
        let drafts = context.run_heads(&[max])?;
        let tokens = context.requests()[0].sequence().tokens();
        assert_eq!(first_draft(context.model(), tokens, max), drafts);
        self.oracle.draft(context)
    }
}

/// What the heads draft after these tokens, without a past.
fn first_draft(model: &Model, tokens: &[u32], wanted: usize) -> Vec<Vec<Draft>> {
    struct Record(Option<Vec<Vec<Draft>>>);
    impl Drafter for Record {
        fn draft(&mut self, context: &mut DraftContext<'_>) -> Result<Vec<Vec<Draft>>> {
            let drafts = HeadDrafter.draft(context)?;
            Ok(self.0.get_or_insert(drafts).clone())
        }
    }
    // The prefill of all but the last token decides that last one, as it did the first time.
    let (last, prompt) = tokens.split_last().expect("known tokens");
    let options = GenerateOptions {
        max_tokens: wanted + 2,
        draft_length: crate::fixed(wanted),
        sampler: Sampler::GREEDY,
        ..all()
    };
    let mut record = Record(None);
    let again = run(model, prompt, &options, &mut record);
    assert_eq!(again.tokens[0], *last);
    record.0.unwrap_or_else(|| vec![Vec::new()])
}

/// Checks every draft's distribution, and with it the head's logits, against the training graph on the same tokens,
/// drafts included.
#[derive(Default)]
pub struct Checked {
    irregular: Irregular,
    pub checked: usize,
}

impl Drafter for Checked {
    fn draft(&mut self, context: &mut DraftContext<'_>) -> Result<Vec<Vec<Draft>>> {
        let drafts = self.irregular.draft(context)?;
        let mut text = context.requests()[0].sequence().tokens().to_vec();
        for (k, draft) in (1..).zip(&drafts[0]) {
            let logits = last_logits(context.model(), &text, k);
            let exact = Distribution::from_logits(&logits, text.len(), SOFTMAX)?;
            assert_eq!(draft.distribution.as_ref(), Some(&exact), "depth {k}");
            text.push(draft.token);
            self.checked += 1;
        }
        Ok(drafts)
    }
}

/// The plain softmax: each probability says how far its logit is below the largest.
pub const SOFTMAX: Sampler = Sampler {
    temperature: 1.0,
    ..Sampler::GREEDY
};

/// Logits of depth k at its last row, by the training graph.
fn last_logits(model: &Model, text: &[u32], k: usize) -> Vec<f32> {
    let kind = model.config().mtp_kind;
    let mut exec = TapeExec::no_grad(model.params());
    let whole = Rows::batch(1, text.len());
    let trunk = (model.trunk(&mut exec, text, &whole), whole);
    let mut state = trunk.clone();
    for depth in if kind.chained() { 1..=k } else { k..=k } {
        let (source, rows) = if kind.chained() { &state } else { &trunk };
        let (rows, indices) = rows.without_last(if kind.chained() { 1 } else { k });
        let h = exec.apply(SelectRows { indices }, [source]);
        let h = model.head(&mut exec, depth, &h, &text[depth..], &rows);
        state = (h, rows);
    }
    let indices = [state.1.len() as u32 - 1].into();
    let h = exec.apply(SelectRows { indices }, [&state.0]);
    model.logits(&mut exec, &h).value().data().to_vec()
}
