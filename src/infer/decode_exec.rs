//! What decoding needs of an executor: caches by sequence, and tokens sampled where the logits are.

use super::sample::{Sampler, sample};
use crate::Result;
use crate::exec::{CacheExec, SequenceCache};

/// Consecutive logits rows of one sequence, which decide the tokens from `token_index` on.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRequest {
    /// Index of the first row.
    pub row: usize,
    /// Index, in its sequence, of the token that the first row decides.
    pub token_index: usize,
    /// How tokens are chosen.
    pub sampler: Sampler,
    /// The drafts that were fed to the rows after the first: there is one more row than drafts.
    pub drafts: Vec<u32>,
}

impl SampleRequest {
    /// The accepted drafts and one more token: what `sample_row(row, token_index)` returns, row by row, up to the first
    /// token that differs from its draft; the rows after it were computed from a wrong token. A row that fails after
    /// accepted drafts ends the list as well: it is the first row of the next step, which fails then as plain decoding
    /// does.
    ///
    /// # Errors
    /// Returns the error of `sample_row` for the first row.
    pub fn verify_drafts(
        &self,
        mut sample_row: impl FnMut(usize, usize) -> Result<u32>,
    ) -> Result<Vec<u32>> {
        let mut tokens = vec![sample_row(self.row, self.token_index)?];
        while self.drafts.get(tokens.len() - 1) == tokens.last() {
            let i = tokens.len();
            match sample_row(self.row + i, self.token_index + i) {
                Ok(token) => tokens.push(token),
                Err(_) => break,
            }
        }
        Ok(tokens)
    }
}

/// An executor that can decode. The provided methods are those of an executor in main memory.
pub trait DecodeExec: SequenceCache {
    /// For each request the accepted drafts and one more token, as [`SampleRequest::verify_drafts`] gives them with
    /// [`sample`]; logits [rows, V]. An inner error concerns one request only.
    ///
    /// # Errors
    /// Returns [`Error::Device`](crate::Error::Device) if the executor's device failed.
    fn sample(
        &mut self,
        logits: &Self::Value,
        requests: &[SampleRequest],
    ) -> Result<Vec<Result<Vec<u32>>>> {
        let logits = self.host(logits)?;
        let verify = |request: &SampleRequest| {
            request.verify_drafts(|row, token_index| {
                sample(logits.row(row), token_index, request.sampler)
            })
        };
        Ok(requests.iter().map(verify).collect())
    }

    /// A row of logits `[V]`.
    ///
    /// # Errors
    /// Returns [`Error::Device`](crate::Error::Device) if the executor's device failed.
    fn logits_row(&mut self, logits: &Self::Value, row: usize) -> Result<Vec<f32>> {
        Ok(self.host(logits)?.row(row).to_vec())
    }

    /// Waits until all operations are done.
    ///
    /// # Errors
    /// Returns [`Error::Device`](crate::Error::Device) if the executor's device failed.
    fn synchronize(&mut self) -> Result<()> {
        Ok(())
    }
}

impl DecodeExec for CacheExec<'_> {}
