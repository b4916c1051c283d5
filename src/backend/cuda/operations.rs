//! The operations, each a launch or two of its kernels; contracts are on the trait.

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::{CudaEvent, result};

use super::compiler::{ELEMENT_THREADS, LRN_THREADS, SOFTMAX_THREADS};
use super::device::Buffer;
use super::staging::Read;
use super::{Argument, CudaBackend, Grid, MOST_BYTES, SCORES, WINDOW_BYTES, arg, kernels, launch};
use crate::backend::*;
use crate::error::{Error, GpuTrouble, Result};
use crate::shapes::Activation;

impl Backend for CudaBackend {
    type Buffer = Buffer;
    type Mark = Arc<CudaEvent>;
    type Read = Read;
    const QUEUES: bool = true;

    fn instructions(&self) -> String {
        self.gpu.info().target.to_string()
    }

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

    fn reserve(&self, images: usize, bytes: usize) -> Result<()> {
        if images as u64 * bytes as u64 > MOST_BYTES {
            let text = format!(
                "{images} images of {bytes} bytes are more than the {MOST_BYTES} that kernels count; use a smaller \
                 --batch-size, or smaller images (prepare --size)"
            );
            return Err(Error::gpu(GpuTrouble::OutOfMemory, text));
        }
        let mut batch = self.batch();
        self.grow(&mut batch.labels, images * size_of::<u32>())?;
        self.grow(&mut batch.windows, images * WINDOW_BYTES)?;
        self.grow(&mut batch.pixels, images * bytes)?;
        self.staging().reserve(&self.gpu, images * SCORES)
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
        let words = windows.iter().map(|w| {
            let [r, g, b] = w.shift.map(f32::to_bits);
            [w.row, w.col, w.mirrored.into(), r, g, b]
        });
        let words: Vec<[u32; WINDOW_BYTES / size_of::<u32>()]> = words.collect();
        let mut batch = self.batch();
        let pixels = self.upload_to(&mut batch.pixels, pixels)?;
        let windows = self.upload_to(&mut batch.windows, bytemuck::cast_slice(&words))?;
        let sizes = [n, s.c, s.side, s.resize, s.channels, s.size].map(|size| size as u32);
        launch!(
            self.augment,
            Grid::over(n * s.channels * s.size * s.size, ELEMENT_THREADS),
            kernels::AugmentShape { sizes, scale },
            pixels,
            windows,
            mean,
            y
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
        launch!(self.conv_forward, product.grid, shape, product.split, x, w, bias, y, product)?;
        self.add_parts(product, bias, [s.p * s.q, s.k], bias.is_none(), y)
    }

    fn conv_backward_input(&self, s: &ConvShape, n: usize, dy: &Buffer, w: &Buffer, dx: &mut Buffer) -> Result<()> {
        let product = self.plan_product([s.c, n * s.h * s.w, s.k * s.r * s.s])?;
        let shape = kernels::ConvShape::new(s, n);
        launch!(self.conv_backward_input, product.grid, shape, product.split, dy, w, dx, product)?;
        self.add_parts(product, None, [1, 1], false, dx)
    }

    fn conv_backward_weight(&self, s: &ConvShape, n: usize, x: &Buffer, dy: &Buffer, dw: &mut Buffer) -> Result<()> {
        let product = self.plan_product([s.k, s.c * s.r * s.s, n * s.p * s.q])?;
        let shape = kernels::ConvShape::new(s, n);
        launch!(self.conv_backward_weight, product.grid, shape, product.split, x, dy, dw, product)?;
        self.add_parts(product, None, [1, 1], false, dw)
    }

    fn conv_backward_bias(&self, s: &ConvShape, n: usize, dy: &Buffer, dbias: &mut Buffer) -> Result<()> {
        let (shape, grid) = (kernels::ConvShape::new(s, n), Grid { blocks: [s.k, 1, 1], threads: ELEMENT_THREADS });
        launch!(self.conv_backward_bias, grid, shape, dy, dbias)
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
        launch!(self.dense_forward, product.grid, dense_shape(s, n), product.split, x, w, bias, y, product)?;
        self.add_parts(product, bias, [1, s.outputs], bias.is_none(), y)
    }

    fn dense_backward_input(&self, s: &DenseShape, n: usize, dy: &Buffer, w: &Buffer, dx: &mut Buffer) -> Result<()> {
        let product = self.plan_product([s.inputs, n, s.outputs])?;
        launch!(self.dense_backward_input, product.grid, dense_shape(s, n), product.split, dy, w, dx, product)?;
        self.add_parts(product, None, [1, 1], false, dx)
    }

    fn dense_backward_weight(&self, s: &DenseShape, n: usize, x: &Buffer, dy: &Buffer, dw: &mut Buffer) -> Result<()> {
        let product = self.plan_product([s.outputs, s.inputs, n])?;
        launch!(self.dense_backward_weight, product.grid, dense_shape(s, n), product.split, x, dy, dw, product)?;
        self.add_parts(product, None, [1, 1], false, dw)
    }

    fn dense_backward_bias(&self, s: &DenseShape, n: usize, dy: &Buffer, dbias: &mut Buffer) -> Result<()> {
        launch!(self.dense_backward_bias, Grid::over(s.outputs, ELEMENT_THREADS), dense_shape(s, n), dy, dbias)
    }

    fn activation_forward(&self, kind: Activation, elems: usize, y: &mut Buffer) -> Result<()> {
        let (grid, count) = (Grid::over(elems, ELEMENT_THREADS), elems as u32);
        match kind {
            Activation::Relu => launch!(self.relu_forward, grid, count, y),
            Activation::Tanh => launch!(self.tanh_forward, grid, count, y),
        }
    }

    fn activation_backward(&self, kind: Activation, elems: usize, y: &Buffer, dy: &mut Buffer) -> Result<()> {
        let (grid, count) = (Grid::over(elems, ELEMENT_THREADS), elems as u32);
        match kind {
            Activation::Relu => launch!(self.relu_backward, grid, count, y, dy),
            Activation::Tanh => launch!(self.tanh_backward, grid, count, y, dy),
        }
    }

    fn lrn_forward(&self, s: &LrnShape, n: usize, x: &Buffer, y: &mut Buffer) -> Result<()> {
        launch!(self.lrn_forward, Grid::over(n * s.pixels, LRN_THREADS), lrn_shape(s, n), x, y)
    }

    fn lrn_backward(&self, s: &LrnShape, n: usize, x: &Buffer, dy: &Buffer, dx: &mut Buffer) -> Result<()> {
        launch!(self.lrn_backward, Grid::over(n * s.pixels, LRN_THREADS), lrn_shape(s, n), x, dy, dx)
    }

    fn max_pool_forward(&self, s: &PoolShape, n: usize, x: &Buffer, y: &mut Buffer) -> Result<()> {
        launch!(self.max_pool_forward, Grid::over(n * s.c * s.p * s.q, ELEMENT_THREADS), pool_shape(s, n), x, y)
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
        launch!(
            self.max_pool_backward,
            Grid::over(n * s.c * s.h * s.w, ELEMENT_THREADS),
            pool_shape(s, n),
            x,
            y,
            dy,
            dx
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
        launch!(self.dropout, Grid::over(n * s.elems, ELEMENT_THREADS), dropout_shape(s, n, draw), x, y)
    }

    fn dropout_backward(&self, s: &DropoutShape, n: usize, draw: &DropoutDraw, dy: &mut Buffer) -> Result<()> {
        launch!(self.dropout, Grid::over(n * s.elems, ELEMENT_THREADS), dropout_shape(s, n, draw), dy, dy)
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
        launch!(self.softmax_stats, grid, softmax_shape(s, n), logits, labels, stats)
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
        launch!(self.softmax_cross_entropy, grid, softmax_shape(s, n), logits, labels, ours, theirs, dlogits, scores)
    }

    fn add(&self, elems: usize, x: &Buffer, y: &mut Buffer) -> Result<()> {
        launch!(self.add, Grid::over(elems, ELEMENT_THREADS), (elems as u32), x, y)
    }

    fn update(&self, update: &Update, elems: usize, dw: &Buffer, w: &mut Buffer, state: &mut [Buffer]) -> Result<()> {
        let (count, grid) = (elems as u32, Grid::over(elems, ELEMENT_THREADS));
        match (*update, state) {
            (Update::Sgd { lr, momentum, weight_decay }, [v]) => {
                launch!(self.update_sgd, grid, count, lr, momentum, (weight_decay * lr), dw, w, v)
            }
            (Update::Adam { beta1, beta2, epsilon, weight_decay, .. }, [m, v]) => {
                let [rate, root] = update.adam_factors();
                launch!(self.update_adam, grid, count, rate, root, beta1, beta2, epsilon, weight_decay, dw, w, m, v)
            }
            (_, state) => panic!("{update:?} with {} state tensors", state.len()),
        }
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
