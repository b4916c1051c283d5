//! The network as a table (paper, section 3 and figure 2). Everything else is derived from it: shapes, parameters,
//! exchange points, work, memory, checkpoints.
//!
//! Sizes are those of the whole network; with two streams each has half of them.

pub use alexnet_split_cpu::shapes::Activation;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a layer reads: the whole image, the output of its own stream, or of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// The input image, which every stream gets whole.
    Image,
    /// This stream's output of the layer before.
    Own,
    /// Both streams' output of the layer before: the exchange happens here.
    Both,
}

/// Where the last layer's units live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// Half of the units on each stream, which balances the load.
    #[default]
    Split,
    /// All of them on stream 0, as the 2012 code did it.
    Stream0,
}

/// A convolution: `out` filters of `kernel` x `kernel`.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Name, the stem of its parameters' names.
    pub name: &'static str,
    /// Filters, both streams together.
    pub out: usize,
    /// Filter size R = S.
    pub kernel: usize,
    /// Step between filter positions.
    pub stride: usize,
    /// Zeros read around the image.
    pub pad: usize,
    /// Output size rounded up: taps beyond the right and bottom edge read 0 (cuda-convnet; 224 -> 55).
    pub round_up: bool,
    /// What it reads.
    pub reads: Reads,
    /// Initial bias (paper, section 5).
    pub bias: f32,
}

/// Local response normalization (paper 3.3): b_i = a_i / (k + alpha * sum_{|j-i| <= n/2} a_j^2)^beta, within a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lrn {
    /// Channels in the window.
    pub n: usize,
    /// Additive constant.
    pub k: f32,
    /// Weight of the squares (not divided by n).
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
}

/// Max pooling over `window` x `window` at every `stride` (paper 3.4: 3/2, overlapping).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool {
    /// Window size.
    pub window: usize,
    /// Step between windows.
    pub stride: usize,
}

/// A fully connected layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    /// Name, the stem of its parameters' names.
    pub name: &'static str,
    /// Units, both streams together.
    pub out: usize,
    /// What it reads.
    pub reads: Reads,
    /// Initial bias (paper, section 5).
    pub bias: f32,
    /// Where its units live.
    pub placement: Placement,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer {
    /// Convolution with bias.
    Conv(Conv),
    /// Non-linearity, in place.
    Activation(Activation),
    /// Local response normalization.
    Lrn(Lrn),
    /// Max pooling.
    MaxPool(MaxPool),
    /// Fully connected layer with bias.
    Dense(Dense),
    /// Dropout with this probability of keeping a unit (paper 4.2).
    Dropout(f32),
    /// Softmax and cross-entropy over all classes, in whichever streams they live.
    SoftmaxCrossEntropy,
}

/// The network: the table and what it is applied to.
#[derive(Clone, Debug, PartialEq)]
pub struct Net {
    /// Image channels, height, width.
    pub image: [usize; 3],
    /// One or two streams.
    pub streams: usize,
    /// The rows.
    pub layers: Vec<Layer>,
}

/// The network of the paper: five convolutions and three dense layers in two streams that meet at conv3 and at the
/// dense layers.
#[rustfmt::skip]
pub fn alexnet(classes: usize) -> Vec<Layer> {
    use Reads::{Both, Image, Own};
    vec![
        conv("conv1").out(96).kernel(11).stride(4).round_up().reads(Image).into(), relu(), lrn(), max_pool(3, 2),
        conv("conv2").out(256).kernel(5).pad(2).reads(Own).bias(1.).into(),        relu(), lrn(), max_pool(3, 2),
        conv("conv3").out(384).kernel(3).pad(1).reads(Both).into(),                relu(),
        conv("conv4").out(384).kernel(3).pad(1).reads(Own).bias(1.).into(),        relu(),
        conv("conv5").out(256).kernel(3).pad(1).reads(Own).bias(1.).into(),        relu(), max_pool(3, 2),
        dense("fc6").out(4096).reads(Both).bias(1.).into(),                        relu(), dropout(0.5),
        dense("fc7").out(4096).reads(Both).bias(1.).into(),                        relu(), dropout(0.5),
        dense("fc8").out(classes).reads(Both).into(),                              softmax_cross_entropy(),
    ]
}

/// The single tower that textbooks train on Fashion-MNIST ("Dive into Deep Learning", section 8.1): no split, no
/// normalization, conv1 padded by 1.
#[rustfmt::skip]
pub fn fashion(classes: usize) -> Vec<Layer> {
    use Reads::{Image, Own};
    vec![
        conv("conv1").out(96).kernel(11).stride(4).pad(1).reads(Image).into(), relu(), max_pool(3, 2),
        conv("conv2").out(256).kernel(5).pad(2).reads(Own).into(),             relu(), max_pool(3, 2),
        conv("conv3").out(384).kernel(3).pad(1).reads(Own).into(),             relu(),
        conv("conv4").out(384).kernel(3).pad(1).reads(Own).into(),             relu(),
        conv("conv5").out(256).kernel(3).pad(1).reads(Own).into(),             relu(), max_pool(3, 2),
        dense("fc6").out(4096).reads(Own).into(),                              relu(), dropout(0.5),
        dense("fc7").out(4096).reads(Own).into(),                              relu(), dropout(0.5),
        dense("fc8").out(classes).reads(Own).into(),                           softmax_cross_entropy(),
    ]
}

/// One stream of the paper alone, as many PyTorch courses teach "AlexNet": padded by 2, dropout before fc6 and fc7.
#[rustfmt::skip]
pub fn half(classes: usize) -> Vec<Layer> {
    use Reads::{Image, Own};
    vec![
        conv("conv1").out(48).kernel(11).stride(4).pad(2).reads(Image).into(), relu(), max_pool(3, 2),
        conv("conv2").out(128).kernel(5).pad(2).reads(Own).into(),             relu(), max_pool(3, 2),
        conv("conv3").out(192).kernel(3).pad(1).reads(Own).into(),             relu(),
        conv("conv4").out(192).kernel(3).pad(1).reads(Own).into(),             relu(),
        conv("conv5").out(128).kernel(3).pad(1).reads(Own).into(),             relu(), max_pool(3, 2), dropout(0.5),
        dense("fc6").out(2048).reads(Own).into(),                              relu(), dropout(0.5),
        dense("fc7").out(2048).reads(Own).into(),                              relu(),
        dense("fc8").out(classes).reads(Own).into(),                           softmax_cross_entropy(),
    ]
}

/// A convolution to be filled in; stride 1, no padding, reads its own stream, bias 0 until said otherwise.
pub fn conv(name: &'static str) -> Conv {
    Conv { name, out: 0, kernel: 0, stride: 1, pad: 0, round_up: false, reads: Reads::Own, bias: 0. }
}

/// A dense layer to be filled in; reads its own stream, bias 0, split, until said otherwise.
pub fn dense(name: &'static str) -> Dense {
    Dense { name, out: 0, reads: Reads::Own, bias: 0., placement: Placement::Split }
}

/// ReLU.
pub fn relu() -> Layer {
    Layer::Activation(Activation::Relu)
}

/// Local response normalization with the paper's constants (3.3).
pub fn lrn() -> Layer {
    Layer::Lrn(Lrn { n: 5, k: 2., alpha: 1e-4, beta: 0.75 })
}

/// Max pooling.
pub fn max_pool(window: usize, stride: usize) -> Layer {
    Layer::MaxPool(MaxPool { window, stride })
}

/// Dropout with the probability of keeping a unit.
pub fn dropout(keep: f32) -> Layer {
    Layer::Dropout(keep)
}

/// The loss.
pub fn softmax_cross_entropy() -> Layer {
    Layer::SoftmaxCrossEntropy
}

/// One setter a field, for the table's rows.
macro_rules! setters {
    ($row:ident: $($field:ident: $kind:ty),*) => {
        impl $row {
            $(#[doc = concat!("Sets `", stringify!($field), "`.")]
            pub fn $field(mut self, $field: $kind) -> Self { self.$field = $field; self })*
        }
        impl From<$row> for Layer { fn from(row: $row) -> Layer { Layer::$row(row) } }
    };
}
setters!(Conv: out: usize, kernel: usize, stride: usize, pad: usize, reads: Reads, bias: f32);
setters!(Dense: out: usize, reads: Reads, bias: f32);

impl Conv {
    /// Rounds the output size up.
    pub fn round_up(mut self) -> Self {
        self.round_up = true;
        self
    }
}

/// Which table, and what is changed in it: the `[net]` part of a recipe. What is not set stays as the table has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetOptions {
    /// `alexnet`, `fashion` or `half`.
    pub table: Table,
    /// Image channels, 1 or 3. Unset: those of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_channels: Option<usize>,
    /// Image height and width. Unset: 224.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// Units of fc8. Unset: the classes of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// 1 or 2. Unset: 2 for `alexnet`, 1 for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<usize>,
    /// Filters of the convolutions in order, both streams together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conv_channels: Option<Vec<usize>>,
    /// Units of the dense layers before the last, both streams together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense_units: Option<Vec<usize>>,
    /// `false` takes local response normalization out (paper 3.3 gives the cost).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lrn: Option<bool>,
    /// `"3/2"` overlaps, `"2/2"` does not (paper 3.4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// `relu` or `tanh` (paper 3.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Where fc8 lives: `split` or `stream0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fc8: Option<Placement>,
}

/// The tables there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// [`alexnet`]
    #[default]
    Alexnet,
    /// [`fashion`]
    Fashion,
    /// [`half`]
    Half,
}

impl Net {
    /// The network that the options name. Unset classes are the paper's 1000, unset channels its 3.
    ///
    /// Fails where an option does not fit the table; sizes are checked when the network is planned.
    pub fn from_options(options: &NetOptions) -> Result<Net> {
        let classes = options.classes.unwrap_or(1000);
        let (mut layers, streams) = match options.table {
            Table::Alexnet => (alexnet(classes), 2),
            Table::Fashion => (fashion(classes), 1),
            Table::Half => (half(classes), 1),
        };
        if let Some(channels) = &options.conv_channels {
            let mut outs: Vec<&mut usize> = layers.iter_mut().filter_map(Layer::conv_out).collect();
            set_sizes("net.conv_channels", &mut outs, channels)?;
        }
        if let Some(units) = &options.dense_units {
            let mut outs: Vec<&mut usize> = layers.iter_mut().filter_map(Layer::dense_out).collect();
            outs.pop(); // the last has one unit a class
            set_sizes("net.dense_units", &mut outs, units)?;
        }
        if options.lrn == Some(false) {
            layers.retain(|layer| !matches!(layer, Layer::Lrn(_)));
        }
        let pool = options.pool.as_deref().map(parse_pool).transpose()?;
        let last_dense = layers.iter().rposition(|layer| matches!(layer, Layer::Dense(_)));
        for (index, layer) in layers.iter_mut().enumerate() {
            match layer {
                Layer::MaxPool(row) => *row = pool.unwrap_or(*row),
                Layer::Activation(row) => *row = options.activation.unwrap_or(*row),
                Layer::Dense(row) if Some(index) == last_dense => row.placement = options.fc8.unwrap_or(row.placement),
                _ => {}
            }
        }
        let size = options.image_size.unwrap_or(224);
        let image = [options.image_channels.unwrap_or(3), size, size];
        Ok(Net { image, streams: options.streams.unwrap_or(streams), layers })
    }

    /// Units of the last dense layer.
    pub fn classes(&self) -> usize {
        self.layers
            .iter()
            .rev()
            .find_map(|layer| if let Layer::Dense(row) = layer { Some(row.out) } else { None })
            .unwrap_or(0)
    }
}

impl Layer {
    fn conv_out(&mut self) -> Option<&mut usize> {
        if let Layer::Conv(row) = self { Some(&mut row.out) } else { None }
    }

    fn dense_out(&mut self) -> Option<&mut usize> {
        if let Layer::Dense(row) = self { Some(&mut row.out) } else { None }
    }
}

fn set_sizes(key: &'static str, outs: &mut [&mut usize], sizes: &[usize]) -> Result<()> {
    if outs.len() != sizes.len() {
        return Err(Error::recipe(
            key,
            format!("{} sizes given, the table has {} such layers", sizes.len(), outs.len()),
        ));
    }
    outs.iter_mut().zip(sizes).for_each(|(out, &size)| **out = size);
    Ok(())
}

fn parse_pool(text: &str) -> Result<MaxPool> {
    let wrong = || {
        Error::recipe("net.pool", format!("expected \"window/stride\" such as \"3/2\" or \"2/2\", found \"{text}\""))
    };
    let (window, stride) = text.split_once('/').ok_or_else(wrong)?;
    let pool = MaxPool { window: window.parse().map_err(|_| wrong())?, stride: stride.parse().map_err(|_| wrong())? };
    if pool.window == 0 || pool.stride == 0 { Err(wrong()) } else { Ok(pool) }
}
