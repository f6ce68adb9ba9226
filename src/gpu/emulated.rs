//! The machine that is the host's CPU, for tests.
//!
//! The host's C++ compiler compiles the kernels, after a prelude that has each thread of a block run as a fiber. Kernels
//! run one at a time.

use super::device::Order;
use super::driver::{Block, Machine};
use super::source;
use libloading::Library;
use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ffi::{OsString, c_int, c_void};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::{fs, ptr, slice};

const PRELUDE: &str = include_str!("kernels/emulated.h");

/// Words behind each block that nobody may write.
const GUARD: usize = 64;
/// What memory holds that nobody has written: NaN.
const STALE: u32 = u32::MAX;

type Entry = unsafe extern "C" fn(*mut *mut c_void);
type Run = unsafe extern "C" fn(Entry, c_int, *const u32, u32, *mut *mut c_void) -> c_int;

pub(super) struct Emulated {
    order: Order,
    compiled: Arc<Mutex<Compiled>>,
}

struct Compiled {
    run: Run,
    entries: HashMap<&'static str, Entry>,
    library: Library,
}

impl Emulated {
    /// The crate's kernels, compiled once a process.
    pub fn new(order: Order) -> Result<Self, String> {
        static COMPILED: OnceLock<Result<Arc<Mutex<Compiled>>, String>> = OnceLock::new();
        let compiled = COMPILED.get_or_init(|| compile(&source::whole(PRELUDE)));
        let compiled = compiled.clone()?;
        Ok(Self { order, compiled })
    }

    /// Other kernels.
    #[cfg(test)]
    pub fn of(kernels: &str, order: Order) -> Result<Self, String> {
        let compiled = compile(&format!("{PRELUDE}\n{kernels}"))?;
        Ok(Self { order, compiled })
    }
}

fn compile(source: &str) -> Result<Arc<Mutex<Compiled>>, String> {
    let named = std::env::var_os("FORETOKEN_CXX");
    // One that was named has to be there.
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
    // Each operation rounds once; fibers jump to where no function has called them from.
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
        let says = String::from_utf8_lossy(&done.stderr);
        return Err(format!("`{name}` does not compile the kernels:\n{says}"));
    }
    let compiled = Compiled::load(&output).map_err(|why| format!("load the kernels: {why}"))?;
    Ok(Arc::new(Mutex::new(compiled)))
}

impl Compiled {
    fn load(path: &Path) -> Result<Self, libloading::Error> {
        // SAFETY: the library was just compiled from our source, and does nothing when loaded. The prelude declares the
        // function so, and it stays as long as the library is next to it.
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
        // SAFETY: EXPORT in the prelude declares it so; it stays as long as the library is next to it.
        let entry = unsafe { self.library.get::<Entry>(name.as_str()) };
        let entry = *entry.map_err(|why| format!("no kernel {kernel}: {why}"))?;
        self.entries.insert(kernel, entry);
        Ok(entry)
    }
}

/// A folder of its own; it goes when this is dropped, and a library that is loaded stays.
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
                // Someone else's, perhaps of a process that had this number and was killed.
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

/// The memory of a block and the guard behind it.
fn layout(words: usize) -> Option<Layout> {
    let bytes = words.checked_add(GUARD)?.checked_mul(4)?;
    // As aligned as a GPU's.
    Layout::from_size_align(bytes, 256).ok()
}

fn pointer(address: u64) -> *mut u32 {
    ptr::with_exposed_provenance_mut(address as usize)
}

impl Machine for Emulated {
    fn name(&self) -> String {
        format!("emulated GPU, threads in {:?} order", self.order).to_lowercase()
    }

    fn allocate(&self, words: usize) -> Result<Block, String> {
        let no_room = || format!("no room for {words} numbers");
        let layout = layout(words).ok_or_else(no_room)?;
        // SAFETY: the layout has a size, the guard's at least.
        let memory = unsafe { alloc(layout) };
        if memory.is_null() {
            return Err(no_room());
        }
        let address = memory.expose_provenance() as u64;
        let block = Block { address, words };
        self.lend(&block, words);
        Ok(block)
    }

    fn free(&self, block: Block) {
        let layout = layout(block.words).expect("it was allocated so");
        // SAFETY: it was allocated above with this layout, and blocks are made once.
        unsafe { dealloc(pointer(block.address).cast(), layout) };
    }

    fn write(&self, data: &[u32], to: &Block, at: usize) -> Result<(), String> {
        let to = pointer(to.part(at, data.len()));
        // SAFETY: the part is inside the block, and no borrow of the CPU's reaches there.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) };
        Ok(())
    }

    fn copy(&self, from: (&Block, usize), to: (&Block, usize), words: usize) -> Result<(), String> {
        let (from, to) = (from.0.part(from.1, words), to.0.part(to.1, words));
        // SAFETY: the parts are inside their blocks.
        unsafe { ptr::copy(pointer(from), pointer(to), words) };
        Ok(())
    }

    fn read(&self, from: &Block, at: usize, data: &mut [u32]) -> Result<(), String> {
        let from = pointer(from.part(at, data.len()));
        // SAFETY: the part is inside the block, whose words all have values since it was lent.
        unsafe { ptr::copy_nonoverlapping(from, data.as_mut_ptr(), data.len()) };
        Ok(())
    }

    // SAFETY: that of the trait.
    unsafe fn launch(
        &self,
        kernel: &'static str,
        grid: [u32; 3],
        block: u32,
        args: &mut [*mut c_void],
    ) -> Result<(), String> {
        let compiled = self.compiled.lock();
        // What a kernel leaves behind is no state of the next one.
        let mut compiled = compiled.unwrap_or_else(PoisonError::into_inner);
        let entry = compiled.entry(kernel)?;
        let descending = c_int::from(self.order == Order::Descending);
        // SAFETY: the caller's for the arguments; the lock keeps other threads from the fibers and from shared memory.
        let code =
            unsafe { (compiled.run)(entry, descending, grid.as_ptr(), block, args.as_mut_ptr()) };
        match code {
            0 => Ok(()),
            _ => Err(format!(
                "{kernel}: threads of a block wait at different barriers"
            )),
        }
    }

    fn lend(&self, block: &Block, _words: usize) {
        // SAFETY: block and guard were allocated together, and nobody else has the block.
        unsafe {
            slice::from_raw_parts_mut(
                pointer(block.address).cast::<std::mem::MaybeUninit<u32>>(),
                block.words + GUARD,
            )
        }
        .fill(std::mem::MaybeUninit::new(STALE));
    }

    fn take_back(&self, block: &Block, words: usize) -> Result<(), String> {
        // SAFETY: as above; all words were given values when the block was lent.
        let all = unsafe { slice::from_raw_parts(pointer(block.address), block.words + GUARD) };
        match all[words..].iter().position(|word| *word != STALE) {
            None => Ok(()),
            Some(at) => Err(format!(
                "a kernel wrote element {} of an array of {words}",
                words + at
            )),
        }
    }
}
