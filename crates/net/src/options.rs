//! The `[net]` part of a recipe: a table, and what is changed in it. An ablation of the paper is such a change, whatever
//! the table.

use serde::{Deserialize, Deserializer, Serialize, de};
use toml::Value;

use super::spec::{Activation, Layer, Net, Placement, Reads, check};
use crate::{Error, Result};

/// Pixels of a side of the input, at most.
const MOST_PIXELS: usize = 4096;

/// Channels, units or classes, at most.
const MOST_UNITS: usize = 1_000_000;

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
    let file: Result<File, _> = toml::from_str(include_str!("../../../recipes/paper.toml"));
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
    /// Half of the filters in each convolution but the last: the paper's network for one GPU, with `streams = 1` (3.2).
    #[serde(default, deserialize_with = "switch", skip_serializing_if = "Option::is_none")]
    pub half_filters: Option<bool>,
    /// Layers with weights that are taken away, with what follows them but pooling (paper, section 7). The next layer
    /// reads what the first of them read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without: Option<Vec<String>>,
    /// The input of all layers but the first: `both`, or `own` for streams that meet in the last layer alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<Reads>,
    /// `false` takes local response normalization out (paper 3.3 gives the cost).
    #[serde(default, deserialize_with = "switch", skip_serializing_if = "Option::is_none")]
    pub lrn: Option<bool>,
    /// `false` takes dropout out (paper 4.2).
    #[serde(default, deserialize_with = "switch", skip_serializing_if = "Option::is_none")]
    pub dropout: Option<bool>,
    /// `"3/2"` overlaps, `"2/2"` does not (paper 3.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// `relu`, `tanh` (paper 3.1) or `sigmoid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// The streams that have fc8's units: `split` or `stream0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fc8: Option<Placement>,
}

/// `true` and `false`, or `on` and `off`, as they are written on a command line.
fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Boolean(is_on) => Ok(Some(is_on)),
        Value::String(word) if word == "on" => Ok(Some(true)),
        Value::String(word) if word == "off" => Ok(Some(false)),
        found => Err(de::Error::custom(format!("{found} is neither true nor false"))),
    }
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
            half_filters: None,
            without: None,
            reads: None,
            lrn: None,
            dropout: None,
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
        check(&options.layers)?;
        check_sizes(options)?;
        let mut layers = options.layers.clone();
        let reads_both = |layer: &mut Layer| layer.reads().is_some_and(|reads| *reads == Reads::Both);
        let streams = if layers.iter_mut().any(reads_both) { 2 } else { 1 };
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
        if options.half_filters == Some(true) {
            let mut outs: Vec<&mut usize> = layers.iter_mut().filter_map(Layer::conv_out).collect();
            outs.pop();
            outs.into_iter().for_each(|out| *out = out.div_ceil(2));
        }
        options.without.iter().flatten().try_for_each(|name| take_away(&mut layers, name))?;
        change_rows(&mut layers, options)?;
        let size = options.image_size.unwrap_or(224);
        let image = [options.image_channels.unwrap_or(3), size, size];
        Ok(Net { image, streams: options.streams.unwrap_or(streams), layers })
    }
}

/// Takes the layer of this name away, and what follows it up to the next one but pooling.
fn take_away(layers: &mut Vec<Layer>, name: &str) -> Result<()> {
    let weighted: Vec<usize> = (0..layers.len()).filter(|&index| layers[index].name().is_some()).collect();
    let number = weighted.iter().position(|&index| layers[index].name() == Some(name));
    let Some(number) = number.filter(|&number| number > 0 && number + 1 < weighted.len()) else {
        let between = &weighted[1..weighted.len().max(2) - 1];
        let names: Vec<&str> = between.iter().filter_map(|&index| layers[index].name()).collect();
        let problem = format!("\"{name}\" cannot be taken away; expected one of {}", names.join(", "));
        return Err(Error::recipe("net.without", problem));
    };
    let (from, to) = (weighted[number], weighted[number + 1]);
    let reads = layers[from].reads().copied();
    if let (Some(Reads::Both), Some(next)) = (reads, layers[to].reads()) {
        *next = Reads::Both;
    }
    let mut index = 0..;
    let pools = |layer: &Layer| matches!(layer, Layer::MaxPool(_) | Layer::AvgPool(_));
    layers.retain(|layer| !index.next().is_some_and(|at| (from..to).contains(&at)) || pools(layer));
    Ok(())
}

/// What the options change in rows of one kind.
fn change_rows(layers: &mut Vec<Layer>, options: &NetOptions) -> Result<()> {
    let pool = options.pool.as_deref().map(parse_pool).transpose()?;
    layers.retain(|layer| match layer {
        Layer::Lrn(_) | Layer::SpatialLrn(_) => options.lrn != Some(false),
        Layer::Dropout(_) => options.dropout != Some(false),
        _ => true,
    });
    let last_dense = layers.iter().rposition(|layer| matches!(layer, Layer::Dense(_)));
    for (index, layer) in layers.iter_mut().enumerate() {
        if let (Some(new), Some(reads)) = (options.reads, layer.reads())
            && index > 0
            && (new == Reads::Both || Some(index) != last_dense)
        {
            *reads = new;
        }
        match layer {
            Layer::MaxPool(row) | Layer::AvgPool(row) => {
                [row.window, row.stride] = pool.unwrap_or([row.window, row.stride]);
            }
            Layer::Activation(row) => *row = options.activation.unwrap_or(*row),
            Layer::Dense(row) if Some(index) == last_dense => row.placement = options.fc8.unwrap_or(row.placement),
            _ => {}
        }
    }
    Ok(())
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

fn parse_pool(text: &str) -> Result<[usize; 2]> {
    let wrong = || {
        Error::recipe("net.pool", format!("expected \"window/stride\" such as \"3/2\" or \"2/2\", found \"{text}\""))
    };
    let (window, stride) = text.split_once('/').ok_or_else(wrong)?;
    let pool = [window.parse().map_err(|_| wrong())?, stride.parse().map_err(|_| wrong())?];
    if pool.contains(&0) { Err(wrong()) } else { Ok(pool) }
}
