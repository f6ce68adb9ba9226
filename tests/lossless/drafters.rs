//! Drafters that are not the model's heads.

use foretoken::Result;
use foretoken::exec::{Exec, Rows, Train};
use foretoken::infer::{Distribution, Draft, Drafter, HeadDrafter, Options, Sampler, Session};
use foretoken::model::Model;
use foretoken::ops::SelectRows;

use crate::run;

fn drafts(tokens: Vec<u32>) -> Vec<Draft> {
    tokens.into_iter().map(Draft::from).collect()
}

/// Knows the plain output of every sequence and lies with a fixed pattern, so that every number of accepted drafts
/// occurs.
pub struct Oracle {
    pub truths: Vec<Vec<u32>>,
    pub right_of_ten: u32,
    pub state: u32,
}

impl Drafter for Oracle {
    fn draft(&mut self, session: &mut Session<'_>, wanted: &[usize]) -> Result<Vec<Vec<Draft>>> {
        let mut all = Vec::new();
        for (i, sequence) in session.sequences().iter().enumerate() {
            let known = sequence.generated().len();
            let truth = &self.truths[i][known.min(self.truths[i].len())..];
            let mut guesses = Vec::new();
            for token in truth.iter().take(wanted[i].min(6)) {
                self.state = self
                    .state
                    .wrapping_mul(1_664_525)
                    .wrapping_add(1_013_904_223);
                let right = (self.state >> 16) % 10 < self.right_of_ten;
                guesses.push(if right { *token } else { (token + 1) % 257 });
            }
            all.push(drafts(guesses));
        }
        Ok(all)
    }
}

/// Knows no bounds.
pub struct Wild;

impl Drafter for Wild {
    fn draft(&mut self, session: &mut Session<'_>, wanted: &[usize]) -> Result<Vec<Vec<Draft>>> {
        let pairs = session.sequences().iter().zip(wanted);
        let wild = pairs.map(|(sequence, wanted)| {
            let token = sequence.tokens().len() as u32 % 300;
            drafts(vec![token; (*wanted).min(500) + 3])
        });
        Ok(wild.collect())
    }
}

/// Drafts a different number of tokens each step, and compares the drafts of a greedy text with those of a drafter that
/// sees it for the first time.
#[derive(Default)]
pub struct Irregular {
    heads: HeadDrafter,
    step: usize,
    /// Whether the text is greedy, as that of the other drafter is.
    pub greedy: bool,
}

impl Drafter for Irregular {
    fn draft(&mut self, session: &mut Session<'_>, wanted: &[usize]) -> Result<Vec<Vec<Draft>>> {
        let pattern = [4, 1, 3, 0, 4, 2, 1, 3, 3, 1, 1, 4, 4, 2, 4];
        let wanted = [wanted[0].min(pattern[self.step % pattern.len()])];
        self.step += 1;
        let drafts = self.heads.draft(session, &wanted)?;
        assert_eq!(self.heads.draft(session, &wanted)?, drafts, "asked twice");
        if self.greedy {
            let tokens = session.sequences()[0].tokens();
            assert_eq!(first_draft(session.model(), tokens, wanted[0]), drafts);
        }
        Ok(drafts)
    }
}

/// What the heads draft after these tokens, without a past.
fn first_draft(model: &Model, tokens: &[u32], wanted: usize) -> Vec<Vec<Draft>> {
    struct Record(HeadDrafter, Option<Vec<Vec<Draft>>>);
    impl Drafter for Record {
        fn draft(
            &mut self,
            session: &mut Session<'_>,
            wanted: &[usize],
        ) -> Result<Vec<Vec<Draft>>> {
            let drafts = self.0.draft(session, wanted)?;
            Ok(self.1.get_or_insert(drafts).clone())
        }
    }
    // The prefill of all but the last token decides that last one, as it did the first time.
    let (last, prompt) = tokens.split_last().expect("known tokens");
    let options = Options {
        max_tokens: wanted + 2,
        drafts: crate::fixed(wanted),
        sampler: Sampler::GREEDY,
        ..Options::default()
    };
    let mut record = Record(HeadDrafter::default(), None);
    let again = run(model, prompt, &options, &mut record);
    assert_eq!(again.tokens[0], *last);
    record.1.unwrap_or_else(|| vec![Vec::new()])
}

/// Checks every draft's distribution, and with it the head's logits, against the training graph on the same tokens, drafts
/// included.
#[derive(Default)]
pub struct Checked {
    irregular: Irregular,
    pub checked: usize,
}

impl Drafter for Checked {
    fn draft(&mut self, session: &mut Session<'_>, wanted: &[usize]) -> Result<Vec<Vec<Draft>>> {
        let drafts = self.irregular.draft(session, wanted)?;
        let mut text = session.sequences()[0].tokens().to_vec();
        for (k, draft) in (1..).zip(&drafts[0]) {
            let logits = last_logits(session.model(), &text, k);
            let exact = Distribution::of(&logits, text.len(), SOFTMAX)?;
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
    let mut exec = Train::no_grad(model.params());
    let whole = Rows::batch(1, text.len());
    let trunk = (model.trunk(&mut exec, text, &whole), whole);
    let mut state = trunk.clone();
    for depth in if kind.chained() { 1..=k } else { k..=k } {
        let (source, rows) = if kind.chained() { &state } else { &trunk };
        let (rows, keep) = rows.without_last(if kind.chained() { 1 } else { k });
        let h = exec.apply(SelectRows { keep }, [source]);
        let h = model.head(&mut exec, depth, &h, &text[depth..], &rows);
        state = (h, rows);
    }
    let keep = [state.1.len() as u32 - 1].into();
    let h = exec.apply(SelectRows { keep }, [&state.0]);
    model.logits(&mut exec, &h).value().data().to_vec()
}
