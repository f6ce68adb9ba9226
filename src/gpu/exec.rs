//! The executor whose values are on a device.
//!
//! It does what [`CacheExec`](crate::exec::CacheExec) does. Weights, KV caches and hidden states stay on the device;
//! tokens travel. Operations without kernels run on the CPU, with the same bits: their inputs are downloaded and their
//! result is uploaded.
//!
//! A device can fail at any operation, and operations return no errors. The device keeps its first failure and ignores
//! all later work; reading a result returns the error.

use super::attention::{self, Cache};
use super::growing::Growing;
use super::ops;
use super::params::DeviceParams;
use super::sample::sample;
use super::value::Value;
use crate::Result;
use crate::autograd::Op;
use crate::exec::{Exec, Rows, SequenceCache, Span};
use crate::infer::{DecodeExec, SampleRequest};
use crate::kernels::attention::AttentionHeads;
use crate::tensor::{ParamId, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Default)]
struct Sequence {
    /// By index.
    caches: BTreeMap<usize, Cache>,
    /// By depth.
    hidden: BTreeMap<usize, Growing<1>>,
}

/// Runs a model on a device.
pub struct GpuExec<'w> {
    weights: &'w DeviceParams<'w>,
    sequences: Vec<Sequence>,
    /// Slots of removed sequences.
    free: Vec<usize>,
}

impl<'w> GpuExec<'w> {
    /// An executor without sequences.
    pub fn new(weights: &'w DeviceParams<'w>) -> Self {
        Self {
            weights,
            sequences: Vec::new(),
            free: Vec::new(),
        }
    }

    /// An executor with one empty sequence, in slot 0.
    pub fn with_sequence(weights: &'w DeviceParams<'w>) -> Self {
        let mut exec = Self::new(weights);
        exec.add_sequence();
        exec
    }
}

impl Exec for GpuExec<'_> {
    type Value = Value;

    fn param(&mut self, id: ParamId) -> Value {
        Value::of_param(self.weights, id)
    }

    fn apply<O, const N: usize>(&mut self, op: O, inputs: [&Value; N]) -> Value
    where
        O: Op<N> + 'static,
    {
        if let Some(y) = ops::run(self.weights, &op, &inputs) {
            return y;
        }
        // After a failure the values do not matter: `host` returns the error.
        let fetch = |x: &Value| {
            let fetched = x.fetch();
            fetched.unwrap_or_else(|_| Arc::new(Tensor::zeros(&x.matrix.shape())))
        };
        let tensors = inputs.map(fetch);
        let (y, _) = op.forward(tensors.each_ref());
        Value::of_host(&self.weights.device, y)
    }

    /// # Panics
    /// Panics if a span does not start at the end of its cache.
    fn attend(&mut self, cache: usize, heads: AttentionHeads, rows: &Rows, qkv: &Value) -> Value {
        let qkv = &qkv.matrix;
        let mut from = 0;
        for span in rows.spans() {
            let caches = &mut self.sequences[span.slot].caches;
            let own = caches.entry(cache);
            let own = own.or_insert_with(|| Cache::new(heads.num_kv_heads * heads.head_dim));
            assert_eq!(own.len, span.first, "rows append to cache {cache}");
            own.append(heads, qkv, from, span.len);
            from += span.len;
        }
        let with_cache = |span: &Span| (*span, &self.sequences[span.slot].caches[&cache]);
        let spans: Vec<_> = rows.spans().iter().map(with_cache).collect();
        attention::attend(heads, &spans, qkv).into()
    }

    fn host(&mut self, value: &Value) -> Result<Arc<Tensor>> {
        // Even if the host has the value already: it may have been computed after a failure.
        self.weights.device.working()?;
        value.fetch()
    }
}

impl SequenceCache for GpuExec<'_> {
    fn add_sequence(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.sequences.push(Sequence::default());
            self.sequences.len() - 1
        })
    }

    fn remove_sequence(&mut self, slot: usize) {
        self.sequences[slot] = Sequence::default();
        self.free.push(slot);
    }

    fn len(&self, slot: usize, cache: usize) -> usize {
        let cache = self.sequences[slot].caches.get(&cache);
        cache.map_or(0, |cache| cache.len)
    }

    fn truncate(&mut self, slot: usize, cache: usize, len: usize) {
        if let Some(cache) = self.sequences[slot].caches.get_mut(&cache) {
            cache.len = cache.len.min(len);
        }
    }

    /// # Panics
    /// Panics if positions before a span are missing.
    fn store_hidden(&mut self, depth: usize, rows: &Rows, h: &Value) {
        let (h, device) = (&h.matrix, &self.weights.device);
        let mut from = h.offset;
        for span in rows.spans() {
            let depths = &mut self.sequences[span.slot].hidden;
            let hidden = depths.entry(depth).or_insert_with(|| Growing::new(h.cols));
            let follow = span.first <= hidden.len;
            assert!(follow, "rows stored of depth {depth} follow");
            hidden.len = span.first;
            let [array] = hidden.extend(device, span.len);
            let end = from + span.len * h.cols;
            device.copy(&h.array, from..end, &array, span.first * h.cols);
            from = end;
        }
    }

    /// # Panics
    /// Panics if nothing was stored at the position of a row.
    fn load_hidden(&mut self, depth: usize, rows: &Rows, width: usize) -> Value {
        let device = &self.weights.device;
        let y = device.matrix(rows.len(), width);
        let mut at = 0;
        for span in rows.spans() {
            let hidden = &self.sequences[span.slot].hidden[&depth];
            let end = span.first + span.len;
            assert!(end <= hidden.len, "rows were stored");
            let [array] = hidden.arrays();
            device.copy(array, span.first * width..end * width, &y.array, at);
            at += span.len * width;
        }
        y.into()
    }
}

impl DecodeExec for GpuExec<'_> {
    fn sample(
        &mut self,
        logits: &Value,
        requests: &[SampleRequest],
    ) -> Result<Vec<Result<Vec<u32>>>> {
        sample(&logits.matrix, requests)
    }

    fn logits_row(&mut self, logits: &Value, row: usize) -> Result<Vec<f32>> {
        logits.matrix.read_row(row)
    }

    fn synchronize(&mut self) -> Result<()> {
        // Work is done in order, so that the last of it is done when this is.
        let device = &self.weights.device;
        device.read(&device.upload(&[0.0]), 0..1).map(drop)
    }
}
