//! Finding libcuda, NVRTC and NCCL at run time: nothing of CUDA is needed to build, and what is missing is an error
//! with advice.
//!
//! cudarc loads the driver by itself once it is known to be there. NVRTC and NCCL are loaded here: cudarc does not look
//! for `libnccl.so.2`, the name that NCCL's packages and Python's wheels install, and panics where a library is absent.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cudarc::driver::sys::CUstream;
use cudarc::nccl::sys::{ncclComm_t, ncclConfig_t, ncclDataType_t, ncclResult_t, ncclUniqueId};
use cudarc::nvrtc::sys::{nvrtcProgram, nvrtcResult};
use libloading::Library;

use crate::error::{Error, GpuTrouble, Result};

/// Environment variable: folders, separated as in `PATH`, that are searched for libraries before the system's.
pub const FOLDERS: &str = "ALEXNET_SPLIT_LIBRARIES";

static OWN_FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Searches `folder` before all others; for programs that bring their own libraries. Only the first call counts, and
/// only before the first use of a GPU.
pub fn search_first(folder: &Path) {
    let _ = OWN_FOLDER.set(folder.to_owned());
}

macro_rules! function_table {
    ($(#[$doc:meta])* $name:ident { $($function:ident($($argument:ty),*) -> $result:ty;)* }) => {
        $(#[$doc])*
        #[allow(non_snake_case, missing_docs)] // C's names; documented where NVIDIA does
        pub struct $name {
            $(pub $function: unsafe extern "C" fn($($argument),*) -> $result,)*
            _library: Library,
        }

        impl $name {
            #[allow(non_snake_case)]
            fn from(library: Library) -> Result<Self, String> {
                // SAFETY: the types are those of the library's header, which are the same in all versions that have the
                // names.
                unsafe {
                    $(let $function = *library
                        .get(stringify!($function))
                        .map_err(|_| concat!("it has no function ", stringify!($function)))?;)*
                    Ok($name { $($function,)* _library: library })
                }
            }
        }
    };
}

function_table! {
    /// The functions of NVRTC that this program uses.
    Nvrtc {
        nvrtcVersion(*mut c_int, *mut c_int) -> nvrtcResult;
        nvrtcCreateProgram(*mut nvrtcProgram, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> nvrtcResult;
        nvrtcCompileProgram(nvrtcProgram, c_int, *const *const c_char) -> nvrtcResult;
        nvrtcGetCUBINSize(nvrtcProgram, *mut usize) -> nvrtcResult;
        nvrtcGetCUBIN(nvrtcProgram, *mut c_char) -> nvrtcResult;
        nvrtcGetProgramLogSize(nvrtcProgram, *mut usize) -> nvrtcResult;
        nvrtcGetProgramLog(nvrtcProgram, *mut c_char) -> nvrtcResult;
        nvrtcDestroyProgram(*mut nvrtcProgram) -> nvrtcResult;
    }
}

function_table! {
    /// The functions of NCCL that this program uses.
    Nccl {
        ncclGetVersion(*mut c_int) -> ncclResult_t;
        ncclGetUniqueId(*mut ncclUniqueId) -> ncclResult_t;
        ncclCommInitRankConfig(*mut ncclComm_t, c_int, ncclUniqueId, c_int, *mut ncclConfig_t) -> ncclResult_t;
        ncclCommGetAsyncError(ncclComm_t, *mut ncclResult_t) -> ncclResult_t;
        ncclCommAbort(ncclComm_t) -> ncclResult_t;
        ncclGroupStart() -> ncclResult_t;
        ncclGroupEnd() -> ncclResult_t;
        ncclSend(*const c_void, usize, ncclDataType_t, c_int, ncclComm_t, CUstream) -> ncclResult_t;
        ncclRecv(*mut c_void, usize, ncclDataType_t, c_int, ncclComm_t, CUstream) -> ncclResult_t;
        ncclGetErrorString(ncclResult_t) -> *const c_char;
        ncclGetLastError(ncclComm_t) -> *const c_char;
    }
}

/// Makes sure that the driver can be called.
pub fn driver() -> Result<()> {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    let present = PRESENT.get_or_init(|| {
        // One from the folders comes before the system's: once loaded it is found by its name.
        let own = from_folders(&["libcuda.so", "libcuda.so.1"]).ok();
        std::mem::forget(own);
        // SAFETY: loading the driver's library runs only its own initialization.
        unsafe { cudarc::driver::sys::is_culib_present() }
    });
    if *present {
        return Ok(());
    }
    let text = "no NVIDIA driver was found (libcuda); install it, or use --gpus 0 to run both streams on the CPU";
    Err(Error::gpu(GpuTrouble::NoDriver, text))
}

/// NVRTC, the compiler of kernels.
pub fn nvrtc() -> Result<&'static Nvrtc> {
    static LOADED: OnceLock<Result<Nvrtc, String>> = OnceLock::new();
    let loaded =
        LOADED.get_or_init(|| open(&["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]).and_then(Nvrtc::from));
    loaded.as_ref().map_err(|problem| {
        let text = format!(
            "NVRTC, the compiler of the kernels, cannot be loaded: {problem}; install the CUDA toolkit or `pip install nvidia-cuda-nvrtc`, \
             and name the folder of libnvrtc.so in LD_LIBRARY_PATH or {FOLDERS}"
        );
        Error::gpu(GpuTrouble::NoCompiler, text)
    })
}

/// NCCL, which carries activations between GPUs.
pub fn nccl() -> Result<&'static Nccl> {
    static LOADED: OnceLock<Result<Nccl, String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| open(&["libnccl.so.2", "libnccl.so"]).and_then(Nccl::from));
    loaded.as_ref().map_err(|problem| {
        let text = format!(
            "NCCL cannot be loaded: {problem}; install it (package libnccl2 or `pip install nvidia-nccl-cu13`), name the folder of libnccl.so.2 in \
             LD_LIBRARY_PATH or {FOLDERS}, or use --exchange copy"
        );
        Error::gpu(GpuTrouble::NoNccl, text)
    })
}

/// A message of NVRTC or NCCL, as text.
///
/// # Safety
/// `text` must be null or a C string that lives for the call.
pub unsafe fn c_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: by the function's contract.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
}

/// The first of `names` that loads: from the named folders, then from where the system looks, then from the toolkit.
fn open(names: &[&str]) -> Result<Library, String> {
    let mut problem = match from_folders(names) {
        Ok(library) => return Ok(library),
        Err(problem) => problem,
    };
    let toolkit = |name: &&str| format!("/usr/local/cuda/lib64/{name}");
    for name in names.iter().map(|name| name.to_string()).chain(names.iter().map(toolkit)) {
        match load(name.as_ref()) {
            Ok(library) => return Ok(library),
            Err(error) => problem.get_or_insert(error),
        };
    }
    Err(problem.unwrap_or_default())
}

/// The first of `names` in the named folders; the error is the first file's that is there and does not load.
fn from_folders(names: &[&str]) -> Result<Library, Option<String>> {
    let mut problem = None;
    let named = std::env::var_os(FOLDERS).unwrap_or_default();
    for folder in OWN_FOLDER.get().cloned().into_iter().chain(std::env::split_paths(&named)) {
        // NVRTC asks for its companion by name only, which is found if it is loaded already.
        let companions = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        for companion in companions.filter(|path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnvrtc-builtins.so"))
        }) {
            std::mem::forget(load(&companion));
        }
        for path in names.iter().map(|name| folder.join(name)).filter(|path| path.exists()) {
            match load(&path) {
                Ok(library) => return Ok(library),
                Err(error) => problem.get_or_insert(error),
            };
        }
    }
    Err(problem)
}

/// Loads a library so that others see its names.
fn load(path: &Path) -> Result<Library, String> {
    #[cfg(unix)]
    {
        use libloading::os::unix;
        // SAFETY: the libraries that are asked for run nothing but their own initialization.
        let library = unsafe { unix::Library::open(Some(path), unix::RTLD_NOW | unix::RTLD_GLOBAL) };
        library.map(Library::from).map_err(|error| explain(&error))
    }
    #[cfg(not(unix))]
    {
        // SAFETY: as above.
        unsafe { Library::new(path) }.map_err(|error| explain(&error))
    }
}

/// The loader's message, which is the error's source; the error itself only says that loading failed.
fn explain(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |source| source.to_string())
}
