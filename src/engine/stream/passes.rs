//! The forward and the backward pass of the paper's section 3, with the exchange where a layer reads both halves.

use super::timing::Timer;
use super::{Hyper, Mode, ParamBuffers, Stream};
use crate::backend::{AugmentShape, Backend, DropoutDraw, SoftmaxShape, Update};
use crate::data::{Batch, Images};
use crate::error::Result;
use crate::net::plan::{Op, PlannedLayer, Slot};
use crate::net::swap::Pass;
use crate::net::swap::Swap;
use crate::rng::{Philox, Purpose};

impl Mode {
    fn swap(&self, layer: &PlannedLayer, pass: Pass, elems: usize) -> Swap {
        Swap { layer: layer.name.clone(), pass, step: self.training.map(|(_, step)| step), elems }
    }

    fn draw(&self, layer: u32) -> DropoutDraw {
        let mask = self.training.map(|(seed, step)| (Philox::new(seed, Purpose::Dropout, layer), step));
        DropoutDraw { mask, scaling: self.scaling }
    }
}

/// Where the gradient that the backward pass has reached lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// In one of the two gradient buffers.
    Buffer(usize),
    /// In the place of an activation that nobody needs any more.
    Slot(Slot),
}

impl<B: Backend> Stream<B> {
    /// Turns a batch into the network's input, N C H W. Where streams share it, one of them makes it.
    pub fn write_input(&mut self, batch: &Batch, to: &mut B::Buffer) -> Result<()> {
        write_input(&self.backend, self.input.as_ref(), batch, to)
    }

    /// Runs a batch of at most the capacity forward, to the scores on the device and the gradient by the logits.
    /// `shared` is the network's input where streams share it.
    pub fn forward(&mut self, batch: &Batch, mode: &Mode, shared: Option<&B::Buffer>) -> Result<()> {
        let n = batch.len();
        assert!(n <= self.capacity, "batch of {n} images in a stream made for {}", self.capacity);
        if let Some(record) = &mut self.record {
            record.clear();
        }
        self.older_marks.append(&mut self.marks);
        if shared.is_none() {
            write_input(&self.backend, self.input.as_ref(), batch, &mut self.activations[0])?;
        }
        for index in 0..self.plan.layers.len() {
            self.forward_layer(index, batch, mode, shared)?;
        }
        Ok(())
    }

    fn forward_layer(&mut self, index: usize, batch: &Batch, mode: &Mode, shared: Option<&B::Buffer>) -> Result<()> {
        let Stream { plan, backend, exchange, params, activations, gradients, stats, scores, marks, record, .. } = self;
        let (layer, n) = (&plan.layers[index], batch.len());
        let _span = tracing::debug_span!("layer", layer = &*layer.name, pass = "forward").entered();
        let mut timed = Timer { backend, marks, layer: index, pass: Pass::Forward };
        let elems = n * layer.out_shape.iter().product::<usize>();
        match &layer.op {
            Op::Conv(_) | Op::Dense(_) | Op::Absent => {
                let theirs = match (layer.exchange_point, exchange) {
                    (Some(point), Some(exchange)) => {
                        let swap = mode.swap(layer, Pass::Forward, n * point.elems);
                        let [x, theirs] = disjoint(activations, [layer.x, point.theirs]);
                        let (give, take) = (point.gives.then_some(&*x), point.takes.then_some(theirs));
                        exchange.start_swap(backend, &swap, give, take)?;
                        Some((point, swap, exchange))
                    }
                    _ => None,
                };
                // The own block while the other stream's activations are on their way.
                if let Some(p) = layer.params {
                    let (x, y) = match shared {
                        Some(input) if layer.reads_image() => (input, &mut activations[layer.y]),
                        _ => {
                            let [x, y] = disjoint(activations, [layer.x, layer.y]);
                            (&*x, y)
                        }
                    };
                    let bias = Some(&params[p.bias].value);
                    timed.compute(|| block_forward(backend, layer, n, x, &params[p.own].value, bias, y))?;
                }
                if let Some((point, swap, exchange)) = theirs {
                    let take = point.takes.then_some(&mut activations[point.theirs]);
                    timed.finish_swap(&mut **exchange, &swap, take)?;
                    if let Some((block, true)) = layer.params.and_then(|p| p.theirs).map(|block| (block, point.takes)) {
                        let [x, y] = disjoint(activations, [point.theirs, layer.y]);
                        timed.compute(|| block_forward(backend, layer, n, x, &params[block].value, None, y))?;
                    }
                }
            }
            Op::Activation(kind, _) => {
                timed.compute(|| backend.activation_forward(*kind, elems, &mut activations[layer.y]))?;
            }
            Op::Lrn(shape) => {
                let [x, y] = disjoint(activations, [layer.x, layer.y]);
                timed.compute(|| backend.lrn_forward(shape, n, x, y))?;
            }
            Op::MaxPool(shape) => {
                let [x, y] = disjoint(activations, [layer.x, layer.y]);
                timed.compute(|| backend.max_pool_forward(shape, n, x, y))?;
            }
            Op::ReluLrnMaxPool(lrn, pool) => {
                let [x, y] = disjoint(activations, [layer.x, layer.y]);
                timed.compute(|| backend.relu_lrn_max_pool_forward(lrn, pool, n, x, y))?;
            }
            Op::Dropout(shape) => {
                let (draw, [x, y]) = (mode.draw(shape.layer), disjoint(activations, [layer.x, layer.y]));
                timed.compute(|| backend.dropout_forward(shape, n, &draw, x, y))?;
            }
            Op::SoftmaxCrossEntropy(shape) => {
                let [ours, theirs] = stats;
                let (logits, labels) = (&activations[layer.x], &batch.labels[..]);
                timed.compute(|| backend.softmax_stats(shape, n, logits, labels, ours))?;
                let mut other = None;
                if let (true, Some(exchange)) = (shape.split, exchange) {
                    let swap = mode.swap(layer, Pass::Forward, n * SoftmaxShape::STATS);
                    exchange.start_swap(backend, &swap, Some(ours), Some(theirs))?;
                    timed.finish_swap(&mut **exchange, &swap, Some(theirs))?;
                    other = Some(&*theirs);
                }
                timed.compute(|| {
                    backend.softmax_cross_entropy(shape, n, logits, labels, ours, other, &mut gradients[0], scores)
                })?;
            }
        }
        if let Some(record) = record {
            record.push((layer.name.to_string(), backend.read(&activations[layer.y], elems)?));
        }
        Ok(())
    }

    /// Runs the newest batch backward, from the gradient by the logits to the gradients by all parameters. With `hyper`,
    /// dense weights, which are most of the network, are updated at once and their gradients never stored;
    /// [`Stream::update`] does the rest.
    pub fn backward(&mut self, n: usize, mode: &Mode, shared: Option<&B::Buffer>, hyper: Option<&Hyper>) -> Result<()> {
        for (param, buffers) in self.plan.params.iter().zip(&mut self.params) {
            // Only a dense layer's weights have two dimensions.
            if hyper.is_some() && param.shape.len() == 2 {
                buffers.gradient = None;
            } else if buffers.gradient.is_none() {
                buffers.gradient = Some(self.backend.alloc(param.elems())?);
            }
        }
        let mut reached = Reached::Buffer(0);
        for index in (0..self.plan.layers.len()).rev() {
            reached = self.backward_layer(index, n, mode, shared, hyper, reached)?;
        }
        Ok(())
    }

    /// One layer's backward pass: takes dy from where it lies, and returns where dx does.
    fn backward_layer(
        &mut self,
        index: usize,
        n: usize,
        mode: &Mode,
        shared: Option<&B::Buffer>,
        hyper: Option<&Hyper>,
        reached: Reached,
    ) -> Result<Reached> {
        let Stream {
            plan, backend, exchange, params, activations, gradients, outgoing, incoming, marks, record, ..
        } = self;
        let layer = &plan.layers[index];
        let _span = tracing::debug_span!("layer", layer = &*layer.name, pass = "backward").entered();
        let mut timed = Timer { backend, marks, layer: index, pass: Pass::Backward };
        let elems = n * layer.out_shape.iter().product::<usize>();
        if let Op::ReluLrnMaxPool(lrn, pool) = &layer.op {
            let [x, y] = disjoint(activations, [layer.x, layer.y]);
            let Reached::Buffer(from) = reached else { unreachable!("{} follows itself", layer.name) };
            timed.compute(|| backend.relu_lrn_max_pool_backward(lrn, pool, n, x, y, &gradients[from]))?;
            return Ok(Reached::Slot(layer.x));
        }
        let [first, second] = gradients;
        let (own, dx, next) = match reached {
            Reached::Buffer(0) => (first, second, Reached::Buffer(1)),
            _ => (second, first, Reached::Buffer(0)),
        };
        // In an activation's place it is a convolution's, which does not need its output.
        let dy = match reached {
            Reached::Buffer(_) => &*own,
            Reached::Slot(slot) => &activations[slot],
        };
        let needs_dx = !layer.reads_image(); // nobody asks for the gradient by the image
        let x = shared.filter(|_| !needs_dx).unwrap_or(&activations[layer.x]);
        let y = &activations[layer.y];
        match &layer.op {
            Op::ReluLrnMaxPool(..) | Op::SoftmaxCrossEntropy(_) => {} // done above; its gradient came with the loss
            Op::Conv(_) | Op::Dense(_) | Op::Absent => {
                let point = layer
                    .exchange_point
                    .zip(exchange.as_mut())
                    .map(|(point, exchange)| (point, exchange, mode.swap(layer, Pass::Backward, n * point.elems)));
                // First what the other stream is waiting for, then the rest while it is on its way.
                let mut under_way = None;
                if let Some((point, exchange, swap)) = point {
                    if let Some(block) = layer.params.and_then(|p| p.theirs) {
                        timed
                            .compute(|| block_backward_input(backend, layer, n, dy, &params[block].value, outgoing))?;
                    }
                    let (give, take) = (point.takes.then_some(&*outgoing), point.gives.then_some(&mut *incoming));
                    exchange.start_swap(backend, &swap, give, take)?;
                    under_way = Some((point, exchange, swap));
                }
                if let Some(p) = layer.params {
                    timed.compute(|| {
                        if needs_dx {
                            block_backward_input(backend, layer, n, dy, &params[p.own].value, dx)?;
                        }
                        let hyper_of = |param: usize| hyper.map(|hyper| hyper(&plan.params[param]));
                        block_backward_weight(backend, layer, n, x, dy, &mut params[p.own], hyper_of(p.own))?;
                        if let (Some(block), Some(point)) = (p.theirs, layer.exchange_point) {
                            let theirs = &activations[point.theirs];
                            block_backward_weight(backend, layer, n, theirs, dy, &mut params[block], hyper_of(block))?;
                        }
                        match &mut params[p.bias].gradient {
                            Some(gradient) => block_backward_bias(backend, layer, n, dy, gradient),
                            None => Ok(()),
                        }
                    })?;
                } else if needs_dx {
                    timed.compute(|| backend.fill_zero(n * plan.slots[layer.x], dx))?;
                }
                if let Some((point, exchange, swap)) = under_way {
                    let take = point.gives.then_some(&mut *incoming);
                    timed.finish_swap(&mut **exchange, &swap, take)?;
                    if point.gives {
                        timed.compute(|| backend.add(swap.elems, incoming, dx))?;
                    }
                }
            }
            Op::Activation(kind, _) => timed.compute(|| backend.activation_backward(*kind, elems, y, own))?,
            Op::Lrn(shape) => timed.compute(|| backend.lrn_backward(shape, n, x, dy, dx))?,
            Op::MaxPool(shape) => timed.compute(|| backend.max_pool_backward(shape, n, x, y, dy, dx))?,
            Op::Dropout(shape) => {
                let draw = mode.draw(shape.layer);
                timed.compute(|| backend.dropout_backward(shape, n, &draw, own))?;
            }
        }
        let in_place = layer.works_in_place();
        if let (Some(record), true) = (record, needs_dx) {
            let gradient = backend.read(if in_place { own } else { dx }, n * plan.slots[layer.x])?;
            record.push((format!("{}.dx", layer.name), gradient));
        }
        Ok(if in_place { reached } else { next })
    }
}

fn write_input<B: Backend>(
    backend: &B,
    input: Option<&(AugmentShape, B::Buffer)>,
    batch: &Batch,
    to: &mut B::Buffer,
) -> Result<()> {
    match (&batch.images, input) {
        (Images::Ready(images), _) => backend.write(images, to),
        (Images::Bytes(pixels, windows), Some((shape, mean))) => {
            let _span = tracing::debug_span!("augment").entered();
            backend.augment(shape, pixels, windows, mean, to)
        }
        (Images::Bytes(..), None) => panic!("images as bytes before set_input"),
    }
}

/// Two buffers at once; the plan never makes a layer's slots equal where this is used.
fn disjoint<T>(buffers: &mut [T], slots: [usize; 2]) -> [&mut T; 2] {
    match buffers.get_disjoint_mut(slots) {
        Ok(pair) => pair,
        Err(error) => unreachable!("slots {slots:?}: {error}"),
    }
}

fn block_forward<B: Backend>(
    backend: &B,
    layer: &PlannedLayer,
    n: usize,
    x: &B::Buffer,
    w: &B::Buffer,
    bias: Option<&B::Buffer>,
    y: &mut B::Buffer,
) -> Result<()> {
    match &layer.op {
        Op::Conv(shape) => backend.conv_forward(shape, n, x, w, bias, y),
        Op::Dense(shape) => backend.dense_forward(shape, n, x, w, bias, y),
        _ => Ok(()),
    }
}

fn block_backward_input<B: Backend>(
    backend: &B,
    layer: &PlannedLayer,
    n: usize,
    dy: &B::Buffer,
    w: &B::Buffer,
    dx: &mut B::Buffer,
) -> Result<()> {
    match &layer.op {
        Op::Conv(shape) => backend.conv_backward_input(shape, n, dy, w, dx),
        Op::Dense(shape) => backend.dense_backward_input(shape, n, dy, w, dx),
        _ => Ok(()),
    }
}

/// To the gradient, or where that is not kept, to the weights at once.
fn block_backward_weight<B: Backend>(
    backend: &B,
    layer: &PlannedLayer,
    n: usize,
    x: &B::Buffer,
    dy: &B::Buffer,
    param: &mut ParamBuffers<B>,
    update: Option<Update>,
) -> Result<()> {
    let ParamBuffers { value, gradient, state } = param;
    match (&layer.op, gradient, update) {
        (Op::Conv(shape), Some(dw), _) => backend.conv_backward_weight(shape, n, x, dy, dw),
        (Op::Dense(shape), Some(dw), _) => backend.dense_backward_weight(shape, n, x, dy, dw),
        (Op::Dense(shape), None, Some(update)) => {
            backend.dense_backward_weight_update(shape, n, x, dy, &update, value, state)
        }
        _ => Ok(()),
    }
}

fn block_backward_bias<B: Backend>(
    backend: &B,
    layer: &PlannedLayer,
    n: usize,
    dy: &B::Buffer,
    dbias: &mut B::Buffer,
) -> Result<()> {
    match &layer.op {
        Op::Conv(shape) => backend.conv_backward_bias(shape, n, dy, dbias),
        Op::Dense(shape) => backend.dense_backward_bias(shape, n, dy, dbias),
        _ => Ok(()),
    }
}
