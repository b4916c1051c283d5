//! One stream: its half of the network on one device.
//!
//! | file | holds |
//! |---|---|
//! | `passes` | a batch forward and backward, layer by layer |
//! | `weighted` | layers with weights, and the exchange |
//! | `timing` | when a stream does what |
//! | `inspect` | looking into a stream, and setting its parameters |

mod inspect;
mod passes;
mod timing;
mod weighted;

use self::timing::{Marked, Recording, Timer};
use crate::backend::{AugmentShape, Backend, DropoutScaling, SoftmaxShape, TensorShape, Update};
use crate::engine::times::StreamTimes;
use crate::error::Result;
use crate::exchange::Exchange;
use crate::net::plan::{ExchangePoint, Op, Param, Plan, Slot};
use crate::net::swap::Pass;

/// The mode that a batch runs in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mode {
    /// The pass in which dropout scales.
    pub scaling: DropoutScaling,
    /// In training, the seed and the step, which choose the dropout masks; `None` at test time.
    pub training: Option<(u64, u64)>,
}

/// One parameter tensor on the device, its gradient and the optimizer's state.
struct ParamBuffers<B: Backend> {
    value: B::Buffer,
    /// `None` while the newest gradient is part of the value already: see [`Stream::backward`].
    gradient: Option<B::Buffer>,
    state: Vec<B::Buffer>,
}

/// The scores of a batch in one stream.
#[derive(Clone, Debug)]
pub struct Scores {
    /// For each image its loss (over all classes) and how many of this stream's classes rank above the label.
    pub rows: Vec<f32>,
}

/// Gives each parameter the rates of its update.
pub type Hyper<'a> = dyn Fn(&Param) -> Update + Sync + 'a;

/// A named tensor seen on the way through a recorded batch.
pub type Record = (String, Vec<f32>);

/// The kind of a parameter's tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tensor {
    /// The weights.
    Value,
    /// Their gradient in the newest batch.
    Gradient,
    /// The optimizer's state tensor of this number.
    State(usize),
}

/// One stream of the network.
pub struct Stream<B: Backend> {
    plan: Plan,
    backend: B,
    /// `None` where there is only one stream.
    exchange: Option<Box<dyn Exchange<B>>>,
    capacity: usize,
    /// The conversion of image bytes to the network's input, and the mean that is subtracted.
    input: Option<(AugmentShape, B::Buffer)>,
    params: Vec<ParamBuffers<B>>,
    /// By slot: activations (slot 0 is empty where streams share their input), then two for gradients.
    buffers: Vec<B::Buffer>,
    shares_input: bool,
    /// See [`Plan::gradient_slots`].
    gradients: Vec<Slot>,
    /// Gradients with respect to the other stream's activations, and with respect to ours from the other stream.
    outgoing: B::Buffer,
    incoming: B::Buffer,
    stats: [B::Buffer; 2],
    scores: B::Buffer,
    times: StreamTimes,
    /// Of the newest pass, and of training passes before it whose work may not be done yet.
    marks: Vec<Marked<B::Mark>>,
    older_marks: Vec<Marked<B::Mark>>,
    /// Whether the newest batch is observed.
    observes: bool,
    /// The events of the newest training step, where they are recorded.
    timeline: Option<Recording<B::Mark>>,
    record: Option<Vec<Record>>,
}

impl<B: Backend> Stream<B> {
    /// Allocates everything that batches of up to `capacity` images need, once. `states` is the number of state
    /// tensors a parameter that the optimizer keeps. Weights are 0 until they are set. Where it `shares_input`, passes
    /// are given the network's input.
    pub fn new(
        plan: Plan,
        backend: B,
        exchange: Option<Box<dyn Exchange<B>>>,
        capacity: usize,
        states: usize,
        shares_input: bool,
    ) -> Result<Self> {
        backend.check(&plan)?;
        let params = plan.params.iter().map(|param| {
            let alloc = || backend.alloc(param.tensor);
            let state = (0..states).map(|_| alloc()).collect::<Result<_>>()?;
            // Where nothing is queued, they are made when they are first needed.
            let gradient = B::QUEUES.then(alloc).transpose()?;
            Ok(ParamBuffers { value: backend.alloc_param(param.tensor)?, gradient, state })
        });
        let params = params.collect::<Result<_>>()?;
        let swapped = |point: &ExchangePoint| TensorShape::Maps(capacity, point.shape);
        let largest = || largest(&backend, plan.exchange_points().map(swapped));
        backend.reserve(capacity, 0)?;
        backend.reserve_sums(plan.added_outputs(capacity))?;
        Ok(Stream {
            params,
            buffers: buffers(&backend, &plan, capacity, shares_input)?,
            shares_input,
            gradients: plan.gradient_slots(),
            outgoing: largest()?,
            incoming: largest()?,
            stats: [backend.alloc(capacity * SoftmaxShape::STATS)?, backend.alloc(capacity * SoftmaxShape::STATS)?],
            scores: backend.alloc(2 * capacity)?,
            times: StreamTimes::new(plan.layers.len()),
            observes: true,
            marks: Vec::new(),
            older_marks: Vec::new(),
            timeline: None,
            record: None,
            input: None,
            plan,
            backend,
            exchange,
            capacity,
        })
    }

    /// This stream's layers.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// From now on batches may hold images as bytes; `mean` is C x resize x resize.
    pub fn set_input(&mut self, shape: &AugmentShape, mean: &[f32]) -> Result<()> {
        self.backend.reserve(self.capacity, shape.c * shape.side * shape.side)?;
        let mut buffer = self.backend.alloc(mean.len())?;
        self.backend.write(mean, mean.len(), &mut buffer)?;
        self.input = Some((*shape, buffer));
        Ok(())
    }

    /// Ends the exchange: this stream has failed and the other must not wait for it.
    pub fn close_exchange(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.close();
        }
    }

    /// Applies the newest gradients, but for those that the backward pass has applied; `hyper` gives each parameter its
    /// rates.
    pub fn update(&mut self, hyper: &Hyper) -> Result<()> {
        let Stream { plan, backend, params, observes, marks, .. } = self;
        for (index, layer) in plan.layers.iter().enumerate() {
            let Some(p) = layer.params else { continue };
            let _span = tracing::debug_span!("layer", layer = &*layer.name, pass = "update").entered();
            let mut timed = Timer { backend, observes: *observes, marks, layer: index, pass: Pass::Update };
            timed.compute(|| {
                [Some(p.own), p.theirs, Some(p.bias)].into_iter().flatten().try_for_each(|index| {
                    let (param, ParamBuffers { value, gradient, state }) = (&plan.params[index], &mut params[index]);
                    match (gradient, hyper(param)) {
                        (Some(gradient), update) if !update.is_frozen() => {
                            backend.update(&update, param.tensor, gradient, value, state)
                        }
                        _ => Ok(()),
                    }
                })
            })?;
        }
        Ok(())
    }

    /// Starts to read the newest batch's scores; `None` where the loss is on the other stream.
    pub fn start_scores(&mut self, n: usize) -> Result<Option<B::Read>> {
        let has_loss = self.plan.layers.iter().any(|layer| matches!(layer.op, Op::SoftmaxCrossEntropy(_)));
        has_loss.then(|| self.backend.start_read(&self.scores, 2 * n)).transpose()
    }

    /// Waits for the scores, but not for work queued after [`Stream::start_scores`].
    pub fn finish_scores(&mut self, scores: Option<B::Read>) -> Result<Option<Scores>> {
        let rows = scores.map(|read| self.backend.finish_read(read)).transpose()?;
        let scores = rows.map(|rows| Scores { rows });
        // What was queued before this batch is done now (where there is no loss, the times wait for it).
        self.collect_times()?;
        Ok(scores)
    }
}

/// A buffer for each slot.
fn buffers<B: Backend>(backend: &B, plan: &Plan, capacity: usize, shares_input: bool) -> Result<Vec<B::Buffer>> {
    let first = if shares_input { 0.into() } else { plan.shape(0, capacity) };
    let others = (1..plan.slots.len()).map(|slot| plan.shape(slot, capacity));
    let mut buffers =
        [first].into_iter().chain(others).map(|shape| backend.alloc(shape)).collect::<Result<Vec<_>>>()?;
    for _ in 0..2 {
        buffers.push(largest(backend, plan.own_gradients().map(|slot| plan.gradient_shape(slot, capacity)))?);
    }
    Ok(buffers)
}

/// A buffer that any of these shapes fits into.
fn largest<B: Backend>(backend: &B, shapes: impl Iterator<Item = TensorShape>) -> Result<B::Buffer> {
    backend.alloc(shapes.max_by_key(|&shape| backend.bytes(shape)).unwrap_or(0.into()))
}

/// The buffers of some slots at once; the plan never makes those equal where this is used.
fn disjoint<T, const K: usize>(buffers: &mut [T], slots: [Slot; K]) -> [&mut T; K] {
    match buffers.get_disjoint_mut(slots) {
        Ok(buffers) => buffers,
        Err(error) => unreachable!("slots {slots:?}: {error}"),
    }
}
