//! A device, and arrays that lie on it.

use super::cuda::Cuda;
use super::driver::{Block, Machine};
use super::emulated::Emulated;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A GPU or what stands in for it. Clones are the same device.
///
/// Work is done in the order in which it was asked for, and nobody waits for it until something is read back. So only
/// reading gives errors: the device keeps its first failure, and does nothing from then on.
#[derive(Clone)]
pub struct Device(Arc<Shared>);

/// The order in which the emulation runs the threads of a block, from barrier to barrier. A kernel without a missing
/// barrier gives the same result in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The first thread first.
    Ascending,
    /// The last thread first.
    Descending,
}

struct Shared {
    machine: Box<dyn Machine>,
    /// Memory that nobody uses, by words.
    spare: Mutex<BTreeMap<usize, Vec<Block>>>,
    failure: Mutex<Option<String>>,
}

/// 32-bit words on a device. Clones share them; when the last one is dropped, their memory is there for the next array.
#[derive(Clone)]
pub struct Array(Arc<Words>);

struct Words {
    device: Device,
    /// None where the device had no memory left, and so has failed.
    block: Option<Block>,
    len: usize,
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub(super) enum Arg<'a> {
    /// A pointer to its first element.
    Array(&'a Array),
    U32(u32),
    U64(u64),
    F32(f32),
    F64(f64),
}

impl Device {
    /// The first GPU.
    ///
    /// # Errors
    /// One sentence about what is missing: a driver, a GPU, the compiler of kernels; or what the compiler said.
    pub fn open() -> Result<Self> {
        let machine = Cuda::open().map_err(Error::Device)?;
        Ok(Self::of(Box::new(machine)))
    }

    /// No GPU: the same kernels compiled for this CPU, thread by thread. It is slow and there for tests.
    ///
    /// # Errors
    /// Where there is no C++ compiler (`FORETOKEN_CXX`, or `c++` on the path), or it failed.
    pub fn emulated(order: Order) -> Result<Self> {
        let machine = Emulated::new(order).map_err(Error::Device)?;
        Ok(Self::of(Box::new(machine)))
    }

    pub(super) fn of(machine: Box<dyn Machine>) -> Self {
        Self(Arc::new(Shared {
            machine,
            spare: Mutex::default(),
            failure: Mutex::default(),
        }))
    }

    /// What a user would call it.
    pub fn name(&self) -> String {
        self.0.machine.name()
    }

    /// Whether nothing has failed so far.
    ///
    /// # Errors
    /// The first failure.
    pub fn working(&self) -> Result<()> {
        match &*lock(&self.0.failure) {
            None => Ok(()),
            Some(why) => Err(Error::Device(why.clone())),
        }
    }

    /// An array with these numbers.
    pub fn upload(&self, data: &[f32]) -> Array {
        self.upload_u32(bits(data))
    }

    /// An array with these numbers.
    pub fn upload_u32(&self, data: &[u32]) -> Array {
        let array = self.empty(data.len());
        self.write_words(data, &array, 0);
        array
    }

    /// An array whose contents are whatever was there.
    pub fn empty(&self, words: usize) -> Array {
        let block = self.attempt(|| self.0.block(words));
        if let Some(block) = &block {
            self.0.machine.lend(block, words);
        }
        Array(Arc::new(Words {
            device: self.clone(),
            block,
            len: words,
        }))
    }

    /// Overwrites part of an array, from its element `at` on.
    ///
    /// # Panics
    /// Where there are too many elements.
    #[track_caller]
    pub fn write(&self, data: &[f32], to: &Array, at: usize) {
        self.write_words(bits(data), to, at);
    }

    #[track_caller]
    fn write_words(&self, data: &[u32], to: &Array, at: usize) {
        self.check(to, at..at + data.len());
        if !data.is_empty() {
            self.attempt(|| self.0.machine.write(data, to.block(), at));
        }
    }

    /// Copies part of an array to another one, from its element `at` on, or to another part of the same.
    ///
    /// # Panics
    /// Where an array has fewer elements; where the parts overlap.
    #[track_caller]
    pub fn copy(&self, from: &Array, range: Range<usize>, to: &Array, at: usize) {
        let words = range.len();
        self.check(from, range.clone());
        self.check(to, at..at + words);
        let apart = range.end <= at || at + words <= range.start;
        assert!(
            !Arc::ptr_eq(&from.0, &to.0) || apart,
            "elements {range:?} of an array are copied to its element {at}"
        );
        if words > 0 {
            let (from, start) = (from, range.start);
            self.attempt(|| {
                let machine = &self.0.machine;
                machine.copy((from.block(), start), (to.block(), at), words)
            });
        }
    }

    /// All elements, once everything before is done.
    ///
    /// # Errors
    /// The device's first failure.
    pub fn download(&self, array: &Array) -> Result<Vec<f32>> {
        self.read(array, 0..array.len())
    }

    /// All elements, once everything before is done.
    ///
    /// # Errors
    /// The device's first failure.
    pub fn download_u32(&self, array: &Array) -> Result<Vec<u32>> {
        self.read_words(array, 0..array.len())
    }

    /// Some elements, once everything before is done.
    ///
    /// # Errors
    /// The device's first failure.
    ///
    /// # Panics
    /// Where the array has fewer elements.
    #[track_caller]
    pub fn read(&self, array: &Array, range: Range<usize>) -> Result<Vec<f32>> {
        let words = self.read_words(array, range)?;
        Ok(words.into_iter().map(f32::from_bits).collect())
    }

    #[track_caller]
    fn read_words(&self, array: &Array, range: Range<usize>) -> Result<Vec<u32>> {
        self.check(array, range.clone());
        let mut data = vec![0; range.len()];
        if !data.is_empty() {
            self.attempt(|| {
                let machine = &self.0.machine;
                machine.read(array.block(), range.start, &mut data)
            });
        }
        self.working()?;
        Ok(data)
    }

    /// Runs a kernel on `grid` blocks of `block` threads.
    ///
    /// The caller sees to it that the arguments are those of the kernel, and that it stays inside the arrays.
    pub(super) fn launch(
        &self,
        kernel: &'static str,
        grid: [usize; 3],
        block: usize,
        args: &[Arg<'_>],
    ) {
        if grid.contains(&0) {
            return;
        }
        const LARGEST: [usize; 3] = [i32::MAX as usize, 65_535, 65_535];
        assert!(
            grid.iter().zip(LARGEST).all(|(n, most)| *n <= most) && (1..=1024).contains(&block),
            "{kernel}: a grid of {grid:?} blocks of {block} threads"
        );
        self.attempt(|| {
            let mut values: Vec<u64> = args.iter().map(|arg| self.word(arg)).collect();
            let address = |value: &mut u64| std::ptr::from_mut(value).cast::<c_void>();
            let mut values: Vec<_> = values.iter_mut().map(address).collect();
            let grid = grid.map(|n| n as u32);
            let machine = &self.0.machine;
            // SAFETY: the launch functions of this folder give each kernel the arguments that it declares, and check
            // that the arrays are as long as it takes them to be.
            unsafe { machine.launch(kernel, grid, block as u32, &mut values) }
        });
    }

    /// An argument's value as it lies in memory, from the first byte on.
    fn word(&self, arg: &Arg<'_>) -> u64 {
        let first = |[a, b, c, d]: [u8; 4]| u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]);
        match arg {
            Arg::Array(array) => {
                self.check(array, 0..0);
                array.block().address
            }
            Arg::U32(x) => first(x.to_ne_bytes()),
            Arg::F32(x) => first(x.to_ne_bytes()),
            Arg::U64(x) => *x,
            Arg::F64(x) => x.to_bits(),
        }
    }

    #[track_caller]
    fn check(&self, array: &Array, range: Range<usize>) {
        assert!(
            Arc::ptr_eq(&self.0, &array.0.device.0),
            "an array of another device"
        );
        assert!(
            range.start <= range.end && range.end <= array.len(),
            "elements {range:?} of an array of {} on a device",
            array.len()
        );
    }

    /// Gives memory back that no array uses.
    pub(super) fn free_spare(&self) {
        self.0.free_spare();
    }

    /// Does something, where the device has not failed before; keeps its failure.
    fn attempt<T>(&self, f: impl FnOnce() -> std::result::Result<T, String>) -> Option<T> {
        if lock(&self.0.failure).is_some() {
            return None;
        }
        match f() {
            Ok(value) => Some(value),
            Err(why) => {
                self.0.fail(why);
                None
            }
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({:?})", self.name())
    }
}

impl Shared {
    fn fail(&self, why: String) {
        lock(&self.failure).get_or_insert(why);
    }

    /// Memory for so many words or a few more.
    fn block(&self, words: usize) -> std::result::Result<Block, String> {
        let size = size_of_block(words);
        let spare = lock(&self.spare).get_mut(&size).and_then(Vec::pop);
        if let Some(block) = spare {
            return Ok(block);
        }
        // What other sizes keep may be enough.
        self.machine
            .allocate(size)
            .or_else(|why| match self.free_spare() {
                0 => Err(why),
                _ => self.machine.allocate(size),
            })
    }

    /// Gives memory back that nobody uses; returns how many blocks it was.
    fn free_spare(&self) -> usize {
        let spare = std::mem::take(&mut *lock(&self.spare));
        let blocks = spare.into_values().flatten();
        blocks.map(|block| self.machine.free(block)).count()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.free_spare();
    }
}

impl Array {
    /// Number of elements.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Its memory; there is some unless the device has failed.
    fn block(&self) -> &Block {
        self.0.block.as_ref().expect("memory on a device")
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array({} elements)", self.len())
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        let shared = &self.device.0;
        if let Some(block) = self.block.take() {
            if let Err(why) = shared.machine.take_back(&block, self.len) {
                shared.fail(why);
            }
            // Work that still reads it was asked for before whatever the next owner will ask for.
            lock(&shared.spare)
                .entry(block.words)
                .or_default()
                .push(block);
        }
    }
}

impl<'a> From<&'a Array> for Arg<'a> {
    fn from(array: &'a Array) -> Self {
        Self::Array(array)
    }
}

macro_rules! arg {
    ($($variant:ident $type:ty),*) => { $(
        impl From<$type> for Arg<'_> {
            fn from(x: $type) -> Self {
                Self::$variant(x)
            }
        }
    )* };
}
arg!(U32 u32, U64 u64, F32 f32, F64 f64);

/// Words of the block for so many words: four sizes to an octave, so that arrays of like lengths share memory.
fn size_of_block(words: usize) -> usize {
    let words = words.max(64);
    words.next_multiple_of(words.next_power_of_two() / 8)
}

/// The numbers as words.
fn bits(data: &[f32]) -> &[u32] {
    // SAFETY: both types have the same size and alignment, and every word is a valid u32.
    unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), data.len()) }
}

/// A lock that stays usable after a panic elsewhere: what it guards is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
