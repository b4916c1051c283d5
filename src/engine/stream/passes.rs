//! The forward and the backward pass of the paper's section 3, layer by layer. Layers with weights, which may read both
//! streams, are in `weighted.rs`.

use super::timing::Timer;
use super::{Hyper, Mode, Stream, disjoint};
use crate::backend::{AugmentShape, Backend, DropoutDraw, SoftmaxShape, TensorShape};
use crate::data::{Batch, Images};
use crate::error::Result;
use crate::net::plan::{Op, PlannedLayer, Slot};
use crate::net::swap::Pass;
use crate::net::swap::Swap;
use crate::rng::{Philox, Purpose};

impl Mode {
    pub(super) fn swap<B: Backend>(
        &self,
        backend: &B,
        layer: &PlannedLayer,
        pass: Pass,
        shape: impl Into<TensorShape>,
    ) -> Swap {
        let shape = shape.into();
        let (elems, bytes) = (shape.elems(), backend.bytes(shape));
        Swap { layer: layer.name.clone(), pass, step: self.training.map(|(_, step)| step), elems, bytes }
    }

    fn draw(&self, layer: u32) -> DropoutDraw {
        let mask = self.training.map(|(seed, step)| (Philox::new(seed, Purpose::Dropout, layer), step));
        DropoutDraw { mask, scaling: self.scaling }
    }
}

impl<B: Backend> Stream<B> {
    /// Turns a batch into the network's input, N C H W. Where streams share it, one of them makes it.
    pub fn write_input(&mut self, batch: &Batch, to: &mut B::Buffer) -> Result<()> {
        write_input(&self.backend, self.input.as_ref(), batch, self.plan.shape(0, batch.len()), to)
    }

    /// Runs a batch of at most the capacity forward, to the scores on the device and the gradient with respect to the
    /// logits. `shared` is the network's input where streams share it.
    pub fn forward(&mut self, batch: &Batch, mode: &Mode, shared: Option<&B::Buffer>) -> Result<()> {
        let n = batch.len();
        assert!(n <= self.capacity, "batch of {n} images in a stream made for {}", self.capacity);
        if let Some(record) = &mut self.record {
            record.clear();
        }
        self.older_marks.append(&mut self.marks);
        self.observes = self.is_observed(mode.training.map(|(_, step)| step));
        if shared.is_none() {
            write_input(&self.backend, self.input.as_ref(), batch, self.plan.shape(0, n), &mut self.buffers[0])?;
        }
        for index in 0..self.plan.layers.len() {
            self.forward_layer(index, batch, mode, shared)?;
        }
        Ok(())
    }

    fn forward_layer(&mut self, index: usize, batch: &Batch, mode: &Mode, shared: Option<&B::Buffer>) -> Result<()> {
        let layer = &self.plan.layers[index];
        let _span = tracing::debug_span!("layer", layer = &*layer.name, pass = "forward").entered();
        let (n, at) = (batch.len(), (index, Pass::Forward));
        let PlannedLayer { op, x, y, .. } = *layer;
        match op {
            Op::Conv(_) | Op::Dense(_) | Op::Absent => self.forward_weighted(index, n, mode, shared)?,
            Op::Activation(kind, shape) => {
                let shape = TensorShape::Maps(n, shape);
                self.compute(at, [y], |backend, [y]| backend.activation_forward(kind, shape, y))?;
            }
            Op::Lrn(shape) => self.compute(at, [x, y], |backend, [x, y]| backend.lrn_forward(&shape, n, x, y))?,
            Op::SpatialLrn(shape) => {
                self.compute(at, [x, y], |backend, [x, y]| backend.spatial_lrn_forward(&shape, n, x, y))?;
            }
            Op::MaxPool(shape) => {
                self.compute(at, [x, y], |backend, [x, y]| backend.max_pool_forward(&shape, n, x, y))?;
            }
            Op::AvgPool(shape) => {
                self.compute(at, [x, y], |backend, [x, y]| backend.avg_pool_forward(&shape, n, x, y))?;
            }
            Op::ReluLrnMaxPool(lrn, pool) => {
                self.compute(at, [x, y], |backend, [x, y]| backend.relu_lrn_max_pool_forward(&lrn, &pool, n, x, y))?
            }
            Op::Dropout(shape) => {
                let draw = mode.draw(shape.layer);
                self.compute(at, [x, y], |backend, [x, y]| backend.dropout_forward(&shape, n, &draw, x, y))?;
            }
            Op::SoftmaxCrossEntropy(shape) => self.forward_loss(index, &shape, batch, mode)?,
        }
        if let Some(record) = &mut self.record {
            let (layer, shape) = (&self.plan.layers[index], self.plan.shape(y, n));
            record.push((layer.name.to_string(), self.backend.read(&self.buffers[y], shape)?));
        }
        Ok(())
    }

    /// The loss, with the other stream's share of the softmax where that has classes, too.
    fn forward_loss(&mut self, index: usize, shape: &SoftmaxShape, batch: &Batch, mode: &Mode) -> Result<()> {
        let Stream {
            plan, backend, exchange, buffers, gradients, stats: [ours, theirs], scores, observes, marks, ..
        } = self;
        let (layer, n, labels) = (&plan.layers[index], batch.len(), &batch.labels[..]);
        let mut timed = Timer { backend, observes: *observes, marks, layer: index, pass: Pass::Forward };
        let [logits, gradient] = disjoint(buffers, [layer.x, gradients[index]]);
        timed.compute(|| backend.softmax_stats(shape, n, logits, labels, ours))?;
        let mut other = None;
        if let (true, Some(exchange)) = (shape.split, exchange) {
            let swap = mode.swap(backend, layer, Pass::Forward, n * SoftmaxShape::STATS);
            exchange.start_swap(backend, &swap, Some(ours), Some(theirs))?;
            timed.finish_swap(&mut **exchange, &swap, Some(theirs))?;
            other = Some(&*theirs);
        }
        timed.compute(|| backend.softmax_cross_entropy(shape, n, logits, labels, ours, other, gradient, scores))
    }

    /// Runs the newest batch backward, from the gradient with respect to the logits to those of all parameters. With
    /// `hyper`, dense weights, which are most of the network, are updated at once and their gradients never stored;
    /// [`Stream::update`] does the rest.
    pub fn backward(&mut self, n: usize, mode: &Mode, shared: Option<&B::Buffer>, hyper: Option<&Hyper>) -> Result<()> {
        for (param, buffers) in self.plan.params.iter().zip(&mut self.params) {
            // Only a dense layer's weights have two dimensions.
            if hyper.is_some() && param.shape.len() == 2 {
                buffers.gradient = None;
            } else if buffers.gradient.is_none() {
                buffers.gradient = Some(self.backend.alloc(param.tensor)?);
            }
        }
        (0..self.plan.layers.len()).rev().try_for_each(|index| self.backward_layer(index, n, mode, shared, hyper))
    }

    fn backward_layer(
        &mut self,
        index: usize,
        n: usize,
        mode: &Mode,
        shared: Option<&B::Buffer>,
        hyper: Option<&Hyper>,
    ) -> Result<()> {
        let layer = &self.plan.layers[index];
        let _span = tracing::debug_span!("layer", layer = &*layer.name, pass = "backward").entered();
        let (at, reads_image) = ((index, Pass::Backward), layer.reads_image());
        let PlannedLayer { op, x, y, .. } = *layer;
        let (dx, dy) = (self.gradients[index], self.gradients[index + 1]);
        match op {
            Op::Conv(_) | Op::Dense(_) | Op::Absent => self.backward_weighted(index, n, mode, shared, hyper)?,
            Op::Activation(kind, shape) => {
                let shape = TensorShape::Maps(n, shape);
                self.compute(at, [y, dy], |backend, [y, dy]| backend.activation_backward(kind, shape, y, dy))?
            }
            Op::Lrn(shape) => {
                self.compute(at, [x, dy, dx], |backend, [x, dy, dx]| backend.lrn_backward(&shape, n, x, dy, dx))?
            }
            Op::SpatialLrn(shape) => self
                .compute(at, [x, dy, dx], |backend, [x, dy, dx]| backend.spatial_lrn_backward(&shape, n, x, dy, dx))?,
            Op::MaxPool(shape) => self.compute(at, [x, y, dy, dx], |backend, [x, y, dy, dx]| {
                backend.max_pool_backward(&shape, n, x, y, dy, dx)
            })?,
            Op::AvgPool(shape) => {
                self.compute(at, [dy, dx], |backend, [dy, dx]| backend.avg_pool_backward(&shape, n, dy, dx))?
            }
            Op::ReluLrnMaxPool(lrn, pool) => self.compute(at, [x, y, dy], |backend, [x, y, dy]| {
                backend.relu_lrn_max_pool_backward(&lrn, &pool, n, x, y, dy)
            })?,
            Op::Dropout(shape) => {
                let draw = mode.draw(shape.layer);
                self.compute(at, [dy], |backend, [dy]| backend.dropout_backward(&shape, n, &draw, dy))?;
            }
            Op::SoftmaxCrossEntropy(_) => {} // its gradient came with the loss
        }
        // Nobody asks for the gradient with respect to the image.
        if let (Some(record), false) = (&mut self.record, reads_image) {
            let gradient = self.backend.read(&self.buffers[dx], self.plan.gradient_shape(x, n))?;
            record.push((format!("{}.dx", self.plan.layers[index].name), gradient));
        }
        Ok(())
    }

    /// Runs an operation of a layer on the buffers of some slots, all different, and marks its time.
    fn compute<const K: usize>(
        &mut self,
        (layer, pass): (usize, Pass),
        slots: [Slot; K],
        work: impl FnOnce(&B, [&mut B::Buffer; K]) -> Result<()>,
    ) -> Result<()> {
        let Stream { backend, buffers, observes, marks, .. } = self;
        let buffers = disjoint(buffers, slots);
        Timer { backend, observes: *observes, marks, layer, pass }.compute(|| work(backend, buffers))
    }
}

fn write_input<B: Backend>(
    backend: &B,
    input: Option<&(AugmentShape, B::Buffer)>,
    batch: &Batch,
    shape: TensorShape,
    to: &mut B::Buffer,
) -> Result<()> {
    match (&batch.images, input) {
        (Images::Ready(images), _) => backend.write(images, shape, to),
        (Images::Bytes(pixels, windows), Some((augment, mean))) => {
            let _span = tracing::debug_span!("augment").entered();
            backend.augment(augment, pixels, windows, mean, shape, to)
        }
        (Images::Bytes(..), None) => panic!("images as bytes before set_input"),
    }
}
