//! What decoding needs of an executor: caches by sequence, and tokens sampled where the logits are.

use super::pick::{Sampler, pick};
use crate::Result;
use crate::exec::{CacheExec, SequenceCache};

/// Consecutive logits rows of one sequence, which decide the tokens from `position` on.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRequest {
    /// Index of the first row.
    pub row: usize,
    /// Index, in its sequence, of the token that the first row decides.
    pub position: usize,
    /// How tokens are chosen.
    pub sampler: Sampler,
    /// The drafts that were fed to the rows after the first: there is one row more than drafts.
    pub drafts: Vec<u32>,
}

impl SampleRequest {
    /// The tokens that `pick_row(row, position)` returns, row by row, up to the first that differs from its draft: the
    /// rows after it were computed from a wrong token. A row that fails after accepted drafts ends the list as well: it
    /// is the first row of the next step, which fails then as plain decoding does.
    ///
    /// # Errors
    /// Returns the error of `pick_row` for the first row.
    pub fn accept(
        &self,
        mut pick_row: impl FnMut(usize, usize) -> Result<u32>,
    ) -> Result<Vec<u32>> {
        let mut tokens = vec![pick_row(self.row, self.position)?];
        while self.drafts.get(tokens.len() - 1) == tokens.last() {
            let i = tokens.len();
            match pick_row(self.row + i, self.position + i) {
                Ok(token) => tokens.push(token),
                Err(_) => break,
            }
        }
        Ok(tokens)
    }
}

/// An executor that can decode. The provided methods are those of an executor in main memory.
pub trait Decoder: SequenceCache {
    /// For each request the accepted drafts and one token more, as [`SampleRequest::accept`] gives them with [`pick`];
    /// logits [rows, V]. An inner error concerns one request only.
    ///
    /// # Errors
    /// Returns [`Error::Device`](crate::Error::Device) if the executor's device failed.
    fn sample(
        &mut self,
        logits: &Self::Value,
        requests: &[SampleRequest],
    ) -> Result<Vec<Result<Vec<u32>>>> {
        let logits = self.host(logits)?;
        let sample = |request: &SampleRequest| {
            request.accept(|row, position| pick(logits.row(row), position, request.sampler))
        };
        Ok(requests.iter().map(sample).collect())
    }

    /// A row of logits `[V]`.
    ///
    /// # Errors
    /// Returns [`Error::Device`](crate::Error::Device) if the executor's device failed.
    fn row(&mut self, logits: &Self::Value, row: usize) -> Result<Vec<f32>> {
        Ok(self.host(logits)?.row(row).to_vec())
    }

    /// Waits until all operations are done.
    ///
    /// # Errors
    /// Returns [`Error::Device`](crate::Error::Device) if the executor's device failed.
    fn wait(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Decoder for CacheExec<'_> {}
