//! The backend on CUDA's driver.
//!
//! All work goes to the context's default stream, which runs it in order.

use super::backend::{Allocation, Backend};
use super::nvrtc::Nvrtc;
use super::{compile_cache, source};
use cudarc::driver::{DriverError, result, sys};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Mutex, PoisonError};

const PRELUDE: &str = include_str!("kernels/nvrtc.h");

/// The source that NVRTC compiles.
pub(super) fn source() -> String {
    source::kernels(PRELUDE)
}

pub(super) struct Cuda {
    name: String,
    device: sys::CUdevice,
    context: sys::CUcontext,
    module: sys::CUmodule,
    kernels: Mutex<HashMap<&'static str, Kernel>>,
}

#[derive(Clone, Copy)]
struct Kernel(sys::CUfunction);

// SAFETY: the driver is thread-safe, and its handles belong to no thread.
unsafe impl Send for Kernel {}
// SAFETY: as for Kernel; each call first makes the context current on its thread.
unsafe impl Send for Cuda {}
// SAFETY: as for Send.
unsafe impl Sync for Cuda {}

impl Cuda {
    /// Opens the first GPU and compiles the kernels for it.
    pub fn open() -> Result<Self, String> {
        // SAFETY: loading the driver's library has no preconditions.
        if !unsafe { sys::is_culib_present() } {
            return Err("no CUDA: NVIDIA's driver (libcuda) is not installed".to_owned());
        }
        result::init().map_err(|why| describe("no CUDA", why))?;
        let count = result::device::get_count().map_err(|why| describe("no CUDA", why))?;
        if count < 1 {
            return Err("no CUDA: the driver found no GPU".to_owned());
        }
        let opened = |why| describe("the GPU cannot be used", why);
        let device = result::device::get(0).map_err(opened)?;
        let name = result::device::get_name(device).map_err(opened)?;
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        // SAFETY: the device came from the driver.
        let attribute = |which| unsafe { result::device::get_attribute(device, which) };
        let major = attribute(MAJOR).map_err(opened)?;
        let capability = 10 * major + attribute(MINOR).map_err(opened)?;

        let mut version = 0;
        // SAFETY: the driver writes one number.
        let code = unsafe { sys::cuDriverGetVersion(&mut version) };
        code.result().map_err(opened)?;
        let nvrtc = Nvrtc::open(Some(version / 1000))?;
        let target = nvrtc.target(u32::try_from(capability).unwrap_or_default())?;
        let source = source();
        let inputs = [source.as_str(), &nvrtc.signature(target), &name];
        let directory = compile_cache::directory();
        let compile = || nvrtc.compile(&source, target);
        let mut image = compile_cache::get_or_compile(directory.as_deref(), &inputs, compile)?;
        // PTX must end with a zero byte, which machine code ignores.
        image.push(0);

        // SAFETY: the device came from the driver.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(opened)?;
        let mut cuda = Self {
            name,
            device,
            context,
            module: std::ptr::null_mut(),
            kernels: Mutex::default(),
        };
        cuda.enter().map_err(opened)?;
        // SAFETY: the image is the compiler's output, or a copy from the user's own cache directory that matches its
        // checksum.
        cuda.module = unsafe { result::module::load_data(image.as_ptr().cast()) }
            .map_err(|why| describe("the driver rejects the compiled kernels", why))?;
        Ok(cuda)
    }

    /// Makes the context current on this thread.
    fn enter(&self) -> Result<(), DriverError> {
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.context) }
    }

    fn kernel(&self, name: &'static str) -> Result<Kernel, DriverError> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels.get(name) {
            return Ok(*kernel);
        }
        let c_name = CString::new(name).expect("a name without zeros");
        // SAFETY: the module lives as long as `self`.
        let kernel = Kernel(unsafe { result::module::get_function(self.module, c_name) }?);
        kernels.insert(name, kernel);
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
        let why = |why| describe(&no_room(), why);
        self.enter().map_err(why)?;
        // SAFETY: the contents are unspecified, and every bit pattern is a valid word.
        let address = unsafe { result::malloc_sync(bytes) }.map_err(why)?;
        Ok(Allocation { address, words })
    }

    fn free(&self, memory: Allocation) {
        if self.enter().is_ok() {
            // SAFETY: it was allocated here and is consumed. The driver waits for work that uses it.
            let _ = unsafe { result::free_sync(memory.address) };
        }
    }

    fn write(&self, data: &[u32], to: &Allocation) -> Result<(), String> {
        let to = to.part(0, data.len());
        self.enter().map_err(failed)?;
        // SAFETY: the part is inside the allocation. The call returns after `data` has been read.
        unsafe { result::memcpy_htod_sync(to, data) }.map_err(failed)
    }

    fn copy(
        &self,
        from: (&Allocation, usize),
        to: (&Allocation, usize),
        words: usize,
    ) -> Result<(), String> {
        let (from, to) = (from.0.part(from.1, words), to.0.part(to.1, words));
        self.enter().map_err(failed)?;
        // SAFETY: the parts are inside their allocations.
        unsafe { result::memcpy_dtod_async(to, from, 4 * words, result::stream::null()) }
            .map_err(failed)
    }

    fn read(&self, from: &Allocation, at: usize, data: &mut [u32]) -> Result<(), String> {
        let from = from.part(at, data.len());
        self.enter().map_err(failed)?;
        // SAFETY: the part is inside the allocation.
        unsafe { result::memcpy_dtoh_sync(data, from) }.map_err(failed)
    }

    // SAFETY: as the trait says.
    unsafe fn launch(
        &self,
        kernel: &'static str,
        [x, y, z]: [u32; 3],
        block: u32,
        args: &mut [*mut c_void],
    ) -> Result<(), String> {
        let why = |why| describe(&format!("the GPU failed at {kernel}"), why);
        self.enter().map_err(why)?;
        let found = self.kernel(kernel).map_err(why)?;
        // SAFETY: the caller's.
        unsafe {
            let stream = result::stream::null();
            result::launch_kernel(found.0, (x, y, z), (block, 1, 1), 0, stream, args)
        }
        .map_err(why)
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // SAFETY: no other use is left. An error here follows an earlier one.
        unsafe {
            if self.enter().is_ok() && !self.module.is_null() {
                let _ = result::module::unload(self.module);
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

fn failed(why: DriverError) -> String {
    describe("the GPU failed", why)
}

fn describe(what: &str, why: DriverError) -> String {
    match why.error_string() {
        Ok(text) => format!("{what}: {}", text.to_string_lossy()),
        Err(_) => format!("{what}: CUDA error {:?}", why.0),
    }
}
