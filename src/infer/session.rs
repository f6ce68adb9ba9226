//! A session: sequences that are decoded together, and that join and leave between steps.

use super::decode_exec::DecodeExec;
use super::policy::Policy;
use super::request::{GenerateOptions, Request};
use super::runner::{ModelRunner, Runner};
use super::sequence::{Sequence, SequenceId};
use super::verify::DecodedToken;
use crate::exec::CacheExec;
use crate::kernels::par;
use crate::model::Model;
use crate::{Error, Result};
use std::collections::{BTreeMap, VecDeque};

/// Sequences that one model decodes together. In [`DecodeMode::Exact`](super::DecodeMode::Exact) each gets the tokens
/// that it would get alone.
///
/// ```
/// use foretoken::infer::{GenerateOptions, HeadDrafter, Request, Session};
/// # use foretoken::model::{HeadKind, Model, Preset};
/// # let mut config = Preset::Tiny.config(257, HeadKind::Recursive, 3);
/// # config.num_hidden_layers = 1;
/// # let model = Model::new(config, 1)?;
/// let options = GenerateOptions { max_tokens: 20, ..GenerateOptions::default() };
/// let mut session = Session::new(&model);
/// let first = session.add(Request::new([72, 105], options.clone()))?;
/// while session.unfinished() > 0 {
///     for output in session.step(&mut HeadDrafter)? {
///         for token in &output.tokens {
///             println!("sequence {}: {} from depth {}", output.id, token.id(), token.depth());
///         }
///     }
/// }
/// // The conversation continues: only the new tokens are computed.
/// session.extend(first, &[33, 10], options)?;
/// # session.remove(first);
/// # Ok::<(), foretoken::Error>(())
/// ```
pub struct Session<'m> {
    pub(super) model: &'m Model,
    pub(super) runner: Box<dyn Runner + 'm>,
    /// In the order in which they joined.
    pub(super) sequences: BTreeMap<SequenceId, Sequence>,
    pub(super) policy: Policy,
    /// What [`Session::stream`] has not returned yet.
    pub(super) not_taken: VecDeque<(SequenceId, Result<DecodedToken>)>,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sequences = &self.sequences;
        f.debug_struct("Session")
            .field("sequences", sequences)
            .finish_non_exhaustive()
    }
}

impl<'m> Session<'m> {
    /// A session on the CPU.
    pub fn new(model: &'m Model) -> Self {
        Self::with_executor(CacheExec::new(model.params()), model)
    }

    /// A session on an executor that was made with the parameters of this model and has no sequences yet. Logits are
    /// the same on every executor, bit for bit.
    pub fn with_executor(exec: impl DecodeExec<Value: Send> + Send + 'm, model: &'m Model) -> Self {
        let runner = ModelRunner {
            model,
            exec,
            logits: None,
        };
        Self {
            model,
            runner: Box::new(runner),
            sequences: BTreeMap::new(),
            policy: Policy::new(model.config()),
            not_taken: VecDeque::new(),
        }
    }

    /// The model.
    pub fn model(&self) -> &'m Model {
        self.model
    }

    /// The sequences, in the order in which they joined.
    pub fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        self.sequences.values()
    }

    /// A sequence, unless it was removed.
    pub fn sequence(&self, id: SequenceId) -> Option<&Sequence> {
        self.sequences.get(&id)
    }

    /// Number of sequences that are not finished.
    pub fn unfinished(&self) -> usize {
        self.sequences().filter(|s| !s.is_finished()).count()
    }

    /// Adds a sequence. The next steps compute its prompt; if `max_tokens` is 0, it is finished at once.
    ///
    /// # Errors
    /// As [`Request::check`]; [`Error::FloatEnvironment`] if a thread flushes subnormal numbers or does not round to
    /// nearest.
    pub fn add(&mut self, request: Request) -> Result<SequenceId> {
        par::check_environment()?;
        request.check(self.model.config())?;
        let slot = self.runner.add_sequence();
        self.policy.add_sequence(slot);
        let sequence = Sequence::new(slot, request, self.model.config());
        let id = sequence.id();
        self.sequences.insert(id, sequence);
        Ok(id)
    }

    /// Removes a sequence, finished or not, and frees its caches.
    pub fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        let sequence = self.sequences.remove(&id)?;
        self.not_taken.retain(|(owner, _)| *owner != id);
        self.runner.remove_sequence(sequence.slot);
        Some(sequence)
    }

    /// Appends tokens to a sequence and continues it with new options; `max_tokens` is counted from here on. The result
    /// is that of a new sequence with the whole text as its prompt, but only the new tokens are computed, unless the
    /// start of the context moved.
    ///
    /// # Errors
    /// As [`Session::add`] of that prompt, and [`Error::Setting`] if the session does not hold the sequence.
    pub fn extend(
        &mut self,
        id: SequenceId,
        tokens: &[u32],
        options: GenerateOptions,
    ) -> Result<()> {
        par::check_environment()?;
        let sequence = find(&mut self.sequences, id)?;
        let request = Request::new([sequence.tokens(), tokens].concat(), options);
        request.check(self.model.config())?;
        sequence.continue_with(request, self.model.config());
        Ok(())
    }

    /// Keeps the first `len` tokens of a sequence and finishes it; [`Session::extend`] continues from there.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] if the session does not hold the sequence, or not so many tokens of it, or if `len`
    /// is 0.
    pub fn truncate(&mut self, id: SequenceId, len: usize) -> Result<()> {
        let sequence = find(&mut self.sequences, id)?;
        let known = sequence.tokens().len();
        if !(1..=known).contains(&len) {
            return Err(Error::setting("len", format!("1 to {known}"), len));
        }
        sequence.truncate(len);
        self.not_taken.retain(|(owner, _)| *owner != id);
        Ok(())
    }
}

fn find(sequences: &mut BTreeMap<SequenceId, Sequence>, id: SequenceId) -> Result<&mut Sequence> {
    let sequence = sequences.get_mut(&id);
    sequence.ok_or_else(|| Error::setting("id", "a sequence of this session", id))
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use super::*;
    use crate::infer::{Draft, DraftContext, DraftLength, Drafter, GenerateOptions, NoDrafts};
    use crate::model::{HeadKind, Preset};
    use crate::simd::float_environment::tests::{FTZ, add_mode, with_mode};

    #[test]
    fn a_new_sequence_notices_a_wrong_floating_point_mode() {
        let model = Preset::Tiny.config(257, HeadKind::Recursive, 1);
        let model = Model::new(model, 1).expect("valid sizes");
        let mut session = Session::new(&model);
        // The pool's threads get the mode of the thread that starts them, which must not be one of those below.
        par::check_environment().expect("the usual mode");
        let request = Request::new([1], GenerateOptions::default());
        let added = with_mode(FTZ, || session.add(request.clone()));
        assert!(
            matches!(added, Err(Error::FloatEnvironment(_))),
            "{added:?}"
        );
        let id = session.add(request).expect("the usual mode");
        assert_eq!(session.sequences().count(), 1);
        let options = GenerateOptions::default();
        let extended = with_mode(FTZ, || session.extend(id, &[2], options));
        assert!(matches!(extended, Err(Error::FloatEnvironment(_))));
        let step = with_mode(FTZ, || session.step(&mut NoDrafts).map(|_| ()));
        assert!(matches!(step, Err(Error::FloatEnvironment(_))));
        session.step(&mut NoDrafts).expect("the usual mode");
        // A drafter calls a library that flushes.
        struct Flushes;
        impl Drafter for Flushes {
            fn draft(&mut self, _: &mut DraftContext<'_>) -> Result<Vec<Vec<Draft>>> {
                add_mode(FTZ);
                Ok(Vec::new())
            }
        }
        let options = GenerateOptions {
            draft_length: DraftLength::All,
            ..GenerateOptions::default()
        };
        session.extend(id, &[2], options).expect("fits");
        let flushed = std::thread::scope(|scope| {
            let run = || {
                session.step(&mut NoDrafts).expect("the prompt");
                let known = session.sequence(id).map(|s| s.tokens().len());
                let error = session.step(&mut Flushes).map(|_| ());
                (
                    error,
                    known == session.sequence(id).map(|s| s.tokens().len()),
                )
            };
            scope.spawn(run).join().expect("no panic")
        });
        assert!(matches!(flushed, (Err(Error::FloatEnvironment(_)), true)));
    }
}
