//! NVIDIA's run-time compiler NVRTC, loaded at run time.

use libloading::{Library, Symbol};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

/// The bits of the results depend on these: no contraction, subnormals kept, exact division and square root.
const OPTIONS: [&str; 5] = [
    "--std=c++17",
    "--fmad=false",
    "--ftz=false",
    "--prec-div=true",
    "--prec-sqrt=true",
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
        let mut version = [0; 2];
        let [major, minor] = &mut version;
        // SAFETY: the type is that of NVRTC's header, which writes two numbers.
        let code = unsafe {
            let f: Symbol<'_, Version> = symbol(&library, "nvrtcVersion")?;
            f(major, minor)
        };
        if code != 0 {
            return Err(format!("nvrtcVersion returned error {code}"));
        }
        if version < OLDEST {
            let [major, minor] = version;
            return Err(format!(
                "expected NVRTC 11.2 or later, found {major}.{minor}"
            ));
        }
        Ok(Self { library, version })
    }

    /// Everything but the source that the compiled kernels depend on.
    pub fn signature(&self, target: Target) -> String {
        format!("NVRTC {:?} {OPTIONS:?} {target:?}", self.version)
    }

    /// The target for a GPU of this compute capability.
    pub fn target(&self, capability: u32) -> Result<Target, String> {
        let mut count = 0;
        self.call("nvrtcGetNumSupportedArchs", &mut count)?;
        let mut known = vec![0; usize::try_from(count).unwrap_or_default()];
        // SAFETY: the type is that of NVRTC's header, which writes `count` numbers.
        let code = unsafe {
            let f: Symbol<'_, Numbers> = symbol(&self.library, "nvrtcGetSupportedArchs")?;
            f(known.as_mut_ptr())
        };
        self.check(code)?;
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
        let architecture = format!("--gpu-architecture={architecture}");
        let options = OPTIONS.iter().copied().chain([architecture.as_str()]);
        let options: Result<Vec<_>, _> = options.map(CString::new).collect();
        let options = options.map_err(|e| e.to_string())?;
        let options: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program: Program = ptr::null_mut();
        // SAFETY: the type is that of NVRTC's header; the source is a C string, and there are no headers.
        let code = unsafe {
            let f: Symbol<'_, Create> = symbol(&self.library, "nvrtcCreateProgram")?;
            let name = c"foretoken.cu".as_ptr();
            f(
                &mut program,
                source.as_ptr(),
                name,
                0,
                ptr::null(),
                ptr::null(),
            )
        };
        self.check(code)?;
        let program = Compiling {
            nvrtc: self,
            program,
        };
        // SAFETY: the type is that of NVRTC's header; the program exists, and `options` has that many C strings.
        let code = unsafe {
            let f: Symbol<'_, Compile> = symbol(&self.library, "nvrtcCompileProgram")?;
            f(program.program, options.len() as c_int, options.as_ptr())
        };
        if let Err(why) = self.check(code) {
            let log = program.fetch("nvrtcGetProgramLogSize", "nvrtcGetProgramLog")?;
            let log = String::from_utf8_lossy(&log);
            let log = log.trim_end_matches('\0').trim();
            return Err(format!("the kernels do not compile: {why}\n{log}"));
        }
        program.fetch(size, data)
    }

    /// Calls a function that writes one number.
    fn call(&self, name: &str, number: &mut c_int) -> Result<(), String> {
        // SAFETY: the type is that of NVRTC's header, which writes one number.
        let code = unsafe {
            let f: Symbol<'_, Numbers> = symbol(&self.library, name)?;
            f(number)
        };
        self.check(code)
    }

    fn check(&self, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the type is that of NVRTC's header, which returns a static C string.
        let text = unsafe {
            let f: Symbol<'_, Text> = symbol(&self.library, "nvrtcGetErrorString")?;
            CStr::from_ptr(f(code))
        };
        Err(text.to_string_lossy().into_owned())
    }
}

/// A program that is being compiled.
struct Compiling<'n> {
    nvrtc: &'n Nvrtc,
    program: Program,
}

impl Compiling<'_> {
    /// The bytes that one function counts and another one writes.
    fn fetch(&self, size: &str, data: &str) -> Result<Vec<u8>, String> {
        let library = &self.nvrtc.library;
        let mut bytes = 0;
        // SAFETY: the type is that of NVRTC's header; the program exists, and one number is written.
        let code = unsafe {
            let f: Symbol<'_, Size> = symbol(library, size)?;
            f(self.program, &mut bytes)
        };
        self.nvrtc.check(code)?;
        let mut buffer = vec![0_u8; bytes];
        // SAFETY: the type is that of NVRTC's header; the buffer has the size that NVRTC reported.
        let code = unsafe {
            let f: Symbol<'_, Data> = symbol(library, data)?;
            f(self.program, buffer.as_mut_ptr().cast())
        };
        self.nvrtc.check(code)?;
        Ok(buffer)
    }
}

impl Drop for Compiling<'_> {
    fn drop(&mut self) {
        // SAFETY: the type is that of NVRTC's header; no other use of the program is left.
        unsafe {
            if let Ok(f) = symbol::<Destroy>(&self.nvrtc.library, "nvrtcDestroyProgram") {
                f(&mut self.program);
            }
        }
    }
}

/// A function of the library.
///
/// # Safety
/// `F` is its type.
unsafe fn symbol<'l, F>(library: &'l Library, name: &str) -> Result<Symbol<'l, F>, String> {
    // SAFETY: the caller's.
    let found = unsafe { library.get::<F>(name) };
    found.map_err(|why| format!("NVRTC has no {name}: {why}"))
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
            let image = nvrtc.compile(&source, target).expect("sound kernels");
            assert_eq!(image[..4], *b"\x7fELF");
        }
        // Newer than any GPU that this version knows.
        let target = nvrtc.target(999).expect("a virtual target");
        assert!(matches!(target, Target::Virtual(_)));
        let text = nvrtc.compile(&source, target).expect("sound kernels");
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
