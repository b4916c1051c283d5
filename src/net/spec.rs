//! The network as a table (paper, section 3 and figure 2). Everything else is derived from it: shapes, parameters,
//! exchange points, work, memory, checkpoints.
//!
//! Sizes are those of the whole network; with two streams each has half of them.

use std::collections::HashSet;

pub use alexnet_split_cpu::shapes::Activation;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The input of a layer: the output of its own stream, or of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Pixels of a side of the input, at most.
const MOST_PIXELS: usize = 4096;

/// Channels, units or classes, at most.
const MOST_UNITS: usize = 1_000_000;

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

/// The table of the paper: the rows of `recipes/paper.toml`.
pub fn paper_layers() -> Vec<Layer> {
    #[derive(Deserialize)]
    struct File {
        net: Rows,
    }
    #[derive(Deserialize)]
    struct Rows {
        layers: Vec<Layer>,
    }
    let file: Result<File, _> = toml::from_str(include_str!("../../recipes/paper.toml"));
    file.unwrap_or_else(|error| unreachable!("recipes/paper.toml is tested: {error}")).net.layers
}

/// The `[net]` part of a recipe: the table, and what is changed in it. What is not set stays as the table has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetOptions {
    /// The rows; see `row.rs` for how they are written.
    pub layers: Vec<Layer>,
    /// Image channels, 1 or 3. Unset: those of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_channels: Option<usize>,
    /// Image height and width. Unset: 224.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// Units of fc8. Unset: the classes of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// 1 or 2. Unset: 2 where a layer reads both streams, else 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<usize>,
    /// Filters of the convolutions in order, both streams together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conv_channels: Option<Vec<usize>>,
    /// Units of the dense layers before the last, both streams together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dense_units: Option<Vec<usize>>,
    /// `false` takes local response normalization out (paper 3.3 gives the cost).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lrn: Option<bool>,
    /// `"3/2"` overlaps, `"2/2"` does not (paper 3.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// `relu` or `tanh` (paper 3.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// The streams that have fc8's units: `split` or `stream0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fc8: Option<Placement>,
}

impl Default for NetOptions {
    /// The paper's table as it is.
    fn default() -> NetOptions {
        NetOptions {
            layers: paper_layers(),
            image_channels: None,
            image_size: None,
            classes: None,
            streams: None,
            conv_channels: None,
            dense_units: None,
            lrn: None,
            pool: None,
            activation: None,
            fc8: None,
        }
    }
}

impl Net {
    /// The network that the options name. Unset classes are the paper's 1000, unset channels its 3.
    ///
    /// Fails where an option does not fit the table; sizes are checked when the network is planned.
    pub fn from_options(options: &NetOptions) -> Result<Net> {
        let mut layers = options.layers.clone();
        check(&layers)?;
        check_sizes(options)?;
        let reads_both = |layer: &Layer| match layer {
            Layer::Conv(row) => row.reads == Reads::Both,
            Layer::Dense(row) => row.reads == Reads::Both,
            _ => false,
        };
        let streams = if layers.iter().any(reads_both) { 2 } else { 1 };
        layers.iter_mut().filter_map(Layer::dense_out).for_each(|out| {
            out.get_or_insert(options.classes.unwrap_or(1000));
        });
        if let Some(channels) = &options.conv_channels {
            let mut outs: Vec<&mut usize> = layers.iter_mut().filter_map(Layer::conv_out).collect();
            set_sizes("net.conv_channels", &mut outs, channels)?;
        }
        if let Some(units) = &options.dense_units {
            let outs = layers.iter_mut().filter_map(Layer::dense_out).filter_map(Option::as_mut);
            let mut outs: Vec<&mut usize> = outs.collect();
            outs.pop(); // the last has one unit per class
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
            .find_map(|layer| if let Layer::Dense(row) = layer { row.out } else { None })
            .unwrap_or(0)
    }
}

impl Layer {
    fn conv_out(&mut self) -> Option<&mut usize> {
        if let Layer::Conv(row) = self { Some(&mut row.out) } else { None }
    }

    fn dense_out(&mut self) -> Option<&mut Option<usize>> {
        if let Layer::Dense(row) = self { Some(&mut row.out) } else { None }
    }
}

/// Refuses tables that cannot be a network, whatever the shapes.
fn check(layers: &[Layer]) -> Result<()> {
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

/// Refuses sizes that are out of range.
fn check_sizes(options: &NetOptions) -> Result<()> {
    let outside = |key: &str, found: usize, most: usize| {
        Err(Error::recipe(key, format!("{found} is not a number from 1 to {most}")))
    };
    if let Some(streams) = options.streams.filter(|streams| !(1..=2).contains(streams)) {
        return outside("net.streams", streams, 2);
    }
    let lists = [
        ("net.classes", options.classes.as_slice()),
        ("net.image_size", options.image_size.as_slice()),
        ("net.conv_channels", options.conv_channels.as_deref().unwrap_or_default()),
        ("net.dense_units", options.dense_units.as_deref().unwrap_or_default()),
    ];
    for (key, sizes) in lists {
        let most = if key == "net.image_size" { MOST_PIXELS } else { MOST_UNITS };
        if let Some(&size) = sizes.iter().find(|size| !(1..=most).contains(*size)) {
            return outside(key, size, most);
        }
    }
    Ok(())
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
