//! Shapes and constants of the network's operations, the same for every device.

use serde::{Deserialize, Serialize};

use crate::rng::Philox;

/// A neuron's non-linearity (paper 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// f(x) = max(0, x)
    #[default]
    Relu,
    /// f(x) = tanh(x), what the paper compares with
    Tanh,
    /// f(x) = 1 / (1 + exp(-x)), LeNet's where courses teach it
    Sigmoid,
}

/// From the bytes of images to the network's input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AugmentShape {
    /// Channels of the bytes.
    pub c: usize,
    /// Rows and columns of the bytes: `resize`, or `size` where they are the windows' alone.
    pub side: usize,
    /// Rows and columns of the whole images, and of their mean.
    pub resize: usize,
    /// Channels of the input: `c`, or any number where `c` is 1.
    pub channels: usize,
    /// Rows and columns of the input.
    pub size: usize,
    /// The factor of differences from the mean.
    pub scale: f32,
    /// Whether the mean that is subtracted is the centre of the mean image, whatever the window, after the mirroring.
    pub centred_mean: bool,
}

impl AugmentShape {
    /// Whether the bytes are the windows' alone.
    pub fn is_cropped(&self) -> bool {
        self.side == self.size
    }
}

/// The part of an image that the network sees, and its changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Its first row.
    pub row: u32,
    /// Its first column.
    pub col: u32,
    /// Left and right are exchanged.
    pub mirrored: bool,
    /// Added to every pixel of a channel (paper 4.1).
    pub shift: [f32; 3],
    /// A factor of differences from the mean, besides [`AugmentShape::scale`].
    pub scale: f32,
}

impl Default for Window {
    /// The first rows and columns as they are.
    fn default() -> Window {
        Window { row: 0, col: 0, mirrored: false, shift: [0.; 3], scale: 1. }
    }
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
    /// Blocks whose products the layer adds up: 2 where it reads both streams.
    pub blocks: usize,
}

/// One weight block of a dense layer, in one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenseShape {
    /// Values an image that the block reads.
    pub inputs: usize,
    /// Units.
    pub outputs: usize,
    /// Values of each channel that it reads, one after another: H x W of the maps before it.
    pub pixels: usize,
    /// Blocks whose products the layer adds up: 2 where it reads both streams.
    pub blocks: usize,
    /// Whether the softmax reads what it writes.
    pub logits: bool,
}

/// The shape of a buffer's values as the host sees them. How they lie on a device is the device's own affair: it converts
/// where the host writes or reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TensorShape {
    /// So many values in a row: a bias, statistics, scores.
    Values(usize),
    /// Activations of so many images, or their gradients: N C H W, with C, H and W.
    Maps(usize, [usize; 3]),
    /// The same, and where each maximum lies, from which a device that pools in a fused layer gets the gradient.
    Pooled(usize, [usize; 3]),
    /// What the softmax reads: one row for each of so many images, of so many classes.
    Logits(usize, usize),
    /// So many images as the network's input that this convolution reads: N C H W.
    Input(usize, ConvShape),
    /// The filters of a convolution: K C R S.
    Filters(ConvShape),
    /// The weights of a dense layer: outputs x inputs.
    Weights(DenseShape),
}

impl TensorShape {
    /// The sizes, outermost first.
    pub fn dims(&self) -> Vec<usize> {
        match *self {
            TensorShape::Values(elems) => vec![elems],
            TensorShape::Maps(n, [c, h, w]) | TensorShape::Pooled(n, [c, h, w]) => vec![n, c, h, w],
            TensorShape::Logits(n, classes) => vec![n, classes],
            TensorShape::Input(n, s) => vec![n, s.c, s.h, s.w],
            TensorShape::Filters(s) => vec![s.k, s.c, s.r, s.s],
            TensorShape::Weights(s) => vec![s.outputs, s.inputs],
        }
    }

    /// The number of values.
    pub fn elems(&self) -> usize {
        self.dims().iter().product()
    }
}

impl From<usize> for TensorShape {
    fn from(elems: usize) -> TensorShape {
        TensorShape::Values(elems)
    }
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

/// Local response normalization of one stream within maps: over windows of `norm.n` x `norm.n` pixels of a channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpatialLrnShape {
    /// Channels and constants; its pixels are h x w.
    pub norm: LrnShape,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
}

/// Pooling of one stream; windows lie within the map.
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
    /// Of the maximum: whether each place that has it gets the whole gradient, and not the first alone.
    pub all_ties: bool,
}

/// Dropout of one stream's units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutShape {
    /// Units per image in this stream.
    pub elems: usize,
    /// Units of each channel, H x W.
    pub pixels: usize,
    /// Number of the first of them in the whole layer: masks are drawn by that number.
    pub first_unit: usize,
    /// Probability of keeping a unit.
    pub keep: f32,
    /// The layer's index in the table, part of the random key.
    pub layer: u32,
}

/// The part of the softmax on one stream.
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
    /// Values per image that streams send each other: maximum, sum of exponentials, logit of the label.
    pub const STATS: usize = 3;
}

/// The pass in which dropout scales: the paper does it at test time, later practice in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DropoutScaling {
    /// Outputs are multiplied by the keep probability at test time (paper 4.2).
    Test,
    /// Kept outputs are divided by the keep probability in training ("inverted"; PyTorch).
    Train,
}

/// The dropout of a batch.
///
/// The mask: unit u of sample i draws word u % 4 of the random block at counter (u / 4, i, step) and is kept where the
/// word is below keep * 2^32.
#[derive(Clone, Copy, Debug)]
pub struct DropoutDraw {
    /// In training, the generator keyed by seed, purpose and layer, and the step; `None` at test time.
    pub mask: Option<(Philox, u64)>,
    /// The pass that scales.
    pub scaling: DropoutScaling,
}

impl DropoutDraw {
    /// The factor of units that are kept.
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
    /// Whether the rate is 0: nothing moves, neither the parameter nor the optimizer's state, and no backend is asked.
    pub fn is_frozen(&self) -> bool {
        let (Update::Sgd { lr, .. } | Update::Adam { lr, .. }) = *self;
        lr == 0.
    }

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

/// The precision of matrix products. Everything else, and all that is stored, is fp32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Multiply-adds in fp32.
    #[default]
    Fp32 = 0,
    /// Tensor cores: operands rounded to 10 bits of mantissa, sums in fp32.
    Tf32 = 1,
    /// Tensor cores, or AVX512_BF16: operands rounded to 7 bits of mantissa, sums in fp32.
    Bf16 = 2,
}
