//! Layers with weights, and the exchange where one reads both streams: each stream works on its own block while the
//! other's activations, or gradients, are in flight.

use super::timing::Timer;
use super::{Hyper, Mode, ParamBuffers, Stream, disjoint};
use crate::backend::{Backend, ConvShape, DenseShape, Update};
use crate::error::Result;
use crate::net::plan::{Op, PlannedLayer};
use crate::net::swap::Pass;

/// The operations of one weight block.
#[derive(Clone, Copy)]
enum Block<'a> {
    Conv(&'a ConvShape),
    Dense(&'a DenseShape),
}

impl Block<'_> {
    fn forward<B: Backend>(
        self,
        backend: &B,
        n: usize,
        x: &B::Buffer,
        w: &B::Buffer,
        bias: Option<&B::Buffer>,
        y: &mut B::Buffer,
    ) -> Result<()> {
        match self {
            Block::Conv(shape) => backend.conv_forward(shape, n, x, w, bias, y),
            Block::Dense(shape) => backend.dense_forward(shape, n, x, w, bias, y),
        }
    }

    fn backward_input<B: Backend>(
        self,
        backend: &B,
        n: usize,
        dy: &B::Buffer,
        w: &B::Buffer,
        dx: &mut B::Buffer,
    ) -> Result<()> {
        match self {
            Block::Conv(shape) => backend.conv_backward_input(shape, n, dy, w, dx),
            Block::Dense(shape) => backend.dense_backward_input(shape, n, dy, w, dx),
        }
    }

    /// Writes the gradient or, where that is not kept, updates the weights at once.
    fn backward_weight<B: Backend>(
        self,
        backend: &B,
        n: usize,
        x: &B::Buffer,
        dy: &B::Buffer,
        param: &mut ParamBuffers<B>,
        update: Option<Update>,
    ) -> Result<()> {
        let ParamBuffers { value, gradient, state } = param;
        match (self, gradient, update) {
            (Block::Conv(shape), Some(dw), _) => backend.conv_backward_weight(shape, n, x, dy, dw),
            (Block::Dense(shape), Some(dw), _) => backend.dense_backward_weight(shape, n, x, dy, dw),
            (Block::Dense(shape), None, Some(update)) if !update.is_frozen() => {
                backend.dense_backward_weight_update(shape, n, x, dy, &update, value, state)
            }
            _ => Ok(()),
        }
    }

    fn backward_bias<B: Backend>(self, backend: &B, n: usize, dy: &B::Buffer, dbias: &mut B::Buffer) -> Result<()> {
        match self {
            Block::Conv(shape) => backend.conv_backward_bias(shape, n, dy, dbias),
            Block::Dense(shape) => backend.dense_backward_bias(shape, n, dy, dbias),
        }
    }
}

/// A layer's blocks; `None` where all of it is on the other stream.
fn block(layer: &PlannedLayer) -> Option<Block<'_>> {
    match &layer.op {
        Op::Conv(shape) => Some(Block::Conv(shape)),
        Op::Dense(shape) => Some(Block::Dense(shape)),
        _ => None,
    }
}

impl<B: Backend> Stream<B> {
    pub(super) fn forward_weighted(
        &mut self,
        index: usize,
        n: usize,
        mode: &Mode,
        shared: Option<&B::Buffer>,
    ) -> Result<()> {
        let Stream { plan, backend, exchange, params, buffers, observes, marks, .. } = self;
        let layer = &plan.layers[index];
        let mut timed = Timer { backend, observes: *observes, marks, layer: index, pass: Pass::Forward };
        let mut under_way = None;
        if let Some((point, exchange)) = layer.exchange_point.zip(exchange.as_mut()) {
            let swap = mode.swap(backend, layer, Pass::Forward, plan.shape(layer.x, n));
            let [x, theirs] = disjoint(buffers, [layer.x, point.theirs]);
            let (give, take) = (point.gives.then_some(&*x), point.takes.then_some(theirs));
            exchange.start_swap(backend, &swap, give, take)?;
            under_way = Some((point, exchange, swap));
        }
        // The own block while the other stream's activations are in flight.
        let weighted = block(layer).zip(layer.params);
        if let Some((block, p)) = weighted {
            let [x, y] = disjoint(buffers, [layer.x, layer.y]);
            let x = shared.filter(|_| layer.reads_image()).unwrap_or(x);
            timed.compute(|| block.forward(backend, n, x, &params[p.own].value, Some(&params[p.bias].value), y))?;
        }
        let Some((point, exchange, swap)) = under_way else { return Ok(()) };
        let take = point.takes.then_some(&mut buffers[point.theirs]);
        timed.finish_swap(&mut **exchange, &swap, take)?;
        if let Some((block, theirs)) = weighted.and_then(|(block, p)| Some((block, p.theirs?))) {
            let [x, y] = disjoint(buffers, [point.theirs, layer.y]);
            timed.compute(|| block.forward(backend, n, x, &params[theirs].value, None, y))?;
        }
        Ok(())
    }

    pub(super) fn backward_weighted(
        &mut self,
        index: usize,
        n: usize,
        mode: &Mode,
        shared: Option<&B::Buffer>,
        hyper: Option<&Hyper>,
    ) -> Result<()> {
        let Stream { plan, backend, exchange, params, buffers, gradients, outgoing, incoming, observes, marks, .. } =
            self;
        let layer = &plan.layers[index];
        let mut timed = Timer { backend, observes: *observes, marks, layer: index, pass: Pass::Backward };
        let weighted = block(layer).zip(layer.params);
        let (dx, dy) = (gradients[index], gradients[index + 1]);
        // First what the other stream is waiting for, then the rest while it is in flight.
        let mut under_way = None;
        if let Some((point, exchange)) = layer.exchange_point.zip(exchange.as_mut()) {
            let swap = mode.swap(backend, layer, Pass::Backward, plan.gradient_shape(layer.x, n));
            if let Some((block, theirs)) = weighted.and_then(|(block, p)| Some((block, p.theirs?))) {
                let (dy, w) = (&buffers[dy], &params[theirs].value);
                timed.compute(|| block.backward_input(backend, n, dy, w, outgoing))?;
            }
            let (give, take) = (point.takes.then_some(&*outgoing), point.gives.then_some(&mut *incoming));
            exchange.start_swap(backend, &swap, give, take)?;
            under_way = Some((point, exchange, swap));
        }
        if let Some((block, p)) = weighted {
            timed.compute(|| {
                if !layer.reads_image() {
                    let [dy, dx] = disjoint(buffers, [dy, dx]);
                    block.backward_input(backend, n, dy, &params[p.own].value, dx)?;
                }
                let (x, dy) = (shared.filter(|_| layer.reads_image()).unwrap_or(&buffers[layer.x]), &buffers[dy]);
                let update_of = |param: usize| hyper.map(|hyper| hyper(&plan.params[param]));
                block.backward_weight(backend, n, x, dy, &mut params[p.own], update_of(p.own))?;
                if let (Some(theirs), Some(point)) = (p.theirs, layer.exchange_point) {
                    let x = &buffers[point.theirs];
                    block.backward_weight(backend, n, x, dy, &mut params[theirs], update_of(theirs))?;
                }
                match &mut params[p.bias].gradient {
                    Some(gradient) => block.backward_bias(backend, n, dy, gradient),
                    None => Ok(()),
                }
            })?;
        } else if !layer.reads_image() {
            timed.compute(|| backend.fill_zero(plan.gradient_shape(layer.x, n), &mut buffers[dx]))?;
        }
        if let Some((point, exchange, swap)) = under_way {
            let take = point.gives.then_some(&mut *incoming);
            timed.finish_swap(&mut **exchange, &swap, take)?;
            if point.gives {
                timed.compute(|| backend.add(plan.gradient_shape(layer.x, n), incoming, &mut buffers[dx]))?;
            }
        }
        Ok(())
    }
}
