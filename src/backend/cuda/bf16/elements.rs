//! The operations without products: each thread has eight neighbouring channels of a pixel, or four weights.
#![allow(clippy::too_many_arguments)] // those of the trait's methods

use super::layout::{self, pad8};
use super::products::shadows;
use super::shapes::{Augment, Dropout, Lrn, Pool, SpatialLrn};
use crate::backend::cuda::device::Buffer;
use crate::backend::cuda::kernels::{self as structs, Bf16};
use crate::backend::cuda::sources::{ELEMENT_THREADS, SOFTMAX_THREADS};
use crate::backend::cuda::{Argument, CudaBackend, Grid, arg, launch, launches};
use crate::backend::*;
use crate::error::Result;
use crate::shapes::Activation;

/// Threads for vectors of eight values.
pub(super) fn eights(elems: usize) -> Grid {
    Grid::over(elems / 8, ELEMENT_THREADS)
}

/// Threads for vectors of four values.
pub(super) fn fours(elems: usize) -> Grid {
    Grid::over(elems / 4, ELEMENT_THREADS)
}

/// Vectors of eight values of a map.
fn vectors(shape: impl Into<TensorShape>) -> (Grid, u32) {
    let elems = layout::elems(&shape.into());
    (eights(elems), (elems / 8) as u32)
}

/// The channels of a map that are not padding.
fn channels(maps: &TensorShape) -> u32 {
    maps.dims()[1] as u32
}

/// Where the places of the maxima lie: behind y.
fn places(s: &PoolShape, n: usize, y: &Buffer) -> u64 {
    y.address() + layout::bytes(&TensorShape::Maps(n, [s.c, s.p, s.q])) as u64
}

impl Bf16 {
    pub(in crate::backend::cuda) fn augment(
        &self,
        me: &CudaBackend,
        s: &AugmentShape,
        pixels: &[u8],
        windows: &[Window],
        mean: &Buffer,
        input: impl Into<TensorShape>,
        y: &mut Buffer,
    ) -> Result<()> {
        let input = input.into();
        let shape = Augment::new(structs::AugmentShape::new(s, windows.len()), &input);
        let grid = Grid { blocks: shape.blocks(), threads: ELEMENT_THREADS };
        me.with_images(pixels, windows, |[pixels, windows]| {
            launch!(me, self.augment, grid, shape, pixels, windows, mean, y)
        })
    }

    pub(in crate::backend::cuda) fn activation_forward(
        &self,
        me: &CudaBackend,
        kind: Activation,
        shape: impl Into<TensorShape>,
        y: &mut Buffer,
    ) -> Result<()> {
        let shape = shape.into();
        let (grid, count) = vectors(shape);
        match kind {
            Activation::Relu => launch!(me, self.relu_forward, grid, count, y),
            Activation::Tanh => launch!(me, self.tanh_forward, grid, count, y),
            Activation::Sigmoid => launch!(me, self.sigmoid_forward, grid, count, (channels(&shape)), y),
        }
    }

    pub(in crate::backend::cuda) fn activation_backward(
        &self,
        me: &CudaBackend,
        kind: Activation,
        shape: impl Into<TensorShape>,
        y: &Buffer,
        dy: &mut Buffer,
    ) -> Result<()> {
        let (grid, count) = vectors(shape);
        match kind {
            Activation::Relu => launch!(me, self.relu_backward, grid, count, y, dy),
            Activation::Tanh => launch!(me, self.tanh_backward, grid, count, y, dy),
            Activation::Sigmoid => launch!(me, self.sigmoid_backward, grid, count, y, dy),
        }
    }

    pub(in crate::backend::cuda) fn add(
        &self,
        me: &CudaBackend,
        shape: impl Into<TensorShape>,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        let (grid, count) = vectors(shape);
        launch!(me, self.add, grid, count, x, y)
    }

    // One thread for eight values.
    launches! {
        lrn_forward(s: LrnShape as Lrn, n, x: &Buffer, y: &mut Buffer)
            over n * s.pixels * pad8(s.c) / 8, ELEMENT_THREADS;
        lrn_backward(s: LrnShape as Lrn, n, x: &Buffer, dy: &Buffer, dx: &mut Buffer)
            over n * s.pixels * pad8(s.c) / 8, ELEMENT_THREADS;
        spatial_lrn_forward(s: SpatialLrnShape as SpatialLrn, n, x: &Buffer, y: &mut Buffer)
            over n * s.norm.pixels * pad8(s.norm.c) / 8, ELEMENT_THREADS;
        spatial_lrn_backward(s: SpatialLrnShape as SpatialLrn, n, x: &Buffer, dy: &Buffer, dx: &mut Buffer)
            over n * s.norm.pixels * pad8(s.norm.c) / 8, ELEMENT_THREADS;
        max_pool_forward(s: PoolShape as Pool, n, x: &Buffer, y: &mut Buffer)
            over n * s.p * s.q * pad8(s.c) / 8, ELEMENT_THREADS;
        max_pool_backward(s: PoolShape as Pool, n, x: &Buffer, y: &Buffer, dy: &Buffer, dx: &mut Buffer)
            over n * s.h * s.w * pad8(s.c) / 8, ELEMENT_THREADS;
        avg_pool_forward(s: PoolShape as Pool, n, x: &Buffer, y: &mut Buffer)
            over n * s.p * s.q * pad8(s.c) / 8, ELEMENT_THREADS;
        avg_pool_backward(s: PoolShape as Pool, n, dy: &Buffer, dx: &mut Buffer)
            over n * s.h * s.w * pad8(s.c) / 8, ELEMENT_THREADS;
    }

    pub(in crate::backend::cuda) fn relu_lrn_max_pool_forward(
        &self,
        me: &CudaBackend,
        lrn: &LrnShape,
        pool: &PoolShape,
        n: usize,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        // A thread has four neighbours in a row.
        let grid = eights(n * pool.p * pool.q.div_ceil(4) * pad8(pool.c));
        let (lrn, places, pool) = (Lrn::new(lrn, n), places(pool, n, y), Pool::new(pool, n));
        launch!(me, self.relu_lrn_max_pool_forward, grid, lrn, pool, x, y, places)
    }

    pub(in crate::backend::cuda) fn relu_lrn_max_pool_backward(
        &self,
        me: &CudaBackend,
        lrn: &LrnShape,
        pool: &PoolShape,
        n: usize,
        x: &mut Buffer,
        y: &Buffer,
        dy: &Buffer,
    ) -> Result<()> {
        // A block has whole pixels: LRN needs all channels near by.
        let pixels_a_block = ELEMENT_THREADS as usize / (pad8(pool.c) / 8);
        let blocks = [(n * pool.h * pool.w).div_ceil(pixels_a_block.max(1)), 1, 1];
        let grid = Grid { blocks, threads: ELEMENT_THREADS };
        let (lrn, places, pool) = (Lrn::new(lrn, n), places(pool, n, y), Pool::new(pool, n));
        launch!(me, self.relu_lrn_max_pool_backward, grid, lrn, pool, x, places, dy)
    }

    pub(in crate::backend::cuda) fn dropout_forward(
        &self,
        me: &CudaBackend,
        s: &DropoutShape,
        n: usize,
        draw: &DropoutDraw,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        let grid = eights(n * s.pixels * pad8(s.elems / s.pixels));
        launch!(me, self.dropout, grid, Dropout::new(s, n, draw), x, y)
    }

    pub(in crate::backend::cuda) fn dropout_backward(
        &self,
        me: &CudaBackend,
        s: &DropoutShape,
        n: usize,
        draw: &DropoutDraw,
        dy: &mut Buffer,
    ) -> Result<()> {
        let grid = eights(n * s.pixels * pad8(s.elems / s.pixels));
        launch!(me, self.dropout, grid, Dropout::new(s, n, draw), dy, dy)
    }

    pub(in crate::backend::cuda) fn softmax_stats(
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

    pub(in crate::backend::cuda) fn softmax_cross_entropy(
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
        let shape = structs::SoftmaxShape::new(s, n);
        launch!(me, self.softmax_cross_entropy, grid, shape, logits, labels, ours, theirs, dlogits, scores)
    }

    pub(in crate::backend::cuda) fn update(
        &self,
        me: &CudaBackend,
        update: &Update,
        shape: impl Into<TensorShape>,
        dw: &Buffer,
        w: &mut Buffer,
        state: &mut [Buffer],
    ) -> Result<()> {
        let shape = shape.into();
        let elems = layout::elems(&shape);
        let (count, grid) = (elems as u32, fours(elems));
        let shadow = shadows(w, shape).map_or(0, |[shadow, _]| shadow);
        match (*update, state) {
            (Update::Sgd { lr, momentum, weight_decay }, [v]) => {
                launch!(me, self.update_sgd, grid, count, lr, momentum, (weight_decay * lr), dw, w, v, shadow)?;
            }
            (Update::Adam { beta1, beta2, epsilon, weight_decay: decay, .. }, [m, v]) => {
                let [rate, root] = update.adam_factors();
                launch!(
                    me,
                    self.update_adam,
                    grid,
                    count,
                    rate,
                    root,
                    beta1,
                    beta2,
                    epsilon,
                    decay,
                    dw,
                    w,
                    m,
                    v,
                    shadow
                )?;
            }
            (_, state) => panic!("{update:?} with {} state tensors", state.len()),
        }
        self.make_rotated(me, shape, w)
    }

    /// Makes the shadows anew after the host has written the weights.
    pub(in crate::backend::cuda) fn make_shadows(
        &self,
        me: &CudaBackend,
        shape: TensorShape,
        w: &Buffer,
    ) -> Result<()> {
        let Some([shadow, _]) = shadows(w, shape) else { return Ok(()) };
        let elems = layout::elems(&shape);
        launch!(me, self.make_shadow, fours(elems), (elems as u32), w, shadow)?;
        self.make_rotated(me, shape, w)
    }
}
