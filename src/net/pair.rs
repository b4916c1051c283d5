//! The two streams together (or the one, where the network has one): each runs in its own thread with its own share
//! of the cores, exactly as it would on a GPU of its own, and they meet only in the exchange.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::backend::cpu::CpuBackend;
use crate::backend::{Backend, DropoutScaling, Update};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::exchange::{Exchange, local};
use crate::net::init::{BiasInit, WeightInit, initial_values};
use crate::net::plan::{ParamKind, Plan};
use crate::net::spec::Net;
use crate::net::stream::{Mode, Scores, Stream, Tensor};
use crate::report::times::StreamTimes;

/// What came of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchResult {
    /// Images.
    pub images: usize,
    /// Sum of the images' cross-entropies.
    pub loss_sum: f64,
    /// Images whose label is not the best class.
    pub top1_errors: usize,
    /// Images whose label is not among the best five.
    pub top5_errors: usize,
}

impl BatchResult {
    /// Mean cross-entropy.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.images.max(1) as f64
    }

    /// Share of images whose label is not the best class, 0 to 1.
    pub fn top1_error(&self) -> f64 {
        self.top1_errors as f64 / self.images.max(1) as f64
    }

    /// Share of images whose label is not among the best five, 0 to 1.
    pub fn top5_error(&self) -> f64 {
        self.top5_errors as f64 / self.images.max(1) as f64
    }

    /// Adds another batch.
    pub fn add(&mut self, other: &BatchResult) {
        self.images += other.images;
        self.loss_sum += other.loss_sum;
        self.top1_errors += other.top1_errors;
        self.top5_errors += other.top5_errors;
    }
}

/// A stream and the threads it runs on.
struct Worker<B: Backend> {
    cores: rayon::ThreadPool,
    stream: Stream<B>,
}

/// The whole network.
pub struct Pair<B: Backend> {
    workers: Vec<Worker<B>>,
    scaling: DropoutScaling,
}

impl Pair<CpuBackend> {
    /// The network on this machine's CPU with `threads` threads in all; `capacity` is the largest batch and `states`
    /// the number of state tensors a parameter that the optimizer keeps.
    pub fn on_cpu(net: &Net, capacity: usize, states: usize, threads: usize, scaling: DropoutScaling) -> Result<Self> {
        let threads = threads.max(1);
        let exchanges: Vec<Option<Box<dyn Exchange<CpuBackend>>>> = match net.streams {
            1 => vec![None],
            _ => {
                let (ours, theirs) = local::connect();
                vec![Some(Box::new(ours)), Some(Box::new(theirs))]
            }
        };
        let mut workers = Vec::new();
        let backends = CpuBackend::for_streams(net.streams, threads);
        for (index, (backend, exchange)) in backends.into_iter().zip(exchanges).enumerate() {
            // Cores are shared out evenly; stream 0 gets the odd one.
            let share = ((threads + net.streams - 1 - index) / net.streams).max(1);
            let cores = rayon::ThreadPoolBuilder::new()
                .num_threads(share)
                .thread_name(move |i| format!("stream {index} thread {i}"));
            let cores =
                cores.build().map_err(|error| Error::Device(format!("cannot start {share} threads: {error}")))?;
            let plan = Plan::new(net, index)?;
            let stream = cores.install(|| Stream::new(plan, backend, exchange, capacity, states))?;
            workers.push(Worker { cores, stream });
        }
        Ok(Pair { workers, scaling })
    }
}

impl<B: Backend> Pair<B> {
    /// Sets all parameters to their initial values.
    pub fn init(&mut self, seed: u64, weights: WeightInit, biases: BiasInit) -> Result<()> {
        self.each(|stream| {
            let plan = stream.plan().clone();
            plan.params.iter().enumerate().try_for_each(|(index, param)| {
                let values = initial_values(param, index, plan.stream, seed, weights, biases);
                stream.write_param(index, Tensor::Value, &values)
            })
        })?;
        Ok(())
    }

    /// One training step up to the gradients, which stay on the devices; weights are not changed yet.
    /// `seed` and `step` choose the dropout masks.
    pub fn forward_backward(&mut self, batch: &Batch, seed: u64, step: u64) -> Result<BatchResult> {
        let mode = Mode { scaling: self.scaling, training: Some((seed, step)) };
        let scores = self.each(|stream| {
            stream.forward(batch, &mode)?;
            stream.backward(batch.len(), &mode)?;
            let scores = stream.read_scores(batch.len())?;
            stream.collect_times(1)?;
            Ok(scores)
        })?;
        Ok(merge_scores(batch.len(), &scores))
    }

    /// The forward pass with dropout as in training step `step` of `seed`: what finite differences need.
    pub fn training_loss(&mut self, batch: &Batch, seed: u64, step: u64) -> Result<BatchResult> {
        self.forward(batch, Mode { scaling: self.scaling, training: Some((seed, step)) })
    }

    /// The forward pass at test time.
    pub fn evaluate(&mut self, batch: &Batch) -> Result<BatchResult> {
        self.forward(batch, Mode { scaling: self.scaling, training: None })
    }

    fn forward(&mut self, batch: &Batch, mode: Mode) -> Result<BatchResult> {
        let scores = self.each(|stream| {
            stream.forward(batch, &mode)?;
            let scores = stream.read_scores(batch.len())?;
            stream.discard_marks();
            Ok(scores)
        })?;
        Ok(merge_scores(batch.len(), &scores))
    }

    /// The logits of all classes of the newest batch of `n` images, a row an image.
    pub fn logits(&mut self, n: usize) -> Result<Vec<Vec<f32>>> {
        let parts = self.each(|stream| stream.read_logits(n))?;
        let row = |image: usize| {
            parts.iter().flat_map(|part| &part[image * part.len() / n..][..part.len() / n]).copied().collect()
        };
        Ok((0..n).map(row).collect())
    }

    /// Applies the newest gradients.
    pub fn update(&mut self, hyper: impl Fn(ParamKind) -> Update + Sync) -> Result<()> {
        self.each(|stream| {
            stream.update(&hyper)?;
            stream.collect_times(0)
        })?;
        Ok(())
    }

    /// Each stream's times so far.
    pub fn times(&self) -> Vec<StreamTimes> {
        self.workers.iter().map(|worker| worker.stream.times().clone()).collect()
    }

    /// Forgets the times so far.
    pub fn reset_times(&mut self) {
        self.workers.iter_mut().for_each(|worker| worker.stream.reset_times());
    }

    /// The streams' plans.
    pub fn plans(&self) -> Vec<&Plan> {
        self.workers.iter().map(|worker| worker.stream.plan()).collect()
    }

    /// One stream, for reading and setting its parameters.
    pub fn stream(&mut self, index: usize) -> &mut Stream<B> {
        &mut self.workers[index].stream
    }

    /// Runs `work` in every stream at once, each on its own threads. If one fails, the other is released from the
    /// exchange; the first cause is returned.
    pub fn each<T: Send>(&mut self, work: impl Fn(&mut Stream<B>) -> Result<T> + Sync) -> Result<Vec<T>> {
        let work = &work;
        let step = tracing::Span::current();
        let step = &step;
        let results: Vec<Result<T>> = std::thread::scope(|scope| {
            let running: Vec<_> =
                self.workers.iter_mut().map(|worker| scope.spawn(move || run_stream(worker, step, work))).collect();
            running
                .into_iter()
                .enumerate()
                .map(|(stream, thread)| thread.join().unwrap_or_else(|panic| Err(panicked(stream, &*panic))))
                .collect()
        });
        let (done, mut failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        if failed.is_empty() {
            return done.into_iter().collect();
        }
        // That the other stream has ended is a consequence, not a cause.
        let cause = failed.iter().position(|result| !matches!(result, Err(Error::ExchangeClosed { .. }))).unwrap_or(0);
        Err(failed.swap_remove(cause).err().unwrap_or_else(|| unreachable!("partitioned as an error")))
    }
}

fn run_stream<B: Backend, T: Send>(
    worker: &mut Worker<B>,
    step: &tracing::Span,
    work: &(impl Fn(&mut Stream<B>) -> Result<T> + Sync),
) -> Result<T> {
    let Worker { cores, stream } = worker;
    let index = stream.plan().stream;
    let result = catch_unwind(AssertUnwindSafe(|| {
        cores.install(|| {
            let _span = tracing::debug_span!(parent: step, "stream", stream = index).entered();
            work(stream)
        })
    }));
    let result = result.unwrap_or_else(|panic| Err(panicked(index, &*panic)));
    if result.is_err() {
        stream.close_exchange();
    }
    result
}

fn panicked(stream: usize, panic: &(dyn std::any::Any + Send)) -> Error {
    let text =
        panic.downcast_ref::<&str>().map(|text| text.to_string()).or_else(|| panic.downcast_ref::<String>().cloned());
    Error::StreamPanicked { stream, message: text.unwrap_or_else(|| "unknown".into()) }
}

/// Adds up the streams' scores: the loss is known to each that has classes, ranks are counted in each one's part.
fn merge_scores(images: usize, streams: &[Option<Scores>]) -> BatchResult {
    let mut result = BatchResult { images, ..BatchResult::default() };
    let known: Vec<&Scores> = streams.iter().flatten().collect();
    for image in 0..images {
        result.loss_sum += known.first().map_or(f64::NAN, |scores| f64::from(scores.rows[2 * image]));
        let above: f32 = known.iter().map(|scores| scores.rows[2 * image + 1]).sum();
        result.top1_errors += usize::from(above >= 1.);
        result.top5_errors += usize::from(above >= 5.);
    }
    result
}
