//! A device, and arrays in its memory.

use super::backend::{Allocation, Backend};
use super::cuda::Cuda;
use crate::tensor::Tensor;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Threads of a block: `BLOCK_SIZE` of `kernels/common.cu`.
pub(super) const THREADS: usize = 128;

/// A GPU. Clones are the same device.
///
/// Work is asynchronous and runs in the order of the calls. Only reading waits, so only reading returns errors: after
/// its first failure a device ignores all work, and every read returns that error.
#[derive(Clone)]
pub struct Device(Arc<Shared>);

struct Shared {
    backend: Box<dyn Backend>,
    /// Unused memory by size in words.
    pool: Mutex<BTreeMap<usize, Vec<Allocation>>>,
    failure: Mutex<Option<String>>,
}

/// 32-bit words on a device. Clones share them; the memory of the last one is reused by later arrays.
#[derive(Clone)]
pub struct Array(Arc<Words>);

struct Words {
    device: Device,
    /// None after a failed allocation, which is a failure of the device.
    memory: Option<Allocation>,
    len: usize,
}

/// A contiguous matrix inside an array, [rows, cols].
#[derive(Clone, Debug)]
pub struct Matrix {
    pub(super) array: Array,
    /// Index of the first element.
    pub(super) offset: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub(super) enum Arg<'a> {
    /// A pointer to one of its elements.
    Pointer(&'a Array, usize),
    /// A word that begins with the bytes of a value.
    Value(u64),
}

/// Arguments of a kernel: arrays, matrices and numbers. A `usize` is a parameter of 32 bits.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { [$($crate::gpu::device::Arg::from($arg)),*] };
}
pub(super) use args;

impl Device {
    /// The first GPU.
    ///
    /// # Errors
    /// Returns [`Error::Device`] if the driver, a GPU or the run-time compiler is missing, or if the kernels do not
    /// compile.
    pub fn open() -> Result<Self> {
        let cuda = Cuda::open().map_err(Error::Device)?;
        Ok(Self::on(Box::new(cuda)))
    }

    pub(super) fn on(backend: Box<dyn Backend>) -> Self {
        Self(Arc::new(Shared {
            backend,
            pool: Mutex::default(),
            failure: Mutex::default(),
        }))
    }

    /// The device's name, as its vendor writes it.
    pub fn name(&self) -> String {
        self.0.backend.name()
    }

    /// Checks that nothing has failed so far.
    ///
    /// # Errors
    /// Returns the device's first failure.
    pub fn working(&self) -> Result<()> {
        match &*lock(&self.0.failure) {
            None => Ok(()),
            Some(why) => Err(Error::Device(why.clone())),
        }
    }

    /// An array with these values.
    pub fn upload(&self, data: &[f32]) -> Array {
        self.upload_u32(bits(data))
    }

    /// An array with these values.
    pub fn upload_u32(&self, data: &[u32]) -> Array {
        let array = self.empty(data.len());
        if !data.is_empty() {
            self.attempt(|| self.0.backend.write(data, array.memory()));
        }
        array
    }

    /// An array of this many words with unspecified contents.
    pub fn empty(&self, words: usize) -> Array {
        let memory = self.attempt(|| self.0.allocate(words));
        if let Some(memory) = &memory {
            self.0.backend.lend(memory, words);
        }
        Array(Arc::new(Words {
            device: self.clone(),
            memory,
            len: words,
        }))
    }

    /// Copies elements of an array to another one, or to another part of the same, from its element `at` on.
    ///
    /// # Panics
    /// Panics if an array has fewer elements, or if the two parts overlap.
    #[track_caller]
    pub fn copy(&self, from: &Array, range: Range<usize>, to: &Array, at: usize) {
        let words = range.len();
        self.check(from, range.clone());
        let end = at.checked_add(words).expect("copy: an index");
        self.check(to, at..end);
        assert!(
            !from.is(to) || range.end <= at || end <= range.start,
            "elements {range:?} of an array are copied to its element {at}"
        );
        if words > 0 {
            let start = range.start;
            self.attempt(|| {
                let backend = &self.0.backend;
                backend.copy((from.memory(), start), (to.memory(), at), words)
            });
        }
    }

    /// Waits for all work so far and returns all elements.
    ///
    /// # Errors
    /// Returns the device's first failure.
    pub fn download(&self, array: &Array) -> Result<Vec<f32>> {
        self.read(array, 0..array.len())
    }

    /// Waits for all work so far and returns some elements.
    ///
    /// # Errors
    /// Returns the device's first failure.
    ///
    /// # Panics
    /// Panics if the array has fewer elements.
    #[track_caller]
    pub fn read(&self, array: &Array, range: Range<usize>) -> Result<Vec<f32>> {
        let words = self.read_u32(array, range)?;
        Ok(words.into_iter().map(f32::from_bits).collect())
    }

    /// As [`Device::read`], of an array of integers.
    #[track_caller]
    pub(super) fn read_u32(&self, array: &Array, range: Range<usize>) -> Result<Vec<u32>> {
        self.check(array, range.clone());
        let mut data = vec![0; range.len()];
        if !data.is_empty() {
            self.attempt(|| {
                let backend = &self.0.backend;
                backend.read(array.memory(), range.start, &mut data)
            });
        }
        self.working()?;
        Ok(data)
    }

    /// Launches a kernel on `grid` blocks of `block` threads; does nothing if the grid is empty.
    ///
    /// # Panics
    /// Panics if the grid is larger than CUDA's limits.
    ///
    /// # Safety
    /// - `args` are the kernel's parameters, in order and of the same types.
    /// - For these arguments and this grid, the kernel stays inside the arrays that it is given.
    pub(super) unsafe fn launch(
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
            grid.iter().zip(LARGEST).all(|(n, max)| *n <= max) && (1..=1024).contains(&block),
            "{kernel}: a grid of {grid:?} blocks of {block} threads"
        );
        self.attempt(|| {
            let value = |arg: &Arg<'_>| match *arg {
                Arg::Pointer(array, at) => {
                    self.check(array, at..array.len());
                    array.memory().part(at, 0)
                }
                Arg::Value(word) => word,
            };
            let mut values: Vec<u64> = args.iter().map(value).collect();
            let address = |value: &mut u64| std::ptr::from_mut(value).cast::<c_void>();
            let mut values: Vec<_> = values.iter_mut().map(address).collect();
            let grid = grid.map(|n| n as u32);
            let backend = &self.0.backend;
            // SAFETY: the caller's; each word begins with a value of the parameter's type.
            unsafe { backend.launch(kernel, grid, block as u32, &mut values) }
        });
    }

    /// Launches a kernel on blocks of [`THREADS`] threads that computes a matrix of this shape. The kernel's first
    /// parameter is that matrix; `args` are the others.
    ///
    /// # Panics
    /// As [`Device::launch`], and if the shape overflows.
    ///
    /// # Safety
    /// As [`Device::launch`].
    #[track_caller]
    pub(super) unsafe fn compute(
        &self,
        kernel: &'static str,
        grid: [usize; 3],
        [rows, cols]: [usize; 2],
        args: &[Arg<'_>],
    ) -> Matrix {
        let y = self.matrix(rows, cols);
        let args = [&args![&y], args].concat();
        // SAFETY: the caller's.
        unsafe { self.launch(kernel, grid, THREADS, &args) };
        y
    }

    /// A matrix with a tensor's values.
    pub(super) fn upload_tensor(&self, tensor: &Tensor) -> Matrix {
        let array = self.upload(&tensor.values());
        Matrix::new(&array, 0, tensor.rows(), tensor.cols())
    }

    /// A matrix with unspecified contents.
    ///
    /// # Panics
    /// Panics if the shape overflows.
    #[track_caller]
    pub(super) fn matrix(&self, rows: usize, cols: usize) -> Matrix {
        let array = self.empty(elements(&[rows, cols]));
        Matrix::new(&array, 0, rows, cols)
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

    /// Releases memory that no array uses.
    pub(super) fn empty_pool(&self) {
        self.0.empty_pool();
    }

    /// Runs `f` unless the device has failed before; keeps the failure.
    fn attempt<T>(&self, f: impl FnOnce() -> std::result::Result<T, String>) -> Option<T> {
        if lock(&self.0.failure).is_some() {
            return None;
        }
        f().map_err(|why| self.0.fail(why)).ok()
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

    /// Memory for at least this many words, from the pool if possible.
    fn allocate(&self, words: usize) -> std::result::Result<Allocation, String> {
        let size = pooled_size(words).ok_or_else(|| format!("no room for {words} numbers"))?;
        let pooled = lock(&self.pool).get_mut(&size).and_then(Vec::pop);
        if let Some(memory) = pooled {
            return Ok(memory);
        }
        // Releasing the pool's memory of other sizes may make enough room.
        self.backend
            .allocate(size)
            .or_else(|why| match self.empty_pool() {
                0 => Err(why),
                _ => self.backend.allocate(size),
            })
    }

    /// Releases unused memory; returns the number of allocations.
    fn empty_pool(&self) -> usize {
        let pool = std::mem::take(&mut *lock(&self.pool));
        let unused = pool.into_values().flatten();
        unused.map(|memory| self.backend.free(memory)).count()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.empty_pool();
    }
}

impl Array {
    /// Number of elements.
    #[expect(clippy::len_without_is_empty, reason = "would have no caller")]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Its device.
    pub(super) fn device(&self) -> &Device {
        &self.0.device
    }

    /// Whether the two are clones.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Its memory, which exists unless the device has failed.
    pub(super) fn memory(&self) -> &Allocation {
        self.0.memory.as_ref().expect("memory on a device")
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
        if let Some(memory) = self.memory.take() {
            if let Err(why) = shared.backend.take_back(&memory, self.len) {
                shared.fail(why);
            }
            // Work that still reads it comes before all work of the next owner.
            let mut pool = lock(&shared.pool);
            pool.entry(memory.words).or_default().push(memory);
        }
    }
}

impl Matrix {
    /// The matrix [rows, cols] whose first element is element `offset` of the array.
    ///
    /// # Panics
    /// Panics if the array ends before the matrix does.
    #[track_caller]
    pub fn new(array: &Array, offset: usize, rows: usize, cols: usize) -> Self {
        let end = elements(&[rows, cols]).checked_add(offset);
        assert!(
            end.is_some_and(|end| end <= array.len()),
            "a {rows} x {cols} matrix from element {offset} of {}",
            array.len()
        );
        Self {
            array: array.clone(),
            offset,
            rows,
            cols,
        }
    }

    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        self.rows * self.cols
    }

    pub(super) fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// Its elements in the array.
    pub(super) fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len()
    }

    /// Its device.
    pub(super) fn device(&self) -> &Device {
        self.array.device()
    }

    /// Waits for all work so far and returns a row.
    ///
    /// # Errors
    /// Returns the device's first failure.
    #[track_caller]
    pub(super) fn read_row(&self, row: usize) -> Result<Vec<f32>> {
        assert!(row < self.rows, "row {row} of {} rows", self.rows);
        let first = self.offset + row * self.cols;
        self.device().read(&self.array, first..first + self.cols)
    }
}

impl<'a> From<&'a Array> for Arg<'a> {
    fn from(array: &'a Array) -> Self {
        Self::Pointer(array, 0)
    }
}

impl<'a> From<&'a Matrix> for Arg<'a> {
    fn from(matrix: &'a Matrix) -> Self {
        Self::Pointer(&matrix.array, matrix.offset)
    }
}

impl From<usize> for Arg<'_> {
    #[track_caller]
    fn from(n: usize) -> Self {
        word(n).into()
    }
}

impl From<u32> for Arg<'_> {
    fn from(x: u32) -> Self {
        let [a, b, c, d] = x.to_ne_bytes();
        Self::Value(u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]))
    }
}

impl From<f32> for Arg<'_> {
    fn from(x: f32) -> Self {
        x.to_bits().into()
    }
}

/// A count or an index as a kernel's parameter.
///
/// # Panics
/// Panics if it needs more than 32 bits.
#[track_caller]
pub(super) fn word(n: usize) -> u32 {
    u32::try_from(n).unwrap_or_else(|_| panic!("{n} is too large for a kernel"))
}

/// The number of elements of an array with these dimensions.
///
/// # Panics
/// Panics if it overflows.
#[track_caller]
pub(super) fn elements(dims: &[usize]) -> usize {
    let product = dims.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
    product.unwrap_or_else(|| panic!("{dims:?}: too many elements"))
}

/// The size of an allocation for `words` words: four sizes per octave, so that arrays of similar lengths share memory.
pub(super) fn pooled_size(words: usize) -> Option<usize> {
    let words = words.max(64);
    words.checked_next_multiple_of(words.checked_next_power_of_two()? / 8)
}

/// The values' bits.
fn bits(data: &[f32]) -> &[u32] {
    // SAFETY: both types have the same size and alignment, and every bit pattern is a valid u32.
    unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), data.len()) }
}

/// A lock that stays usable after a panic elsewhere: what it guards is never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
