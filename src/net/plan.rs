//! What one stream does: the table resolved to shapes, buffers and parameters.

use std::sync::Arc;

use crate::backend::{ConvShape, DenseShape, DropoutShape, LrnShape, PoolShape, SoftmaxShape};
use crate::error::{Error, Result};
use crate::net::spec::{Activation, Layer, Net, Placement, Reads};

/// Index of an activation buffer in [`Plan::slots`].
pub type Slot = usize;

/// The part of the network that one stream runs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which stream: 0 or 1.
    pub stream: usize,
    /// How many there are.
    pub streams: usize,
    /// The rows of the table, as this stream runs them.
    pub layers: Vec<PlannedLayer>,
    /// Elements an image of every activation buffer; slot 0 is the image.
    pub slots: Vec<usize>,
    /// This stream's parameters in the table's order.
    pub params: Vec<Param>,
}

/// One row of the table, as one stream runs it.
#[derive(Clone, Debug)]
pub struct PlannedLayer {
    /// `conv1`, `relu1`, `norm1`, `pool1`, `drop6`, `loss`...
    pub name: Arc<str>,
    /// What to do, with its shapes.
    pub op: Op,
    /// The buffer it reads.
    pub x: Slot,
    /// The buffer it writes; the same as `x` where it works in place.
    pub y: Slot,
    /// Channels, height, width of what it writes in this stream.
    pub out_shape: [usize; 3],
    /// Present where the layer reads both streams.
    pub crossing: Option<Crossing>,
    /// Index in [`Plan::params`] of the own block's weight, the other block's weight, and the bias.
    pub params: Option<LayerParams>,
}

/// Which parameters a layer has.
#[derive(Clone, Copy, Debug)]
pub struct LayerParams {
    /// The block that reads the own stream.
    pub own: usize,
    /// The block that reads the other stream, where the layer reads both.
    pub theirs: Option<usize>,
    /// The bias.
    pub bias: usize,
}

/// An exchange of activations before a layer, and of their gradients after it.
#[derive(Clone, Copy, Debug)]
pub struct Crossing {
    /// The buffer for the other stream's activations.
    pub theirs: Slot,
    /// Elements an image that go each way.
    pub elems: usize,
    /// Whether this stream has units of the layer, and so needs the other's activations.
    pub takes: bool,
    /// Whether the other stream has units of the layer, and so needs ours.
    pub gives: bool,
}

/// An operation with its shapes. A layer that has no units in a stream is [`Op::Absent`] there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// Convolution; the shape is that of one weight block.
    Conv(ConvShape),
    /// Dense layer; the shape is that of one weight block.
    Dense(DenseShape),
    /// Non-linearity over this many elements an image, in place.
    Activation(Activation, usize),
    /// Local response normalization.
    Lrn(LrnShape),
    /// Max pooling.
    MaxPool(PoolShape),
    /// ReLU, normalization and pooling in one; see [`Plan::fused`].
    ReluLrnMaxPool(LrnShape, PoolShape),
    /// Dropout.
    Dropout(DropoutShape),
    /// The loss.
    SoftmaxCrossEntropy(SoftmaxShape),
    /// All of the layer lives on the other stream.
    Absent,
}

/// What a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// A weight block; weight decay applies.
    Weight,
    /// A bias.
    Bias,
}

/// One parameter tensor of one stream.
#[derive(Clone, Debug)]
pub struct Param {
    /// `conv3.weight.own`, `conv3.weight.theirs`, `conv3.bias`.
    pub name: String,
    /// K C R S for a convolution's block, out x in for a dense one's, K for a bias.
    pub shape: Vec<usize>,
    /// Weight or bias.
    pub kind: ParamKind,
    /// Inputs that one output sums over, both blocks together.
    pub fan_in: usize,
    /// Outputs that one input reaches in the whole layer.
    pub fan_out: usize,
    /// The table's initial bias; 0 for weights.
    pub bias_init: f32,
}

impl Param {
    /// Elements of the tensor.
    pub fn elems(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Op {
    /// Multiply-adds of the forward pass of one block for one image.
    pub fn block_macs(&self) -> u64 {
        match self {
            Op::Conv(s) => (s.k * s.c * s.r * s.s * s.p * s.q) as u64,
            Op::Dense(s) => (s.inputs * s.outputs) as u64,
            _ => 0,
        }
    }
}

impl PlannedLayer {
    /// Whether the gradient by its input takes the place of one that is there: the one by its output, or for fused
    /// layers the input itself.
    pub fn works_in_place(&self) -> bool {
        self.x == self.y || matches!(self.op, Op::Dropout(_) | Op::ReluLrnMaxPool(..))
    }

    /// Multiply-adds of the forward pass for one image, all blocks.
    pub fn macs(&self) -> u64 {
        self.op.block_macs() * if self.crossing.is_some_and(|c| c.takes) { 2 } else { 1 }
    }

    /// Bytes an image that this stream sends in the forward pass.
    pub fn sent_bytes(&self) -> u64 {
        match (self.crossing, self.op) {
            (Some(crossing), _) if crossing.gives => 4 * crossing.elems as u64,
            (_, Op::SoftmaxCrossEntropy(s)) if s.split => 4 * SoftmaxShape::STATS as u64,
            _ => 0,
        }
    }
}

impl Plan {
    /// Plans `stream` of `net`.
    ///
    /// Fails where the image is too small for a layer, a size does not divide by the streams, or a row does not fit
    /// the one before it; the message names the layer.
    pub fn new(net: &Net, stream: usize) -> Result<Plan> {
        if !(1..=2).contains(&net.streams) {
            return Err(Error::recipe("net.streams", format!("expected 1 or 2, found {}", net.streams)));
        }
        if ![1, 3].contains(&net.image[0]) {
            return Err(Error::recipe("net.image_channels", format!("expected 1 or 3, found {}", net.image[0])));
        }
        let image_elems = net.image.iter().product();
        let plan = Plan { stream, streams: net.streams, layers: vec![], slots: vec![image_elems], params: vec![] };
        let mut planner = Planner { net, plan, shape: net.image, slot: 0, stage: String::new() };
        for (index, layer) in net.layers.iter().enumerate() {
            planner.add(layer, index)?;
        }
        Ok(planner.plan)
    }

    /// Both streams' plans (or the one).
    pub fn all(net: &Net) -> Result<Vec<Plan>> {
        (0..net.streams).map(|stream| Plan::new(net, stream)).collect()
    }

    /// The same with every ReLU, normalization and pooling after a convolution as one layer, where `fuses` says that the
    /// device can. Nothing is kept between them, and the gradient by what they read takes its place: a convolution's
    /// backward pass does not need its output.
    pub fn fused(mut self, fuses: fn(&LrnShape, &PoolShape) -> bool) -> Plan {
        for first in 0..self.layers.len() {
            let Some([conv, relu, norm, pool]) = self.layers.get(first..first + 4) else { break };
            let (Op::Conv(_), Op::Activation(Activation::Relu, _), Op::Lrn(lrn), Op::MaxPool(shape)) =
                (conv.op, relu.op, norm.op, pool.op)
            else {
                continue;
            };
            if fuses(&lrn, &shape) {
                self.slots[norm.y] = 0;
                let name = format!("{}-{}", relu.name, pool.name).into();
                let fused = PlannedLayer { name, op: Op::ReluLrnMaxPool(lrn, shape), x: relu.x, ..pool.clone() };
                self.layers.splice(first + 1..first + 4, [fused]);
            }
        }
        self
    }

    /// Elements an image of the largest gradient that needs a buffer of its own.
    pub fn largest_gradient(&self) -> usize {
        let by_inputs = self.layers.iter().filter(|layer| layer.x != 0 && !layer.works_in_place());
        let of_loss = self.layers.last().map(|last| last.x);
        by_inputs.map(|layer| layer.x).chain(of_loss).map(|slot| self.slots[slot]).max().unwrap_or(0)
    }

    /// Whether nothing writes to the image or sends it: streams can share it.
    pub fn only_reads_image(&self) -> bool {
        let mut readers = self.layers.iter().filter(|layer| layer.x == 0 || layer.y == 0);
        readers.all(|layer| layer.y != 0 && layer.crossing.is_none() && matches!(layer.op, Op::Conv(_) | Op::Dense(_)))
    }

    /// Elements an image of the largest exchange.
    pub fn largest_crossing(&self) -> usize {
        self.layers.iter().filter_map(|layer| layer.crossing).map(|crossing| crossing.elems).max().unwrap_or(0)
    }
}

struct Planner<'a> {
    net: &'a Net,
    plan: Plan,
    /// Channels, height, width of the newest activation, in one stream.
    shape: [usize; 3],
    slot: Slot,
    /// Digits of the newest conv or dense layer's name: `relu3` follows `conv3`.
    stage: String,
}

impl Planner<'_> {
    fn add(&mut self, layer: &Layer, index: usize) -> Result<()> {
        let [c, h, w] = self.shape;
        let elems = c * h * w;
        match layer {
            Layer::Conv(row) => {
                self.name_stage(row.name);
                let k = self.share(row.name, row.out, Placement::Split)?;
                let p = conv_out_size(row.name, h, row.kernel, row.stride, row.pad, row.round_up)?;
                let q = conv_out_size(row.name, w, row.kernel, row.stride, row.pad, row.round_up)?;
                let shape =
                    ConvShape { c, h, w, k, r: row.kernel, s: row.kernel, p, q, stride: row.stride, pad: row.pad };
                let block = vec![k, c, row.kernel, row.kernel];
                let crossing = self.crossing(row.reads, elems, k, k);
                let taps = row.kernel * row.kernel;
                let params = self.params(row.name, block, crossing.is_some(), c * taps, k * taps, row.bias);
                self.push(row.name.into(), Op::Conv(shape), [k, p, q], crossing, Some(params));
            }
            Layer::Dense(row) => {
                self.name_stage(row.name);
                let outputs = self.share(row.name, row.out, row.placement)?;
                let theirs = if self.net.streams == 2 { row.out - outputs } else { 0 };
                let crossing = self.crossing(row.reads, elems, outputs, theirs);
                let (op, params) = if outputs > 0 {
                    let fan_out = if crossing.is_some() { row.out } else { outputs };
                    let block = vec![outputs, elems];
                    let params = self.params(row.name, block, crossing.is_some(), elems, fan_out, row.bias);
                    (Op::Dense(DenseShape { inputs: elems, outputs }), Some(params))
                } else {
                    (Op::Absent, None)
                };
                self.push(row.name.into(), op, [outputs, 1, 1], crossing, params);
            }
            Layer::Activation(kind) => {
                let name = match kind {
                    Activation::Relu => "relu",
                    Activation::Tanh => "tanh",
                };
                self.push_in_place(format!("{name}{}", self.stage), Op::Activation(*kind, elems));
            }
            Layer::Dropout(keep) => {
                if !(*keep > 0. && *keep <= 1.) {
                    return Err(Error::net(
                        format!("drop{}", self.stage),
                        format!("keep probability {keep} is not in (0, 1]"),
                    ));
                }
                // Units are numbered over both streams, so that each has masks of its own.
                let first_unit = self.plan.stream * elems;
                let shape = DropoutShape { elems, first_unit, keep: *keep, layer: index as u32 };
                // Not in place: the backward pass of the non-linearity before it needs its output as it was.
                self.push(format!("drop{}", self.stage), Op::Dropout(shape), self.shape, None, None);
            }
            Layer::Lrn(row) => {
                if row.n.is_multiple_of(2) {
                    return Err(Error::net(format!("norm{}", self.stage), format!("window {} is not odd", row.n)));
                }
                let shape = LrnShape { c, pixels: h * w, n: row.n, k: row.k, alpha: row.alpha, beta: row.beta };
                self.push(format!("norm{}", self.stage), Op::Lrn(shape), self.shape, None, None);
            }
            Layer::MaxPool(row) => {
                let name = format!("pool{}", self.stage);
                let p = conv_out_size(&name, h, row.window, row.stride, 0, false)?;
                let q = conv_out_size(&name, w, row.window, row.stride, 0, false)?;
                let shape = PoolShape { c, h, w, window: row.window, stride: row.stride, p, q };
                self.push(name, Op::MaxPool(shape), [c, p, q], None, None);
            }
            Layer::SoftmaxCrossEntropy => {
                let total = self.net.classes();
                let split = self.net.streams == 2 && elems < total && elems > 0;
                let first = if split && self.plan.stream == 1 { total - elems } else { 0 };
                let shape = SoftmaxShape { classes: elems, first, split };
                let op = if elems > 0 { Op::SoftmaxCrossEntropy(shape) } else { Op::Absent };
                self.push_in_place("loss".into(), op);
            }
        }
        Ok(())
    }

    fn name_stage(&mut self, name: &str) {
        self.stage = name.trim_start_matches(|c: char| !c.is_ascii_digit()).to_owned();
    }

    /// Units of a layer in this stream. An odd number of split dense units gives stream 0 the odd one.
    fn share(&self, name: &str, out: usize, placement: Placement) -> Result<usize> {
        let last = name == self.last_dense();
        match (self.net.streams, placement) {
            _ if out == 0 => Err(Error::net(name, "has no units; expected at least 1")),
            (1, _) => Ok(out),
            (_, Placement::Stream0) => Ok(if self.plan.stream == 0 { out } else { 0 }),
            (_, Placement::Split) if out.is_multiple_of(2) => Ok(out / 2),
            (_, Placement::Split) if last && out > 1 => {
                Ok(if self.plan.stream == 0 { out.div_ceil(2) } else { out / 2 })
            }
            (_, Placement::Split) => {
                Err(Error::net(name, format!("{out} units cannot be split over two streams evenly")))
            }
        }
    }

    fn last_dense(&self) -> &str {
        self.net
            .layers
            .iter()
            .rev()
            .find_map(|l| if let Layer::Dense(row) = l { Some(row.name) } else { None })
            .unwrap_or("")
    }

    fn crossing(&mut self, reads: Reads, elems: usize, ours: usize, theirs: usize) -> Option<Crossing> {
        if reads != Reads::Both || self.net.streams == 1 {
            return None;
        }
        let (takes, gives) = (ours > 0, theirs > 0);
        self.plan.slots.push(if takes { elems } else { 0 });
        Some(Crossing { theirs: self.plan.slots.len() - 1, elems, takes, gives })
    }

    fn params(
        &mut self,
        name: &str,
        block: Vec<usize>,
        both: bool,
        block_fan_in: usize,
        fan_out: usize,
        bias: f32,
    ) -> LayerParams {
        let fan_in = block_fan_in * if both { 2 } else { 1 };
        let k = block[0];
        let mut add = |suffix: &str, shape: Vec<usize>, kind: ParamKind, bias_init: f32| {
            self.plan.params.push(Param { name: format!("{name}.{suffix}"), shape, kind, fan_in, fan_out, bias_init });
            self.plan.params.len() - 1
        };
        let own = add("weight.own", block.clone(), ParamKind::Weight, 0.);
        let theirs = both.then(|| add("weight.theirs", block, ParamKind::Weight, 0.));
        let bias = add("bias", vec![k], ParamKind::Bias, bias);
        LayerParams { own, theirs, bias }
    }

    fn push(
        &mut self,
        name: String,
        op: Op,
        out_shape: [usize; 3],
        crossing: Option<Crossing>,
        params: Option<LayerParams>,
    ) {
        let x = self.slot;
        self.plan.slots.push(out_shape.iter().product());
        self.slot = self.plan.slots.len() - 1;
        self.shape = out_shape;
        self.plan.layers.push(PlannedLayer { name: name.into(), op, x, y: self.slot, out_shape, crossing, params });
    }

    fn push_in_place(&mut self, name: String, op: Op) {
        let (slot, out_shape) = (self.slot, self.shape);
        self.plan.layers.push(PlannedLayer {
            name: name.into(),
            op,
            x: slot,
            y: slot,
            out_shape,
            crossing: None,
            params: None,
        });
    }
}

/// Output size of a window of `kernel` at every `stride` over `size` pixels with `pad` zeros on each side.
fn conv_out_size(name: &str, size: usize, kernel: usize, stride: usize, pad: usize, round_up: bool) -> Result<usize> {
    let room = (size + 2 * pad).checked_sub(kernel).ok_or_else(|| {
        Error::net(
            name,
            format!("its {kernel}x{kernel} window does not fit a map of {size}x{size} padded by {pad}; use a larger image (net.image_size; 67 is the least for the paper's table)"),
        )
    })?;
    Ok(1 + if round_up { room.div_ceil(stride) } else { room / stride })
}
