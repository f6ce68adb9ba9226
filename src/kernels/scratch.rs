//! Memory that is reused: buffers of tensors, panels and kernels.
//!
//! Fresh memory costs the system a page fault for every 4096 bytes, and a training step needs the same buffers as the
//! step before; page faults and clearing took 9 % of a step before buffers were reused (`docs/log.md`). So a dropped
//! buffer stays with its thread, and the next one of about the same size takes it. All threads together keep at most
//! [`MOST_SPARE_BYTES`], and [`release_spare_memory`] frees them.
//!
//! Only what [`Scratch::new`] made is kept, so there are never more spare buffers than were in use at one time. A
//! vector from elsewhere, or a buffer that has grown, may have a length that is never needed again.

use super::par;
use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The maximum memory that is kept for later use, in bytes, of all threads together: a step of a small model fits,
/// and prompts of ever new lengths cannot fill the machine.
pub const MOST_SPARE_BYTES: usize = 1 << 30;
/// Shorter buffers, in bytes, are left to the allocator, which needs no page fault for them.
const WORTH_KEEPING: usize = 4096;

/// What a buffer can hold.
pub trait Element: Copy + Default + 'static {}
impl<T: Copy + Default + 'static> Element for T {}

/// A vector whose memory is used again after it is dropped.
#[derive(Debug)]
pub struct Scratch<T: Element> {
    data: Vec<T>,
    /// The capacity with which the buffer is kept; 0 for one that is not.
    capacity: usize,
}

impl<T: Element> Scratch<T> {
    /// A buffer of `n` elements with unspecified values, which the caller must overwrite.
    pub fn new(n: usize) -> Self {
        if n * size_of::<T>() < WORTH_KEEPING {
            return vec![T::default(); n].into();
        }
        let spare = with_pool(|pool: &mut Pool<T>| pool.take(n)).flatten();
        let mut data = spare.unwrap_or_else(|| Vec::with_capacity(roomy(n)));
        data.resize(n, T::default());
        let capacity = data.capacity();
        Self { data, capacity }
    }

    /// Frees the memory now.
    pub fn free(mut self) {
        self.capacity = 0;
    }
}

impl<T: Element> From<Vec<T>> for Scratch<T> {
    fn from(data: Vec<T>) -> Self {
        Self { data, capacity: 0 }
    }
}

impl<T: Element> Clone for Scratch<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.len());
        copy.copy_from_slice(self);
        copy
    }
}

impl<T: Element> Deref for Scratch<T> {
    type Target = Vec<T>;

    #[inline(always)]
    fn deref(&self) -> &Vec<T> {
        &self.data
    }
}

impl<T: Element> DerefMut for Scratch<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.data
    }
}

impl<T: Element> Drop for Scratch<T> {
    fn drop(&mut self) {
        if self.capacity > 0 && self.capacity == self.data.capacity() {
            let data = std::mem::take(&mut self.data);
            with_pool(|pool| pool.keep(data));
        }
    }
}

/// Frees the memory that the calling thread and the threads of the current pool keep for later use. The next
/// computations take fresh memory and are slower once.
pub fn release_spare_memory() {
    par::on_every_thread(|| POOLS.with_borrow_mut(Vec::clear));
}

/// Bytes kept by all threads.
static SPARE_BYTES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's pools, one for each type of element.
    static POOLS: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `f` on this thread's pool for elements of type `T`; `None` if the thread is ending.
fn with_pool<T: Element, R>(f: impl FnOnce(&mut Pool<T>) -> R) -> Option<R> {
    let run = |pools: &RefCell<Vec<Box<dyn Any>>>| {
        let mut pools = pools.borrow_mut();
        let at = pools.iter().position(|pool| pool.is::<Pool<T>>());
        let at = at.unwrap_or_else(|| {
            pools.push(Box::new(Pool::<T>(BTreeMap::new())));
            pools.len() - 1
        });
        f(pools[at].downcast_mut().expect("a pool of this type"))
    };
    POOLS.try_with(run).ok()
}

/// Buffers by capacity. No list is empty.
struct Pool<T>(BTreeMap<usize, Vec<Vec<T>>>);

impl<T> Pool<T> {
    /// The smallest buffer for `n` elements that wastes no more than a quarter.
    fn take(&mut self, n: usize) -> Option<Vec<T>> {
        let (&capacity, list) = self.0.range_mut(n..=n + n / 4).next()?;
        let data = list.pop()?;
        if list.is_empty() {
            self.0.remove(&capacity);
        }
        SPARE_BYTES.fetch_sub(capacity * size_of::<T>(), Ordering::Relaxed);
        Some(data)
    }

    fn keep(&mut self, data: Vec<T>) {
        let bytes = data.capacity() * size_of::<T>();
        if SPARE_BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes > MOST_SPARE_BYTES {
            SPARE_BYTES.fetch_sub(bytes, Ordering::Relaxed);
            return;
        }
        self.0.entry(data.capacity()).or_default().push(data);
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        let elements: usize = self
            .0
            .iter()
            .map(|(capacity, list)| capacity * list.len())
            .sum();
        SPARE_BYTES.fetch_sub(elements * size_of::<T>(), Ordering::Relaxed);
    }
}

/// Elements to reserve for `n`: at most an eighth more, so that lengths that differ a little have the same capacity.
/// The heads of a model are an example: each has a few rows less than the one before.
fn roomy(n: usize) -> usize {
    match n.checked_ilog2() {
        Some(log) if log >= 3 => n.next_multiple_of(1 << (log - 3)),
        _ => n,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_serves_buffers_of_nearly_its_length() {
        let n = 100 << 10;
        let address = |x: &Scratch<f32>| x.as_ptr();
        let first = Scratch::new(n);
        let place = address(&first);
        drop(first);
        let shorter = Scratch::new(n - n / 10);
        assert_eq!((address(&shorter), shorter.len()), (place, n - n / 10));
        drop(shorter);
        // In any order, lengths that differ a little share a place.
        let short = Scratch::new(51 << 10);
        let place_of_short = address(&short);
        drop(short);
        let longer = Scratch::new((51 << 10) + 700);
        assert_eq!(address(&longer), place_of_short);
        drop(longer);
        let much_shorter = Scratch::new(n / 2);
        assert_ne!(address(&much_shorter), place);
        // Its whole capacity is still there.
        assert_eq!(address(&Scratch::new(n)), place);
    }

    #[test]
    fn spare_memory_is_bounded_and_freed() {
        // Never touched, so that it costs no memory.
        let huge = || {
            let capacity = MOST_SPARE_BYTES / 16 + 1;
            let data = Vec::<u64>::with_capacity(capacity);
            Scratch { data, capacity }
        };
        let kept = || {
            let count = |pool: &mut Pool<u64>| pool.0.values().map(Vec::len).sum::<usize>();
            with_pool(count).expect("a living thread")
        };
        drop((huge(), huge()));
        assert_eq!(kept(), 1, "two would be more than the bound");
        release_spare_memory();
        assert_eq!(kept(), 0);
        drop(Scratch::<u64>::new(1 << 12));
        assert_eq!(kept(), 1);
        Scratch::<u64>::new(1 << 12).free();
        assert_eq!(kept(), 0, "it was taken, and then freed");
        drop(Scratch::from(vec![0_u64; 1 << 12]));
        let mut grown = Scratch::<u64>::new(1 << 12);
        grown.resize(1 << 13, 0);
        drop(grown);
        assert_eq!(kept(), 0, "lengths that may never be needed again");
    }
}
