//! The backend on CUDA's driver.
//!
//! All work goes to the context's default stream, which runs it in order.

use super::backend::{Allocation, Backend, Place};
use super::nvrtc::Nvrtc;
use super::{compile_cache, source};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, DriverError, result, sys};
use cudarc::nvrtc::Ptx;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

const PRELUDE: &str = include_str!("kernels/nvrtc.h");

/// The beginning of an error.
const FAILED: &str = "the GPU failed";

/// The source that NVRTC compiles.
pub(super) fn source() -> String {
    source::kernels(PRELUDE)
}

pub(super) struct Cuda {
    name: String,
    context: Arc<CudaContext>,
    module: Arc<CudaModule>,
    kernels: Mutex<HashMap<&'static str, CudaFunction>>,
}

impl Cuda {
    /// Opens the first GPU and compiles the kernels for it.
    pub fn open() -> Result<Self, String> {
        // SAFETY: loading the driver's library has no preconditions.
        if !unsafe { sys::is_culib_present() } {
            return Err("no CUDA: NVIDIA's driver (libcuda) is not installed".to_owned());
        }
        let count = CudaContext::device_count().map_err(|why| describe("no CUDA", why))?;
        if count < 1 {
            return Err("no CUDA: the driver found no GPU".to_owned());
        }
        let opened = |why| describe("the GPU cannot be used", why);
        let context = CudaContext::new(0).map_err(opened)?;
        let name = context.name().map_err(opened)?;
        let (major, minor) = context.compute_capability().map_err(opened)?;
        let capability = u32::try_from(10 * major + minor).unwrap_or_default();

        let mut version = 0;
        // SAFETY: the driver writes one number.
        let code = unsafe { sys::cuDriverGetVersion(&mut version) };
        code.result().map_err(opened)?;
        let nvrtc = Nvrtc::open(Some(version / 1000))?;
        let target = nvrtc.target(capability)?;
        let source = source();
        let inputs = [source.as_str(), &nvrtc.signature(target), &name];
        let directory = compile_cache::directory();
        let compile = || nvrtc.compile(&source, target);
        let mut image = compile_cache::get_or_compile(directory.as_deref(), &inputs, compile)?;
        // PTX must end with a zero byte, which machine code ignores.
        image.push(0);

        // The compiler's output, or a copy from the user's own cache directory that matches its checksum.
        let module = context.load_module(Ptx::from_binary(image));
        let module =
            module.map_err(|why| describe("the driver rejects the compiled kernels", why))?;
        Ok(Self {
            name,
            context,
            module,
            kernels: Mutex::default(),
        })
    }

    /// Runs `f` with the context current on this thread. An error begins with `what`.
    fn run<T>(&self, what: &str, f: impl FnOnce() -> Result<T, DriverError>) -> Result<T, String> {
        let entered = self.context.bind_to_thread();
        entered
            .and_then(|()| f())
            .map_err(|why| describe(what, why))
    }

    fn kernel(&self, name: &'static str) -> Result<CudaFunction, DriverError> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels.get(name) {
            return Ok(kernel.clone());
        }
        let kernel = self.module.load_function(name)?;
        kernels.insert(name, kernel.clone());
        Ok(kernel)
    }
}

impl Backend for Cuda {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn allocate(&self, words: usize) -> Result<Allocation, String> {
        let no_room = || format!("no room for {words} numbers on the GPU");
        let bytes = words.checked_mul(4).ok_or_else(no_room)?;
        // SAFETY: the contents are unspecified, and every bit pattern is a valid word.
        let address = self.run(&no_room(), || unsafe { result::malloc_sync(bytes) })?;
        Ok(Allocation { address, words })
    }

    fn free(&self, memory: Allocation) {
        // SAFETY: it was allocated here and is consumed. The driver waits for work that uses it.
        let _ = self.run(FAILED, || unsafe { result::free_sync(memory.address) });
    }

    fn write(&self, data: &[u32], to: &Allocation) -> Result<(), String> {
        let to = to.part(0, data.len());
        // SAFETY: the part is inside the allocation. The call returns after `data` has been read.
        self.run(FAILED, || unsafe { result::memcpy_htod_sync(to, data) })
    }

    fn copy(&self, from: Place<'_>, to: Place<'_>, words: usize) -> Result<(), String> {
        let (from, to) = (from.0.part(from.1, words), to.0.part(to.1, words));
        let stream = result::stream::null();
        // SAFETY: the parts are inside their allocations.
        self.run(FAILED, || unsafe {
            result::memcpy_dtod_async(to, from, 4 * words, stream)
        })
    }

    fn read(&self, from: &Allocation, at: usize, data: &mut [u32]) -> Result<(), String> {
        let from = from.part(at, data.len());
        // SAFETY: the part is inside the allocation.
        self.run(FAILED, || unsafe { result::memcpy_dtoh_sync(data, from) })
    }

    // SAFETY: as the trait says.
    unsafe fn launch(
        &self,
        kernel: &'static str,
        [x, y, z]: [u32; 3],
        block: u32,
        args: &mut [*mut c_void],
    ) -> Result<(), String> {
        let (grid, block, stream) = ((x, y, z), (block, 1, 1), result::stream::null());
        self.run(&format!("{FAILED} at {kernel}"), || {
            let found = self.kernel(kernel)?.cu_function();
            // SAFETY: the caller's.
            unsafe { result::launch_kernel(found, grid, block, 0, stream, args) }
        })
    }
}

fn describe(what: &str, why: DriverError) -> String {
    match why.error_string() {
        Ok(text) => format!("{what}: {}", text.to_string_lossy()),
        Err(_) => format!("{what}: CUDA error {:?}", why.0),
    }
}
