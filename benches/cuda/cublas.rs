//! cuBLAS, loaded at run time, behind safe functions.

use crate::Sizes;
use cudarc::driver::{result, sys};
use libloading::{Library, Symbol};
use std::ffi::{c_int, c_uint, c_void};
use std::ptr;

type Handle = *mut c_void;
// As cuBLAS's header declares them.
type Create = unsafe extern "C" fn(*mut Handle) -> c_int;
type Destroy = unsafe extern "C" fn(Handle) -> c_int;
type SetMathMode = unsafe extern "C" fn(Handle, c_uint) -> c_int;
type Sgemm = unsafe extern "C" fn(
    Handle,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    *const f32,
    *const f32,
    c_int,
    *const f32,
    c_int,
    *const f32,
    *mut f32,
    c_int,
) -> c_int;

/// CUBLAS_DEFAULT_MATH: `f32` without TF32, unless the environment overrides it.
const DEFAULT: c_uint = 0;

const NAMES: [&str; 6] = [
    "libcublas.so",
    "libcublas.so.13",
    "libcublas.so.12",
    "libcublas.so.11",
    "cublas64_13.dll",
    "cublas64_12.dll",
];

/// The library, for the first GPU.
pub struct Cublas {
    handle: Handle,
    sgemm: Sgemm,
    destroy: Destroy,
    _library: Library,
}

impl Cublas {
    /// Call it after opening the GPU: work goes to the crate's stream.
    pub fn open() -> Result<Self, String> {
        if std::env::var_os("NVIDIA_TF32_OVERRIDE").is_some() {
            return Err("NVIDIA_TF32_OVERRIDE is set, so cuBLAS might use TF32".to_owned());
        }
        // SAFETY: loading cuBLAS has no preconditions.
        let load = |name: &&str| unsafe { Library::new(*name) }.ok();
        let library = NAMES.iter().find_map(load);
        let library = library.ok_or("the library libcublas was not found")?;
        // SAFETY: the types are those of cuBLAS's header; `create` writes the handle before `mode` uses it.
        unsafe {
            let create: Symbol<Create> = library.get("cublasCreate_v2").map_err(text)?;
            let mode: Symbol<SetMathMode> = library.get("cublasSetMathMode").map_err(text)?;
            let sgemm: Sgemm = *library.get("cublasSgemm_v2").map_err(text)?;
            let destroy: Destroy = *library.get("cublasDestroy_v2").map_err(text)?;
            let mut handle = ptr::null_mut();
            check(create(&mut handle))?;
            check(mode(handle, DEFAULT))?;
            Ok(Self {
                handle,
                sgemm,
                destroy,
                _library: library,
            })
        }
    }

    /// One x, one y and several w.
    pub fn buffers(&self, sizes: Sizes, weights: usize) -> Result<Buffers<'_>, String> {
        let Sizes { m, k, n } = sizes;
        let mut buffers = Buffers {
            cublas: self,
            sizes,
            all: Vec::new(),
        };
        let lens = [m * k, m * n]
            .into_iter()
            .chain((0..weights).map(|_| k * n));
        for len in lens {
            let data = crate::pattern(len);
            // SAFETY: the allocation holds `len` numbers, which the copy writes.
            unsafe {
                let address = result::malloc_sync(4 * len).map_err(text)?;
                buffers.all.push(address);
                result::memcpy_htod_sync(address, &data).map_err(text)?;
            }
        }
        Ok(buffers)
    }
}

impl Drop for Cublas {
    fn drop(&mut self) {
        // SAFETY: no other use of the handle is left.
        unsafe { (self.destroy)(self.handle) };
    }
}

/// Operands and a result.
pub struct Buffers<'c> {
    cublas: &'c Cublas,
    sizes: Sizes,
    /// x, y, and each w.
    all: Vec<sys::CUdeviceptr>,
}

impl Buffers<'_> {
    /// Launches y = x · wᵀ with one of the weights.
    pub fn matmul(&self, weight: usize) {
        let Sizes { m, k, n } = self.sizes;
        let [x, y, w] = [0, 1, 2 + weight].map(|i| self.all[i] as *mut f32);
        let int = |x: usize| c_int::try_from(x).expect("a side");
        let (one, zero) = (1.0, 0.0);
        // cuBLAS stores matrices by column, so that ours are its transposed ones: yᵀ = w xᵀ.
        let (transposed, plain) = (1, 0);
        // SAFETY: the buffers hold matrices of these sizes and leading dimensions, and live as long as `self`; the
        // factors are read before the call returns.
        let code = unsafe {
            (self.cublas.sgemm)(
                self.cublas.handle,
                transposed,
                plain,
                int(n),
                int(m),
                int(k),
                &one,
                w,
                int(k),
                x,
                int(k),
                &zero,
                y,
                int(n),
            )
        };
        check(code).expect("a matrix multiplication of cuBLAS");
    }
}

impl Drop for Buffers<'_> {
    fn drop(&mut self) {
        for &address in &self.all {
            // SAFETY: it was allocated above; the driver waits for work that uses it.
            let _ = unsafe { result::free_sync(address) };
        }
    }
}

fn check(code: c_int) -> Result<(), String> {
    match code {
        0 => Ok(()),
        _ => Err(format!("cuBLAS error {code}")),
    }
}

fn text(why: impl std::fmt::Display) -> String {
    why.to_string()
}
