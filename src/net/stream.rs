//! One stream: its half of the network on one device. The forward and the backward pass of the paper's section 3,
//! with the exchange where a layer reads both halves.

use crate::backend::{AugmentShape, Backend, DropoutDraw, DropoutScaling, SoftmaxShape, Update};
use crate::data::{Batch, Images};
use crate::error::Result;
use crate::exchange::{Exchange, Swap};
use crate::net::plan::{Op, ParamKind, Plan, PlannedLayer, Slot};
use crate::report::times::{Activity, Pass, StreamTimes};
use crate::rng::{Philox, Purpose};

/// How a batch is run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mode {
    /// When dropout scales.
    pub scaling: DropoutScaling,
    /// In training, the seed and the step, which choose the dropout masks; `None` at test time.
    pub training: Option<(u64, u64)>,
}

impl Mode {
    fn swap(&self, layer: &PlannedLayer, pass: Pass, elems: usize) -> Swap {
        Swap { layer: layer.name.clone(), pass, step: self.training.map(|(_, step)| step), elems }
    }

    fn draw(&self, layer: u32) -> DropoutDraw {
        let mask = self.training.map(|(seed, step)| (Philox::new(seed, Purpose::Dropout, layer), step));
        DropoutDraw { mask, scaling: self.scaling }
    }
}

/// One parameter tensor on the device, its gradient and the optimizer's state.
struct ParamBuffers<B: Backend> {
    value: B::Buffer,
    gradient: B::Buffer,
    state: Vec<B::Buffer>,
}

/// What a stream knows of a batch when it is done.
#[derive(Clone, Debug)]
pub struct Scores {
    /// For each image its loss (over all classes) and how many of this stream's classes rank above the label.
    pub rows: Vec<f32>,
}

/// A named tensor seen on the way through a recorded batch.
pub type Record = (String, Vec<f32>);

/// Which of a parameter's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tensor {
    /// The weights.
    Value,
    /// Their gradient in the newest batch.
    Gradient,
    /// The optimizer's state tensor of this number.
    State(usize),
}

/// Where the gradient that the backward pass has reached lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// In one of the two gradient buffers.
    Buffer(usize),
    /// In the place of an activation that nobody needs any more.
    Slot(Slot),
}

/// What was done between two marks.
struct Marked<M> {
    layer: usize,
    pass: Pass,
    activity: Activity,
    from: M,
    to: M,
}

/// One stream of the network.
pub struct Stream<B: Backend> {
    plan: Plan,
    backend: B,
    /// `None` where there is only one stream.
    exchange: Option<Box<dyn Exchange<B>>>,
    capacity: usize,
    /// What is done with the bytes of images, and the mean that is subtracted.
    input: Option<(AugmentShape, B::Buffer)>,
    params: Vec<ParamBuffers<B>>,
    /// By slot.
    activations: Vec<B::Buffer>,
    /// Those gradients that the backward pass gives no other place.
    gradients: [B::Buffer; 2],
    /// Gradients by the other stream's activations, and by ours from the other stream.
    outgoing: B::Buffer,
    incoming: B::Buffer,
    stats: [B::Buffer; 2],
    scores: B::Buffer,
    times: StreamTimes,
    /// Of the newest pass, and of training passes before it whose work may not be done yet.
    marks: Vec<Marked<B::Mark>>,
    older_marks: Vec<Marked<B::Mark>>,
    record: Option<Vec<Record>>,
}

impl<B: Backend> Stream<B> {
    /// Allocates everything that batches of up to `capacity` images need, once. `states` is the number of state
    /// tensors a parameter that the optimizer keeps. Weights are 0 until they are set.
    pub fn new(
        plan: Plan,
        backend: B,
        exchange: Option<Box<dyn Exchange<B>>>,
        capacity: usize,
        states: usize,
    ) -> Result<Self> {
        let params = plan.params.iter().map(|param| {
            let alloc = || backend.alloc(param.elems());
            let state = (0..states).map(|_| alloc()).collect::<Result<_>>()?;
            Ok(ParamBuffers { value: alloc()?, gradient: alloc()?, state })
        });
        let params = params.collect::<Result<_>>()?;
        let images = |elems: usize| backend.alloc(elems * capacity);
        Ok(Stream {
            params,
            activations: plan.slots.iter().map(|&elems| images(elems)).collect::<Result<_>>()?,
            gradients: [images(plan.largest_gradient())?, images(plan.largest_gradient())?],
            outgoing: images(plan.largest_crossing())?,
            incoming: images(plan.largest_crossing())?,
            stats: [images(SoftmaxShape::STATS)?, images(SoftmaxShape::STATS)?],
            scores: images(2)?,
            times: StreamTimes::new(plan.layers.len()),
            marks: Vec::new(),
            older_marks: Vec::new(),
            record: None,
            input: None,
            plan,
            backend,
            exchange,
            capacity,
        })
    }

    /// What this stream runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// From now on batches may hold images as bytes; `mean` is C x resize x resize.
    pub fn set_input(&mut self, shape: &AugmentShape, mean: &[f32]) -> Result<()> {
        let mut buffer = self.backend.alloc(mean.len())?;
        self.backend.write(mean, &mut buffer)?;
        self.input = Some((*shape, buffer));
        Ok(())
    }

    /// The network's input of the newest batch of `n` images: N C H W.
    pub fn read_input(&self, n: usize) -> Result<Vec<f32>> {
        self.backend.read(&self.activations[0], n * self.plan.slots[0])
    }

    /// Time spent so far.
    pub fn times(&self) -> &StreamTimes {
        &self.times
    }

    /// Forgets the time spent so far.
    pub fn reset_times(&mut self) {
        self.marks.clear();
        self.older_marks.clear();
        self.times = StreamTimes::new(self.plan.layers.len());
    }

    /// From now on keeps a copy of every activation and gradient of the newest batch, for which no layers are fused:
    /// `plan` is the stream's whole one (slow; for tests and study).
    pub fn start_recording(&mut self, plan: Plan) -> Result<()> {
        self.record = Some(Vec::new());
        self.replan(plan)
    }

    /// Takes another plan, with the same parameters.
    fn replan(&mut self, plan: Plan) -> Result<()> {
        let images = |elems: usize| self.backend.alloc(elems * self.capacity);
        self.activations = plan.slots.iter().map(|&elems| images(elems)).collect::<Result<_>>()?;
        self.gradients = [images(plan.largest_gradient())?, images(plan.largest_gradient())?];
        self.plan = plan;
        self.reset_times();
        Ok(())
    }

    /// The newest batch's tensors: `conv1` is a layer's output, `conv1.dx` the gradient by its input.
    pub fn recorded(&self) -> &[Record] {
        self.record.as_deref().unwrap_or_default()
    }

    /// Ends the exchange: this stream has failed and the other must not wait for it.
    pub fn close_exchange(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.close();
        }
    }

    /// Runs a batch of at most the capacity forward, to the scores on the device and the gradient by the logits.
    pub fn forward(&mut self, batch: &Batch, mode: &Mode) -> Result<()> {
        let n = batch.len();
        assert!(n <= self.capacity, "batch of {n} images in a stream made for {}", self.capacity);
        if let Some(record) = &mut self.record {
            record.clear();
        }
        self.older_marks.append(&mut self.marks);
        match (&batch.images, &self.input) {
            (Images::Ready(images), _) => self.backend.write(images, &mut self.activations[0])?,
            (Images::Bytes(pixels, windows), Some((shape, mean))) => {
                let _span = tracing::debug_span!("augment").entered();
                self.backend.augment(shape, pixels, windows, mean, &mut self.activations[0])?;
            }
            (Images::Bytes(..), None) => panic!("images as bytes before set_input"),
        }
        for index in 0..self.plan.layers.len() {
            self.forward_layer(index, batch, mode)?;
        }
        Ok(())
    }

    fn forward_layer(&mut self, index: usize, batch: &Batch, mode: &Mode) -> Result<()> {
        let Stream { plan, backend, exchange, params, activations, gradients, stats, scores, marks, record, .. } = self;
        let (layer, n) = (&plan.layers[index], batch.len());
        let _span = tracing::debug_span!("layer", layer = &*layer.name, pass = "forward").entered();
        let mut timed = Timer { backend, marks, layer: index, pass: Pass::Forward };
        let elems = n * layer.out_shape.iter().product::<usize>();
        match &layer.op {
            Op::Conv(_) | Op::Dense(_) | Op::Absent => {
                let theirs = match (layer.crossing, exchange) {
                    (Some(crossing), Some(exchange)) => {
                        let swap = mode.swap(layer, Pass::Forward, n * crossing.elems);
                        let [x, theirs] = disjoint(activations, [layer.x, crossing.theirs]);
                        let (give, take) = (crossing.gives.then_some(&*x), crossing.takes.then_some(theirs));
                        exchange.start_swap(backend, &swap, give, take)?;
                        Some((crossing, swap, exchange))
                    }
                    _ => None,
                };
                // The own block while the other stream's activations are on their way.
                if let Some(p) = layer.params {
                    let [x, y] = disjoint(activations, [layer.x, layer.y]);
                    let bias = Some(&params[p.bias].value);
                    timed.run(Activity::Compute, || {
                        block_forward(backend, layer, n, x, &params[p.own].value, bias, y)
                    })?;
                }
                if let Some((crossing, swap, exchange)) = theirs {
                    let take = crossing.takes.then_some(&mut activations[crossing.theirs]);
                    timed.finish_swap(&mut **exchange, &swap, take)?;
                    if let Some((block, true)) =
                        layer.params.and_then(|p| p.theirs).map(|block| (block, crossing.takes))
                    {
                        let [x, y] = disjoint(activations, [crossing.theirs, layer.y]);
                        timed.run(Activity::Compute, || {
                            block_forward(backend, layer, n, x, &params[block].value, None, y)
                        })?;
                    }
                }
            }
            Op::Activation(kind, _) => {
                timed.run(Activity::Compute, || backend.activation_forward(*kind, elems, &mut activations[layer.y]))?;
            }
            Op::Lrn(shape) => {
                let [x, y] = disjoint(activations, [layer.x, layer.y]);
                timed.run(Activity::Compute, || backend.lrn_forward(shape, n, x, y))?;
            }
            Op::MaxPool(shape) => {
                let [x, y] = disjoint(activations, [layer.x, layer.y]);
                timed.run(Activity::Compute, || backend.max_pool_forward(shape, n, x, y))?;
            }
            Op::ReluLrnMaxPool(lrn, pool) => {
                let [x, y] = disjoint(activations, [layer.x, layer.y]);
                timed.run(Activity::Compute, || backend.relu_lrn_max_pool_forward(lrn, pool, n, x, y))?;
            }
            Op::Dropout(shape) => {
                let (draw, [x, y]) = (mode.draw(shape.layer), disjoint(activations, [layer.x, layer.y]));
                timed.run(Activity::Compute, || backend.dropout_forward(shape, n, &draw, x, y))?;
            }
            Op::SoftmaxCrossEntropy(shape) => {
                let [ours, theirs] = stats;
                let (logits, labels) = (&activations[layer.x], &batch.labels[..]);
                timed.run(Activity::Compute, || backend.softmax_stats(shape, n, logits, labels, ours))?;
                let mut other = None;
                if let (true, Some(exchange)) = (shape.split, exchange) {
                    let swap = mode.swap(layer, Pass::Forward, n * SoftmaxShape::STATS);
                    exchange.start_swap(backend, &swap, Some(ours), Some(theirs))?;
                    timed.finish_swap(&mut **exchange, &swap, Some(theirs))?;
                    other = Some(&*theirs);
                }
                timed.run(Activity::Compute, || {
                    backend.softmax_cross_entropy(shape, n, logits, labels, ours, other, &mut gradients[0], scores)
                })?;
            }
        }
        if let Some(record) = record {
            record.push((layer.name.to_string(), backend.read(&activations[layer.y], elems)?));
        }
        Ok(())
    }

    /// Runs the newest batch backward, from the gradient by the logits to the gradients by all parameters.
    pub fn backward(&mut self, n: usize, mode: &Mode) -> Result<()> {
        let mut reached = Reached::Buffer(0);
        for index in (0..self.plan.layers.len()).rev() {
            reached = self.backward_layer(index, n, mode, reached)?;
        }
        Ok(())
    }

    /// One layer's backward pass: takes dy from where it lies, and returns where dx does.
    fn backward_layer(&mut self, index: usize, n: usize, mode: &Mode, reached: Reached) -> Result<Reached> {
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
            timed
                .run(Activity::Compute, || backend.relu_lrn_max_pool_backward(lrn, pool, n, x, y, &gradients[from]))?;
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
        let (x, y) = (&activations[layer.x], &activations[layer.y]);
        let needs_dx = layer.x != 0; // nobody asks for the gradient by the image
        match &layer.op {
            Op::ReluLrnMaxPool(..) | Op::SoftmaxCrossEntropy(_) => {} // done above; its gradient came with the loss
            Op::Conv(_) | Op::Dense(_) | Op::Absent => {
                let crossing = layer.crossing.zip(exchange.as_mut()).map(|(crossing, exchange)| {
                    (crossing, exchange, mode.swap(layer, Pass::Backward, n * crossing.elems))
                });
                // First what the other stream is waiting for, then the rest while it is on its way.
                let mut under_way = None;
                if let Some((crossing, exchange, swap)) = crossing {
                    if let Some(block) = layer.params.and_then(|p| p.theirs) {
                        timed.run(Activity::Compute, || {
                            block_backward_input(backend, layer, n, dy, &params[block].value, outgoing)
                        })?;
                    }
                    let (give, take) = (crossing.takes.then_some(&*outgoing), crossing.gives.then_some(&mut *incoming));
                    exchange.start_swap(backend, &swap, give, take)?;
                    under_way = Some((crossing, exchange, swap));
                }
                if let Some(p) = layer.params {
                    timed.run(Activity::Compute, || {
                        if needs_dx {
                            block_backward_input(backend, layer, n, dy, &params[p.own].value, dx)?;
                        }
                        block_backward_weight(backend, layer, n, x, dy, &mut params[p.own].gradient)?;
                        if let (Some(block), Some(crossing)) = (p.theirs, layer.crossing) {
                            let theirs = &activations[crossing.theirs];
                            block_backward_weight(backend, layer, n, theirs, dy, &mut params[block].gradient)?;
                        }
                        block_backward_bias(backend, layer, n, dy, &mut params[p.bias].gradient)
                    })?;
                } else if needs_dx {
                    timed.run(Activity::Compute, || backend.fill_zero(n * plan.slots[layer.x], dx))?;
                }
                if let Some((crossing, exchange, swap)) = under_way {
                    let take = crossing.gives.then_some(&mut *incoming);
                    timed.finish_swap(&mut **exchange, &swap, take)?;
                    if crossing.gives {
                        timed.run(Activity::Compute, || backend.add(swap.elems, incoming, dx))?;
                    }
                }
            }
            Op::Activation(kind, _) => {
                timed.run(Activity::Compute, || backend.activation_backward(*kind, elems, y, own))?
            }
            Op::Lrn(shape) => timed.run(Activity::Compute, || backend.lrn_backward(shape, n, x, dy, dx))?,
            Op::MaxPool(shape) => timed.run(Activity::Compute, || backend.max_pool_backward(shape, n, x, y, dy, dx))?,
            Op::Dropout(shape) => {
                let draw = mode.draw(shape.layer);
                timed.run(Activity::Compute, || backend.dropout_backward(shape, n, &draw, own))?;
            }
        }
        let in_place = layer.works_in_place();
        if let (Some(record), true) = (record, needs_dx) {
            let gradient = backend.read(if in_place { own } else { dx }, n * plan.slots[layer.x])?;
            record.push((format!("{}.dx", layer.name), gradient));
        }
        Ok(if in_place { reached } else { next })
    }

    /// Applies the newest gradients; `hyper` gives each kind of parameter its rates.
    pub fn update(&mut self, hyper: &dyn Fn(ParamKind) -> Update) -> Result<()> {
        let Stream { plan, backend, params, marks, .. } = self;
        for (index, layer) in plan.layers.iter().enumerate() {
            let Some(p) = layer.params else { continue };
            let mut timed = Timer { backend, marks, layer: index, pass: Pass::Update };
            timed.run(Activity::Compute, || {
                [Some(p.own), p.theirs, Some(p.bias)].into_iter().flatten().try_for_each(|index| {
                    let (param, buffers) = (&plan.params[index], &mut params[index]);
                    backend.update(
                        &hyper(param.kind),
                        param.elems(),
                        &buffers.gradient,
                        &mut buffers.value,
                        &mut buffers.state,
                    )
                })
            })?;
        }
        Ok(())
    }

    /// Starts to read the newest batch's scores; `None` where the loss lives on the other stream.
    pub fn start_scores(&mut self, n: usize) -> Result<Option<B::Read>> {
        let has_loss = self.plan.layers.iter().any(|layer| matches!(layer.op, Op::SoftmaxCrossEntropy(_)));
        has_loss.then(|| self.backend.start_read(&self.scores, 2 * n)).transpose()
    }

    /// Waits for the scores, but not for work queued after [`Stream::start_scores`].
    pub fn finish_scores(&mut self, scores: Option<B::Read>) -> Result<Option<Scores>> {
        let scores = scores.map(|read| Ok(Scores { rows: self.backend.finish_read(read)? })).transpose()?;
        // What was queued before this batch is done now (where there is no loss, the times wait for it).
        self.collect_times()?;
        Ok(scores)
    }

    /// Waits for the batch and reads this stream's logits: n rows of its classes (none where fc8 is elsewhere).
    pub fn read_logits(&mut self, n: usize) -> Result<Vec<f32>> {
        let Some(last) = self.plan.layers.last() else { return Ok(Vec::new()) };
        self.backend.read(&self.activations[last.x], n * self.plan.slots[last.x])
    }

    /// Turns the marks of earlier training steps into times.
    fn collect_times(&mut self) -> Result<()> {
        let Stream { backend, times, plan, older_marks, .. } = self;
        if let (Some(first), Some(last)) = (older_marks.first(), older_marks.last()) {
            times.total += backend.elapsed(&first.from, &last.to)?;
            times.steps += 1;
        }
        for Marked { layer, pass, activity, from, to } in older_marks.drain(..) {
            let time = backend.elapsed(&from, &to)?;
            times.add(layer, pass, activity, time);
            if B::QUEUES {
                let (layer, ms) = (&plan.layers[layer].name, time.as_secs_f64() * 1e3);
                tracing::debug!(stream = plan.stream, %layer, %pass, %activity, ms = format!("{ms:.3}"), "device time");
            }
        }
        Ok(())
    }

    /// Waits for the newest training step and counts its time too.
    pub fn settle_times(&mut self) -> Result<()> {
        self.older_marks.append(&mut self.marks);
        self.collect_times()
    }

    /// Forgets the marks of the newest pass: it was not training.
    pub fn discard_marks(&mut self) {
        self.marks.clear();
    }

    /// Reads one of a parameter's tensors.
    pub fn read_param(&self, index: usize, tensor: Tensor) -> Result<Vec<f32>> {
        let buffers = &self.params[index];
        let from = match tensor {
            Tensor::Value => &buffers.value,
            Tensor::Gradient => &buffers.gradient,
            Tensor::State(state) => &buffers.state[state],
        };
        self.backend.read(from, self.plan.params[index].elems())
    }

    /// Sets one of a parameter's tensors; `values` has its elements, no more and no less.
    pub fn write_param(&mut self, index: usize, tensor: Tensor, values: &[f32]) -> Result<()> {
        assert_eq!(values.len(), self.plan.params[index].elems(), "elements of {}", self.plan.params[index].name);
        let buffers = &mut self.params[index];
        let to = match tensor {
            Tensor::Value => &mut buffers.value,
            Tensor::Gradient => &mut buffers.gradient,
            Tensor::State(state) => &mut buffers.state[state],
        };
        self.backend.write(values, to)
    }

    /// Number of state tensors a parameter.
    pub fn states(&self) -> usize {
        self.params.first().map_or(0, |param| param.state.len())
    }
}

/// Marks the time around operations of one layer and pass.
struct Timer<'a, B: Backend> {
    backend: &'a B,
    marks: &'a mut Vec<Marked<B::Mark>>,
    layer: usize,
    pass: Pass,
}

impl<B: Backend> Timer<'_, B> {
    fn run<T>(&mut self, activity: Activity, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let span = match activity {
            Activity::Compute => tracing::trace_span!("compute"),
            Activity::Exchange | Activity::Waiting => tracing::debug_span!("exchange"),
        };
        let _entered = span.enter();
        let from = self.backend.mark()?;
        let done = work()?;
        self.push(activity, from, self.backend.mark()?);
        Ok(done)
    }

    /// Finishes a swap: the time that this stream waits for it, and the time that it was on its way.
    fn finish_swap(&mut self, exchange: &mut dyn Exchange<B>, swap: &Swap, take: Option<&mut B::Buffer>) -> Result<()> {
        let backend = self.backend;
        let (from, to) = self.run(Activity::Waiting, || exchange.finish_swap(backend, swap, take))?;
        // Before the waiting, so that the last mark of a step is one of the computing stream.
        let waiting = self.marks.len().saturating_sub(1);
        let (layer, pass) = (self.layer, self.pass);
        self.marks.insert(waiting, Marked { layer, pass, activity: Activity::Exchange, from, to });
        Ok(())
    }

    fn push(&mut self, activity: Activity, from: B::Mark, to: B::Mark) {
        self.marks.push(Marked { layer: self.layer, pass: self.pass, activity, from, to });
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

fn block_backward_weight<B: Backend>(
    backend: &B,
    layer: &PlannedLayer,
    n: usize,
    x: &B::Buffer,
    dy: &B::Buffer,
    dw: &mut B::Buffer,
) -> Result<()> {
    match &layer.op {
        Op::Conv(shape) => backend.conv_backward_weight(shape, n, x, dy, dw),
        Op::Dense(shape) => backend.dense_backward_weight(shape, n, x, dy, dw),
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
