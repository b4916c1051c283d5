//! The software device of tests/softgpu with this interpreter in it: `CudaBackend` is used as it is, with NVIDIA's own
//! NVRTC, and each kernel that it launches is run from its PTX.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use alexnet_split::backend::Precision;
use alexnet_split::backend::cuda::compiler::Target;
use alexnet_split::backend::cuda::device::Gpu;
use alexnet_split::backend::cuda::kernels::Kernels;
use alexnet_split::backend::cuda::watch::Watch;
use alexnet_split::backend::cuda::{CudaBackend, libraries, sources};
use libloading::Library;
use rayon::prelude::*;

use crate::support::softgpu;
use alexnet_split_ptx::counts::Counts;
use alexnet_split_ptx::machine::Launch;
use alexnet_split_ptx::memory::{Buffer, Global};
use alexnet_split_ptx::parse::{self, Kernel};

/// Instructions that a warp may run up to a barrier: more than any kernel here needs.
const LIMIT: u64 = 100_000_000;

/// Environment variable: 1 where a missing NVRTC is a failure.
const REQUIRED: &str = "ALEXNET_SPLIT_REQUIRE_NVRTC";

/// A launch that can be repeated: its kernel, sizes and arguments, and the memory that they point to, before and after.
#[derive(Clone)]
pub struct Recorded {
    pub kernel: Kernel,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub parameters: Vec<u8>,
    pub before: Vec<(u64, Vec<u8>)>,
    pub after: Vec<(u64, Vec<u8>)>,
}

/// What a backend has launched.
#[derive(Default)]
pub struct Log {
    /// Of all launches, by kernel.
    pub counts: BTreeMap<String, Counts>,
    /// The first mistakes.
    pub faults: Vec<String>,
    /// Each launch, where that is asked for.
    pub launches: Option<Vec<Recorded>>,
}

impl Log {
    fn locked(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
        log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A kernel as the software device lists it; `run` is null.
#[repr(C)]
struct Header {
    name: *const c_char,
    run: *const c_void,
    argument_bytes: *const usize,
    argument_count: usize,
}

/// tests/softgpu/interpreter.h has the same.
#[repr(C)]
struct Interpreter {
    load: extern "C" fn(*const c_char) -> *const Header,
    launch: extern "C" fn(*const Header, *const [u32; 3], *const [u32; 3], *const *const u8) -> *const c_char,
}

static INTERPRETER: Interpreter = Interpreter { load, launch };

/// Every kernel that was loaded, by its header's address, and the log of its backend.
static LOADED: Mutex<BTreeMap<usize, Loaded>> = Mutex::new(BTreeMap::new());
type Loaded = (Arc<Kernel>, Arc<Mutex<Log>>);

thread_local! {
    /// Of the modules that this thread loads.
    static LOG: RefCell<Arc<Mutex<Log>>> = RefCell::default();
}

extern "C" fn load(text: *const c_char) -> *const Header {
    // SAFETY: the text of a module ends with a zero.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let kernels = match parse::parse(&text) {
        Ok(kernels) => kernels,
        Err(problem) => {
            LOG.with_borrow(|log| Log::locked(log).faults.push(problem));
            return std::ptr::null();
        }
    };
    let header = |kernel: &Kernel| Header {
        name: CString::new(kernel.name.clone()).unwrap().into_raw(),
        run: std::ptr::null(),
        argument_bytes: kernel.parameters.iter().map(|parameter| parameter.bytes).collect::<Vec<_>>().leak().as_ptr(),
        argument_count: kernel.parameters.len(),
    };
    let last =
        Header { name: std::ptr::null(), run: std::ptr::null(), argument_bytes: std::ptr::null(), argument_count: 0 };
    // Modules live as long as the process.
    let headers: &'static [Header] = kernels.iter().map(header).chain([last]).collect::<Vec<_>>().leak();
    let mut loaded = LOADED.lock().unwrap();
    for (header, kernel) in headers.iter().zip(kernels) {
        let log = LOG.with_borrow(Arc::clone);
        loaded.insert(std::ptr::from_ref(header).addr(), (Arc::new(kernel), log));
    }
    headers.as_ptr()
}

extern "C" fn launch(
    header: *const Header,
    grid: *const [u32; 3],
    block: *const [u32; 3],
    arguments: *const *const u8,
) -> *const c_char {
    static MESSAGE: Mutex<Option<CString>> = Mutex::new(None);
    let (kernel, log) = LOADED.lock().unwrap()[&header.addr()].clone();
    // SAFETY: the device passes sizes, and as many arguments as the kernel has, each of its parameter's bytes.
    let (grid, block, arguments) =
        unsafe { (*grid, *block, std::slice::from_raw_parts(arguments, kernel.parameters.len())) };
    let size = kernel.parameters.last().map_or(0, |last| last.offset + last.bytes);
    let mut parameters = vec![0; size];
    for (parameter, &argument) in kernel.parameters.iter().zip(arguments) {
        // SAFETY: as above.
        let bytes = unsafe { std::slice::from_raw_parts(argument, parameter.bytes) };
        parameters[parameter.offset..][..parameter.bytes].copy_from_slice(bytes);
    }
    let buffers = buffers(&kernel, &parameters);
    let before = Log::locked(&log).launches.is_some().then(|| copies(&buffers));
    // SAFETY: allocations of the device, which waits for this launch before it does anything else with them.
    let global = buffers.iter().map(|&(address, bytes)| unsafe { Buffer::new(address, bytes, address as *mut u8) });
    let global = Global::new(global.collect());
    let ran = Launch { kernel: &kernel, grid, block, parameters: &parameters, global: &global, limit: LIMIT }.run();
    let mut log = Log::locked(&log);
    match ran {
        Ok(counts) => {
            if let (Some(launches), Some(before)) = (&mut log.launches, before) {
                let after = copies(&buffers);
                launches.push(Recorded { kernel: Kernel::clone(&kernel), grid, block, parameters, before, after });
            }
            log.counts.entry(kernel.name.clone()).and_modify(|all| *all += &counts).or_insert(counts);
            std::ptr::null()
        }
        Err(fault) => {
            log.faults.push(fault.to_string());
            MESSAGE.lock().unwrap().insert(CString::new(fault.to_string()).unwrap()).as_ptr()
        }
    }
}

/// The allocations that the arguments point to: address and bytes. A kernel may use no other memory.
fn buffers(kernel: &Kernel, parameters: &[u8]) -> Vec<(u64, usize)> {
    let pointers = kernel.parameters.iter().filter(|parameter| parameter.bytes == 8).map(|parameter| {
        let bytes = &parameters[parameter.offset..][..8];
        u64::from_le_bytes(bytes.try_into().unwrap())
    });
    let mut buffers: Vec<(u64, usize)> = pointers.filter_map(allocation).collect();
    buffers.sort_unstable();
    buffers.dedup();
    buffers
}

fn allocation(address: u64) -> Option<(u64, usize)> {
    let (mut start, mut bytes) = (0, 0);
    let device = device().expect("its kernel is running");
    // SAFETY: the function's type is that of tests/softgpu/interpreter.cpp; two places to write to.
    let found = unsafe {
        let find = device.library.get::<unsafe extern "C" fn(u64, *mut u64, *mut usize) -> bool>("softgpu_allocation");
        find.unwrap()(address, &mut start, &mut bytes)
    };
    found.then_some((start, bytes))
}

fn copies(buffers: &[(u64, usize)]) -> Vec<(u64, Vec<u8>)> {
    // SAFETY: live allocations, see `launch`.
    let copy =
        |&(address, bytes)| (address, unsafe { std::slice::from_raw_parts(address as *const u8, bytes) }.to_vec());
    buffers.iter().map(copy).collect()
}

struct Device {
    library: Library,
}

/// The software device with the interpreter; `None`, with a printed line, where something to make it is missing.
fn device() -> Option<&'static Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    DEVICE.get_or_init(open).as_ref()
}

fn open() -> Option<Device> {
    let required = std::env::var(REQUIRED).is_ok_and(|value| value == "1");
    let Some(nvrtc) = nvrtc_folder() else {
        assert!(!required, "no NVRTC in target/nvrtc, and {REQUIRED} is 1; scripts/check-kernels.sh gets it");
        eprintln!("skipped: no NVRTC in target/nvrtc; scripts/check-kernels.sh gets it");
        return None;
    };
    let softgpu = softgpu::folder();
    assert!(softgpu.is_some() || !required, "no C++ compiler, and {REQUIRED} is 1");
    // One folder with the software device's driver and NVIDIA's compiler.
    let folder = tempfile::tempdir().unwrap().keep();
    let link = |from: &Path| std::os::unix::fs::symlink(from, folder.join(from.file_name().unwrap())).unwrap();
    link(&softgpu?.join("libcuda.so"));
    for file in std::fs::read_dir(nvrtc).unwrap().map(|entry| entry.unwrap().path()) {
        link(&file);
    }
    libraries::search_first(&folder);
    libraries::nvrtc().unwrap();
    libraries::driver().unwrap();
    // SAFETY: the library is loaded already, and the function's type is that of tests/softgpu/interpreter.cpp.
    let library = unsafe {
        let library = Library::new(folder.join("libcuda.so")).unwrap();
        library.get::<unsafe extern "C" fn(&'static Interpreter)>("softgpu_interpret").unwrap()(&INTERPRETER);
        library
    };
    std::fs::remove_dir_all(folder).unwrap();
    Some(Device { library })
}

/// Where scripts/check-kernels.sh puts NVRTC.
fn nvrtc_folder() -> Option<PathBuf> {
    let python = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/nvrtc/lib")).ok()?;
    let mut folders = python.flatten().map(|entry| entry.path().join("site-packages/nvidia/cu13/lib"));
    folders.find(|folder| folder.join("libnvrtc.so.13").exists())
}

/// The PTX of each of the kernels' files, in their order; `None` where it cannot be made here.
pub fn texts(precision: Precision) -> Option<&'static [Vec<u8>]> {
    static TEXTS: [OnceLock<Vec<Vec<u8>>>; 3] = [const { OnceLock::new() }; 3];
    device()?;
    let compile = |&source: &_| sources::program(source, precision).compile_to_ptx(Target::OLDEST).unwrap();
    Some(TEXTS[precision as usize].get_or_init(|| Kernels::sources(precision).par_iter().map(compile).collect()))
}

/// A stream on the device.
pub fn backend(precision: Precision) -> Option<(CudaBackend, Arc<Mutex<Log>>)> {
    let texts = texts(precision)?.to_vec();
    let log = Arc::<Mutex<Log>>::default();
    LOG.set(log.clone());
    let gpu = Gpu::open(0).unwrap();
    let kernels = Kernels::from_codes(&gpu, precision, texts);
    let kernels = kernels.unwrap_or_else(|error| panic!("{error}\n{}", Log::locked(&log).faults.join("\n")));
    Some((CudaBackend::new(gpu, Arc::new(kernels), Watch::new(0, Duration::from_secs(600))).unwrap(), log))
}
