//! The plan of one stream: the table resolved to shapes, buffers and parameters.

use std::sync::Arc;

use alexnet_split_cpu::shapes::{
    ConvShape, DenseShape, DropoutShape, LrnShape, PoolShape, SoftmaxShape, SpatialLrnShape, TensorShape,
};

use super::planner;
use super::spec::{Activation, Net};
use crate::{Error, Result};

/// Index of an activation buffer in [`Plan::slots`].
pub type Slot = usize;

/// The part of the network that one stream runs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The stream: 0 or 1.
    pub stream: usize,
    /// The number of streams.
    pub streams: usize,
    /// The rows of the table, as this stream runs them.
    pub layers: Vec<PlannedLayer>,
    /// Channels, height, width of every activation buffer; slot 0 is the image.
    pub slots: Vec<[usize; 3]>,
    /// This stream's parameters in the table's order.
    pub params: Vec<Param>,
}

/// One row of the table, as one stream runs it.
#[derive(Clone, Debug)]
pub struct PlannedLayer {
    /// `conv1`, `relu1`, `norm1`, `pool1`, `drop6`, `loss`...
    pub name: Arc<str>,
    /// The operation, with its shapes.
    pub op: Op,
    /// The buffer it reads.
    pub x: Slot,
    /// The buffer it writes; the same as `x` where it works in place.
    pub y: Slot,
    /// Channels, height, width of what it writes in this stream.
    pub out_shape: [usize; 3],
    /// Present where the layer reads both streams.
    pub exchange_point: Option<ExchangePoint>,
    /// Index in [`Plan::params`] of the own block's weight, the other block's weight, and the bias.
    pub params: Option<LayerParams>,
}

/// The parameters of a layer, by index.
#[derive(Clone, Copy, Debug)]
pub struct LayerParams {
    /// The block that reads the own stream.
    pub own: usize,
    /// The block that reads the other stream, where the layer reads both.
    pub theirs: Option<usize>,
    /// The bias.
    pub bias: usize,
}

/// A point where the streams exchange: activations before a layer, and in the backward pass their gradients.
#[derive(Clone, Copy, Debug)]
pub struct ExchangePoint {
    /// The buffer for the other stream's activations.
    pub theirs: Slot,
    /// Channels, height, width of what goes each way.
    pub shape: [usize; 3],
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
    /// Non-linearity over maps of these channels, height, width, in place.
    Activation(Activation, [usize; 3]),
    /// Local response normalization.
    Lrn(LrnShape),
    /// The same within maps.
    SpatialLrn(SpatialLrnShape),
    /// Max pooling.
    MaxPool(PoolShape),
    /// Average pooling.
    AvgPool(PoolShape),
    /// ReLU, normalization and pooling in one; see [`Plan::fused`].
    ReluLrnMaxPool(LrnShape, PoolShape),
    /// Dropout.
    Dropout(DropoutShape),
    /// The loss.
    SoftmaxCrossEntropy(SoftmaxShape),
    /// All of the layer is on the other stream.
    Absent,
}

/// The kinds of parameter.
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
    /// The table's standard deviation of initial weights, where it has one.
    pub std: Option<f32>,
    /// The same shape with what a device needs to know to keep it its own way.
    pub tensor: TensorShape,
}

impl Param {
    /// Elements of the tensor.
    pub fn elems(&self) -> usize {
        self.shape.iter().product()
    }
}

impl ExchangePoint {
    /// Elements per image that go each way.
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
    /// Whether it is the first one, which reads the image.
    pub fn reads_image(&self) -> bool {
        self.x == 0
    }

    /// Whether the gradient with respect to its input takes the place of one that is there: the one with respect to its
    /// output, or for fused layers the input itself.
    pub fn works_in_place(&self) -> bool {
        self.x == self.y || matches!(self.op, Op::Dropout(_) | Op::ReluLrnMaxPool(..))
    }

    /// Multiply-adds of the forward pass for one image, all blocks.
    pub fn macs(&self) -> u64 {
        self.op.block_macs() * if self.exchange_point.is_some_and(|point| point.takes) { 2 } else { 1 }
    }

    /// Bytes per image that this stream sends in the forward pass.
    pub fn sent_bytes(&self) -> u64 {
        match (self.exchange_point, self.op) {
            (Some(point), _) if point.gives => 4 * point.elems() as u64,
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
        planner::plan(net, stream)
    }

    /// Both streams' plans (or the one).
    pub fn all(net: &Net) -> Result<Vec<Plan>> {
        (0..net.streams).map(|stream| Plan::new(net, stream)).collect()
    }

    /// The same with every ReLU, normalization and pooling after a convolution as one layer, where `fuses` says that
    /// the device can. Nothing is kept between them, and the gradient with respect to what they read takes its place: a
    /// convolution's backward pass does not need its output.
    pub fn fused(mut self, fuses: impl Fn(&LrnShape, &PoolShape) -> bool) -> Plan {
        for first in 0..self.layers.len() {
            let Some([conv, relu, norm, pool]) = self.layers.get(first..first + 4) else { break };
            let (Op::Conv(_), Op::Activation(Activation::Relu, _), Op::Lrn(lrn), Op::MaxPool(shape)) =
                (conv.op, relu.op, norm.op, pool.op)
            else {
                continue;
            };
            if fuses(&lrn, &shape) {
                self.slots[norm.y] = [0; 3];
                let name = format!("{}-{}", relu.name, pool.name).into();
                let fused = PlannedLayer { name, op: Op::ReluLrnMaxPool(lrn, shape), x: relu.x, ..pool.clone() };
                self.layers.splice(first + 1..first + 4, [fused]);
            }
        }
        self
    }

    /// The activations of `n` images in a slot.
    pub fn shape(&self, slot: Slot, n: usize) -> TensorShape {
        let reads = |layer: &&PlannedLayer| {
            layer.x == slot || (layer.reads_image() && layer.exchange_point.is_some_and(|point| point.theirs == slot))
        };
        match self.layers.first().filter(|_| self.slots[slot] == self.slots[0]).filter(reads).map(|layer| layer.op) {
            Some(Op::Conv(shape)) => TensorShape::Input(n, shape),
            _ if self.layers.last().is_some_and(|loss| loss.x == slot) => {
                TensorShape::Logits(n, self.slots[slot].iter().product())
            }
            _ if self.layers.iter().any(|layer| layer.y == slot && matches!(layer.op, Op::ReluLrnMaxPool(..))) => {
                TensorShape::Pooled(n, self.slots[slot])
            }
            _ => self.gradient_shape(slot, n),
        }
    }

    /// The gradient with respect to the activations of `n` images in a slot.
    pub fn gradient_shape(&self, slot: Slot, n: usize) -> TensorShape {
        TensorShape::Maps(n, self.slots[slot])
    }

    /// The slots whose gradients need a buffer of their own.
    pub fn own_gradients(&self) -> impl Iterator<Item = Slot> + '_ {
        let by_inputs = self.layers.iter().filter(|layer| !layer.reads_image() && !layer.works_in_place());
        by_inputs.chain(self.layers.last()).map(|layer| layer.x)
    }

    /// Elements per image of the largest gradient that needs a buffer of its own.
    pub fn largest_gradient(&self) -> usize {
        self.own_gradients().map(|slot| self.slots[slot].iter().product()).max().unwrap_or(0)
    }

    /// The exchange points.
    pub fn exchange_points(&self) -> impl Iterator<Item = &ExchangePoint> {
        self.layers.iter().filter_map(|layer| layer.exchange_point.as_ref())
    }

    /// The slot of the gradient with respect to each layer's input, and last of that with respect to the loss layer's
    /// input. Two slots behind the activations take turns, except where a layer works in place.
    pub fn gradient_slots(&self) -> Vec<Slot> {
        let buffers = [self.slots.len(), self.slots.len() + 1];
        let mut slots = vec![buffers[0]];
        for layer in self.layers.iter().rev() {
            let dy = slots[slots.len() - 1];
            slots.push(match layer.op {
                Op::ReluLrnMaxPool(..) => layer.x,
                _ if layer.works_in_place() => dy,
                _ => buffers[usize::from(dy == buffers[0])],
            });
        }
        slots.reverse();
        slots
    }

    /// Whether nothing writes to the image or sends it: streams can share it.
    pub fn only_reads_image(&self) -> bool {
        let mut readers = self.layers.iter().filter(|layer| layer.reads_image() || layer.y == 0);
        readers.all(|layer| {
            layer.y != 0 && layer.exchange_point.is_none() && matches!(layer.op, Op::Conv(_) | Op::Dense(_))
        })
    }

    /// The outputs of `n` images of the layers that add up two blocks.
    pub fn added_outputs(&self, n: usize) -> impl Iterator<Item = TensorShape> + '_ {
        let added = self.layers.iter().filter(|layer| layer.exchange_point.is_some_and(|point| point.takes));
        added.map(move |layer| TensorShape::Maps(n, layer.out_shape))
    }

    /// Elements per image of the largest exchange.
    pub fn largest_exchange(&self) -> usize {
        self.exchange_points().map(ExchangePoint::elems).max().unwrap_or(0)
    }
}
