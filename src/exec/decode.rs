//! The executor for decoding: a KV cache for each sequence; everything else is freed.

use super::{Exec, Rows, SequenceCache};
use crate::Result;
use crate::autograd::{Op, Var};
use crate::kernels::attention::{self, AttentionHeads, KeyValues};
use crate::profile;
use crate::tensor::{ParamId, Params, Tensor};
use std::any::type_name;
use std::sync::Arc;

/// The KV caches of several sequences: [`KeyValues`] for each sequence, attention layer and key/value head. It also
/// keeps hidden states for its caller.
#[derive(Debug)]
pub struct CacheExec<'m> {
    params: &'m Params,
    /// [sequence][cache][key/value head]
    caches: Vec<Vec<Vec<KeyValues>>>,
    /// [sequence][depth]: h [positions, C], row by row.
    hidden: Vec<Vec<Vec<f32>>>,
    /// Numbers of removed sequences.
    free: Vec<usize>,
}

impl<'m> CacheExec<'m> {
    /// No sequences yet.
    pub fn new(params: &'m Params) -> Self {
        Self {
            params,
            caches: Vec::new(),
            hidden: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl SequenceCache for CacheExec<'_> {
    fn add_sequence(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.caches.push(Vec::new());
            self.hidden.push(Vec::new());
            self.caches.len() - 1
        })
    }

    fn remove_sequence(&mut self, sequence: usize) {
        self.caches[sequence] = Vec::new();
        self.hidden[sequence] = Vec::new();
        self.free.push(sequence);
    }

    fn len(&self, sequence: usize, cache: usize) -> usize {
        let head = self.caches[sequence].get(cache).and_then(|x| x.first());
        head.map_or(0, KeyValues::len)
    }

    fn truncate(&mut self, sequence: usize, cache: usize, len: usize) {
        for kv in self.caches[sequence].get_mut(cache).into_iter().flatten() {
            kv.truncate(len.min(kv.len()));
        }
    }

    #[track_caller]
    fn keep(&mut self, depth: usize, rows: &Rows, h: &Var) {
        let h = h.value();
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

    #[track_caller]
    fn kept(&mut self, depth: usize, rows: &Rows, width: usize) -> Var {
        let mut h = Tensor::empty(&[rows.len(), width]);
        let mut rest = h.data_mut();
        for span in rows.spans() {
            let (own, others) = rest.split_at_mut(span.len * width);
            rest = others;
            let kept = &self.hidden[span.sequence][depth];
            own.copy_from_slice(&kept[span.first * width..][..own.len()]);
        }
        Var::constant(h)
    }
}

impl Exec for CacheExec<'_> {
    type Value = Var;

    fn param(&mut self, id: ParamId) -> Var {
        Var::constant(Arc::clone(self.params.get(id)))
    }

    fn apply<O, const N: usize>(&mut self, op: O, inputs: [&Var; N]) -> Var
    where
        O: Op<N> + 'static,
    {
        let values = inputs.map(Var::value);
        Var::constant(profile::time(type_name::<O>(), "forward", || op.forward(values)).0)
    }

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
            let rows = qkv.matrix().row_range(from, from + span.len);
            for (g, kv) in slot.iter_mut().enumerate() {
                kv.extend(heads.keys(rows, g), heads.values(rows, g));
            }
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
