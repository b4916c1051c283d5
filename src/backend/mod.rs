//! The backend: the operations of the network. The contract of each is documented once, here.
//!
//! Layouts. Activations are `N C H W`, one image after another; filters are `K C R S`; outputs of a convolution or
//! pooling are `N K P Q`. Dense layers read the same memory as `N` rows of `C*H*W` inputs; their weights are `outputs x
//! inputs`. So the host writes and reads them, as f32; a device may keep them otherwise (see [`TensorShape`]). `d` before
//! a name is the gradient of the loss with respect to it. `n` is the number of images in the batch, at most what the
//! buffers were made for. Unless a method says "adds", it overwrites.

pub mod cpu;
pub mod cuda;
pub mod reference;

use std::time::Duration;

pub use alexnet_split_cpu::shapes::*;

use crate::error::Result;
use crate::net::plan::Plan;

/// A device that can run one stream. An operation knows shapes and buffers, never how many streams there are.
///
/// Methods may return before the work is done (a GPU queues it); [`Backend::finish_read`] waits. They fail where the
/// device does; shapes come from the plan and are right by construction, and a mismatch is a panic.
pub trait Backend: Send {
    /// Memory of the device.
    type Buffer: Send + Sync;
    /// A moment in the device's time.
    type Mark: Send;
    /// A read in progress.
    type Read: Send;
    /// Whether calls return before the work is done, so that only marks know how long it took, and reading the loss in
    /// the middle of a step would leave the device idle.
    const QUEUES: bool;

    /// The instructions that compute, such as `avx2` or `sm_90`. The same run gives the same bits on the same ones.
    fn instructions(&self) -> String;
    /// The bytes that values of this shape take on the device, and in an exchange.
    fn bytes(&self, shape: impl Into<TensorShape>) -> usize {
        shape.into().elems() * size_of::<f32>()
    }
    /// Memory for values of this shape, all 0.
    fn alloc(&self, shape: impl Into<TensorShape>) -> Result<Self::Buffer>;
    /// Memory for a parameter of this shape, which operations read, all 0.
    fn alloc_param(&self, shape: impl Into<TensorShape>) -> Result<Self::Buffer> {
        self.alloc(shape)
    }
    /// Copies `host`, which has this shape, to the start of `to`.
    fn write(&self, host: &[f32], shape: impl Into<TensorShape>, to: &mut Self::Buffer) -> Result<()>;
    /// Starts to read values of this shape from the start of `from` as they are after all work queued before; work queued later
    /// may overwrite them.
    fn start_read(&self, from: &Self::Buffer, shape: impl Into<TensorShape>) -> Result<Self::Read>;
    /// Waits for a read, and so for all work queued before it was started.
    fn finish_read(&self, read: Self::Read) -> Result<Vec<f32>>;
    /// The values at the start of `from`, when all work queued before is done.
    fn read(&self, from: &Self::Buffer, shape: impl Into<TensorShape>) -> Result<Vec<f32>> {
        self.finish_read(self.start_read(from, shape)?)
    }
    /// Sets values of this shape to 0.
    fn fill_zero(&self, shape: impl Into<TensorShape>, to: &mut Self::Buffer) -> Result<()>;
    /// Now, in the device's time.
    fn mark(&self) -> Result<Self::Mark>;
    /// Time between two marks; waits for the second.
    fn elapsed(&self, from: &Self::Mark, to: &Self::Mark) -> Result<Duration>;

    /// The network's input from the bytes of images (paper, sections 2 and 4.1): `windows[i]` is cut from image i, C x
    /// side x side values of 0 to 255, where it is not that window already, and mirrored where it says so; y = (value +
    /// shift - mean) * (scale * the window's), with the mean at the value's place in the whole image, or with a `centred_mean`
    /// at y's place in the centre of the mean image. mean: C x resize x resize, y: N x
    /// channels x size x size, of the shape `input`. A grey image fills all channels.
    fn augment(
        &self,
        shape: &AugmentShape,
        pixels: &[u8],
        windows: &[Window],
        mean: &Self::Buffer,
        input: impl Into<TensorShape>,
        y: &mut Self::Buffer,
    ) -> Result<()>;

    /// Fails where a layer of the plan is not among the operations.
    fn check(&self, plan: &Plan) -> Result<()> {
        let _ = plan;
        Ok(())
    }

    /// Makes room for what layers that add up two blocks write.
    fn reserve_sums(&self, outputs: impl Iterator<Item = TensorShape>) -> Result<()> {
        let _ = outputs;
        Ok(())
    }

    /// Makes room for batches of up to `images` images: their labels and scores, and of each image the `bytes` that it
    /// comes as. Devices that queue their work allocate nothing in a step afterwards: an allocation may wait for a device
    /// that waits for the other stream.
    fn reserve(&self, images: usize, bytes: usize) -> Result<()> {
        let _ = (images, bytes);
        Ok(())
    }

    /// y = x * w + bias (cross-correlation); where `bias` is `None`, adds x * w to y: the second block of a layer
    /// that reads both streams, right after the first one. Taps outside the image read 0. x: N C H W, w: K C R S, y: N K P Q. Paper 3.5.
    fn conv_forward(
        &self,
        shape: &ConvShape,
        n: usize,
        x: &Self::Buffer,
        w: &Self::Buffer,
        bias: Option<&Self::Buffer>,
        y: &mut Self::Buffer,
    ) -> Result<()>;
    /// dx = dy * w transposed.
    fn conv_backward_input(
        &self,
        shape: &ConvShape,
        n: usize,
        dy: &Self::Buffer,
        w: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<()>;
    /// dw = the sum over the batch of x * dy.
    fn conv_backward_weight(
        &self,
        shape: &ConvShape,
        n: usize,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        dw: &mut Self::Buffer,
    ) -> Result<()>;
    /// dbias = the sum of dy over images and pixels.
    fn conv_backward_bias(
        &self,
        shape: &ConvShape,
        n: usize,
        dy: &Self::Buffer,
        dbias: &mut Self::Buffer,
    ) -> Result<()>;

    /// y = x w^T + bias; where `bias` is `None`, adds x w^T to y, as in [`Backend::conv_forward`].
    fn dense_forward(
        &self,
        shape: &DenseShape,
        n: usize,
        x: &Self::Buffer,
        w: &Self::Buffer,
        bias: Option<&Self::Buffer>,
        y: &mut Self::Buffer,
    ) -> Result<()>;
    /// dx = dy w.
    fn dense_backward_input(
        &self,
        shape: &DenseShape,
        n: usize,
        dy: &Self::Buffer,
        w: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<()>;
    /// dw = dy^T x.
    fn dense_backward_weight(
        &self,
        shape: &DenseShape,
        n: usize,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        dw: &mut Self::Buffer,
    ) -> Result<()>;
    /// [`Backend::dense_backward_weight`] and [`Backend::update`] in one, to the same bits: a device that does it by
    /// parts needs no memory for dw.
    #[allow(clippy::too_many_arguments)]
    fn dense_backward_weight_update(
        &self,
        shape: &DenseShape,
        n: usize,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        update: &Update,
        w: &mut Self::Buffer,
        state: &mut [Self::Buffer],
    ) -> Result<()> {
        let mut dw = self.alloc(TensorShape::Weights(*shape))?;
        self.dense_backward_weight(shape, n, x, dy, &mut dw)?;
        self.update(update, TensorShape::Weights(*shape), &dw, w, state)
    }
    /// dbias = the sum of dy over the batch.
    fn dense_backward_bias(
        &self,
        shape: &DenseShape,
        n: usize,
        dy: &Self::Buffer,
        dbias: &mut Self::Buffer,
    ) -> Result<()>;

    /// y = f(y). Paper 3.1.
    fn activation_forward(&self, kind: Activation, shape: impl Into<TensorShape>, y: &mut Self::Buffer) -> Result<()>;
    /// dy = dy f'(x), from y = f(x): ReLU's derivative at 0 is 0.
    fn activation_backward(
        &self,
        kind: Activation,
        shape: impl Into<TensorShape>,
        y: &Self::Buffer,
        dy: &mut Self::Buffer,
    ) -> Result<()>;

    /// y_i = x_i / s_i^beta, s_i = k + alpha * (sum of x_j^2 over the channels |j - i| <= n/2 that exist). Paper 3.3.
    fn lrn_forward(&self, shape: &LrnShape, n: usize, x: &Self::Buffer, y: &mut Self::Buffer) -> Result<()>;
    /// dx_i = dy_i / s_i^beta - 2 alpha beta x_i * (sum over the window of dy_j x_j / s_j^(beta + 1)).
    fn lrn_backward(
        &self,
        shape: &LrnShape,
        n: usize,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<()>;

    /// As [`Backend::lrn_forward`], but s_i sums x_j^2 over the pixels j of the same channel at most n/2 rows and n/2
    /// columns from i. Not in the paper: `cnorm2` of the 2012 code (`layers-145.cfg`).
    fn spatial_lrn_forward(
        &self,
        shape: &SpatialLrnShape,
        n: usize,
        x: &Self::Buffer,
        y: &mut Self::Buffer,
    ) -> Result<()>;
    /// As [`Backend::lrn_backward`], over these windows.
    fn spatial_lrn_backward(
        &self,
        shape: &SpatialLrnShape,
        n: usize,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<()>;

    /// y = the maximum of each window. Paper 3.4.
    fn max_pool_forward(&self, shape: &PoolShape, n: usize, x: &Self::Buffer, y: &mut Self::Buffer) -> Result<()>;
    /// dx = each dy at its window's first maximum in row order (as PyTorch), or with `all_ties` at each place that has the
    /// maximum (as cuda-convnet), summed where windows overlap.
    fn max_pool_backward(
        &self,
        shape: &PoolShape,
        n: usize,
        x: &Self::Buffer,
        y: &Self::Buffer,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<()>;

    /// y = the mean of each window.
    fn avg_pool_forward(&self, shape: &PoolShape, n: usize, x: &Self::Buffer, y: &mut Self::Buffer) -> Result<()>;
    /// dx = each dy divided by the size of its window, at every place of it, summed where windows overlap.
    fn avg_pool_backward(&self, shape: &PoolShape, n: usize, dy: &Self::Buffer, dx: &mut Self::Buffer) -> Result<()>;

    /// Whether this device has ReLU, normalization and pooling in one, for these shapes: the two methods that follow.
    fn fuses(&self, lrn: &LrnShape, pool: &PoolShape) -> bool {
        let _ = (lrn, pool);
        false
    }
    /// y = max pooling of the normalized ReLU of x, to the bits of the three operations one after another.
    fn relu_lrn_max_pool_forward(
        &self,
        _lrn: &LrnShape,
        _pool: &PoolShape,
        _n: usize,
        _x: &Self::Buffer,
        _y: &mut Self::Buffer,
    ) -> Result<()> {
        unreachable!("see Backend::fuses")
    }
    /// x = the gradient with respect to x, which the forward pass left as it was; the same bits as by the three
    /// operations.
    fn relu_lrn_max_pool_backward(
        &self,
        _lrn: &LrnShape,
        _pool: &PoolShape,
        _n: usize,
        _x: &mut Self::Buffer,
        _y: &Self::Buffer,
        _dy: &Self::Buffer,
    ) -> Result<()> {
        unreachable!("see Backend::fuses")
    }

    /// y = x with the mask's units set to 0 and the others scaled as the draw says; at test time all are kept. Paper
    /// 4.2.
    fn dropout_forward(
        &self,
        shape: &DropoutShape,
        n: usize,
        draw: &DropoutDraw,
        x: &Self::Buffer,
        y: &mut Self::Buffer,
    ) -> Result<()>;
    /// dy = dy with the same mask and scale.
    fn dropout_backward(&self, shape: &DropoutShape, n: usize, draw: &DropoutDraw, dy: &mut Self::Buffer)
    -> Result<()>;

    /// Computes what the other stream needs of this one's logits: for each image the maximum m, the sum of exp(logit -
    /// m), and the label's logit, or -infinity where the label's class is on the other stream. stats: N x
    /// [`SoftmaxShape::STATS`].
    fn softmax_stats(
        &self,
        shape: &SoftmaxShape,
        n: usize,
        logits: &Self::Buffer,
        labels: &[u32],
        stats: &mut Self::Buffer,
    ) -> Result<()>;
    /// Cross-entropy over the classes of both streams from this one's logits and both streams' stats (`theirs` is
    /// `None` where the softmax is not split). dlogits = (softmax - one-hot) / n. For each image, scores holds its
    /// loss and how many classes of this stream rank above the label (ties: the lower class ranks higher); scores:
    /// N x 2. Both streams get the same bits for the loss.
    #[allow(clippy::too_many_arguments)]
    fn softmax_cross_entropy(
        &self,
        shape: &SoftmaxShape,
        n: usize,
        logits: &Self::Buffer,
        labels: &[u32],
        ours: &Self::Buffer,
        theirs: Option<&Self::Buffer>,
        dlogits: &mut Self::Buffer,
        scores: &mut Self::Buffer,
    ) -> Result<()>;

    /// y = y + x: the other stream's part of a gradient.
    fn add(&self, shape: impl Into<TensorShape>, x: &Self::Buffer, y: &mut Self::Buffer) -> Result<()>;
    /// Updates w and the optimizer's state from dw: the state is v, or m and v for Adam.
    fn update(
        &self,
        update: &Update,
        shape: impl Into<TensorShape>,
        dw: &Self::Buffer,
        w: &mut Self::Buffer,
        state: &mut [Self::Buffer],
    ) -> Result<()>;
}
