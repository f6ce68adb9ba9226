//! A device emulated by the host's CPU.
//!
//! The host's C++ compiler compiles the kernels with a prelude in which each thread of a block is a fiber. Kernels and
//! copies run one at a time.

use crate::gpu::backend::{Allocation, Backend, Place};
use crate::gpu::device::Device;
use crate::gpu::source;
use libloading::Library;
use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ffi::{OsString, c_int, c_void};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::{fs, ptr, slice};

const PRELUDE: &str = include_str!("emulated.h");

/// Words after each allocation that no kernel may write.
const GUARD: usize = 64;
/// The contents of unwritten memory: NaN.
const UNWRITTEN: u32 = u32::MAX;

type Entry = unsafe extern "C" fn(*mut *mut c_void);
type Run = unsafe extern "C" fn(Entry, c_int, *const u32, u32, *mut *mut c_void) -> c_int;

/// The order in which the threads of a block run from barrier to barrier. A kernel with a missing barrier gives
/// different results in the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// The emulated devices that a test uses, one for each order. Empty if the machine has no C++ compiler.
///
/// # Panics
/// Panics if the kernels do not compile, or if there is no compiler and `FORETOKEN_REQUIRE_EMULATION` is 1.
pub fn devices() -> Vec<Device> {
    static COMPILED: OnceLock<Result<Arc<Mutex<Compiled>>, String>> = OnceLock::new();
    devices_with(
        COMPILED
            .get_or_init(|| compile(&source::kernels(PRELUDE)))
            .clone(),
    )
}

/// As [`devices`], with other kernels.
pub fn devices_of(kernels: &str) -> Vec<Device> {
    devices_with(compile(&format!("{PRELUDE}\n{kernels}")))
}

fn devices_with(compiled: Result<Arc<Mutex<Compiled>>, String>) -> Vec<Device> {
    let compiled = match compiled {
        Ok(compiled) => compiled,
        Err(why) => {
            assert!(why.starts_with("no C++ compiler"), "{why}");
            let required = super::is_required("FORETOKEN_REQUIRE_EMULATION");
            assert!(!required, "FORETOKEN_REQUIRE_EMULATION=1: {why}");
            super::report(&format!("NOTHING WAS TESTED: no emulated device, {why}"));
            return Vec::new();
        }
    };
    let device = |order| {
        let compiled = Arc::clone(&compiled);
        Device::on(Box::new(Emulated { order, compiled }))
    };
    vec![device(Order::Ascending), device(Order::Descending)]
}

struct Emulated {
    order: Order,
    /// Locked for each access to memory, too: a GPU's stream does one thing at a time.
    compiled: Arc<Mutex<Compiled>>,
}

struct Compiled {
    run: Run,
    entries: HashMap<&'static str, Entry>,
    library: Library,
}

impl Emulated {
    fn lock(&self) -> MutexGuard<'_, Compiled> {
        // A kernel leaves no state behind that the next one reads.
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn compile(source: &str) -> Result<Arc<Mutex<Compiled>>, String> {
    let named = std::env::var_os("FORETOKEN_CXX");
    // A missing compiler may be skipped, but not one that was named.
    let missing = match named {
        Some(_) => "FORETOKEN_CXX",
        None => "no C++ compiler",
    };
    let compiler = named.unwrap_or_else(|| OsString::from("c++"));
    let folder = Folder::new()?;
    let (input, output) = (folder.0.join("kernels.cpp"), folder.0.join("kernels.so"));
    fs::write(&input, source).map_err(|why| format!("write {}: {why}", input.display()))?;
    let mut command = Command::new(&compiler);
    command.args([
        "-O1",
        "-std=c++17",
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        "-w",
    ]);
    // Each operation rounds once. Fortified longjmp would refuse to switch stacks.
    command.args(["-ffp-contract=off", "-U_FORTIFY_SOURCE"]);
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") {
        command.arg("-mfma");
    }
    let name = compiler.display();
    let done = command
        .arg("-o")
        .args([&output, &input])
        .output()
        .map_err(|why| {
            format!("{missing}: `{name}` does not start ({why}); FORETOKEN_CXX can name a compiler")
        })?;
    if !done.status.success() {
        let errors = String::from_utf8_lossy(&done.stderr);
        return Err(format!("`{name}` does not compile the kernels:\n{errors}"));
    }
    let compiled = Compiled::load(&output).map_err(|why| format!("load the kernels: {why}"))?;
    Ok(Arc::new(Mutex::new(compiled)))
}

impl Compiled {
    fn load(path: &Path) -> Result<Self, libloading::Error> {
        // SAFETY: the library was just compiled from our source and does nothing when loaded. The prelude defines the
        // function with this type, and the library stays loaded next to it.
        unsafe {
            let library = Library::new(path)?;
            let run = *library.get::<Run>(c"foretoken_run")?;
            Ok(Self {
                run,
                entries: HashMap::new(),
                library,
            })
        }
    }

    fn entry(&mut self, kernel: &'static str) -> Result<Entry, String> {
        if let Some(entry) = self.entries.get(kernel) {
            return Ok(*entry);
        }
        let name = format!("foretoken_{kernel}");
        // SAFETY: EXPORT in the prelude defines it with this type, and the library stays loaded next to it.
        let entry = unsafe { self.library.get::<Entry>(name.as_str()) };
        let entry = *entry.map_err(|why| format!("no kernel {kernel}: {why}"))?;
        self.entries.insert(kernel, entry);
        Ok(entry)
    }
}

/// A new folder, removed on drop; a library loaded from it stays loaded.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("foretoken-emulated-{}-{count}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                // Left behind by a killed process with the same id.
                Err(why) if why.kind() == ErrorKind::AlreadyExists => {}
                Err(why) => return Err(format!("create {}: {why}", path.display())),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An allocation and the guard after it.
fn layout(words: usize) -> Option<Layout> {
    let bytes = words.checked_add(GUARD)?.checked_mul(4)?;
    // The alignment of CUDA's allocations.
    Layout::from_size_align(bytes, 256).ok()
}

fn pointer(address: u64) -> *mut u32 {
    ptr::with_exposed_provenance_mut(address as usize)
}

impl Backend for Emulated {
    fn name(&self) -> String {
        format!("emulated GPU, threads in {:?} order", self.order).to_lowercase()
    }

    fn allocate(&self, words: usize) -> Result<Allocation, String> {
        let no_room = || format!("no room for {words} numbers");
        let layout = layout(words).ok_or_else(no_room)?;
        // SAFETY: the guard makes the size positive.
        let memory = unsafe { alloc(layout) };
        if memory.is_null() {
            return Err(no_room());
        }
        let address = memory.expose_provenance() as u64;
        let memory = Allocation { address, words };
        self.lend(&memory, words);
        Ok(memory)
    }

    fn free(&self, memory: Allocation) {
        let layout = layout(memory.words).expect("the layout of its allocation");
        // SAFETY: it was allocated above with this layout, and is consumed.
        unsafe { dealloc(pointer(memory.address).cast(), layout) };
    }

    fn write(&self, data: &[u32], to: &Allocation) -> Result<(), String> {
        let to = pointer(to.part(0, data.len()));
        let _lock = self.lock();
        // SAFETY: the part is inside the allocation; the lock excludes other accesses.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) };
        Ok(())
    }

    fn copy(&self, from: Place<'_>, to: Place<'_>, words: usize) -> Result<(), String> {
        let (from, to) = (from.0.part(from.1, words), to.0.part(to.1, words));
        let _lock = self.lock();
        // SAFETY: the parts are inside their allocations; the lock excludes other accesses.
        unsafe { ptr::copy(pointer(from), pointer(to), words) };
        Ok(())
    }

    fn read(&self, from: &Allocation, at: usize, data: &mut [u32]) -> Result<(), String> {
        let from = pointer(from.part(at, data.len()));
        let _lock = self.lock();
        // SAFETY: the part is inside the allocation, which `lend` initialised; the lock excludes other accesses.
        unsafe { ptr::copy_nonoverlapping(from, data.as_mut_ptr(), data.len()) };
        Ok(())
    }

    // SAFETY: as the trait says.
    unsafe fn launch(
        &self,
        kernel: &'static str,
        grid: [u32; 3],
        block: u32,
        args: &mut [*mut c_void],
    ) -> Result<(), String> {
        let mut compiled = self.lock();
        let entry = compiled.entry(kernel)?;
        let descending = c_int::from(self.order == Order::Descending);
        // SAFETY: the caller's for the arguments; the lock protects fibers, shared memory and arrays.
        let code =
            unsafe { (compiled.run)(entry, descending, grid.as_ptr(), block, args.as_mut_ptr()) };
        match code {
            0 => Ok(()),
            _ => Err(format!(
                "{kernel}: threads of a block wait at different barriers"
            )),
        }
    }

    fn lend(&self, memory: &Allocation, _words: usize) {
        let start = pointer(memory.address);
        // SAFETY: allocation and guard are one block of memory, which no array uses yet.
        (0..memory.words + GUARD).for_each(|i| unsafe { start.add(i).write(UNWRITTEN) });
    }

    fn take_back(&self, memory: &Allocation, words: usize) -> Result<(), String> {
        // SAFETY: as above, and `lend` initialised it; the array that used it has been dropped.
        let all = unsafe { slice::from_raw_parts(pointer(memory.address), memory.words + GUARD) };
        match all[words..].iter().position(|word| *word != UNWRITTEN) {
            None => Ok(()),
            Some(at) => Err(format!(
                "a kernel wrote element {} of an array of {words}",
                words + at
            )),
        }
    }
}
