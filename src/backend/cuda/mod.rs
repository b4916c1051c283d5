//! NVIDIA GPUs: every operation is a kernel of `kernels/`, queued on one CUDA stream; copies to and from the host go
//! through page-locked memory, so that nothing waits but [`Backend::finish_read`].

pub mod compiler;
pub mod device;
pub mod kernels;
pub mod libraries;
mod staging;
pub mod watch;

use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, CudaFunction, CudaStream, DeviceRepr, result};

use self::compiler::{TILE_COLS, TILE_DEPTH, TILE_ROWS};
use self::device::{Buffer, Gpu};
use self::kernels::{Kernels, Split};
use self::staging::{Read, Staging};
use self::watch::Watch;
use super::*;

/// Threads a block of the matrix products.
const GEMM_THREADS: u32 = 128;

/// Threads a block of the softmax.
const SOFTMAX_THREADS: u32 = 128;

/// Products that a part of a cut sum has at least: below that adding the parts costs more than it brings.
const LEAST_DEPTH: usize = 8 * TILE_DEPTH;

/// Blocks that a matrix product should have at least: more than any GPU has multiprocessors.
const WANTED_BLOCKS: usize = 256;

/// What operations take from the host: made at the first use of a size.
#[derive(Default)]
struct BatchBuffers {
    labels: Option<Buffer>,
    pixels: Option<Buffer>,
    windows: Option<Buffer>,
}

/// One stream's GPU.
pub struct CudaBackend {
    gpu: Gpu,
    kernels: Arc<Kernels>,
    /// Where the stream's operations are queued.
    queue: Arc<CudaStream>,
    staging: Mutex<Staging>,
    /// Partial sums of split products, made at the first use of a size.
    partials: Mutex<Option<Buffer>>,
    /// The batch as it comes from the host.
    batch: Mutex<BatchBuffers>,
    watch: Arc<Watch>,
}

impl CudaBackend {
    /// A stream on `gpu`; `watch` is asked while the host waits.
    pub fn new(gpu: Gpu, kernels: Arc<Kernels>, watch: Arc<Watch>) -> Result<CudaBackend> {
        let queue = gpu.queue()?;
        let staging = Mutex::new(Staging::new(&gpu)?);
        Ok(CudaBackend { gpu, kernels, queue, staging, partials: Mutex::new(None), batch: Mutex::default(), watch })
    }

    /// The GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The queue of operations, for exchanges to order theirs by.
    pub fn queue(&self) -> &Arc<CudaStream> {
        &self.queue
    }

    /// What is looked at while the host waits.
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

    /// Queues a kernel; `args` are values of the types that it declares.
    fn launch<const N: usize>(
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

    /// Plans a matrix product of `rows` x `cols` sums over `depth` products each. Where its tiles are too few for a GPU
    /// the sums are cut into parts, to be added in their order by [`CudaBackend::add_parts`]. How they are cut depends on
    /// the sizes alone, so that every GPU gives the same bits.
    fn plan_product(&self, [rows, cols, depth]: [usize; 3]) -> Result<Product<'_>> {
        let (tile_rows, tile_cols) = (rows.div_ceil(TILE_ROWS), cols.div_ceil(TILE_COLS));
        let wanted = WANTED_BLOCKS / (tile_rows * tile_cols).max(1);
        let count = wanted.clamp(1, (depth / LEAST_DEPTH).max(1));
        let part = depth.div_ceil(count).next_multiple_of(TILE_DEPTH);
        let count = depth.div_ceil(part);
        let elems = rows * cols;
        let mut partials = self.partials.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = if count > 1 { count * elems } else { 0 };
        if needed > partials.as_ref().map_or(0, Buffer::elems) {
            *partials = None; // frees the smaller one first
            *partials = Some(self.gpu.alloc(needed)?);
        }
        let grid = Grid { blocks: [tile_cols, tile_rows, count], threads: GEMM_THREADS };
        let split = Split { count: count as u32, depth: part as u32 };
        Ok(Product { grid, split, elems, partials })
    }

    /// Adds up the parts of a product into `out`: onto what is there (`adds`), or onto the bias of each element's channel
    /// (a channel has `pixels` neighbouring elements), or onto 0.
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
        self.launch(
            "reduce_partials",
            &self.kernels.reduce_partials,
            Grid::over(product.elems, 256),
            [
                arg(&elems),
                arg(&product.split.count),
                arg(&product.address()),
                arg(&address(bias)),
                arg(&pixels),
                arg(&channels),
                arg(&u32::from(adds)),
                arg(&out.address()),
            ],
        )
    }
}

/// How many threads run a kernel.
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
    partials: MutexGuard<'a, Option<Buffer>>,
}

impl Product<'_> {
    fn address(&self) -> u64 {
        address(self.partials.as_ref())
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

/// Where a buffer is on the device; null for none.
fn address(buffer: Option<&Buffer>) -> u64 {
    buffer.map_or(0, Buffer::address)
}

impl Backend for CudaBackend {
    type Buffer = Buffer;
    type Mark = Arc<CudaEvent>;
    type Read = Read;
    const QUEUES: bool = true;

    fn alloc(&self, elems: usize) -> Result<Buffer> {
        let mut buffer = self.gpu.alloc(elems)?;
        self.fill_zero(elems, &mut buffer)?;
        Ok(buffer)
    }

    fn write(&self, host: &[f32], to: &mut Buffer) -> Result<()> {
        assert!(host.len() <= to.elems(), "{} values into a buffer of {}", host.len(), to.elems());
        self.upload(bytemuck::cast_slice(host), to.address())
    }

    fn start_read(&self, from: &Buffer, elems: usize) -> Result<Read> {
        assert!(elems <= from.elems(), "{elems} values of a buffer of {}", from.elems());
        self.staging().start_read(&self.gpu, &self.queue, from.address(), elems)
    }

    fn finish_read(&self, read: Read) -> Result<Vec<f32>> {
        if let Some(done) = read.done() {
            self.block_until(done)?;
        }
        Ok(self.staging().finish_read(read))
    }

    fn fill_zero(&self, elems: usize, to: &mut Buffer) -> Result<()> {
        assert!(elems <= to.elems(), "{elems} values of a buffer of {}", to.elems());
        if elems == 0 {
            return Ok(());
        }
        let filled = self.gpu.context().bind_to_thread().and_then(|()| {
            // SAFETY: within the buffer, as asserted.
            unsafe { result::memset_d8_async(to.address(), 0, elems * size_of::<f32>(), self.queue.cu_stream()) }
        });
        self.gpu.check("fill_zero", filled)
    }

    fn mark(&self) -> Result<Arc<CudaEvent>> {
        self.mark_on(&self.queue)
    }

    fn elapsed(&self, from: &Arc<CudaEvent>, to: &Arc<CudaEvent>) -> Result<Duration> {
        self.block_until(to)?;
        let ms = self.gpu.check("reading a time", from.elapsed_ms(to))?;
        Ok(Duration::from_secs_f64(f64::from(ms.max(0.)) / 1e3))
    }

    fn augment(
        &self,
        s: &AugmentShape,
        pixels: &[u8],
        windows: &[Window],
        mean: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        let (n, scale) = (windows.len(), s.scale);
        let words: Vec<[u32; 3]> = windows.iter().map(|w| [w.row, w.col, w.mirrored.into()]).collect();
        let mut batch = self.batch();
        let pixels = self.upload_to(&mut batch.pixels, pixels)?;
        let windows = self.upload_to(&mut batch.windows, bytemuck::cast_slice(&words))?;
        let sizes = [n, s.c, s.h, s.w, s.resize, s.channels, s.size].map(|size| size as u32);
        self.launch(
            "augment",
            &self.kernels.augment,
            Grid::over(n * s.channels * s.size * s.size, 256),
            [
                arg(&kernels::AugmentShape { sizes, scale }),
                arg(&pixels),
                arg(&windows),
                arg(&mean.address()),
                arg(&y.address()),
            ],
        )
    }

    fn conv_forward(
        &self,
        s: &ConvShape,
        n: usize,
        x: &Buffer,
        w: &Buffer,
        bias: Option<&Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        let product = self.plan_product([s.k, n * s.p * s.q, s.c * s.r * s.s])?;
        let shape = kernels::ConvShape::new(s, n);
        self.launch(
            "conv_forward",
            &self.kernels.conv_forward,
            product.grid,
            [
                arg(&shape),
                arg(&product.split),
                arg(&x.address()),
                arg(&w.address()),
                arg(&address(bias)),
                arg(&y.address()),
                arg(&product.address()),
            ],
        )?;
        self.add_parts(product, bias, [s.p * s.q, s.k], bias.is_none(), y)
    }

    fn conv_backward_input(&self, s: &ConvShape, n: usize, dy: &Buffer, w: &Buffer, dx: &mut Buffer) -> Result<()> {
        let product = self.plan_product([s.c, n * s.h * s.w, s.k * s.r * s.s])?;
        let shape = kernels::ConvShape::new(s, n);
        self.launch(
            "conv_backward_input",
            &self.kernels.conv_backward_input,
            product.grid,
            [
                arg(&shape),
                arg(&product.split),
                arg(&dy.address()),
                arg(&w.address()),
                arg(&dx.address()),
                arg(&product.address()),
            ],
        )?;
        self.add_parts(product, None, [1, 1], false, dx)
    }

    fn conv_backward_weight(&self, s: &ConvShape, n: usize, x: &Buffer, dy: &Buffer, dw: &mut Buffer) -> Result<()> {
        let product = self.plan_product([s.k, s.c * s.r * s.s, n * s.p * s.q])?;
        let shape = kernels::ConvShape::new(s, n);
        self.launch(
            "conv_backward_weight",
            &self.kernels.conv_backward_weight,
            product.grid,
            [
                arg(&shape),
                arg(&product.split),
                arg(&x.address()),
                arg(&dy.address()),
                arg(&dw.address()),
                arg(&product.address()),
            ],
        )?;
        self.add_parts(product, None, [1, 1], false, dw)
    }

    fn conv_backward_bias(&self, s: &ConvShape, n: usize, dy: &Buffer, dbias: &mut Buffer) -> Result<()> {
        let (shape, grid) = (kernels::ConvShape::new(s, n), Grid { blocks: [s.k, 1, 1], threads: 256 });
        let function = &self.kernels.conv_backward_bias;
        self.launch("conv_backward_bias", function, grid, [arg(&shape), arg(&dy.address()), arg(&dbias.address())])
    }

    fn dense_forward(
        &self,
        s: &DenseShape,
        n: usize,
        x: &Buffer,
        w: &Buffer,
        bias: Option<&Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        let product = self.plan_product([s.outputs, n, s.inputs])?;
        self.launch(
            "dense_forward",
            &self.kernels.dense_forward,
            product.grid,
            [
                arg(&dense_shape(s, n)),
                arg(&product.split),
                arg(&x.address()),
                arg(&w.address()),
                arg(&address(bias)),
                arg(&y.address()),
                arg(&product.address()),
            ],
        )?;
        self.add_parts(product, bias, [1, s.outputs], bias.is_none(), y)
    }

    fn dense_backward_input(&self, s: &DenseShape, n: usize, dy: &Buffer, w: &Buffer, dx: &mut Buffer) -> Result<()> {
        let product = self.plan_product([s.inputs, n, s.outputs])?;
        self.launch(
            "dense_backward_input",
            &self.kernels.dense_backward_input,
            product.grid,
            [
                arg(&dense_shape(s, n)),
                arg(&product.split),
                arg(&dy.address()),
                arg(&w.address()),
                arg(&dx.address()),
                arg(&product.address()),
            ],
        )?;
        self.add_parts(product, None, [1, 1], false, dx)
    }

    fn dense_backward_weight(&self, s: &DenseShape, n: usize, x: &Buffer, dy: &Buffer, dw: &mut Buffer) -> Result<()> {
        let product = self.plan_product([s.outputs, s.inputs, n])?;
        self.launch(
            "dense_backward_weight",
            &self.kernels.dense_backward_weight,
            product.grid,
            [
                arg(&dense_shape(s, n)),
                arg(&product.split),
                arg(&x.address()),
                arg(&dy.address()),
                arg(&dw.address()),
                arg(&product.address()),
            ],
        )?;
        self.add_parts(product, None, [1, 1], false, dw)
    }

    fn dense_backward_bias(&self, s: &DenseShape, n: usize, dy: &Buffer, dbias: &mut Buffer) -> Result<()> {
        self.launch(
            "dense_backward_bias",
            &self.kernels.dense_backward_bias,
            Grid::over(s.outputs, 256),
            [arg(&dense_shape(s, n)), arg(&dy.address()), arg(&dbias.address())],
        )
    }

    fn activation_forward(&self, kind: Activation, elems: usize, y: &mut Buffer) -> Result<()> {
        let (name, function) = match kind {
            Activation::Relu => ("relu_forward", &self.kernels.relu_forward),
            Activation::Tanh => ("tanh_forward", &self.kernels.tanh_forward),
        };
        self.launch(name, function, Grid::over(elems, 256), [arg(&(elems as u32)), arg(&y.address())])
    }

    fn activation_backward(&self, kind: Activation, elems: usize, y: &Buffer, dy: &mut Buffer) -> Result<()> {
        let (name, function) = match kind {
            Activation::Relu => ("relu_backward", &self.kernels.relu_backward),
            Activation::Tanh => ("tanh_backward", &self.kernels.tanh_backward),
        };
        self.launch(
            name,
            function,
            Grid::over(elems, 256),
            [arg(&(elems as u32)), arg(&y.address()), arg(&dy.address())],
        )
    }

    fn lrn_forward(&self, s: &LrnShape, n: usize, x: &Buffer, y: &mut Buffer) -> Result<()> {
        self.launch(
            "lrn_forward",
            &self.kernels.lrn_forward,
            Grid::over(n * s.pixels, 128),
            [arg(&lrn_shape(s, n)), arg(&x.address()), arg(&y.address())],
        )
    }

    fn lrn_backward(&self, s: &LrnShape, n: usize, x: &Buffer, dy: &Buffer, dx: &mut Buffer) -> Result<()> {
        self.launch(
            "lrn_backward",
            &self.kernels.lrn_backward,
            Grid::over(n * s.pixels, 128),
            [arg(&lrn_shape(s, n)), arg(&x.address()), arg(&dy.address()), arg(&dx.address())],
        )
    }

    fn max_pool_forward(&self, s: &PoolShape, n: usize, x: &Buffer, y: &mut Buffer) -> Result<()> {
        self.launch(
            "max_pool_forward",
            &self.kernels.max_pool_forward,
            Grid::over(n * s.c * s.p * s.q, 256),
            [arg(&pool_shape(s, n)), arg(&x.address()), arg(&y.address())],
        )
    }

    fn max_pool_backward(
        &self,
        s: &PoolShape,
        n: usize,
        x: &Buffer,
        y: &Buffer,
        dy: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        self.launch(
            "max_pool_backward",
            &self.kernels.max_pool_backward,
            Grid::over(n * s.c * s.h * s.w, 256),
            [arg(&pool_shape(s, n)), arg(&x.address()), arg(&y.address()), arg(&dy.address()), arg(&dx.address())],
        )
    }

    fn dropout_forward(
        &self,
        s: &DropoutShape,
        n: usize,
        draw: &DropoutDraw,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        self.launch(
            "dropout",
            &self.kernels.dropout,
            Grid::over(n * s.elems, 256),
            [arg(&dropout_shape(s, n, draw)), arg(&x.address()), arg(&y.address())],
        )
    }

    fn dropout_backward(&self, s: &DropoutShape, n: usize, draw: &DropoutDraw, dy: &mut Buffer) -> Result<()> {
        self.launch(
            "dropout",
            &self.kernels.dropout,
            Grid::over(n * s.elems, 256),
            [arg(&dropout_shape(s, n, draw)), arg(&dy.address()), arg(&dy.address())],
        )
    }

    fn softmax_stats(
        &self,
        s: &SoftmaxShape,
        n: usize,
        logits: &Buffer,
        labels: &[u32],
        stats: &mut Buffer,
    ) -> Result<()> {
        let labels = self.upload_to(&mut self.batch().labels, bytemuck::cast_slice(&labels[..n]))?;
        let grid = Grid { blocks: [n, 1, 1], threads: SOFTMAX_THREADS };
        self.launch(
            "softmax_stats",
            &self.kernels.softmax_stats,
            grid,
            [arg(&softmax_shape(s, n)), arg(&logits.address()), arg(&labels), arg(&stats.address())],
        )
    }

    fn softmax_cross_entropy(
        &self,
        s: &SoftmaxShape,
        n: usize,
        logits: &Buffer,
        labels: &[u32],
        ours: &Buffer,
        theirs: Option<&Buffer>,
        dlogits: &mut Buffer,
        scores: &mut Buffer,
    ) -> Result<()> {
        let labels = self.upload_to(&mut self.batch().labels, bytemuck::cast_slice(&labels[..n]))?;
        let grid = Grid { blocks: [n, 1, 1], threads: SOFTMAX_THREADS };
        self.launch(
            "softmax_cross_entropy",
            &self.kernels.softmax_cross_entropy,
            grid,
            [
                arg(&softmax_shape(s, n)),
                arg(&logits.address()),
                arg(&labels),
                arg(&ours.address()),
                arg(&address(theirs)),
                arg(&dlogits.address()),
                arg(&scores.address()),
            ],
        )
    }

    fn add(&self, elems: usize, x: &Buffer, y: &mut Buffer) -> Result<()> {
        self.launch(
            "add",
            &self.kernels.add,
            Grid::over(elems, 256),
            [arg(&(elems as u32)), arg(&x.address()), arg(&y.address())],
        )
    }

    fn update(&self, update: &Update, elems: usize, dw: &Buffer, w: &mut Buffer, state: &mut [Buffer]) -> Result<()> {
        let (count, grid) = (elems as u32, Grid::over(elems, 256));
        match (*update, state) {
            (Update::Sgd { lr, momentum, weight_decay }, [v]) => self.launch(
                "update_sgd",
                &self.kernels.update_sgd,
                grid,
                [
                    arg(&count),
                    arg(&lr),
                    arg(&momentum),
                    arg(&(weight_decay * lr)),
                    arg(&dw.address()),
                    arg(&w.address()),
                    arg(&v.address()),
                ],
            ),
            (Update::Adam { beta1, beta2, epsilon, weight_decay, .. }, [m, v]) => {
                let [rate, root] = update.adam_factors();
                self.launch(
                    "update_adam",
                    &self.kernels.update_adam,
                    grid,
                    [
                        arg(&count),
                        arg(&rate),
                        arg(&root),
                        arg(&beta1),
                        arg(&beta2),
                        arg(&epsilon),
                        arg(&weight_decay),
                        arg(&dw.address()),
                        arg(&w.address()),
                        arg(&m.address()),
                        arg(&v.address()),
                    ],
                )
            }
            (_, state) => panic!("{update:?} with {} state tensors", state.len()),
        }
    }
}

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

    /// Queues the upload of a part of the batch; it stays where the address says until the next one.
    fn upload_to(&self, place: &mut Option<Buffer>, host: &[u8]) -> Result<u64> {
        let elems = host.len().div_ceil(size_of::<f32>());
        if place.as_ref().is_none_or(|place| place.elems() < elems) {
            *place = None; // frees the smaller one first
            *place = Some(self.gpu.alloc(elems)?);
        }
        let to = address(place.as_ref());
        self.upload(host, to)?;
        Ok(to)
    }
}

fn dense_shape(s: &DenseShape, n: usize) -> kernels::DenseShape {
    kernels::DenseShape([n, s.inputs, s.outputs].map(|size| size as u32))
}

fn lrn_shape(s: &LrnShape, n: usize) -> kernels::LrnShape {
    kernels::LrnShape { sizes: [n, s.c, s.pixels, s.n].map(|size| size as u32), constants: [s.k, s.alpha, s.beta] }
}

fn pool_shape(s: &PoolShape, n: usize) -> kernels::PoolShape {
    kernels::PoolShape([n, s.c, s.h, s.w, s.window, s.stride, s.p, s.q].map(|size| size as u32))
}

fn softmax_shape(s: &SoftmaxShape, n: usize) -> kernels::SoftmaxShape {
    kernels::SoftmaxShape([n, s.classes, s.first].map(|size| size as u32))
}

fn dropout_shape(s: &DropoutShape, n: usize, draw: &DropoutDraw) -> kernels::DropoutShape {
    let threshold = s.threshold();
    let (key, step) = draw.mask.map_or(([0; 2], 0), |(rng, step)| (rng.key(), step));
    kernels::DropoutShape {
        n: n as u32,
        elems: s.elems as u32,
        first_unit: s.first_unit as u32,
        factor: draw.factor(s.keep),
        masked: draw.mask.is_some().into(),
        always: (threshold > u64::from(u32::MAX)).into(),
        threshold: threshold as u32,
        key,
        step: [step as u32, (step >> 32) as u32],
    }
}
