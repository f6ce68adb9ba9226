//! The machine that is a GPU, by CUDA's driver.
//!
//! All work goes to the context's first stream, which does one thing after the other.

use super::driver::{Block, Machine};
use super::nvrtc::Nvrtc;
use super::{cache, source};
use cudarc::driver::{DriverError, result, sys};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Mutex, PoisonError};

const PRELUDE: &str = include_str!("kernels/nvrtc.h");

/// The source that NVRTC compiles.
pub(super) fn source() -> String {
    source::whole(PRELUDE)
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

// SAFETY: CUDA's handles may be used on any thread, by several at once.
unsafe impl Send for Kernel {}
// SAFETY: as for Kernel; before each use the context is made the thread's own.
unsafe impl Send for Cuda {}
// SAFETY: as above.
unsafe impl Sync for Cuda {}

impl Cuda {
    /// The first GPU, with the kernels compiled for it.
    pub fn open() -> Result<Self, String> {
        // SAFETY: loading the driver's library has no conditions.
        if !unsafe { sys::is_culib_present() } {
            return Err("no CUDA: NVIDIA's driver (libcuda) is not installed".to_owned());
        }
        result::init().map_err(|why| says("no CUDA", why))?;
        let count = result::device::get_count().map_err(|why| says("no CUDA", why))?;
        if count < 1 {
            return Err("no CUDA: the driver is there, but no GPU".to_owned());
        }
        let opened = |why| says("the GPU cannot be used", why);
        let device = result::device::get(0).map_err(opened)?;
        let name = result::device::get_name(device).map_err(opened)?;
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        // SAFETY: the device was given by the driver.
        let attribute = |which| unsafe { result::device::get_attribute(device, which) };
        let major = attribute(MAJOR).map_err(opened)?;
        let capability = 10 * major + attribute(MINOR).map_err(opened)?;

        let mut version = 0;
        // SAFETY: the number is there to be written.
        let code = unsafe { sys::cuDriverGetVersion(&mut version) };
        code.result().map_err(opened)?;
        let nvrtc = Nvrtc::open(Some(version / 1000))?;
        let target = nvrtc.target(u32::try_from(capability).unwrap_or_default())?;
        let source = source();
        let inputs = [source.as_str(), &nvrtc.signature(target), &name];
        let mut image = cache::kept(cache::folder().as_deref(), &inputs, || {
            nvrtc.compile(&source, target)
        })?;
        // Text has to end with a zero; after machine code it does no harm.
        image.push(0);

        // SAFETY: the device was given by the driver.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(opened)?;
        let mut cuda = Self {
            name,
            device,
            context,
            module: std::ptr::null_mut(),
            kernels: Mutex::default(),
        };
        cuda.enter().map_err(opened)?;
        // SAFETY: it is what the compiler made, or what lay in the user's own cache with a checksum of its own: whole, and
        // changed by nobody who may not change the user's files.
        cuda.module = unsafe { result::module::load_data(image.as_ptr().cast()) }
            .map_err(|why| says("the driver does not take the compiled kernels", why))?;
        Ok(cuda)
    }

    /// Makes the context this thread's.
    fn enter(&self) -> Result<(), DriverError> {
        // SAFETY: the context lives as long as this does.
        unsafe { result::ctx::set_current(self.context) }
    }

    fn kernel(&self, name: &'static str) -> Result<Kernel, DriverError> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels.get(name) {
            return Ok(*kernel);
        }
        let c_name = CString::new(name).expect("a name without zeros");
        // SAFETY: the module lives as long as this does.
        let kernel = Kernel(unsafe { result::module::get_function(self.module, c_name) }?);
        kernels.insert(name, kernel);
        Ok(kernel)
    }
}

impl Machine for Cuda {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn allocate(&self, words: usize) -> Result<Block, String> {
        let why = |why| says(&format!("no room for {words} numbers on the GPU"), why);
        self.enter().map_err(why)?;
        // SAFETY: nothing is assumed about the contents.
        let address = unsafe { result::malloc_sync(4 * words) }.map_err(why)?;
        Ok(Block { address, words })
    }

    fn free(&self, block: Block) {
        if self.enter().is_ok() {
            // SAFETY: the block was allocated here, and is used up. The driver waits for work that reads it.
            let _ = unsafe { result::free_sync(block.address) };
        }
    }

    fn write(&self, data: &[u32], to: &Block, at: usize) -> Result<(), String> {
        let to = to.part(at, data.len());
        self.enter().map_err(failed)?;
        // SAFETY: the part is inside the block. The call returns when the data have been read.
        unsafe { result::memcpy_htod_sync(to, data) }.map_err(failed)
    }

    fn copy(&self, from: (&Block, usize), to: (&Block, usize), words: usize) -> Result<(), String> {
        let (from, to) = (from.0.part(from.1, words), to.0.part(to.1, words));
        self.enter().map_err(failed)?;
        // SAFETY: the parts are inside their blocks.
        unsafe { result::memcpy_dtod_async(to, from, 4 * words, result::stream::null()) }
            .map_err(failed)
    }

    fn read(&self, from: &Block, at: usize, data: &mut [u32]) -> Result<(), String> {
        let from = from.part(at, data.len());
        self.enter().map_err(failed)?;
        // SAFETY: the part is inside the block.
        unsafe { result::memcpy_dtoh_sync(data, from) }.map_err(failed)
    }

    // SAFETY: that of the trait.
    unsafe fn launch(
        &self,
        kernel: &'static str,
        [x, y, z]: [u32; 3],
        block: u32,
        args: &mut [*mut c_void],
    ) -> Result<(), String> {
        let why = |why| says(&format!("the GPU failed at {kernel}"), why);
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
        // SAFETY: nothing uses them any more. What fails here has failed before.
        unsafe {
            if self.enter().is_ok() && !self.module.is_null() {
                let _ = result::module::unload(self.module);
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

fn failed(why: DriverError) -> String {
    says("the GPU failed", why)
}

fn says(what: &str, why: DriverError) -> String {
    match why.error_string() {
        Ok(text) => format!("{what}: {}", text.to_string_lossy()),
        Err(_) => format!("{what}: CUDA error {:?}", why.0),
    }
}
