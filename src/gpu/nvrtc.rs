//! NVIDIA's run-time compiler NVRTC, loaded at run time.

use libloading::{Library, Symbol};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

/// The bits of the results depend on these: no contraction, subnormals kept, exact division and square root.
const OPTIONS: [&CStr; 5] = [
    c"--std=c++17",
    c"--fmad=false",
    c"--ftz=false",
    c"--prec-div=true",
    c"--prec-sqrt=true",
];

/// Names of the library in supported versions.
const NAMES: [&str; 7] = [
    "libnvrtc.so",
    "libnvrtc.so.13",
    "libnvrtc.so.12",
    "libnvrtc.so.11.2",
    "nvrtc64_130_0.dll",
    "nvrtc64_120_0.dll",
    "nvrtc64_112_0.dll",
];
/// The first version that compiles to machine code.
const OLDEST: [c_int; 2] = [11, 2];

// As NVRTC's header declares them.
type Program = *mut c_void;
type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
type Numbers = unsafe extern "C" fn(*mut c_int) -> c_int;
type Text = unsafe extern "C" fn(c_int) -> *const c_char;
type Texts = *const *const c_char;
type Create =
    unsafe extern "C" fn(*mut Program, *const c_char, *const c_char, c_int, Texts, Texts) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, Texts) -> c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Data = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;

/// The library.
pub(super) struct Nvrtc {
    library: Library,
    version: [c_int; 2],
}

/// What to compile for, by compute capability: 90 is 9.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Machine code.
    Real(u32),
    /// PTX, which the driver compiles for newer GPUs.
    Virtual(u32),
}

impl Nvrtc {
    /// Loads the library that `FORETOKEN_NVRTC` names, or one that the system finds. `newest` is the driver's major
    /// version of CUDA, if there is a driver; it rejects code of later ones.
    pub fn open(newest: Option<c_int>) -> Result<Self, String> {
        if let Some(path) = std::env::var_os("FORETOKEN_NVRTC") {
            let named = Self::load(&path);
            return named.map_err(|why| format!("FORETOKEN_NVRTC={}: {why}", path.display()));
        }
        let mut found = NAMES.iter().filter_map(|name| Self::load(name).ok());
        let fits = |nvrtc: &Self| newest.is_none_or(|newest| nvrtc.version[0] <= newest);
        found.find(fits).ok_or_else(|| {
            let most = newest.map_or(String::new(), |newest| format!(", at most {newest},"));
            format!(
                "no NVRTC: the library libnvrtc of CUDA 11.2 or later{most} which compiles the kernels, was not found; \
                 FORETOKEN_NVRTC can name it"
            )
        })
    }

    fn load(name: impl AsRef<std::ffi::OsStr>) -> Result<Self, String> {
        // SAFETY: loading NVRTC has no preconditions.
        let library = unsafe { Library::new(name.as_ref()) }.map_err(|e| e.to_string())?;
        let version = [0; 2];
        let mut nvrtc = Self { library, version };
        let [major, minor] = &mut [0; 2];
        // SAFETY: the type is that of NVRTC's header, which writes two numbers.
        unsafe { nvrtc.call("nvrtcVersion", |f: &Version| f(major, minor)) }?;
        nvrtc.version = [*major, *minor];
        if nvrtc.version < OLDEST {
            return Err(format!(
                "expected NVRTC 11.2 or later, found {major}.{minor}"
            ));
        }
        Ok(nvrtc)
    }

    /// Everything but the source that the compiled kernels depend on.
    pub fn signature(&self, target: Target) -> String {
        format!("NVRTC {:?} {OPTIONS:?} {target:?}", self.version)
    }

    /// The target for a GPU of this compute capability.
    pub fn target(&self, capability: u32) -> Result<Target, String> {
        let mut count = 0;
        // SAFETY: the type is that of NVRTC's header, which writes one number.
        unsafe { self.call("nvrtcGetNumSupportedArchs", |f: &Numbers| f(&mut count)) }?;
        let mut known = vec![0; usize::try_from(count).unwrap_or_default()];
        let first = known.as_mut_ptr();
        // SAFETY: the type is that of NVRTC's header, which writes `count` numbers.
        unsafe { self.call("nvrtcGetSupportedArchs", |f: &Numbers| f(first)) }?;
        let known = known.into_iter().filter_map(|n| u32::try_from(n).ok());
        match known.filter(|n| *n <= capability).max() {
            Some(n) if n == capability => Ok(Target::Real(n)),
            Some(n) => Ok(Target::Virtual(n)),
            None => Err(format!(
                "NVRTC {}.{} does not compile for a GPU of compute capability {}.{}",
                self.version[0],
                self.version[1],
                capability / 10,
                capability % 10
            )),
        }
    }

    /// Compiles to an image that the driver loads.
    pub fn compile(&self, source: &str, target: Target) -> Result<Vec<u8>, String> {
        let source = CString::new(source).map_err(|e| e.to_string())?;
        let (architecture, size, data) = match target {
            Target::Real(n) => (format!("sm_{n}"), "nvrtcGetCUBINSize", "nvrtcGetCUBIN"),
            Target::Virtual(n) => (format!("compute_{n}"), "nvrtcGetPTXSize", "nvrtcGetPTX"),
        };
        let architecture = CString::new(format!("--gpu-architecture={architecture}"));
        let architecture = architecture.map_err(|e| e.to_string())?;
        let options = OPTIONS.into_iter().chain([architecture.as_c_str()]);
        let options: Vec<_> = options.map(CStr::as_ptr).collect();
        let mut program: Program = ptr::null_mut();
        let create = |f: &Create| {
            let (source, name) = (source.as_ptr(), c"foretoken.cu".as_ptr());
            // SAFETY: these are C strings, and there are no headers.
            unsafe { f(&mut program, source, name, 0, ptr::null(), ptr::null()) }
        };
        // SAFETY: the type is that of NVRTC's header.
        unsafe { self.call("nvrtcCreateProgram", create) }?;
        let program = Compiling {
            nvrtc: self,
            program,
        };
        let (count, options) = (options.len() as c_int, options.as_ptr());
        let compile = |f: &Compile| {
            // SAFETY: the program exists, and there are that many options, all C strings.
            unsafe { f(program.program, count, options) }
        };
        // SAFETY: the type is that of NVRTC's header.
        let compiled = unsafe { self.call("nvrtcCompileProgram", compile) };
        if let Err(why) = compiled {
            let log = program.fetch("nvrtcGetProgramLogSize", "nvrtcGetProgramLog")?;
            let log = String::from_utf8_lossy(&log);
            let log = log.trim_end_matches('\0').trim();
            return Err(format!("the kernels do not compile: {why}\n{log}"));
        }
        program.fetch(size, data)
    }

    /// Calls a function of the library, which returns 0 if it succeeds.
    ///
    /// # Safety
    /// `F` is the function's type.
    unsafe fn call<F>(&self, name: &str, call: impl FnOnce(&F) -> c_int) -> Result<(), String> {
        // SAFETY: the caller's.
        let code = call(&*unsafe { self.symbol(name) }?);
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the type is that of NVRTC's header, which returns a static C string.
        let text = unsafe {
            let f: Symbol<'_, Text> = self.symbol("nvrtcGetErrorString")?;
            CStr::from_ptr(f(code))
        };
        Err(text.to_string_lossy().into_owned())
    }

    /// A function of the library.
    ///
    /// # Safety
    /// `F` is its type.
    unsafe fn symbol<F>(&self, name: &str) -> Result<Symbol<'_, F>, String> {
        // SAFETY: the caller's.
        let found = unsafe { self.library.get::<F>(name) };
        found.map_err(|why| format!("NVRTC has no {name}: {why}"))
    }
}

/// A program that is being compiled.
struct Compiling<'n> {
    nvrtc: &'n Nvrtc,
    program: Program,
}

impl Compiling<'_> {
    /// The bytes that one function counts and another one writes.
    fn fetch(&self, count: &str, data: &str) -> Result<Vec<u8>, String> {
        let mut size = 0;
        // SAFETY: the type is that of NVRTC's header; the program exists, and one number is written.
        unsafe { (self.nvrtc).call(count, |f: &Size| f(self.program, &mut size)) }?;
        let mut bytes = vec![0_u8; size];
        let first = bytes.as_mut_ptr().cast();
        // SAFETY: the type is that of NVRTC's header; there is room for the bytes that NVRTC counted.
        unsafe { (self.nvrtc).call(data, |f: &Data| f(self.program, first)) }?;
        Ok(bytes)
    }
}

impl Drop for Compiling<'_> {
    fn drop(&mut self) {
        // SAFETY: the type is that of NVRTC's header; no other use of the program is left.
        let _ =
            unsafe { (self.nvrtc).call("nvrtcDestroyProgram", |f: &Destroy| f(&mut self.program)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// The library, or a message that the test is skipped. No GPU is needed.
    fn nvrtc() -> Option<Nvrtc> {
        match Nvrtc::open(None) {
            Ok(nvrtc) => Some(nvrtc),
            Err(why) => {
                assert!(why.starts_with("no NVRTC"), "{why}");
                // The output of `eprintln!` is captured in passing tests.
                let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
                None
            }
        }
    }

    #[test]
    fn all_kernels_compile() {
        let Some(nvrtc) = nvrtc() else { return };
        let source = super::super::cuda::source();
        for capability in [75, 90] {
            let target = nvrtc.target(capability).expect("a GPU that it knows");
            assert_eq!(target, Target::Real(capability));
            let image = nvrtc.compile(&source, target).expect("valid kernels");
            assert_eq!(image[..4], *b"\x7fELF");
        }
        // Newer than any GPU that this version knows.
        let target = nvrtc.target(999).expect("a virtual target");
        assert!(matches!(target, Target::Virtual(_)));
        let text = nvrtc.compile(&source, target).expect("valid kernels");
        let text = String::from_utf8(text).expect("text");
        // Nothing is fused implicitly, flushed or approximate.
        assert!(text.contains("fma.rn.f32"));
        for wrong in ["approx", ".ftz", "fma.rn.f64", "mad.f32", "mad.rn.f32"] {
            assert!(!text.contains(wrong), "{wrong}");
        }
        // Each operation rounds on its own: without `.rn`, a multiplication and an addition may be fused.
        let operations = ["add", "sub", "mul", "div", "sqrt", "fma"];
        for word in text.split_whitespace() {
            let mut parts = word.split('.');
            let rounds = operations.contains(&parts.next().unwrap_or_default());
            let parts: Vec<&str> = parts.collect();
            if rounds && parts.iter().any(|part| ["f32", "f64"].contains(part)) {
                assert!(parts.contains(&"rn"), "{word}");
            }
        }
    }

    #[test]
    fn errors_of_the_compiler_are_returned() {
        let Some(nvrtc) = nvrtc() else { return };
        let wrong = "__global__ void f() { no_such_name(); }";
        let why = nvrtc
            .compile(wrong, Target::Real(90))
            .expect_err("no such name");
        assert!(why.contains("no_such_name"), "{why}");
    }
}
