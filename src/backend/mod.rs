//! What computes: the operations of the network, each one's contract documented once, here.
//!
//! Layouts. Activations are `N C H W`, one image after another; filters are `K C R S`; outputs of a convolution or
//! pooling are `N K P Q`. Dense layers read the same memory as `N` rows of `C*H*W` inputs; their weights are
//! `outputs x inputs`. `d` before a name is the gradient of the loss by it. All values are f32. `n` is the number of
//! images in the batch, at most what the buffers were made for. Unless a method says "adds", it overwrites.

pub mod cpu;
pub mod cuda;

use std::time::Duration;

use crate::error::Result;
use crate::net::spec::Activation;
use crate::rng::Philox;

/// From the bytes of images to the network's input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AugmentShape {
    /// Channels of the bytes.
    pub c: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Shorter side after scaling.
    pub resize: usize,
    /// Channels of the input: `c`, or any number where `c` is 1.
    pub channels: usize,
    /// Rows and columns of the input.
    pub size: usize,
    /// The bytes are the windows' alone, of the scaled image: H and W are the input's size.
    pub cropped: bool,
    /// What differences from the mean are multiplied by.
    pub scale: f32,
}

/// Which part of a scaled image the network sees, and how it is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    /// Its first row.
    pub row: u32,
    /// Its first column.
    pub col: u32,
    /// Left and right are exchanged.
    pub mirrored: bool,
    /// Added to every pixel of a channel (paper 4.1).
    pub shift: [f32; 3],
}

/// One weight block of a convolution: K filters over C channels, in one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the field's standard letters, see the module's text
pub struct ConvShape {
    pub c: usize,
    pub h: usize,
    pub w: usize,
    pub k: usize,
    pub r: usize,
    pub s: usize,
    pub p: usize,
    pub q: usize,
    pub stride: usize,
    /// Zeros before the first row and column. Whatever lies beyond the last ones reads as 0 too.
    pub pad: usize,
}

/// One weight block of a dense layer, in one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenseShape {
    /// Values an image that the block reads.
    pub inputs: usize,
    /// Units.
    pub outputs: usize,
}

/// Local response normalization of one stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LrnShape {
    /// Channels.
    pub c: usize,
    /// Height times width.
    pub pixels: usize,
    /// Channels in the window, odd.
    pub n: usize,
    /// Additive constant.
    pub k: f32,
    /// Weight of the squares (not divided by n).
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
}

/// Max pooling of one stream; windows lie within the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the field's standard letters, see the module's text
pub struct PoolShape {
    pub c: usize,
    pub h: usize,
    pub w: usize,
    pub window: usize,
    pub stride: usize,
    pub p: usize,
    pub q: usize,
}

/// Dropout of one stream's units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutShape {
    /// Units an image in this stream.
    pub elems: usize,
    /// Number of the first of them in the whole layer: masks are drawn by that number.
    pub first_unit: usize,
    /// Probability of keeping a unit.
    pub keep: f32,
    /// The layer's index in the table, part of the random key.
    pub layer: u32,
}

/// The part of the softmax that lives in one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftmaxShape {
    /// Classes in this stream.
    pub classes: usize,
    /// The first of them in the whole layer.
    pub first: usize,
    /// Whether the other stream has the rest.
    pub split: bool,
}

impl DropoutShape {
    /// Random words below it keep a unit: keep * 2^32, which is 2^32 at keep = 1.
    pub fn threshold(&self) -> u64 {
        (f64::from(self.keep) * 4_294_967_296.) as u64
    }
}

impl SoftmaxShape {
    /// Values an image that streams tell each other: maximum, sum of exponentials, logit of the label.
    pub const STATS: usize = 3;
}

/// When dropout scales: the paper does it at test time, later practice in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DropoutScaling {
    /// Outputs are multiplied by the keep probability at test time (paper 4.2).
    Test,
    /// Kept outputs are divided by the keep probability in training ("inverted"; PyTorch).
    Train,
}

/// How dropout treats a batch.
///
/// The mask: unit u of sample i draws word u % 4 of the random block at counter (u / 4, i, step) and is kept where the
/// word is below keep * 2^32.
#[derive(Clone, Copy, Debug)]
pub struct DropoutDraw {
    /// In training, the generator keyed by seed, purpose and layer, and the step; `None` at test time.
    pub mask: Option<(Philox, u64)>,
    /// Who scales.
    pub scaling: DropoutScaling,
}

impl DropoutDraw {
    /// What kept units are multiplied by.
    pub fn factor(&self, keep: f32) -> f32 {
        match (self.scaling, self.mask) {
            (DropoutScaling::Test, None) => keep,
            (DropoutScaling::Train, Some(_)) => 1. / keep,
            _ => 1.,
        }
    }
}

/// Hyper-parameters of one parameter's update at one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Update {
    /// v <- momentum v - weight_decay lr w - lr dw;  w <- w + v (paper, section 5).
    Sgd {
        /// Learning rate of this step.
        lr: f32,
        /// Momentum.
        momentum: f32,
        /// Weight decay of this parameter.
        weight_decay: f32,
    },
    /// Adam with bias correction (Kingma and Ba, 2015); `step` counts from 1. Weight decay is added to the gradient.
    Adam {
        /// Learning rate of this step.
        lr: f32,
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the root of the second moment.
        epsilon: f32,
        /// Weight decay of this parameter.
        weight_decay: f32,
        /// Updates so far, this one included.
        step: u64,
    },
}

impl Update {
    /// Adam's rate and the root of its second moment's, both corrected for their start at 0: w moves by
    /// rate * m / (sqrt(v) / root + epsilon). 1 for others.
    pub fn adam_factors(&self) -> [f32; 2] {
        match *self {
            Update::Adam { lr, beta1, beta2, step, .. } => {
                let power = |beta: f32| 1. - f64::from(beta).powf(step as f64);
                [(f64::from(lr) / power(beta1)) as f32, power(beta2).sqrt() as f32]
            }
            Update::Sgd { .. } => [1.; 2],
        }
    }
}

/// How matrix products are computed; everything else, and all that is stored, is fp32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Multiply-adds in fp32.
    #[default]
    Fp32 = 0,
    /// Tensor cores: factors rounded to 10 bits of mantissa, sums in fp32.
    Tf32 = 1,
    /// Tensor cores, or AVX512_BF16: factors rounded to 7 bits of mantissa, sums in fp32.
    Bf16 = 2,
}

/// A device that can run one stream. An operation knows shapes and buffers, never how many streams there are.
///
/// Methods may return before the work is done (a GPU queues it); [`Backend::finish_read`] waits. They fail where the
/// device does; shapes come from the plan and are right by construction, and a mismatch is a panic.
pub trait Backend: Send {
    /// Memory of the device holding f32 values.
    type Buffer: Send + Sync;
    /// A point in the device's time.
    type Mark: Send;
    /// A read that is under way.
    type Read: Send;
    /// Whether calls return before the work is done, so that only marks know how long it took.
    const QUEUES: bool;

    /// Memory for `elems` values, all 0.
    fn alloc(&self, elems: usize) -> Result<Self::Buffer>;
    /// Copies `host` to the start of `to`.
    fn write(&self, host: &[f32], to: &mut Self::Buffer) -> Result<()>;
    /// Starts to read the first `elems` values of `from` as they are after all work queued before; work queued later
    /// may overwrite them.
    fn start_read(&self, from: &Self::Buffer, elems: usize) -> Result<Self::Read>;
    /// Waits for a read, and so for all work queued before it was started.
    fn finish_read(&self, read: Self::Read) -> Result<Vec<f32>>;
    /// The first `elems` values of `from`, when all work queued before is done.
    fn read(&self, from: &Self::Buffer, elems: usize) -> Result<Vec<f32>> {
        self.finish_read(self.start_read(from, elems)?)
    }
    /// Sets the first `elems` values to 0.
    fn fill_zero(&self, elems: usize, to: &mut Self::Buffer) -> Result<()>;
    /// Now, in the device's time.
    fn mark(&self) -> Result<Self::Mark>;
    /// Time between two marks; waits for the second.
    fn elapsed(&self, from: &Self::Mark, to: &Self::Mark) -> Result<Duration>;

    /// The network's input from the bytes of images (paper, sections 2 and 4.1): image i, C x H x W values of 0 to 255,
    /// is scaled bilinearly so that its shorter side is `resize` and the middle of the longer one is kept; `windows[i]`
    /// is cut from it and mirrored where it says so; y = (value + shift - mean) * scale, with the mean at the value's
    /// place in the scaled image. mean: C x resize x resize, y: N x channels x size x size. A grey image fills all channels.
    fn augment(
        &self,
        shape: &AugmentShape,
        pixels: &[u8],
        windows: &[Window],
        mean: &Self::Buffer,
        y: &mut Self::Buffer,
    ) -> Result<()>;

    /// y = x * w + bias (cross-correlation); where `bias` is `None`, adds x * w to y: the second block of a layer
    /// that reads both streams. Taps outside the image read 0. x: N C H W, w: K C R S, y: N K P Q. Paper 3.5.
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
    /// dbias = the sum of dy over the batch.
    fn dense_backward_bias(
        &self,
        shape: &DenseShape,
        n: usize,
        dy: &Self::Buffer,
        dbias: &mut Self::Buffer,
    ) -> Result<()>;

    /// y = f(y) over `elems` values. Paper 3.1.
    fn activation_forward(&self, kind: Activation, elems: usize, y: &mut Self::Buffer) -> Result<()>;
    /// dy = dy f'(x), from y = f(x): ReLU's derivative at 0 is 0.
    fn activation_backward(
        &self,
        kind: Activation,
        elems: usize,
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

    /// y = the maximum of each window. Paper 3.4.
    fn max_pool_forward(&self, shape: &PoolShape, n: usize, x: &Self::Buffer, y: &mut Self::Buffer) -> Result<()>;
    /// dx = each dy at its window's first maximum in row order (as PyTorch; cuda-convnet gives it to every tied one),
    /// summed where windows overlap.
    fn max_pool_backward(
        &self,
        shape: &PoolShape,
        n: usize,
        x: &Self::Buffer,
        y: &Self::Buffer,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<()>;

    /// Whether this device has ReLU, normalization and pooling in one, for these shapes: the two methods that follow.
    fn fuses(_lrn: &LrnShape, _pool: &PoolShape) -> bool {
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
    /// x = the gradient by x, which the forward pass left as it was; the same bits as by the three operations.
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

    /// Tells the other stream what it needs of this one's logits: for each image the maximum m, the sum of
    /// exp(logit - m), and the label's logit, or -infinity where the label's class lives in the other stream.
    /// stats: N x [`SoftmaxShape::STATS`].
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

    /// y = y + x over `elems` values: the other stream's part of a gradient.
    fn add(&self, elems: usize, x: &Self::Buffer, y: &mut Self::Buffer) -> Result<()>;
    /// Updates w and the optimizer's state from dw: the state is v, or m and v for Adam.
    fn update(
        &self,
        update: &Update,
        elems: usize,
        dw: &Self::Buffer,
        w: &mut Self::Buffer,
        state: &mut [Self::Buffer],
    ) -> Result<()>;
}
