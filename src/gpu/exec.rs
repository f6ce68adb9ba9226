//! The executor whose values lie on a device.
//!
//! It does what [`Decode`](crate::exec::Decode) does: weights, keys, values and hidden states stay where they are, and
//! what goes back and forth are tokens. Operations with kernels are listed in `ops`; the others run on the CPU, with the
//! same bits.
//!
//! A device can fail at any operation, and operations return no errors. The device keeps its first failure and does
//! nothing from then on; whoever fetches a result gets the error.

use super::attention::{self, Cache};
use super::device::{Array, Device};
use super::pick::pick;
use super::{ops, weights::Weights};
use crate::Result;
use crate::autograd::Op;
use crate::exec::{Exec, Rows};
use crate::infer::{Ask, Decoder, Told, pick_at};
use crate::kernels::attention::AttentionHeads;
use crate::tensor::{ParamId, Tensor};
use std::borrow::Cow;
use std::sync::Arc;

/// A matrix on a device.
#[derive(Clone)]
pub struct Value {
    pub(super) array: Array,
    /// Index of the first element; only a parameter that is a matrix may share its array.
    pub(super) at: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// For a parameter, its place.
    pub(super) param: Option<ParamId>,
    /// The same in this program's memory, where it was there.
    host: Option<Arc<Tensor>>,
}

impl Value {
    /// array [rows, cols]
    pub(super) fn new(array: Array, rows: usize, cols: usize) -> Self {
        Self {
            array,
            at: 0,
            rows,
            cols,
            param: None,
            host: None,
        }
    }

    /// What the CPU has computed.
    pub(super) fn of_host(device: &Device, tensor: Tensor) -> Self {
        let array = device.upload(&tensor.values());
        let value = Self::new(array, tensor.rows(), tensor.cols());
        Self {
            host: Some(Arc::new(tensor)),
            ..value
        }
    }

    fn fetch(&self, device: &Device) -> Result<Arc<Tensor>> {
        if let Some(host) = &self.host {
            return Ok(Arc::clone(host));
        }
        let n = self.rows * self.cols;
        let data = device.read(&self.array, 0..n)?;
        Ok(Arc::new(Tensor::new(&[self.rows, self.cols], data)))
    }
}

/// Hidden states of one depth of one sequence: memory for some rows, and how many of them are kept.
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
pub struct OnDevice<'w> {
    weights: &'w Weights<'w>,
    sequences: Vec<Sequence>,
}

impl<'w> OnDevice<'w> {
    /// No sequences yet.
    pub fn new(weights: &'w Weights<'w>) -> Self {
        Self {
            weights,
            sequences: Vec::new(),
        }
    }

    /// With one sequence, number 0, that has no position yet.
    pub fn with_sequence(weights: &'w Weights<'w>) -> Self {
        let mut exec = Self::new(weights);
        exec.add_sequence();
        exec
    }
}

impl Exec for OnDevice<'_> {
    type Value = Value;

    fn param(&mut self, id: ParamId) -> Value {
        let tensor = self.weights.params.get(id);
        let place = self.weights.place(id);
        Value {
            array: place.array,
            at: place.at,
            param: Some(id),
            rows: tensor.rows(),
            cols: tensor.cols(),
            host: Some(Arc::clone(tensor)),
        }
    }

    fn apply<O, const N: usize>(&mut self, op: O, inputs: [&Value; N]) -> Value
    where
        O: Op<N> + 'static,
        O::Saved: 'static,
    {
        if let Some(y) = ops::run(self.weights, &op, &inputs) {
            return y;
        }
        let device = &self.weights.device;
        // The device keeps what failed. What is computed then is never seen.
        let fetch = |x: &Value| {
            let fetched = x.fetch(device);
            fetched.unwrap_or_else(|_| Arc::new(Tensor::zeros(&[x.rows, x.cols])))
        };
        let tensors = inputs.map(fetch);
        let (y, _) = op.forward(tensors.each_ref());
        Value::of_host(device, y)
    }

    /// # Panics
    /// Where a span does not start at the end of its cache.
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
        let span = |s: &crate::exec::Span| attention::CachedSequence {
            first: s.first,
            len: s.len,
            cache: self.sequences[s.sequence].caches[cache]
                .as_ref()
                .expect("rows were appended"),
        };
        let spans: Vec<_> = rows.spans().iter().map(span).collect();
        let y = attention::attend(device, heads, &spans, &qkv.array, qkv.rows);
        Value::new(y, qkv.rows, heads.query * heads.size)
    }

    fn host(&mut self, value: &Value) -> Result<Arc<Tensor>> {
        // Before what the CPU has already: it may have been made after a failure.
        self.weights.device.working()?;
        value.fetch(&self.weights.device)
    }
}

impl Decoder for OnDevice<'_> {
    fn add_sequence(&mut self) -> usize {
        self.sequences.push(Sequence::default());
        self.sequences.len() - 1
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
    /// Where a span does not start at a position kept before or the one after the last.
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
    /// Where nothing was kept there.
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

    fn decide(&mut self, logits: &Value, asks: &[Ask], told: &mut Told<'_>) -> Result<()> {
        // What a filter cuts off is the CPU's to find, and only for rows that are reached.
        let filtered = |ask: &Ask| {
            let s = ask.sampler;
            s.temperature > 0.0 && (s.top_k > 0 || s.top_p < 1.0 || s.min_p > 0.0)
        };
        let rows = |ask: &Ask| {
            let ask = *ask;
            (0..ask.rows).map(move |i| (ask.row + i, ask.position + i, ask.sampler))
        };
        let on_device = asks.iter().filter(|ask| !filtered(ask));
        let on_device: Vec<_> = on_device.flat_map(rows).collect();
        let mut decided = match on_device.is_empty() {
            true => Vec::new(),
            false => pick(&self.weights.device, &logits.array, logits.cols, &on_device)?,
        }
        .into_iter();
        for (index, ask) in asks.iter().enumerate() {
            let mut go_on = true;
            for i in 0..ask.rows {
                // Also what is not reached has to be passed over.
                let token = match filtered(ask) {
                    false => decided.next().expect("a token for each row"),
                    true if go_on => {
                        let row = self.row(logits, ask.row + i)?;
                        pick_at(&row, ask.position + i, ask.sampler)
                    }
                    true => break,
                };
                if go_on {
                    go_on = told(index, token)?;
                }
            }
        }
        Ok(())
    }

    fn row<'v>(&mut self, logits: &'v Value, row: usize) -> Result<Cow<'v, [f32]>> {
        let range = row * logits.cols..(row + 1) * logits.cols;
        let row = self.weights.device.read(&logits.array, range)?;
        Ok(Cow::Owned(row))
    }

    fn wait(&mut self) -> Result<()> {
        // Work is done in order, so that the last of it is done when this is.
        let device = &self.weights.device;
        device.read(&device.upload(&[0.0]), 0..1).map(drop)
    }
}
