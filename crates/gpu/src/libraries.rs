//! Finding libcuda, NVRTC and NCCL at run time: nothing of CUDA is needed to build, and what is missing is an error
//! with advice.
//!
//! cudarc calls the driver by itself once it is known to be there. NVRTC and NCCL are loaded here, since cudarc's loader
//! cannot be told which file to take (ARCHITECTURE.md says more); their types are cudarc's, and the compiler compares
//! each function's with cudarc's.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cudarc::nccl::sys::{cudaStream_t, ncclComm_t, ncclConfig_t, ncclDataType_t, ncclResult_t, ncclUniqueId};
use cudarc::nvrtc::sys::{nvrtcProgram, nvrtcResult};
use libloading::Library;

use crate::{Error, GpuTrouble, Result};

/// Environment variable: folders, separated as in `PATH`, that are searched for libraries before the system's.
pub const FOLDERS: &str = "ALEXNET_SPLIT_LIBRARIES";

static OWN_FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Searches `folder` before all others; for programs that bring their own libraries. Only the first call counts, and
/// only before the first use of a GPU.
pub fn search_first(folder: &Path) {
    let _ = OWN_FOLDER.set(folder.to_owned());
}

/// A function as this program calls it, in Rust's words: its name, its arguments' types and its result's.
pub type Signature = (&'static str, &'static [&'static str], &'static str);

macro_rules! function_table {
    ($(#[$doc:meta])* $name:ident of cudarc::$module:ident { $($function:ident($($argument:ty),*) -> $result:ty;)* }) => {
        $(#[$doc])*
        #[allow(non_snake_case, missing_docs)] // C's names; documented where NVIDIA does
        pub struct $name {
            $(pub $function: unsafe extern "C" fn($($argument),*) -> $result,)*
            _library: Library,
        }

        // Does not compile where cudarc's function has other types.
        const _: () = {
            $(let _: unsafe fn($($argument),*) -> $result = cudarc::$module::sys::$function;)*
        };

        impl $name {
            /// For comparing them with NVIDIA's headers and libraries: tests/abi.rs.
            pub const FUNCTIONS: &'static [Signature] =
                &[$((stringify!($function), &[$(stringify!($argument)),*], stringify!($result))),*];

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
    Nvrtc of cudarc::nvrtc {
        nvrtcVersion(*mut c_int, *mut c_int) -> nvrtcResult;
        nvrtcGetNumSupportedArchs(*mut c_int) -> nvrtcResult;
        nvrtcGetSupportedArchs(*mut c_int) -> nvrtcResult;
        nvrtcCreateProgram(*mut nvrtcProgram, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> nvrtcResult;
        nvrtcCompileProgram(nvrtcProgram, c_int, *const *const c_char) -> nvrtcResult;
        nvrtcGetCUBINSize(nvrtcProgram, *mut usize) -> nvrtcResult;
        nvrtcGetCUBIN(nvrtcProgram, *mut c_char) -> nvrtcResult;
        nvrtcGetPTXSize(nvrtcProgram, *mut usize) -> nvrtcResult;
        nvrtcGetPTX(nvrtcProgram, *mut c_char) -> nvrtcResult;
        nvrtcGetProgramLogSize(nvrtcProgram, *mut usize) -> nvrtcResult;
        nvrtcGetProgramLog(nvrtcProgram, *mut c_char) -> nvrtcResult;
        nvrtcDestroyProgram(*mut nvrtcProgram) -> nvrtcResult;
    }
}

function_table! {
    /// The functions of NCCL that this program uses.
    Nccl of cudarc::nccl {
        ncclGetVersion(*mut c_int) -> ncclResult_t;
        ncclGetUniqueId(*mut ncclUniqueId) -> ncclResult_t;
        ncclCommInitRankConfig(*mut ncclComm_t, c_int, ncclUniqueId, c_int, *mut ncclConfig_t) -> ncclResult_t;
        ncclCommGetAsyncError(ncclComm_t, *mut ncclResult_t) -> ncclResult_t;
        ncclCommAbort(ncclComm_t) -> ncclResult_t;
        ncclGroupStart() -> ncclResult_t;
        ncclGroupEnd() -> ncclResult_t;
        ncclSend(*const c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> ncclResult_t;
        ncclRecv(*mut c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> ncclResult_t;
        ncclGetErrorString(ncclResult_t) -> *const c_char;
        ncclGetLastError(ncclComm_t) -> *const c_char;
    }
}

/// Makes sure that the driver can be called.
pub fn driver() -> Result<()> {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    let present = PRESENT.get_or_init(|| {
        // One from the folders comes before the system's: once loaded it is found by its name.
        let own = ["libcuda.so", "libcuda.so.1"].map(str::to_owned);
        let own = from_folders(&named_folders(), &own).find_map(Result::ok);
        std::mem::forget(own);
        // SAFETY: loading the driver's library runs only its own initialization.
        unsafe { cudarc::driver::sys::is_culib_present() }
    });
    if *present {
        return Ok(());
    }
    let text = "no NVIDIA driver was found (libcuda); install it, or use --gpus 0 to run both streams on the CPU";
    Err(Error::new(GpuTrouble::NoDriver, text))
}

/// CUDA's newest major version that is known, and the oldest whose libraries are used.
const CUDA: [i32; 2] = [13, 12];

/// The major version of CUDA that the driver is made for; `None` where there is no driver.
pub fn driver_major() -> Option<i32> {
    driver().ok()?;
    let mut version = 0;
    // SAFETY: a place to write to.
    unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut version) }.result().ok()?;
    Some(version / 1000)
}

/// Python's package of NVRTC for a major version of CUDA.
pub fn nvrtc_package(cuda: i32) -> String {
    if cuda < 13 { format!("nvidia-cuda-nvrtc-cu{cuda}") } else { format!("'nvidia-cuda-nvrtc=={cuda}.*'") }
}

/// NVRTC, the compiler of kernels: that of the driver's own major version of CUDA, else an older one. A driver does not
/// take machine code of a newer one.
pub fn nvrtc() -> Result<&'static Nvrtc> {
    static LOADED: OnceLock<Result<Nvrtc, String>> = OnceLock::new();
    let newest = driver_major().unwrap_or(CUDA[0]);
    let loaded = LOADED.get_or_init(|| {
        let versions = (CUDA[1]..=newest).rev().map(|major| format!("libnvrtc.so.{major}"));
        open(&versions.chain(["libnvrtc.so".into()]).collect::<Vec<_>>()).and_then(Nvrtc::from)
    });
    loaded.as_ref().map_err(|problem| {
        let text = format!(
            "NVRTC, the compiler of the kernels, cannot be loaded: {problem}; install the CUDA toolkit or `pip install {}`, \
             and name the folder of libnvrtc.so in LD_LIBRARY_PATH or {FOLDERS}",
            nvrtc_package(newest)
        );
        Error::new(GpuTrouble::NoCompiler, text)
    })
}

/// NCCL, which carries activations between GPUs.
pub fn nccl() -> Result<&'static Nccl> {
    static LOADED: OnceLock<Result<Nccl, String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| open(&["libnccl.so.2".into(), "libnccl.so".into()]).and_then(Nccl::from));
    loaded.as_ref().map_err(|problem| {
        let text = format!(
            "NCCL cannot be loaded: {problem}; install it (package libnccl2 or `pip install nvidia-nccl-cu{}`), name the folder of libnccl.so.2 in \
             LD_LIBRARY_PATH or {FOLDERS}, or use --exchange copy",
            driver_major().unwrap_or(CUDA[0])
        );
        Error::new(GpuTrouble::NoNccl, text)
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
fn open(names: &[String]) -> Result<Library, String> {
    let folders = named_folders();
    let mut problem = None;
    let from_system = || names.iter().map(|name| load(name.as_ref()));
    let toolkit = [PathBuf::from("/usr/local/cuda/lib64")];
    for opened in from_folders(&folders, names).chain(from_system()).chain(from_folders(&toolkit, names)) {
        match opened {
            Ok(library) => return Ok(library),
            Err(error) => problem.get_or_insert(error),
        };
    }
    Err(problem.unwrap_or_default())
}

/// The folders that are named to be searched.
fn named_folders() -> Vec<PathBuf> {
    let named = std::env::var_os(FOLDERS).unwrap_or_default();
    OWN_FOLDER.get().cloned().into_iter().chain(std::env::split_paths(&named)).collect()
}

/// Those of `names` that are in the folders, opened.
fn from_folders(folders: &[PathBuf], names: &[String]) -> impl Iterator<Item = Result<Library, String>> {
    let paths = folders.iter().flat_map(|folder| names.iter().map(move |name| (folder, folder.join(name))));
    paths.filter(|(_, path)| path.exists()).map(|(folder, path)| {
        // NVRTC asks for its companion by name only, which is found if it is loaded already.
        let companions = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        for companion in companions.filter(|path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnvrtc-builtins.so"))
        }) {
            std::mem::forget(load(&companion));
        }
        load(&path)
    })
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
