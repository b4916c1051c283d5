//! The operations, each a launch or two of its kernels; contracts are on the trait.

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::{CudaEvent, result};

use super::device::Buffer;
use super::staging::Read;
use super::{CudaBackend, Grid, SOFTMAX_THREADS, address, arg, kernels};
use crate::backend::*;
use crate::error::Result;
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
        let words: Vec<[u32; 6]> = words.collect();
        let mut batch = self.batch();
        let pixels = self.upload_to(&mut batch.pixels, pixels)?;
        let windows = self.upload_to(&mut batch.windows, bytemuck::cast_slice(&words))?;
        let sizes = [n, s.c, s.h, s.w, s.resize, s.channels, s.size, s.cropped.into()].map(|size| size as u32);
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
