//! NVIDIA GPUs: every operation is a kernel of `kernels/`, queued on one CUDA stream; copies to and from the host go
//! through page-locked memory, so that nothing waits but [`Backend::finish_read`].

pub mod compiler;
pub mod device;
pub mod kernels;
pub mod libraries;
mod operations;
mod staging;
pub mod watch;

use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, CudaFunction, CudaStream, DeviceRepr, result};

use self::compiler::{ELEMENT_THREADS, GEMM_THREADS, TILE_COLS, TILE_DEPTH, TILE_ROWS};
use self::device::{Buffer, Gpu};
use self::kernels::{Kernels, Split};
use self::staging::Staging;
use self::watch::Watch;
use super::*;

/// Queues the kernel of this name; the values that follow the grid are its parameters, in their order.
macro_rules! launch {
    ($me:ident.$kernel:ident, $grid:expr, $($value:expr),*) => {
        $me.launch_kernel(stringify!($kernel), &$me.kernels.$kernel, $grid, [$(arg(&$value.value())),*])
    };
}
use launch;

/// Products that a part of a cut sum has at least: below that adding the parts costs more than it brings.
const LEAST_DEPTH: usize = 8 * TILE_DEPTH;

/// Blocks that a matrix product should have at least: more than any GPU has multiprocessors.
const WANTED_BLOCKS: usize = 256;

/// Partial sums of the largest split product: each of so many blocks has a tile at most.
const PARTIALS: usize = WANTED_BLOCKS * TILE_ROWS * TILE_COLS;

/// Bytes of a [`Window`] as the kernel reads it.
const WINDOW_BYTES: usize = 6 * size_of::<u32>();

/// Scores of an image: its loss and its label's rank.
const SCORES: usize = 2;

/// Bytes of a batch's images, which kernels count in 32 bits.
const MOST_BYTES: u64 = u32::MAX as u64;

/// Device buffers for what operations take from the host; see [`Backend::reserve`].
#[derive(Default)]
struct BatchBuffers {
    labels: Option<Buffer>,
    pixels: Option<Buffer>,
    windows: Option<Buffer>,
}

/// The division of a matrix product into blocks of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    /// Rows and columns of tiles.
    pub tiles: [usize; 2],
    /// Parts of each sum.
    pub parts: usize,
    /// Products that a part adds up, a multiple of the tile's depth.
    pub depth: usize,
}

/// The division of `rows` x `cols` sums over `depth` products each. Where the tiles are too few for a GPU the sums are cut
/// into parts. How they are cut depends on the sizes alone, so that every GPU of one architecture gives the same bits.
pub fn divide([rows, cols, depth]: [usize; 3]) -> Division {
    let tiles = [rows.div_ceil(TILE_ROWS), cols.div_ceil(TILE_COLS)];
    let wanted = WANTED_BLOCKS / (tiles[0] * tiles[1]).max(1);
    let parts = wanted.clamp(1, (depth / LEAST_DEPTH).max(1));
    let part = depth.div_ceil(parts).next_multiple_of(TILE_DEPTH);
    Division { tiles, parts: depth.div_ceil(part), depth: part }
}

/// One stream's GPU.
pub struct CudaBackend {
    gpu: Gpu,
    kernels: Arc<Kernels>,
    /// The queue of the stream's operations.
    queue: Arc<CudaStream>,
    staging: Mutex<Staging>,
    /// Partial sums of split products.
    partials: Mutex<Buffer>,
    /// The batch as it comes from the host.
    batch: Mutex<BatchBuffers>,
    watch: Arc<Watch>,
}

impl CudaBackend {
    /// A stream on `gpu`; `watch` is asked while the host waits.
    pub fn new(gpu: Gpu, kernels: Arc<Kernels>, watch: Arc<Watch>) -> Result<CudaBackend> {
        let queue = gpu.queue()?;
        let staging = Mutex::new(Staging::new(&gpu)?);
        let partials = Mutex::new(gpu.alloc(PARTIALS)?);
        Ok(CudaBackend { gpu, kernels, queue, staging, partials, batch: Mutex::default(), watch })
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
        self.gpu.check("waiting for an event", self.queue.wait(event))
    }

    /// Blocks the host until `event`, looking at the exchange meanwhile.
    fn block_until(&self, event: &CudaEvent) -> Result<()> {
        self.watch.block_until(|| self.gpu.check("the queued work", event.try_is_complete()))
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
        self.gpu.check(name, launched)
    }

    /// Plans a matrix product of `rows` x `cols` sums over `depth` products each; parts of sums are to be added in their
    /// order by [`CudaBackend::add_parts`].
    fn plan_product(&self, sizes: [usize; 3]) -> Result<Product<'_>> {
        let ([rows, cols, _], Division { tiles: [tile_rows, tile_cols], parts, depth }) = (sizes, divide(sizes));
        let elems = rows * cols;
        let partials = self.partials.lock().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(parts == 1 || parts * elems <= PARTIALS, "{parts} parts of {elems} sums");
        let grid = Grid { blocks: [tile_cols, tile_rows, parts], threads: GEMM_THREADS };
        let split = Split { count: parts as u32, depth: depth as u32 };
        Ok(Product { grid, split, elems, partials })
    }

    /// Adds up the parts of a product into `out`: onto what is there (`adds`), or onto the bias of each element's
    /// channel (a channel has `pixels` neighbouring elements), or onto 0.
    fn add_parts(
        &self,
        product: Product<'_>,
        bias: Option<&Buffer>,
        [pixels, channels]: [usize; 2],
        adds: bool,
        out: &mut Buffer,
    ) -> Result<()> {
        if product.split.count == 1 {
            return Ok(()); // the product's kernel has written the result itself
        }
        let (elems, pixels, channels) = (product.elems as u32, pixels as u32, channels as u32);
        let (grid, count) = (Grid::over(product.elems, ELEMENT_THREADS), product.split.count);
        launch!(self.reduce_partials, grid, elems, count, product, bias, pixels, channels, u32::from(adds), out)
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

/// A matrix product about to be queued.
struct Product<'a> {
    grid: Grid,
    split: Split,
    elems: usize,
    partials: MutexGuard<'a, Buffer>,
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

/// The partial sums.
impl Argument for Product<'_> {
    type Value = u64;
    fn value(&self) -> u64 {
        self.partials.value()
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
arguments!(kernels::LrnShape, kernels::PoolShape, kernels::SoftmaxShape);

impl CudaBackend {
    fn staging(&self) -> MutexGuard<'_, Staging> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn batch(&self) -> MutexGuard<'_, BatchBuffers> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an upload.
    fn upload(&self, host: &[u8], address: u64) -> Result<()> {
        self.staging().write(&self.gpu, &self.queue, host, address, &|event| self.block_until(event))
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

    /// Queues the upload of a part of the batch; it stays where the address says until the next one.
    fn upload_to(&self, place: &mut Option<Buffer>, host: &[u8]) -> Result<u64> {
        self.grow(place, host.len())?;
        let to = place.as_ref().value();
        self.upload(host, to)?;
        Ok(to)
    }
}
