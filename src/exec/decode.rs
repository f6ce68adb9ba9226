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
    /// [slot][cache][key/value head]
    caches: Vec<Vec<Vec<KeyValues>>>,
    /// [slot][depth]: h [positions, C], row by row.
    hidden: Vec<Vec<Vec<f32>>>,
    /// Slots of removed sequences.
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

    fn remove_sequence(&mut self, slot: usize) {
        self.caches[slot] = Vec::new();
        self.hidden[slot] = Vec::new();
        self.free.push(slot);
    }

    fn len(&self, slot: usize, cache: usize) -> usize {
        let head = self.caches[slot].get(cache).and_then(|x| x.first());
        head.map_or(0, KeyValues::len)
    }

    fn truncate(&mut self, slot: usize, cache: usize, len: usize) {
        for kv in self.caches[slot].get_mut(cache).into_iter().flatten() {
            kv.truncate(len.min(kv.len()));
        }
    }

    #[track_caller]
    fn store_hidden(&mut self, depth: usize, rows: &Rows, h: &Var) {
        let h = h.value();
        let mut rest = h.data();
        for span in rows.spans() {
            let (own, others) = rest.split_at(span.len * h.cols());
            rest = others;
            let depths = &mut self.hidden[span.slot];
            if depths.len() <= depth {
                depths.resize(depth + 1, Vec::new());
            }
            let stored = &mut depths[depth];
            let from = span.first * h.cols();
            assert!(from <= stored.len(), "rows stored of depth {depth} follow");
            stored.truncate(from);
            stored.extend_from_slice(own);
        }
    }

    #[track_caller]
    fn load_hidden(&mut self, depth: usize, rows: &Rows, width: usize) -> Var {
        let mut h = Tensor::empty(&[rows.len(), width]);
        let mut rest = h.data_mut();
        for span in rows.spans() {
            let (own, others) = rest.split_at_mut(span.len * width);
            rest = others;
            let stored = &self.hidden[span.slot][depth];
            own.copy_from_slice(&stored[span.first * width..][..own.len()]);
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
            let caches = &mut self.caches[span.slot];
            if caches.len() <= cache {
                caches.resize(cache + 1, Vec::new());
            }
            let own = &mut caches[cache];
            if own.is_empty() {
                *own = vec![KeyValues::new(heads.head_dim); heads.num_kv_heads];
            }
            assert_eq!(own[0].len(), span.first, "rows append to cache {cache}");
            let rows = qkv.matrix().row_range(from, from + span.len);
            for (g, kv) in own.iter_mut().enumerate() {
                kv.extend(heads.keys(rows, g), heads.values(rows, g));
            }
            from += span.len;
        }
        let span = |s: &super::Span| attention::CachedSequence {
            first: s.first,
            len: s.len,
            cache: &self.caches[s.slot][cache],
        };
        let spans: Vec<_> = rows.spans().iter().map(span).collect();
        let mut y = Tensor::empty(&[qkv.rows(), heads.num_heads * heads.head_dim]);
        profile::time("Attention", "cached", || {
            attention::cached(heads, &spans, qkv.data(), y.data_mut());
        });
        Var::constant(y)
    }

    fn host(&mut self, value: &Var) -> Result<Arc<Tensor>> {
        Ok(Arc::clone(value.value()))
    }
}
