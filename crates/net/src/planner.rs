//! From the table to a stream's plan, row by row: shapes, buffers, parameters and exchanges.

use alexnet_split_cpu::shapes::{
    ConvShape, DenseShape, DropoutShape, LrnShape, PoolShape, SoftmaxShape, SpatialLrnShape, TensorShape,
};

use super::plan::{ExchangePoint, LayerParams, Op, Param, ParamKind, Plan, PlannedLayer, Slot};
use super::spec::{Activation, Conv, Dense, Layer, Lrn, Net, Placement, Pool, Reads};
use crate::{Error, Result};

/// See [`Plan::new`].
pub(super) fn plan(net: &Net, stream: usize) -> Result<Plan> {
    let slots = vec![net.image];
    let plan = Plan { stream, streams: net.streams, layers: vec![], slots, params: vec![] };
    let mut planner = Planner { net, plan, shape: net.image, slot: 0, stage: String::new() };
    for (index, layer) in net.layers.iter().enumerate() {
        planner.add(layer, index)?;
    }
    Ok(planner.plan)
}

struct Planner<'a> {
    net: &'a Net,
    plan: Plan,
    /// Channels, height, width of the newest activation, in one stream.
    shape: [usize; 3],
    slot: Slot,
    /// The newest conv or dense layer's name from its first digit on: `relu3` follows `conv3`. `relu_out` follows `out`.
    stage: String,
}

impl Planner<'_> {
    fn add(&mut self, layer: &Layer, index: usize) -> Result<()> {
        let [c, h, w] = self.shape;
        let before = self.plan.layers.last().map_or("image", |layer| &layer.name);
        countable(before, "outputs for one image", &self.shape)?;
        match layer {
            Layer::Conv(row) => self.conv(row),
            Layer::Dense(row) => {
                let next = self.net.layers.get(index + 1);
                self.dense(row, matches!(next, Some(Layer::SoftmaxCrossEntropy)))
            }
            Layer::Activation(kind) => {
                let name = match kind {
                    Activation::Relu => "relu",
                    Activation::Tanh => "tanh",
                    Activation::Sigmoid => "sigmoid",
                };
                self.push_in_place(format!("{name}{}", self.stage), Op::Activation(*kind, self.shape));
                Ok(())
            }
            Layer::Dropout(keep) => self.dropout(*keep, index),
            Layer::Lrn(row) => self.norm("norm", row, Op::Lrn),
            // The 2012 code's name.
            Layer::SpatialLrn(row) => self.norm("cnorm", row, |norm| Op::SpatialLrn(SpatialLrnShape { norm, h, w })),
            Layer::MaxPool(row) => self.pool(row, Op::MaxPool),
            Layer::AvgPool(row) => self.pool(row, Op::AvgPool),
            Layer::SoftmaxCrossEntropy => {
                let total = self.net.classes();
                let elems = c * h * w;
                let split = self.net.streams == 2 && elems < total && elems > 0;
                let first = if split && self.plan.stream == 1 { total - elems } else { 0 };
                let shape = SoftmaxShape { classes: elems, first, split };
                let op = if elems > 0 { Op::SoftmaxCrossEntropy(shape) } else { Op::Absent };
                self.push_in_place("loss".into(), op);
                Ok(())
            }
        }
    }

    fn conv(&mut self, row: &Conv) -> Result<()> {
        self.name_stage(&row.name);
        let ([c, h, w], kernel) = (self.shape, row.kernel);
        let k = self.share(&row.name, row.out, Placement::Split)?;
        let p = conv_out_size(&row.name, h, kernel, row.stride, row.pad, row.round_up)?;
        let q = conv_out_size(&row.name, w, kernel, row.stride, row.pad, row.round_up)?;
        let point = self.exchange_point(row.reads, k, k);
        let blocks = if point.is_some() { 2 } else { 1 };
        let shape = ConvShape { c, h, w, k, r: kernel, s: kernel, p, q, stride: row.stride, pad: row.pad, blocks };
        let (block, taps) = (TensorShape::Filters(shape), kernel * kernel);
        let params = self.params(&row.name, block, blocks, [c * taps, k * taps], row.bias, row.std)?;
        self.push(row.name.clone(), Op::Conv(shape), [k, p, q], point, Some(params));
        Ok(())
    }

    fn dense(&mut self, row: &Dense, logits: bool) -> Result<()> {
        self.name_stage(&row.name);
        let [c, h, w] = self.shape;
        let (inputs, pixels) = (c * h * w, h * w);
        let units = row.out.unwrap_or_default();
        let outputs = self.share(&row.name, units, row.placement)?;
        let theirs = if self.net.streams == 2 { units - outputs } else { 0 };
        let point = self.exchange_point(row.reads, outputs, theirs);
        let blocks = if point.is_some() { 2 } else { 1 };
        let (op, params) = if outputs > 0 {
            let fan_out = if point.is_some() { units } else { outputs };
            let shape = DenseShape { inputs, outputs, pixels, blocks, logits };
            let block = TensorShape::Weights(shape);
            let params = self.params(&row.name, block, blocks, [inputs, fan_out], row.bias, row.std)?;
            (Op::Dense(shape), Some(params))
        } else {
            (Op::Absent, None)
        };
        self.push(row.name.clone(), op, [outputs, 1, 1], point, params);
        Ok(())
    }

    fn norm(&mut self, kind: &str, row: &Lrn, op: impl Fn(LrnShape) -> Op) -> Result<()> {
        let ([c, h, w], name) = (self.shape, format!("{kind}{}", self.stage));
        if row.n.is_multiple_of(2) {
            return Err(Error::net(name, format!("window {} is not odd", row.n)));
        }
        let shape = LrnShape { c, pixels: h * w, n: row.n, k: row.k, alpha: row.alpha, beta: row.beta };
        self.push(name, op(shape), self.shape, None, None);
        Ok(())
    }

    fn pool(&mut self, row: &Pool, op: impl Fn(PoolShape) -> Op) -> Result<()> {
        let ([c, h, w], name, window) = (self.shape, format!("pool{}", self.stage), row.window);
        let p = conv_out_size(&name, h, window, row.stride, 0, false)?;
        let q = conv_out_size(&name, w, window, row.stride, 0, false)?;
        let shape = PoolShape { c, h, w, window, stride: row.stride, p, q, all_ties: row.all_ties };
        self.push(name, op(shape), [c, p, q], None, None);
        Ok(())
    }

    fn dropout(&mut self, keep: f32, index: usize) -> Result<()> {
        let name = format!("drop{}", self.stage);
        if !(keep > 0. && keep <= 1.) {
            return Err(Error::net(name, format!("keep probability {keep} is not in (0, 1]")));
        }
        let [c, h, w] = self.shape;
        let (elems, pixels) = (c * h * w, h * w);
        // Units are numbered over both streams, so that each has masks of its own.
        let shape = DropoutShape { elems, pixels, first_unit: self.plan.stream * elems, keep, layer: index as u32 };
        // Not in place: the backward pass of the non-linearity before it needs its output as it was.
        self.push(name, Op::Dropout(shape), self.shape, None, None);
        Ok(())
    }

    fn name_stage(&mut self, name: &str) {
        let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
        self.stage = if digits.is_empty() { format!("_{name}") } else { digits.to_owned() };
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
            .find_map(|l| if let Layer::Dense(row) = l { Some(&*row.name) } else { None })
            .unwrap_or("")
    }

    fn exchange_point(&mut self, reads: Reads, ours: usize, theirs: usize) -> Option<ExchangePoint> {
        if reads != Reads::Both || self.net.streams == 1 {
            return None;
        }
        let (takes, gives) = (ours > 0, theirs > 0);
        self.plan.slots.push(if takes { self.shape } else { [0; 3] });
        Some(ExchangePoint { theirs: self.plan.slots.len() - 1, shape: self.shape, takes, gives })
    }

    fn params(
        &mut self,
        name: &str,
        block: TensorShape,
        blocks: usize,
        [block_fan_in, fan_out]: [usize; 2],
        bias: f32,
        std: Option<f32>,
    ) -> Result<LayerParams> {
        let dims = block.dims();
        countable(name, "weights", &dims)?;
        let fan_in = block_fan_in * blocks;
        let mut add = |suffix: &str, tensor: TensorShape, kind: ParamKind, bias_init: f32| {
            self.plan.params.push(Param {
                name: format!("{name}.{suffix}"),
                shape: tensor.dims(),
                tensor,
                kind,
                fan_in,
                fan_out,
                bias_init,
                std,
            });
            self.plan.params.len() - 1
        };
        let own = add("weight.own", block, ParamKind::Weight, 0.);
        let theirs = (blocks == 2).then(|| add("weight.theirs", block, ParamKind::Weight, 0.));
        let bias = add("bias", dims[0].into(), ParamKind::Bias, bias);
        Ok(LayerParams { own, theirs, bias })
    }

    fn push(
        &mut self,
        name: String,
        op: Op,
        out_shape: [usize; 3],
        exchange_point: Option<ExchangePoint>,
        params: Option<LayerParams>,
    ) {
        let x = self.slot;
        self.plan.slots.push(out_shape);
        self.slot = self.plan.slots.len() - 1;
        self.shape = out_shape;
        self.plan.layers.push(PlannedLayer {
            name: name.into(),
            op,
            x,
            y: self.slot,
            out_shape,
            exchange_point,
            params,
        });
    }

    fn push_in_place(&mut self, name: String, op: Op) {
        let (slot, out_shape) = (self.slot, self.shape);
        self.plan.layers.push(PlannedLayer {
            name: name.into(),
            op,
            x: slot,
            y: slot,
            out_shape,
            exchange_point: None,
            params: None,
        });
    }
}

/// Refuses tensors of more values than the kernels count, in 31 bits.
fn countable(name: &str, what: &str, shape: &[usize]) -> Result<()> {
    let count: u128 = shape.iter().map(|&size| size as u128).product();
    if count < 1 << 31 {
        return Ok(());
    }
    Err(Error::net(name, format!("{count} {what}; expected at most 2147483647; make the layer or the image smaller")))
}

/// Output size of a window of `kernel` at every `stride` over `size` pixels with `pad` zeros on each side.
fn conv_out_size(name: &str, size: usize, kernel: usize, stride: usize, pad: usize, round_up: bool) -> Result<usize> {
    let room = (size + 2 * pad).checked_sub(kernel).ok_or_else(|| {
        Error::net(
            name,
            format!("its {kernel}x{kernel} window does not fit a map of {size}x{size} padded by {pad}; use a larger image (net.image_size; 67 is the least for the paper's table) or a smaller window"),
        )
    })?;
    Ok(1 + if round_up { room.div_ceil(stride) } else { room / stride })
}
