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

/// CUBLAS_DEFAULT_MATH: products of `f32` in `f32`, unless the environment says otherwise.
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
    /// To be called when the GPU was opened before: work goes to the stream that the crate uses.
    pub fn open() -> Result<Self, String> {
        if std::env::var_os("NVIDIA_TF32_OVERRIDE").is_some() {
            return Err("NVIDIA_TF32_OVERRIDE is set: products might be in TF32".to_owned());
        }
        // SAFETY: cuBLAS has no conditions on being loaded.
        let load = |name: &&str| unsafe { Library::new(*name) }.ok();
        let library = NAMES.iter().find_map(load);
        let library = library.ok_or("the library libcublas was not found")?;
        // SAFETY: the types are those of cuBLAS's header; the handle is there to be written, and used by its mode's
        // function once it was.
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

    /// Memory for products of one left operand with so many right ones.
    pub fn buffers(&self, sizes: Sizes, rights: usize) -> Result<Buffers<'_>, String> {
        let Sizes { m, k, n, .. } = sizes;
        let mut buffers = Buffers {
            cublas: self,
            sizes,
            all: Vec::new(),
        };
        let lens = [m * k, m * n].into_iter().chain((0..rights).map(|_| k * n));
        for len in lens {
            let data = crate::pattern(len);
            // SAFETY: nothing is assumed about the contents; then there is room for as many numbers as are written.
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
        // SAFETY: nobody uses the handle any more.
        unsafe { (self.destroy)(self.handle) };
    }
}

/// Operands and a result.
pub struct Buffers<'c> {
    cublas: &'c Cublas,
    sizes: Sizes,
    /// a, c, and each b.
    all: Vec<sys::CUdeviceptr>,
}

impl Buffers<'_> {
    /// Launches c = a · b with one of the right operands.
    pub fn matmul(&self, right: usize) {
        let Sizes {
            m,
            k,
            n,
            transposed,
        } = self.sizes;
        let [a, c, b] = [0, 1, 2 + right].map(|i| self.all[i] as *mut f32);
        // cuBLAS packs columns, so that its matrices are our transposed ones: cᵀ = bᵀ aᵀ.
        let (b_turned, b_pitch) = if transposed[1] { (1, k) } else { (0, n) };
        let (a_turned, a_pitch) = if transposed[0] { (1, m) } else { (0, k) };
        let int = |x: usize| c_int::try_from(x).expect("a side");
        let (one, zero) = (1.0, 0.0);
        // SAFETY: the buffers have room for matrices of these sizes with these pitches, and live as long as this; the
        // factors are read before the call returns.
        let code = unsafe {
            (self.cublas.sgemm)(
                self.cublas.handle,
                b_turned,
                a_turned,
                int(n),
                int(m),
                int(k),
                &one,
                b,
                int(b_pitch),
                a,
                int(a_pitch),
                &zero,
                c,
                int(n),
            )
        };
        check(code).expect("a product of cuBLAS");
    }
}

impl Drop for Buffers<'_> {
    fn drop(&mut self) {
        for &address in &self.all {
            // SAFETY: it was allocated above; freeing waits for work that uses it.
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
