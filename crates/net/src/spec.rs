//! The network as a table (paper, section 3 and figure 2). Everything else is derived from it: shapes, parameters,
//! exchange points, work, memory, checkpoints.
//!
//! Sizes are those of the whole network; with two streams each has half of them.

use std::collections::HashSet;

pub use alexnet_split_cpu::shapes::Activation;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The input of a layer: the output of its own stream, or of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reads {
    /// This stream's output of the layer before; in the first layer the image, which every stream gets whole.
    Own,
    /// Both streams' output of the layer before: the exchange happens here.
    Both,
}

/// The streams that have the last layer's units.
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
    pub name: String,
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
    /// Its input.
    pub reads: Reads,
    /// Initial bias (paper, section 5).
    pub bias: f32,
    /// Standard deviation of the initial weights, where it is not [`WeightInit::Paper`](super::init::WeightInit)'s.
    pub std: Option<f32>,
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

/// Pooling over `window` x `window` at every `stride` (paper 3.4: 3/2, overlapping).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Window size.
    pub window: usize,
    /// Step between windows.
    pub stride: usize,
    /// Of the maximum: whether each place that has it gets the whole gradient (2012 code), and not the first alone.
    pub all_ties: bool,
}

/// A fully connected layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    /// Name, the stem of its parameters' names.
    pub name: String,
    /// Units, both streams together; `None` for one per class.
    pub out: Option<usize>,
    /// Its input.
    pub reads: Reads,
    /// Initial bias (paper, section 5).
    pub bias: f32,
    /// As [`Conv::std`].
    pub std: Option<f32>,
    /// The streams that have its units.
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
    /// The same within maps, over windows of n x n pixels (2012 code; not in the paper).
    SpatialLrn(Lrn),
    /// Max pooling.
    MaxPool(Pool),
    /// Average pooling.
    AvgPool(Pool),
    /// Fully connected layer with bias.
    Dense(Dense),
    /// Dropout with this probability of keeping a unit (paper 4.2).
    Dropout(f32),
    /// Softmax and cross-entropy over all classes, on whichever streams they are.
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

impl Net {
    /// Units of the last dense layer.
    pub fn classes(&self) -> usize {
        self.layers
            .iter()
            .rev()
            .find_map(|layer| if let Layer::Dense(row) = layer { row.out } else { None })
            .unwrap_or(0)
    }
}

impl Layer {
    /// The name of a layer with weights.
    pub fn name(&self) -> Option<&str> {
        match self {
            Layer::Conv(row) => Some(&row.name),
            Layer::Dense(row) => Some(&row.name),
            _ => None,
        }
    }

    /// The input of a layer with weights.
    pub(super) fn reads(&mut self) -> Option<&mut Reads> {
        match self {
            Layer::Conv(row) => Some(&mut row.reads),
            Layer::Dense(row) => Some(&mut row.reads),
            _ => None,
        }
    }

    /// Filters of a convolution.
    pub(super) fn conv_out(&mut self) -> Option<&mut usize> {
        if let Layer::Conv(row) = self { Some(&mut row.out) } else { None }
    }

    /// Units of a dense layer.
    pub(super) fn dense_out(&mut self) -> Option<&mut Option<usize>> {
        if let Layer::Dense(row) = self { Some(&mut row.out) } else { None }
    }
}

/// Refuses tables that cannot be a network, whatever the shapes.
pub(super) fn check(layers: &[Layer]) -> Result<()> {
    let wrong = |layer: &str, problem: &str| Err(Error::net(layer, problem));
    match layers {
        [] => return wrong("of the table", "there is none; net.layers is a list of rows"),
        [Layer::Conv(_) | Layer::Dense(_), ..] => {}
        _ => return wrong("the first one", "must be a conv or a dense layer"),
    }
    let mut names = HashSet::new();
    let last_dense = layers.iter().rposition(|layer| matches!(layer, Layer::Dense(_)));
    for (index, layer) in layers.iter().enumerate() {
        let (name, reads) = match layer {
            Layer::Conv(row) => (&row.name, row.reads),
            Layer::Dense(row) if row.placement == Placement::Stream0 && Some(index) != last_dense => {
                return wrong(&row.name, "is not the last dense layer: only that one can be on = \"stream0\"");
            }
            Layer::Dense(row) => match (row.out, Some(index) == last_dense) {
                (Some(_), true) => return wrong(&row.name, "is the last dense layer: write out = \"classes\""),
                (None, false) => return wrong(&row.name, "is not the last dense layer: its out must be a number"),
                _ => (&row.name, row.reads),
            },
            Layer::SoftmaxCrossEntropy if index + 1 < layers.len() => return wrong("softmax", "must be the last row"),
            _ => continue,
        };
        if !names.insert(name) {
            return wrong(name, "there are two of this name");
        }
        if index == 0 && reads == Reads::Both {
            return wrong(name, "is the first one and reads the image, which both streams have: leave reads out");
        }
    }
    match layers {
        [.., Layer::Dense(_), Layer::SoftmaxCrossEntropy] => Ok(()),
        _ => wrong("the last two", "must be a dense layer and \"softmax\""),
    }
}
