//! Drafters: sources of drafts, and the view of a session that they get.

use super::draft::Draft;
use super::runner::Runner;
use super::sequence::Sequence;
use crate::model::Model;
use crate::{Error, Result};

/// Proposes the next tokens of sequences. In [`DecodeMode::Exact`](super::DecodeMode::Exact) the tokens are those of
/// plain decoding, whatever it returns. In [`DecodeMode::Rejection`](super::DecodeMode::Rejection) they have its
/// distribution, if each draft was drawn from the distribution that comes with it, by random numbers that do not depend
/// on the sequence's seed.
pub trait Drafter {
    /// Drafts for each of [`DraftContext::requests`], in their order: at most `max_drafts` tokens for the positions
    /// after the newest one. Drafts beyond that are ignored, and so are those from the first out-of-vocabulary id on.
    ///
    /// # Errors
    /// An error ends the step before any sequence has changed. A wrong draft is not an error.
    fn draft(&mut self, context: &mut DraftContext<'_>) -> Result<Vec<Vec<Draft>>>;

    /// Maximum number of drafts per step that [`DraftLength::Auto`](super::DraftLength::Auto) considers: by default as
    /// many as the model has heads.
    fn max_drafts(&self, model: &Model) -> usize {
        model.config().mtp_depth
    }
}

/// Drafts nothing: plain decoding.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDrafts;

impl Drafter for NoDrafts {
    fn draft(&mut self, _: &mut DraftContext<'_>) -> Result<Vec<Vec<Draft>>> {
        Ok(Vec::new())
    }

    fn max_drafts(&self, _: &Model) -> usize {
        0
    }
}

/// Drafts with the model's prediction heads.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadDrafter;

impl Drafter for HeadDrafter {
    fn draft(&mut self, context: &mut DraftContext<'_>) -> Result<Vec<Vec<Draft>>> {
        let requests = context.requests().iter();
        let max_drafts: Vec<usize> = requests.map(DraftRequest::max_drafts).collect();
        context.run_heads(&max_drafts)
    }
}

/// A sequence that drafts in this step.
#[derive(Debug)]
pub struct DraftRequest<'s> {
    pub(super) sequence: &'s mut Sequence,
    max_drafts: usize,
}

impl DraftRequest<'_> {
    /// The sequence, to read. The first draft is for the position `tokens().len()`.
    ///
    /// Drafts that [`sample`](super::sample()) draws from another model's logits with the sequence's sampler share the
    /// noise of verification, which accepts more of them (coupled sampling).
    pub fn sequence(&self) -> &Sequence {
        self.sequence
    }

    /// Maximum number of drafts that are of use, at least 1.
    pub fn max_drafts(&self) -> usize {
        self.max_drafts
    }
}

/// What a drafter sees of a session in one step: the sequences that draft, to read, and the model's heads, to run.
///
/// It has no public constructor, and it cannot be replaced by that of another session, because no two steps have the
/// same lifetime:
///
/// ```compile_fail
/// use foretoken::infer::{Draft, Drafter, DraftContext};
/// struct Swap<'a, 'b>(&'a mut DraftContext<'b>);
/// impl Drafter for Swap<'_, '_> {
///     fn draft(&mut self, context: &mut DraftContext<'_>) -> foretoken::Result<Vec<Vec<Draft>>> {
///         std::mem::swap(self.0, context);
///         Ok(Vec::new())
///     }
/// }
/// ```
///
/// Its sequences cannot be changed, replaced or taken out:
///
/// ```compile_fail,E0616
/// # use foretoken::infer::DraftContext;
/// fn cheat(context: &mut DraftContext<'_>) {
///     context.requests.swap(0, 1);
/// }
/// ```
///
/// ```compile_fail,E0594
/// # use foretoken::infer::DraftContext;
/// fn cheat(context: &mut DraftContext<'_>) {
///     context.requests()[0].sequence().tokens()[0] = 7;
/// }
/// ```
pub struct DraftContext<'s> {
    model: &'s Model,
    pub(super) runner: &'s mut dyn Runner,
    pub(super) requests: Vec<DraftRequest<'s>>,
}

impl std::fmt::Debug for DraftContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.requests).finish()
    }
}

impl<'s> DraftContext<'s> {
    /// Sequences with their draft limits; zero limits are skipped.
    pub(super) fn new(
        model: &'s Model,
        runner: &'s mut dyn Runner,
        sequences: impl Iterator<Item = (&'s mut Sequence, usize)>,
    ) -> Self {
        let requests = sequences.filter(|(_, max_drafts)| *max_drafts > 0);
        let requests = requests.map(|(sequence, max_drafts)| DraftRequest {
            sequence,
            max_drafts,
        });
        Self {
            model,
            runner,
            requests: requests.collect(),
        }
    }

    /// The model that verifies the drafts.
    pub fn model(&self) -> &'s Model {
        self.model
    }

    /// The sequences that draft in this step.
    pub fn requests(&self) -> &[DraftRequest<'s>] {
        &self.requests
    }
}

/// Asks the drafter; returns the usable drafts of every sequence.
///
/// # Errors
/// Returns the drafter's error, or [`Error::Setting`] for a distribution that is not one over the vocabulary.
pub(super) fn draft(
    model: &Model,
    runner: &mut dyn Runner,
    sequences: &mut [&mut Sequence],
    max_drafts: &[usize],
    drafter: &mut dyn Drafter,
) -> Result<Vec<Vec<Draft>>> {
    let sequences = sequences.iter_mut().map(|sequence| &mut **sequence);
    let pairs = sequences.zip(max_drafts.iter().copied());
    let mut context = DraftContext::new(model, runner, pairs);
    let answers = if context.requests.is_empty() {
        Vec::new()
    } else {
        drafter.draft(&mut context)?
    };
    let mut answers = answers.into_iter();
    let vocab = model.config().vocab_size;
    let mut all = Vec::with_capacity(max_drafts.len());
    for max_drafts in max_drafts {
        let mut drafts = match max_drafts {
            0 => Vec::new(),
            _ => answers.next().unwrap_or_default(),
        };
        let wrong = drafts
            .iter()
            .position(|draft| draft.token as usize >= vocab);
        drafts.truncate(wrong.unwrap_or(drafts.len()).min(*max_drafts));
        for draft in &drafts {
            if let Some(q) = draft.distribution.as_ref().filter(|q| q.len() != vocab) {
                let expected = format!("probabilities of {vocab} tokens");
                return Err(Error::setting("distribution", expected, q.len()));
            }
        }
        all.push(drafts);
    }
    Ok(all)
}
