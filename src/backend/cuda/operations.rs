//! The operations, in the precision that was chosen: fp32 and tf32 in `exact.rs`, bf16 in `bf16/`. Reads, writes and memory.

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::CudaEvent;

use super::bf16::{self, layout};
use super::device::Buffer;
use super::kernels::Kernels;
use super::staging::Read;
use super::{CudaBackend, MOST_BYTES, SCORES, WINDOW_BYTES};
use crate::backend::*;
use crate::error::{Error, GpuTrouble, Result};
use crate::net::plan::Plan;
use crate::shapes::Activation;

/// Operations: a method of the trait without `&self` and its result; each precision has a function of that name.
macro_rules! operations {
    ($($name:ident($($arg:ident: $kind:ty),*);)*) => {
        $(#[allow(clippy::too_many_arguments)]
        fn $name(&self, $($arg: $kind),*) -> Result<()> {
            match &*self.kernels {
                Kernels::Exact(kernels) => kernels.$name(self, $($arg),*),
                Kernels::Bf16(kernels) => kernels.$name(self, $($arg),*),
            }
        })*
    };
}

impl Backend for CudaBackend {
    type Buffer = Buffer;
    type Mark = Arc<CudaEvent>;
    type Read = Read;
    const QUEUES: bool = true;

    fn instructions(&self) -> String {
        self.gpu.info().target.to_string()
    }

    fn bytes(&self, shape: impl Into<TensorShape>) -> usize {
        let shape = shape.into();
        match &*self.kernels {
            Kernels::Exact(_) => shape.elems() * size_of::<f32>(),
            Kernels::Bf16(_) => layout::bytes(&shape),
        }
    }

    fn alloc(&self, shape: impl Into<TensorShape>) -> Result<Buffer> {
        let shape = shape.into();
        // Values in bf16 are twice as many as the words that an allocation counts.
        self.gpu.countable(layout::elems(&shape))?;
        match (&*self.kernels, shape) {
            (Kernels::Bf16(_), TensorShape::Pooled(..)) => self.alloc_bytes(layout::bytes_with_rest(&shape)),
            _ => self.alloc_bytes(self.bytes(shape)),
        }
    }

    fn alloc_param(&self, shape: impl Into<TensorShape>) -> Result<Buffer> {
        let shape = shape.into();
        match &*self.kernels {
            Kernels::Exact(_) => self.alloc(shape),
            Kernels::Bf16(_) => self.alloc_bytes(layout::bytes_with_rest(&shape)),
        }
    }

    fn write(&self, host: &[f32], shape: impl Into<TensorShape>, to: &mut Buffer) -> Result<()> {
        let shape = shape.into();
        let bytes = self.bytes(shape);
        assert!(bytes <= to.bytes(), "{bytes} bytes into a buffer of {}", to.bytes());
        match &*self.kernels {
            Kernels::Exact(_) => self.upload(&self.queue, bytemuck::cast_slice(host), to.address()),
            Kernels::Bf16(kernels) => {
                let words = layout::to_device(&shape, host);
                self.upload(&self.queue, bytemuck::cast_slice(&words), to.address())?;
                kernels.make_shadows(self, shape, to)
            }
        }
    }

    fn start_read(&self, from: &Buffer, shape: impl Into<TensorShape>) -> Result<Read> {
        let shape = shape.into();
        let (words, converts) = match (&*self.kernels, shape) {
            (Kernels::Exact(_), _) | (_, TensorShape::Values(_)) => (shape.elems(), None),
            (Kernels::Bf16(_), _) => (layout::bytes(&shape) / size_of::<u32>(), Some(shape)),
        };
        assert!(words <= from.elems(), "{words} words of a buffer of {}", from.elems());
        self.staging().start_read(&self.gpu, &self.queue, from.address(), words, converts)
    }

    fn finish_read(&self, read: Read) -> Result<Vec<f32>> {
        if let Some(done) = read.done() {
            self.block_until(done)?;
        }
        let shape = read.converts();
        let words = self.staging().finish_read(read);
        Ok(match shape {
            Some(shape) => layout::to_host(&shape, bytemuck::cast_slice(&words)),
            None => words,
        })
    }

    fn fill_zero(&self, shape: impl Into<TensorShape>, to: &mut Buffer) -> Result<()> {
        self.fill_bytes(self.bytes(shape), to)
    }

    fn mark(&self) -> Result<Arc<CudaEvent>> {
        self.mark_on(&self.queue)
    }

    fn elapsed(&self, from: &Arc<CudaEvent>, to: &Arc<CudaEvent>) -> Result<Duration> {
        self.block_until(to)?;
        let ms = self.gpu.check("reading a time", from.elapsed_ms(to))?;
        Ok(Duration::from_secs_f64(f64::from(ms.max(0.)) / 1e3))
    }

    fn fuses(&self, lrn: &LrnShape, pool: &PoolShape) -> bool {
        matches!(&*self.kernels, Kernels::Bf16(_)) && bf16::fuses(lrn, pool)
    }

    fn check(&self, plan: &Plan) -> Result<()> {
        match &*self.kernels {
            Kernels::Exact(_) => Ok(()),
            Kernels::Bf16(_) => bf16::check(plan),
        }
    }

    fn reserve_sums(&self, outputs: impl Iterator<Item = TensorShape>) -> Result<()> {
        match &*self.kernels {
            Kernels::Exact(_) => Ok(()),
            Kernels::Bf16(_) => {
                let largest = outputs.map(|shape| layout::elems(&shape)).max().unwrap_or(0);
                self.partials(largest + bf16::PARTIALS).map(drop)
            }
        }
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
        for turn in &mut batch.images {
            self.grow(&mut turn.windows, images * WINDOW_BYTES)?;
            self.grow(&mut turn.pixels, images * bytes)?;
        }
        self.staging().reserve(&self.gpu, images * SCORES)
    }

    fn relu_lrn_max_pool_forward(
        &self,
        lrn: &LrnShape,
        pool: &PoolShape,
        n: usize,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        self.fused().relu_lrn_max_pool_forward(self, lrn, pool, n, x, y)
    }

    fn relu_lrn_max_pool_backward(
        &self,
        lrn: &LrnShape,
        pool: &PoolShape,
        n: usize,
        x: &mut Buffer,
        y: &Buffer,
        dy: &Buffer,
    ) -> Result<()> {
        self.fused().relu_lrn_max_pool_backward(self, lrn, pool, n, x, y, dy)
    }

    operations! {
        augment(s: &AugmentShape, pixels: &[u8], windows: &[Window], mean: &Buffer, input: impl Into<TensorShape>, y: &mut Buffer);
        conv_forward(s: &ConvShape, n: usize, x: &Buffer, w: &Buffer, bias: Option<&Buffer>, y: &mut Buffer);
        conv_backward_input(s: &ConvShape, n: usize, dy: &Buffer, w: &Buffer, dx: &mut Buffer);
        conv_backward_weight(s: &ConvShape, n: usize, x: &Buffer, dy: &Buffer, dw: &mut Buffer);
        conv_backward_bias(s: &ConvShape, n: usize, dy: &Buffer, dbias: &mut Buffer);
        dense_forward(s: &DenseShape, n: usize, x: &Buffer, w: &Buffer, bias: Option<&Buffer>, y: &mut Buffer);
        dense_backward_input(s: &DenseShape, n: usize, dy: &Buffer, w: &Buffer, dx: &mut Buffer);
        dense_backward_weight(s: &DenseShape, n: usize, x: &Buffer, dy: &Buffer, dw: &mut Buffer);
        dense_backward_bias(s: &DenseShape, n: usize, dy: &Buffer, dbias: &mut Buffer);
        activation_forward(kind: Activation, shape: impl Into<TensorShape>, y: &mut Buffer);
        activation_backward(kind: Activation, shape: impl Into<TensorShape>, y: &Buffer, dy: &mut Buffer);
        lrn_forward(s: &LrnShape, n: usize, x: &Buffer, y: &mut Buffer);
        lrn_backward(s: &LrnShape, n: usize, x: &Buffer, dy: &Buffer, dx: &mut Buffer);
        spatial_lrn_forward(s: &SpatialLrnShape, n: usize, x: &Buffer, y: &mut Buffer);
        spatial_lrn_backward(s: &SpatialLrnShape, n: usize, x: &Buffer, dy: &Buffer, dx: &mut Buffer);
        max_pool_forward(s: &PoolShape, n: usize, x: &Buffer, y: &mut Buffer);
        max_pool_backward(s: &PoolShape, n: usize, x: &Buffer, y: &Buffer, dy: &Buffer, dx: &mut Buffer);
        avg_pool_forward(s: &PoolShape, n: usize, x: &Buffer, y: &mut Buffer);
        avg_pool_backward(s: &PoolShape, n: usize, dy: &Buffer, dx: &mut Buffer);
        dropout_forward(s: &DropoutShape, n: usize, draw: &DropoutDraw, x: &Buffer, y: &mut Buffer);
        dropout_backward(s: &DropoutShape, n: usize, draw: &DropoutDraw, dy: &mut Buffer);
        softmax_stats(s: &SoftmaxShape, n: usize, logits: &Buffer, labels: &[u32], stats: &mut Buffer);
        softmax_cross_entropy(s: &SoftmaxShape, n: usize, logits: &Buffer, labels: &[u32], ours: &Buffer, theirs: Option<&Buffer>, dlogits: &mut Buffer, scores: &mut Buffer);
        add(shape: impl Into<TensorShape>, x: &Buffer, y: &mut Buffer);
        update(update: &Update, shape: impl Into<TensorShape>, dw: &Buffer, w: &mut Buffer, state: &mut [Buffer]);
    }
}
