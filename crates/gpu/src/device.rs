//! GPUs: finding them, opening one, and its memory.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream};

use crate::compiler::Target;
use crate::{Error, GpuTrouble, Result, libraries};

/// Oldest driver, as CUDA version: the bindings are made for it.
const OLDEST_DRIVER: i32 = 12000;

/// The facts of a GPU that are known without using it.
#[derive(Clone, Debug)]
pub struct GpuInfo {
    /// Its number, from 0, among those that CUDA_VISIBLE_DEVICES shows.
    pub ordinal: usize,
    /// "NVIDIA H200"
    pub name: String,
    /// Compute capability.
    pub target: Target,
    /// Multiprocessors.
    pub processors: usize,
    /// Memory.
    pub total_bytes: usize,
}

impl fmt::Display for GpuInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = self.total_bytes as f64 / f64::from(1 << 30);
        write!(f, "GPU {}: {}, {gib:.0} GiB", self.ordinal, self.name)
    }
}

/// The driver's version as it counts CUDA's: 13000 for 13.0.
///
/// Fails where there is no driver or it is too old.
pub fn driver_version() -> Result<i32> {
    libraries::driver()?;
    let mut version = 0;
    // SAFETY: a place to write to.
    let asked = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    asked.map_err(|error| no_driver(&error))?;
    if version < OLDEST_DRIVER {
        let text =
            format!("the NVIDIA driver supports CUDA {}, this program needs 12.0; update the driver", show(version));
        return Err(Error::new(GpuTrouble::NoDriver, text));
    }
    Ok(version)
}

/// 13000 as "13.0".
pub fn show(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// All GPUs; none is not an error, a driver that does not answer is.
pub fn list() -> Result<Vec<GpuInfo>> {
    driver_version()?;
    match result::init() {
        Ok(()) => {}
        Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => return Ok(Vec::new()),
        Err(error) => return Err(no_driver(&error)),
    }
    let count = result::device::get_count().map_err(|error| no_driver(&error))?;
    (0..count).map(info).collect::<Result<_, DriverError>>().map_err(|error| no_driver(&error))
}

fn info(ordinal: i32) -> Result<GpuInfo, DriverError> {
    let device = result::device::get(ordinal)?;
    let number = |attribute| {
        // SAFETY: the device is one that the driver named.
        unsafe { result::device::get_attribute(device, attribute) }.map(|value| value as u32)
    };
    Ok(GpuInfo {
        ordinal: ordinal as usize,
        name: result::device::get_name(device)?,
        target: Target {
            major: number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            minor: number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        },
        processors: number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
        // SAFETY: as above.
        total_bytes: unsafe { result::device::total_mem(device) }?,
    })
}

fn no_driver(error: &DriverError) -> Error {
    let text = format!("the NVIDIA driver does not work: {}; try nvidia-smi, or use --gpus 0", describe(error));
    Error::new(GpuTrouble::NoDriver, text)
}

/// The name and the text of a CUDA error.
pub fn describe(error: &DriverError) -> String {
    let name = error.error_name().map_or("unknown error".into(), |name| name.to_string_lossy().into_owned());
    let text = error.error_string().map_or(String::new(), |text| format!(" ({})", text.to_string_lossy()));
    format!("{name}{text}")
}

/// A GPU in use. Streams of one process on the same GPU share it.
#[derive(Clone, Debug)]
pub struct Gpu {
    info: Arc<GpuInfo>,
    context: Arc<CudaContext>,
}

impl Gpu {
    /// Opens GPU `ordinal`.
    ///
    /// Fails where there is none, or it is too old.
    pub fn open(ordinal: usize) -> Result<Gpu> {
        let all = list()?;
        let Some(info) = all.get(ordinal).cloned() else {
            let text = format!(
                "GPU {ordinal} was asked for, the driver shows {}; use --gpus 1 or --gpus 0, or see CUDA_VISIBLE_DEVICES",
                all.len()
            );
            return Err(Error::new(GpuTrouble::TooFewGpus, text));
        };
        if (info.target.major, info.target.minor) < (Target::OLDEST.major, Target::OLDEST.minor) {
            let text = format!(
                "{info} has compute capability {}.{}; the kernels need {}.{} (Ampere, 2020) or newer; use --gpus 0",
                info.target.major,
                info.target.minor,
                Target::OLDEST.major,
                Target::OLDEST.minor
            );
            return Err(Error::new(GpuTrouble::TooOld, text));
        }
        let context = CudaContext::new(ordinal);
        let context = context.map_err(|error| failed(&info.to_string(), "cannot be opened", &error))?;
        // Orders between streams are made by hand, one event each: see the exchanges.
        // SAFETY: no memory of the crate's own type is used, which is what its tracking is about.
        unsafe { context.disable_event_tracking() };
        Ok(Gpu { info: Arc::new(info), context })
    }

    /// The facts about it.
    pub fn info(&self) -> &GpuInfo {
        &self.info
    }

    /// Its context.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// A queue of work.
    pub fn queue(&self) -> Result<Arc<CudaStream>> {
        self.check("a new stream", self.context.new_stream())
    }

    /// A queue whose work goes before that of the others, as soon as a multiprocessor is free: the other GPU waits for it.
    pub fn urgent_queue(&self) -> Result<Arc<CudaStream>> {
        let range = self.context.bind_to_thread().and_then(|()| result::stream::get_priority_range());
        let queue = range.and_then(|(_, greatest)| self.context.new_stream_with_priority(greatest));
        self.check("a new stream", queue)
    }

    /// Refuses tensors of more values than kernels count, in 31 bits.
    pub fn countable(&self, elems: usize) -> Result<()> {
        if elems < 1 << 31 {
            return Ok(());
        }
        let text = format!("a tensor of {elems} values is too large for the kernels; use a smaller --batch-size");
        Err(Error::new(GpuTrouble::OutOfMemory, text))
    }

    /// Memory for `elems` values, not yet set.
    pub fn alloc(&self, elems: usize) -> Result<Buffer> {
        self.countable(elems)?;
        let bytes = elems.max(1) * size_of::<f32>();
        let allocated = self.context.bind_to_thread().and_then(|()| {
            // SAFETY: the memory is freed once, by the buffer.
            unsafe { result::malloc_sync(bytes) }
        });
        match allocated {
            Ok(address) => Ok(Buffer { address, elems, context: self.context.clone() }),
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let (free, total) = result::mem_get_info().unwrap_or_default();
                let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
                let text = format!(
                    "{}: out of memory: {:.2} GiB more needed, {:.2} of {:.2} GiB free; use a smaller --batch-size or two GPUs",
                    self.info,
                    gib(bytes),
                    gib(free),
                    gib(total)
                );
                Err(Error::new(GpuTrouble::OutOfMemory, text))
            }
            Err(error) => Err(failed(&self.info.to_string(), "an allocation", &error)),
        }
    }

    /// Host memory that the GPU reaches by itself, so that copies need not wait.
    pub fn alloc_pinned(&self, elems: usize) -> Result<Pinned> {
        let bytes = elems.max(1) * size_of::<f32>();
        // Not write-combined: the CPU reads it too.
        let allocated = self.context.bind_to_thread().and_then(|()| {
            // SAFETY: freed once, by `Pinned`.
            unsafe { result::malloc_host(bytes, 0) }
        });
        let address = self.check("an allocation of pinned host memory", allocated)?;
        Ok(Pinned { address: address.cast(), elems, copied: None, context: self.context.clone() })
    }

    /// Turns a CUDA error into one that names the GPU and what it was doing.
    pub fn check<T>(&self, doing: &str, result: Result<T, DriverError>) -> Result<T> {
        result.map_err(|error| failed(&self.info.to_string(), doing, &error))
    }
}

fn failed(gpu: &str, doing: &str, error: &DriverError) -> Error {
    let text = format!("{gpu}: {doing} failed: {}; see `doctor`", describe(error));
    Error::new(GpuTrouble::Failed, text)
}

/// Device memory holding f32 values.
#[derive(Debug)]
pub struct Buffer {
    address: u64,
    elems: usize,
    context: Arc<CudaContext>,
}

impl Buffer {
    /// Its address on the device.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Values.
    pub fn elems(&self) -> usize {
        self.elems
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.elems * size_of::<f32>()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated by `Gpu::alloc`; freeing waits for all work of the device.
        let freed = self.context.bind_to_thread().and_then(|()| unsafe { result::free_sync(self.address) });
        if let Err(error) = freed {
            tracing::debug!("freeing device memory: {}", describe(&error));
        }
    }
}

/// Page-locked host memory.
#[derive(Debug)]
pub struct Pinned {
    address: *mut f32,
    elems: usize,
    /// After the newest copy from or to it.
    copied: Option<CudaEvent>,
    context: Arc<CudaContext>,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Values.
    pub fn elems(&self) -> usize {
        self.elems
    }

    /// A copy from or to it was queued and is done at `event`; until then the memory is neither used nor freed.
    pub fn busy_until(&mut self, event: CudaEvent) {
        self.copied = Some(event);
    }

    /// After the newest copy; `None` before the first.
    pub fn copied(&self) -> Option<&CudaEvent> {
        self.copied.as_ref()
    }

    /// The memory. The caller makes sure that no copy to it is in progress.
    pub fn values(&self) -> &[f32] {
        // SAFETY: allocated with this size; any bits are an f32.
        unsafe { std::slice::from_raw_parts(self.address, self.elems) }
    }

    /// The memory. The caller makes sure that no copy to or from it is in progress.
    pub fn values_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.address, self.elems) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.copied.as_ref().is_some_and(|copied| !copied.is_complete()) {
            // The run has failed on the way. Waiting might take for ever; the process's end frees it.
            return;
        }
        // SAFETY: allocated by `Gpu::alloc_pinned`, and no copy uses it any more.
        let freed = self.context.bind_to_thread().and_then(|()| unsafe { result::free_host(self.address.cast()) });
        if let Err(error) = freed {
            tracing::debug!("freeing pinned memory: {}", describe(&error));
        }
    }
}

/// Lets `gpu` read `other`'s memory.
///
/// Fails where the machine does not allow it.
pub fn enable_peer_access(gpu: &Gpu, other: &Gpu) -> Result<()> {
    if gpu.info.ordinal == other.info.ordinal {
        return Ok(());
    }
    if !can_access_peer(gpu.info.ordinal, other.info.ordinal) {
        let text = format!(
            "GPU {} cannot read the memory of GPU {} on this machine; use --exchange nccl, which goes through the host",
            gpu.info.ordinal, other.info.ordinal
        );
        return Err(Error::new(GpuTrouble::NoPeerAccess, text));
    }
    let enabled = gpu.context.bind_to_thread().and_then(|()| {
        // SAFETY: a context that lives as long as `other`, which the exchange keeps.
        unsafe { sys::cuCtxEnablePeerAccess(other.context.cu_ctx(), 0) }.result()
    });
    match enabled {
        Err(DriverError(CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED)) => Ok(()),
        result => gpu.check("peer access", result),
    }
}

/// Whether one GPU can read another's memory; the driver must be known to work.
pub fn can_access_peer(ordinal: usize, other: usize) -> bool {
    let mut can = 0;
    let devices = result::device::get(ordinal as i32).and_then(|gpu| Ok((gpu, result::device::get(other as i32)?)));
    let asked = devices.and_then(|(gpu, other)| {
        // SAFETY: a place to write to and devices that the driver named.
        unsafe { sys::cuDeviceCanAccessPeer(&mut can, gpu, other) }.result()
    });
    asked.is_ok() && can != 0
}
