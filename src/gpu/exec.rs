//! The executor whose values are on a device.
//!
//! It does what [`CacheExec`](crate::exec::CacheExec) does. Weights, KV caches and hidden states stay on the device;
//! tokens travel. Operations without kernels run on the CPU, with the same bits: their inputs are downloaded and their
//! result is uploaded.
//!
//! A device can fail at any operation, and operations return no errors. The device keeps its first failure and ignores
//! all later work; reading a result returns the error.

use super::attention::{self, Cache};
use super::device::Array;
use super::ops;
use super::params::DeviceParams;
use super::pick::pick;
use super::value::Value;
use crate::Result;
use crate::autograd::Op;
use crate::exec::{Exec, Rows, SequenceCache};
use crate::infer::{self, Decoder, SampleRequest};
use crate::kernels::attention::AttentionHeads;
use crate::tensor::{ParamId, Tensor};
use std::sync::Arc;

/// Hidden states of one sequence and one depth, which may have more memory than rows.
struct Hidden {
    array: Array,
    room: usize,
    len: usize,
}

#[derive(Default)]
struct Sequence {
    /// By number.
    caches: Vec<Option<Cache>>,
    /// By depth.
    hidden: Vec<Option<Hidden>>,
}

/// Runs a model on a device.
pub struct GpuExec<'w> {
    weights: &'w DeviceParams<'w>,
    sequences: Vec<Sequence>,
    /// Numbers of removed sequences.
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

    /// An executor with one empty sequence, number 0.
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
        let device = &self.weights.device;
        // After a failure the values do not matter: `host` returns the error.
        let fetch = |x: &Value| {
            let fetched = x.fetch(device);
            fetched.unwrap_or_else(|_| Arc::new(Tensor::zeros(&[x.rows, x.cols])))
        };
        let tensors = inputs.map(fetch);
        let (y, _) = op.forward(tensors.each_ref());
        Value::of_host(device, y)
    }

    /// # Panics
    /// Panics if a span does not start at the end of its cache.
    fn attend(&mut self, cache: usize, heads: AttentionHeads, rows: &Rows, qkv: &Value) -> Value {
        let device = &self.weights.device;
        let mut from = 0;
        for span in rows.spans() {
            let caches = &mut self.sequences[span.sequence].caches;
            if caches.len() <= cache {
                caches.resize_with(cache + 1, || None);
            }
            let slot = caches[cache].get_or_insert_with(|| Cache::new(heads));
            assert_eq!(slot.len(), span.first, "rows append to cache {cache}");
            slot.append(device, heads, &qkv.array, from, span.len);
            from += span.len;
        }
        let queries = |s: &crate::exec::Span| attention::Queries {
            first: s.first,
            len: s.len,
            cache: self.sequences[s.sequence].caches[cache]
                .as_ref()
                .expect("rows were appended"),
        };
        let queries: Vec<_> = rows.spans().iter().map(queries).collect();
        let y = attention::attend(device, heads, &queries, &qkv.array, qkv.rows);
        Value::new(y, qkv.rows, heads.query * heads.size)
    }

    fn host(&mut self, value: &Value) -> Result<Arc<Tensor>> {
        // Even if the host has the value already: it may have been computed after a failure.
        self.weights.device.working()?;
        value.fetch(&self.weights.device)
    }
}

impl SequenceCache for GpuExec<'_> {
    fn add_sequence(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.sequences.push(Sequence::default());
            self.sequences.len() - 1
        })
    }

    fn remove_sequence(&mut self, sequence: usize) {
        self.sequences[sequence] = Sequence::default();
        self.free.push(sequence);
    }

    fn len(&self, sequence: usize, cache: usize) -> usize {
        let cache = self.sequences[sequence].caches.get(cache);
        cache.and_then(Option::as_ref).map_or(0, Cache::len)
    }

    fn truncate(&mut self, sequence: usize, cache: usize, len: usize) {
        let cache = self.sequences[sequence].caches.get_mut(cache);
        if let Some(cache) = cache.and_then(Option::as_mut) {
            cache.truncate(len.min(cache.len()));
        }
    }

    /// # Panics
    /// Panics if positions before a span are missing.
    fn keep(&mut self, depth: usize, rows: &Rows, h: &Value) {
        let device = &self.weights.device;
        let mut from = 0;
        for span in rows.spans() {
            let depths = &mut self.sequences[span.sequence].hidden;
            if depths.len() <= depth {
                depths.resize_with(depth + 1, || None);
            }
            let slot = &mut depths[depth];
            let (kept, end) = (slot.as_ref().map_or(0, |h| h.len), span.first + span.len);
            assert!(span.first <= kept, "rows kept of depth {depth} follow");
            let (at, n) = (span.first * h.cols, span.len * h.cols);
            if slot.as_ref().is_none_or(|hidden| hidden.room < end) {
                let room = end.next_power_of_two().max(64);
                let array = device.empty(room * h.cols);
                if let Some(old) = slot {
                    device.copy(&old.array, 0..at, &array, 0);
                }
                let len = 0;
                *slot = Some(Hidden { array, room, len });
            }
            let hidden = slot.as_mut().expect("there is room");
            device.copy(&h.array, from..from + n, &hidden.array, at);
            hidden.len = end;
            from += n;
        }
    }

    /// # Panics
    /// Panics if nothing was kept at the position of a row.
    fn kept(&mut self, depth: usize, rows: &Rows, width: usize) -> Value {
        let device = &self.weights.device;
        let y = device.empty(rows.len() * width);
        let mut at = 0;
        for span in rows.spans() {
            let hidden = self.sequences[span.sequence].hidden[depth].as_ref();
            let hidden = hidden.expect("rows were kept");
            assert!(span.first + span.len <= hidden.len, "rows were kept");
            let range = span.first * width..(span.first + span.len) * width;
            device.copy(&hidden.array, range, &y, at);
            at += span.len * width;
        }
        Value::new(y, rows.len(), width)
    }
}

impl Decoder for GpuExec<'_> {
    fn sample(
        &mut self,
        logits: &Value,
        requests: &[SampleRequest],
    ) -> Result<Vec<Result<Vec<u32>>>> {
        // Filters run on the CPU, and only on rows that are reached; all other rows are picked at once on the device.
        let rows = |request: &SampleRequest| {
            let (row, position, sampler) = (request.row, request.position, request.sampler);
            (0..=request.drafts.len()).map(move |i| (row + i, position + i, sampler))
        };
        let on_device = requests.iter().filter(|request| !filters(request));
        let on_device: Vec<_> = on_device.flat_map(rows).collect();
        let device = &self.weights.device;
        let picked = if on_device.is_empty() {
            Vec::new()
        } else {
            pick(device, &logits.array, logits.cols, &on_device)?
        };
        let mut picked = picked.into_iter();
        let mut sampled = Vec::with_capacity(requests.len());
        for request in requests {
            sampled.push(if filters(request) {
                request.accept(|row, position| {
                    infer::pick(&self.row(logits, row)?, position, request.sampler)
                })
            } else {
                let own: Vec<_> = picked.by_ref().take(1 + request.drafts.len()).collect();
                let mut own = own.into_iter();
                request.accept(|_, _| own.next().expect("a token for each row"))
            });
        }
        self.weights.device.working()?;
        Ok(sampled)
    }

    fn row(&mut self, logits: &Value, row: usize) -> Result<Vec<f32>> {
        let range = row * logits.cols..(row + 1) * logits.cols;
        self.weights.device.read(&logits.array, range)
    }

    fn wait(&mut self) -> Result<()> {
        // Work is done in order, so that the last of it is done when this is.
        let device = &self.weights.device;
        device.read(&device.upload(&[0.0]), 0..1).map(drop)
    }
}

/// Whether the sampler filters tokens.
fn filters(request: &SampleRequest) -> bool {
    request.sampler.temperature > 0.0 && !request.sampler.keeps_all()
}
