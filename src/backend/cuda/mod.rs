//! NVIDIA GPUs: every operation is a kernel of `kernels/`, queued on one CUDA stream; copies to and from the host go
//! through page-locked memory, so that nothing waits but [`Backend::finish_read`].

pub mod bf16;
mod exact;
pub mod kernels;
mod operations;
mod product;
pub mod sources;
mod staging;
pub mod watch;

pub use alexnet_split_gpu::{compiler, device, libraries};

use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, CudaFunction, CudaStream, DeviceRepr, result};

use self::device::{Buffer, Gpu};
use self::kernels::{Bf16, Kernels, Split};
use self::staging::Staging;
use self::watch::Watch;
use super::*;

/// Queues the kernel of this name; the values that follow the grid are its parameters, in their order.
macro_rules! launch {
    ($me:ident, $kernels:ident.$kernel:ident, $grid:expr, $($value:expr),*) => {
        $me.launch_kernel(stringify!($kernel), &$kernels.$kernel, $grid, [$(arg(&$value.value())),*])
    };
}
use launch;

/// Operations that are one launch of the kernel of their name: the struct that it takes for their shape, their buffers, and
/// its threads in all and in a block.
macro_rules! launches {
    ($($name:ident($shape:ident: $kind:ty as $struct:ty, $n:ident, $($buffer:ident: $type:ty),*) over $threads:expr, $block:expr;)*) => {
        $(pub(in crate::backend::cuda) fn $name(
            &self,
            me: &CudaBackend,
            $shape: &$kind,
            $n: usize,
            $($buffer: $type),*
        ) -> Result<()> {
            launch!(me, self.$name, Grid::over($threads, $block), <$struct>::new($shape, $n), $($buffer),*)
        })*
    };
}
use launches;

/// Bytes of a [`Window`] as the kernel reads it.
const WINDOW_BYTES: usize = 7 * size_of::<u32>();

/// Scores of an image: its loss and its label's rank.
const SCORES: usize = 2;

/// Bytes of a batch's images, which kernels count in 32 bits.
const MOST_BYTES: u64 = u32::MAX as u64;

/// Device buffers for what operations take from the host; see [`Backend::reserve`]. Images have two that take turns: the
/// next batch is uploaded while the device computes with the last one.
#[derive(Default)]
struct BatchBuffers {
    labels: Option<Buffer>,
    images: [ImageBuffers; 2],
    next: usize,
}

#[derive(Default)]
struct ImageBuffers {
    pixels: Option<Buffer>,
    windows: Option<Buffer>,
    /// After their last use.
    used: Option<Arc<CudaEvent>>,
}

/// One stream's GPU.
pub struct CudaBackend {
    gpu: Gpu,
    kernels: Arc<Kernels>,
    /// The queue of the stream's operations.
    queue: Arc<CudaStream>,
    /// The queue on which images come from the host.
    uploads: Arc<CudaStream>,
    staging: Mutex<Staging>,
    /// Partial sums of products.
    partials: Mutex<Option<Buffer>>,
    /// The batch as it comes from the host.
    batch: Mutex<BatchBuffers>,
    watch: Arc<Watch>,
}

impl CudaBackend {
    /// A stream on `gpu`; `watch` is asked while the host waits.
    pub fn new(gpu: Gpu, kernels: Arc<Kernels>, watch: Arc<Watch>) -> Result<CudaBackend> {
        let (queue, uploads) = (gpu.queue()?, gpu.queue()?);
        let staging = Mutex::new(Staging::new(&gpu)?);
        let partials = match &*kernels {
            Kernels::Exact(_) => product::PARTIALS,
            Kernels::Bf16(_) => bf16::PARTIALS,
        };
        let partials = Mutex::new(Some(gpu.alloc(partials)?));
        Ok(CudaBackend { gpu, kernels, queue, uploads, staging, partials, batch: Mutex::default(), watch })
    }

    /// The kernels that have fused layers.
    fn fused(&self) -> &Bf16 {
        match &*self.kernels {
            Kernels::Bf16(kernels) => kernels,
            Kernels::Exact(_) => unreachable!("see Backend::fuses"),
        }
    }

    /// The GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The queue of operations, for exchanges to order theirs by.
    pub fn queue(&self) -> &Arc<CudaStream> {
        &self.queue
    }

    /// The watch that is checked while the host waits.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Now on `queue`, one of this GPU's.
    pub fn mark_on(&self, queue: &CudaStream) -> Result<Arc<CudaEvent>> {
        let event = queue.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        Ok(Arc::new(self.gpu.check("an event", event)?))
    }

    /// Lets the work queued from now on wait for `event`.
    pub fn wait_for(&self, event: &CudaEvent) -> Result<()> {
        Ok(self.gpu.check("waiting for an event", self.queue.wait(event))?)
    }

    /// Blocks the host until `event`, looking at the exchange meanwhile.
    fn block_until(&self, event: &CudaEvent) -> Result<()> {
        self.watch.block_until(|| Ok(self.gpu.check("the queued work", event.try_is_complete())?))
    }

    /// Queues a kernel; see [`launch`].
    fn launch_kernel<const N: usize>(
        &self,
        name: &str,
        function: &CudaFunction,
        grid: Grid,
        args: [Arg<'_>; N],
    ) -> Result<()> {
        let Grid { blocks, threads } = grid;
        if blocks.contains(&0) {
            return Ok(()); // nothing to do; CUDA calls it an error
        }
        let [x, y, z] = blocks.map(|count| count as u32);
        let launched = self.gpu.context().bind_to_thread().and_then(|()| {
            // SAFETY: the arguments are those that the kernel declares, the buffers hold what the shapes say, and they
            // are freed only when the device has nothing left to do.
            unsafe {
                let (function, queue) = (function.cu_function(), self.queue.cu_stream());
                result::launch_kernel(function, (x, y, z), (threads, 1, 1), 0, queue, &mut args.map(|arg| arg.value))
            }
        });
        Ok(self.gpu.check(name, launched)?)
    }
}

/// The threads that run a kernel.
#[derive(Clone, Copy, Debug)]
struct Grid {
    blocks: [usize; 3],
    /// A block.
    threads: u32,
}

impl Grid {
    /// One thread for each of `count` things.
    fn over(count: usize, threads: u32) -> Grid {
        Grid { blocks: [count.div_ceil(threads as usize), 1, 1], threads }
    }
}

/// A kernel's argument: where its value lies. The driver reads it during the launch.
struct Arg<'a> {
    value: *mut c_void,
    borrowed: PhantomData<&'a ()>,
}

fn arg<T: DeviceRepr>(value: &T) -> Arg<'_> {
    Arg { value: std::ptr::from_ref(value).cast_mut().cast(), borrowed: PhantomData }
}

/// An argument of a kernel: a buffer passes its address, everything else itself.
trait Argument {
    type Value: DeviceRepr;
    fn value(&self) -> Self::Value;
}

impl Argument for Buffer {
    type Value = u64;
    fn value(&self) -> u64 {
        self.address()
    }
}

/// Null for none.
impl Argument for Option<&Buffer> {
    type Value = u64;
    fn value(&self) -> u64 {
        self.map_or(0, Buffer::address)
    }
}

macro_rules! arguments {
    ($($kind:ty),*) => {
        $(impl Argument for $kind {
            type Value = $kind;
            fn value(&self) -> $kind {
                *self
            }
        })*
    };
}
arguments!(f32, u32, u64, Split, kernels::AugmentShape, kernels::ConvShape, kernels::DenseShape, kernels::DropoutShape);
arguments!(kernels::LrnShape, kernels::SpatialLrnShape, kernels::PoolShape, kernels::SoftmaxShape);
arguments!(bf16::Conv, bf16::Absent, bf16::Lrn, bf16::SpatialLrn, bf16::Pool, bf16::Augment, bf16::Dropout);

impl CudaBackend {
    fn staging(&self) -> MutexGuard<'_, Staging> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn batch(&self) -> MutexGuard<'_, BatchBuffers> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an upload.
    fn upload(&self, queue: &CudaStream, host: &[u8], address: u64) -> Result<()> {
        self.staging().write(&self.gpu, queue, host, address, &|event| self.block_until(event))
    }

    /// Makes `place` hold `bytes` at least.
    fn grow(&self, place: &mut Option<Buffer>, bytes: usize) -> Result<()> {
        let elems = bytes.div_ceil(size_of::<f32>());
        if place.as_ref().is_none_or(|place| place.elems() < elems) {
            *place = None; // frees the smaller one first
            *place = Some(self.gpu.alloc(elems)?);
        }
        Ok(())
    }

    /// Memory of this size, all 0.
    fn alloc_bytes(&self, bytes: usize) -> Result<Buffer> {
        let mut buffer = self.gpu.alloc(bytes.div_ceil(size_of::<f32>()))?;
        self.fill_bytes(bytes, &mut buffer)?;
        Ok(buffer)
    }

    /// Queues the filling of a buffer's start with 0.
    fn fill_bytes(&self, bytes: usize, to: &mut Buffer) -> Result<()> {
        assert!(bytes <= to.bytes(), "{bytes} bytes of a buffer of {}", to.bytes());
        if bytes == 0 {
            return Ok(());
        }
        let filled = self.gpu.context().bind_to_thread().and_then(|()| {
            // SAFETY: within the buffer, as asserted.
            unsafe { result::memset_d8_async(to.address(), 0, bytes, self.queue.cu_stream()) }
        });
        Ok(self.gpu.check("filling memory", filled)?)
    }

    /// The memory for partial sums, at least so many.
    fn partials(&self, elems: usize) -> Result<MutexGuard<'_, Option<Buffer>>> {
        let mut partials = self.partials.lock().unwrap_or_else(PoisonError::into_inner);
        self.grow(&mut partials, elems * size_of::<f32>())?;
        Ok(partials)
    }

    /// Queues the upload of the batch's labels.
    fn upload_labels(&self, labels: &[u32]) -> Result<u64> {
        self.upload_to(&mut self.batch().labels, &self.queue, bytemuck::cast_slice(labels))
    }

    /// Queues the upload of the batch's images and of the windows that are cut from them, and work that reads them.
    fn with_images(&self, pixels: &[u8], windows: &[Window], work: impl FnOnce([u64; 2]) -> Result<()>) -> Result<()> {
        let words = windows.iter().map(|w| {
            let [r, g, b] = w.shift.map(f32::to_bits);
            [w.row, w.col, w.mirrored.into(), r, g, b, w.scale.to_bits()]
        });
        let words: Vec<[u32; WINDOW_BYTES / size_of::<u32>()]> = words.collect();
        let mut batch = self.batch();
        batch.next = 1 - batch.next;
        let next = batch.next;
        let images = &mut batch.images[next];
        if let Some(used) = &images.used {
            self.gpu.check("an upload", self.uploads.wait(used))?;
        }
        let pixels = self.upload_to(&mut images.pixels, &self.uploads, pixels)?;
        let windows = self.upload_to(&mut images.windows, &self.uploads, bytemuck::cast_slice(&words))?;
        self.wait_for(&*self.mark_on(&self.uploads)?)?;
        work([pixels, windows])?;
        images.used = Some(self.mark_on(&self.queue)?);
        Ok(())
    }

    /// Queues the upload of a part of the batch; it stays where the address says until the next one.
    fn upload_to(&self, place: &mut Option<Buffer>, queue: &CudaStream, host: &[u8]) -> Result<u64> {
        self.grow(place, host.len())?;
        let to = place.as_ref().value();
        self.upload(queue, host, to)?;
        Ok(to)
    }
}
