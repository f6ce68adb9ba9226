//! The executor for decoding: keys and values are kept, everything else is freed.

use super::{Exec, Rows};
use crate::Result;
use crate::autograd::{Op, Var};
use crate::kernels::attention::{self, AttentionHeads, KeyValues};
use crate::kernels::gemm::View;
use crate::profile;
use crate::tensor::{ParamId, Params, Tensor};
use std::any::type_name;
use std::sync::Arc;

/// Caches of several sequences: for each sequence and each attention layer, one [`KeyValues`] a key head. Beside them,
/// hidden states that a caller keeps.
#[derive(Debug)]
pub struct Decode<'m> {
    params: &'m Params,
    /// [sequence][cache][key head]
    caches: Vec<Vec<Vec<KeyValues>>>,
    /// [sequence][depth]: h [positions, C], row by row.
    hidden: Vec<Vec<Vec<f32>>>,
}

impl<'m> Decode<'m> {
    /// No sequences yet.
    pub fn new(params: &'m Params) -> Self {
        Self {
            params,
            caches: Vec::new(),
            hidden: Vec::new(),
        }
    }

    /// A new sequence; returns its number.
    pub fn add_sequence(&mut self) -> usize {
        self.caches.push(Vec::new());
        self.hidden.push(Vec::new());
        self.caches.len() - 1
    }

    /// Positions that cache `cache` holds of a sequence.
    pub fn len(&self, sequence: usize, cache: usize) -> usize {
        let heads = self.caches[sequence].get(cache);
        heads
            .and_then(|heads| heads.first())
            .map_or(0, KeyValues::len)
    }

    /// Forgets positions `len..` of a sequence in cache `cache`; fewer may be there.
    pub fn truncate(&mut self, sequence: usize, cache: usize, len: usize) {
        for kv in self.caches[sequence].get_mut(cache).into_iter().flatten() {
            kv.truncate(len.min(kv.len()));
        }
    }

    /// Keeps h [rows, C] of depth `depth` at the positions of its rows. What was kept of these sequences from there on is
    /// forgotten.
    ///
    /// # Panics
    /// Where a span does not start at a position kept before or the one after the last.
    #[track_caller]
    pub fn keep(&mut self, depth: usize, rows: &Rows, h: &Tensor) {
        let mut rest = h.data();
        for span in rows.spans() {
            let (own, others) = rest.split_at(span.len * h.cols());
            rest = others;
            let depths = &mut self.hidden[span.sequence];
            if depths.len() <= depth {
                depths.resize(depth + 1, Vec::new());
            }
            let kept = &mut depths[depth];
            let from = span.first * h.cols();
            assert!(from <= kept.len(), "rows kept of depth {depth} follow");
            kept.truncate(from);
            kept.extend_from_slice(own);
        }
    }

    /// What was kept of depth `depth` at the positions of some rows, [rows, `width`].
    ///
    /// # Panics
    /// Where nothing was kept there.
    #[track_caller]
    pub fn kept(&self, depth: usize, rows: &Rows, width: usize) -> Tensor {
        let mut h = Tensor::empty(&[rows.len(), width]);
        let mut rest = h.data_mut();
        for span in rows.spans() {
            let (own, others) = rest.split_at_mut(span.len * width);
            rest = others;
            let kept = &self.hidden[span.sequence][depth];
            own.copy_from_slice(&kept[span.first * width..][..own.len()]);
        }
        h
    }
}

impl Exec for Decode<'_> {
    type Value = Var;

    fn param(&mut self, id: ParamId) -> Var {
        Var::constant(Arc::clone(self.params.get(id)))
    }

    fn apply<O, const N: usize>(&mut self, op: O, inputs: [&Var; N]) -> Var
    where
        O: Op<N> + 'static,
        O::Saved: 'static,
    {
        let values = inputs.map(Var::value);
        Var::constant(profile::time(type_name::<O>(), "forward", || op.forward(values)).0)
    }

    /// # Panics
    /// Where a span does not start at the end of its cache.
    fn attend(&mut self, cache: usize, heads: AttentionHeads, rows: &Rows, qkv: &Var) -> Var {
        let qkv = qkv.value();
        let mut from = 0;
        for span in rows.spans() {
            let caches = &mut self.caches[span.sequence];
            if caches.len() <= cache {
                caches.resize(cache + 1, Vec::new());
            }
            let slot = &mut caches[cache];
            if slot.is_empty() {
                *slot = vec![KeyValues::new(heads.size); heads.key_value];
            }
            assert_eq!(slot[0].len(), span.first, "rows append to cache {cache}");
            remember(heads, qkv.matrix().row_range(from, from + span.len), slot);
            from += span.len;
        }
        let span = |s: &super::Span| attention::CachedSequence {
            first: s.first,
            len: s.len,
            cache: &self.caches[s.sequence][cache],
        };
        let spans: Vec<_> = rows.spans().iter().map(span).collect();
        let mut y = Tensor::empty(&[qkv.rows(), heads.query * heads.size]);
        profile::time("Attention", "cached", || {
            attention::cached(heads, &spans, qkv.data(), y.data_mut());
        });
        Var::constant(y)
    }

    fn host(&mut self, value: &Var) -> Result<Arc<Tensor>> {
        Ok(Arc::clone(value.value()))
    }
}

/// Appends the keys and values of qkv [rows, (H + 2 G) D].
fn remember(heads: AttentionHeads, qkv: View<'_>, cache: &mut [KeyValues]) {
    for (g, kv) in cache.iter_mut().enumerate() {
        kv.extend(heads.keys(qkv, g), heads.values(qkv, g));
    }
}
