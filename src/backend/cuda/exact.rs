//! The operations in fp32 and tf32, each a launch or two of its kernels in `kernels/`; contracts are on the trait. Values
//! lie on the device as the host sees them.
#![allow(clippy::too_many_arguments)] // those of the trait's methods

use super::device::Buffer;
use super::kernels::{self as structs, Exact};
use super::sources::{ELEMENT_THREADS, LRN_THREADS, SOFTMAX_THREADS};
use super::{Argument, CudaBackend, Grid, arg, launch, launches};
use crate::backend::*;
use crate::error::Result;
use crate::shapes::Activation;

impl Exact {
    pub(super) fn augment(
        &self,
        me: &CudaBackend,
        s: &AugmentShape,
        pixels: &[u8],
        windows: &[Window],
        mean: &Buffer,
        _: impl Into<TensorShape>,
        y: &mut Buffer,
    ) -> Result<()> {
        let shape = structs::AugmentShape::new(s, windows.len());
        let grid = Grid::over(windows.len() * s.channels * s.size * s.size, ELEMENT_THREADS);
        me.with_images(pixels, windows, |[pixels, windows]| {
            launch!(me, self.augment, grid, shape, pixels, windows, mean, y)
        })
    }

    pub(super) fn conv_forward(
        &self,
        me: &CudaBackend,
        s: &ConvShape,
        n: usize,
        x: &Buffer,
        w: &Buffer,
        bias: Option<&Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        let product = me.plan_product([s.k, n * s.p * s.q, s.c * s.r * s.s])?;
        let shape = structs::ConvShape::new(s, n);
        launch!(me, self.conv_forward, product.grid, shape, product.split, x, w, bias, y, product)?;
        me.add_parts(self, product, bias, [s.p * s.q, s.k], bias.is_none(), y)
    }

    pub(super) fn conv_backward_input(
        &self,
        me: &CudaBackend,
        s: &ConvShape,
        n: usize,
        dy: &Buffer,
        w: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        let product = me.plan_product([s.c, n * s.h * s.w, s.k * s.r * s.s])?;
        let shape = structs::ConvShape::new(s, n);
        launch!(me, self.conv_backward_input, product.grid, shape, product.split, dy, w, dx, product)?;
        me.add_parts(self, product, None, [1, 1], false, dx)
    }

    pub(super) fn conv_backward_weight(
        &self,
        me: &CudaBackend,
        s: &ConvShape,
        n: usize,
        x: &Buffer,
        dy: &Buffer,
        dw: &mut Buffer,
    ) -> Result<()> {
        let product = me.plan_product([s.k, s.c * s.r * s.s, n * s.p * s.q])?;
        let shape = structs::ConvShape::new(s, n);
        launch!(me, self.conv_backward_weight, product.grid, shape, product.split, x, dy, dw, product)?;
        me.add_parts(self, product, None, [1, 1], false, dw)
    }

    pub(super) fn conv_backward_bias(
        &self,
        me: &CudaBackend,
        s: &ConvShape,
        n: usize,
        dy: &Buffer,
        dbias: &mut Buffer,
    ) -> Result<()> {
        let (shape, grid) = (structs::ConvShape::new(s, n), Grid { blocks: [s.k, 1, 1], threads: ELEMENT_THREADS });
        launch!(me, self.conv_backward_bias, grid, shape, dy, dbias)
    }

    pub(super) fn dense_forward(
        &self,
        me: &CudaBackend,
        s: &DenseShape,
        n: usize,
        x: &Buffer,
        w: &Buffer,
        bias: Option<&Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        let product = me.plan_product([s.outputs, n, s.inputs])?;
        launch!(
            me,
            self.dense_forward,
            product.grid,
            structs::DenseShape::new(s, n),
            product.split,
            x,
            w,
            bias,
            y,
            product
        )?;
        me.add_parts(self, product, bias, [1, s.outputs], bias.is_none(), y)
    }

    pub(super) fn dense_backward_input(
        &self,
        me: &CudaBackend,
        s: &DenseShape,
        n: usize,
        dy: &Buffer,
        w: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        let product = me.plan_product([s.inputs, n, s.outputs])?;
        launch!(
            me,
            self.dense_backward_input,
            product.grid,
            structs::DenseShape::new(s, n),
            product.split,
            dy,
            w,
            dx,
            product
        )?;
        me.add_parts(self, product, None, [1, 1], false, dx)
    }

    pub(super) fn dense_backward_weight(
        &self,
        me: &CudaBackend,
        s: &DenseShape,
        n: usize,
        x: &Buffer,
        dy: &Buffer,
        dw: &mut Buffer,
    ) -> Result<()> {
        let product = me.plan_product([s.outputs, s.inputs, n])?;
        launch!(
            me,
            self.dense_backward_weight,
            product.grid,
            structs::DenseShape::new(s, n),
            product.split,
            x,
            dy,
            dw,
            product
        )?;
        me.add_parts(self, product, None, [1, 1], false, dw)
    }

    pub(super) fn dense_backward_bias(
        &self,
        me: &CudaBackend,
        s: &DenseShape,
        n: usize,
        dy: &Buffer,
        dbias: &mut Buffer,
    ) -> Result<()> {
        launch!(
            me,
            self.dense_backward_bias,
            Grid::over(s.outputs, ELEMENT_THREADS),
            structs::DenseShape::new(s, n),
            dy,
            dbias
        )
    }

    pub(super) fn activation_forward(
        &self,
        me: &CudaBackend,
        kind: Activation,
        shape: impl Into<TensorShape>,
        y: &mut Buffer,
    ) -> Result<()> {
        let elems = shape.into().elems();
        let (grid, count) = (Grid::over(elems, ELEMENT_THREADS), elems as u32);
        match kind {
            Activation::Relu => launch!(me, self.relu_forward, grid, count, y),
            Activation::Tanh => launch!(me, self.tanh_forward, grid, count, y),
            Activation::Sigmoid => launch!(me, self.sigmoid_forward, grid, count, y),
        }
    }

    pub(super) fn activation_backward(
        &self,
        me: &CudaBackend,
        kind: Activation,
        shape: impl Into<TensorShape>,
        y: &Buffer,
        dy: &mut Buffer,
    ) -> Result<()> {
        let elems = shape.into().elems();
        let (grid, count) = (Grid::over(elems, ELEMENT_THREADS), elems as u32);
        match kind {
            Activation::Relu => launch!(me, self.relu_backward, grid, count, y, dy),
            Activation::Tanh => launch!(me, self.tanh_backward, grid, count, y, dy),
            Activation::Sigmoid => launch!(me, self.sigmoid_backward, grid, count, y, dy),
        }
    }

    launches! {
        lrn_forward(s: LrnShape as structs::LrnShape, n, x: &Buffer, y: &mut Buffer) over n * s.pixels, LRN_THREADS;
        lrn_backward(s: LrnShape as structs::LrnShape, n, x: &Buffer, dy: &Buffer, dx: &mut Buffer)
            over n * s.pixels, LRN_THREADS;
        spatial_lrn_forward(s: SpatialLrnShape as structs::SpatialLrnShape, n, x: &Buffer, y: &mut Buffer)
            over n * s.norm.c * s.norm.pixels, ELEMENT_THREADS;
        spatial_lrn_backward(s: SpatialLrnShape as structs::SpatialLrnShape, n, x: &Buffer, dy: &Buffer, dx: &mut Buffer)
            over n * s.norm.c * s.norm.pixels, ELEMENT_THREADS;
        max_pool_forward(s: PoolShape as structs::PoolShape, n, x: &Buffer, y: &mut Buffer)
            over n * s.c * s.p * s.q, ELEMENT_THREADS;
        max_pool_backward(s: PoolShape as structs::PoolShape, n, x: &Buffer, y: &Buffer, dy: &Buffer, dx: &mut Buffer)
            over n * s.c * s.h * s.w, ELEMENT_THREADS;
        avg_pool_forward(s: PoolShape as structs::PoolShape, n, x: &Buffer, y: &mut Buffer)
            over n * s.c * s.p * s.q, ELEMENT_THREADS;
        avg_pool_backward(s: PoolShape as structs::PoolShape, n, dy: &Buffer, dx: &mut Buffer)
            over n * s.c * s.h * s.w, ELEMENT_THREADS;
    }

    pub(super) fn dropout_forward(
        &self,
        me: &CudaBackend,
        s: &DropoutShape,
        n: usize,
        draw: &DropoutDraw,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        let grid = Grid::over(n * s.elems, ELEMENT_THREADS);
        launch!(me, self.dropout, grid, structs::DropoutShape::new(s, n, draw), x, y)
    }

    pub(super) fn dropout_backward(
        &self,
        me: &CudaBackend,
        s: &DropoutShape,
        n: usize,
        draw: &DropoutDraw,
        dy: &mut Buffer,
    ) -> Result<()> {
        let grid = Grid::over(n * s.elems, ELEMENT_THREADS);
        launch!(me, self.dropout, grid, structs::DropoutShape::new(s, n, draw), dy, dy)
    }

    pub(super) fn softmax_stats(
        &self,
        me: &CudaBackend,
        s: &SoftmaxShape,
        n: usize,
        logits: &Buffer,
        labels: &[u32],
        stats: &mut Buffer,
    ) -> Result<()> {
        let labels = me.upload_labels(&labels[..n])?;
        let grid = Grid { blocks: [n, 1, 1], threads: SOFTMAX_THREADS };
        launch!(me, self.softmax_stats, grid, structs::SoftmaxShape::new(s, n), logits, labels, stats)
    }

    pub(super) fn softmax_cross_entropy(
        &self,
        me: &CudaBackend,
        s: &SoftmaxShape,
        n: usize,
        logits: &Buffer,
        labels: &[u32],
        ours: &Buffer,
        theirs: Option<&Buffer>,
        dlogits: &mut Buffer,
        scores: &mut Buffer,
    ) -> Result<()> {
        let labels = me.upload_labels(&labels[..n])?;
        let grid = Grid { blocks: [n, 1, 1], threads: SOFTMAX_THREADS };
        launch!(
            me,
            self.softmax_cross_entropy,
            grid,
            structs::SoftmaxShape::new(s, n),
            logits,
            labels,
            ours,
            theirs,
            dlogits,
            scores
        )
    }

    pub(super) fn add(
        &self,
        me: &CudaBackend,
        shape: impl Into<TensorShape>,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        let elems = shape.into().elems();
        launch!(me, self.add, Grid::over(elems, ELEMENT_THREADS), (elems as u32), x, y)
    }

    pub(super) fn update(
        &self,
        me: &CudaBackend,
        update: &Update,
        shape: impl Into<TensorShape>,
        dw: &Buffer,
        w: &mut Buffer,
        state: &mut [Buffer],
    ) -> Result<()> {
        let elems = shape.into().elems();
        let (count, grid) = (elems as u32, Grid::over(elems, ELEMENT_THREADS));
        match (*update, state) {
            (Update::Sgd { lr, momentum, weight_decay }, [v]) => {
                launch!(me, self.update_sgd, grid, count, lr, momentum, (weight_decay * lr), dw, w, v)
            }
            (Update::Adam { beta1, beta2, epsilon, weight_decay, .. }, [m, v]) => {
                let [rate, root] = update.adam_factors();
                launch!(me, self.update_adam, grid, count, rate, root, beta1, beta2, epsilon, weight_decay, dw, w, m, v)
            }
            (_, state) => panic!("{update:?} with {} state tensors", state.len()),
        }
    }
}
