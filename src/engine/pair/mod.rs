//! The two streams together (or the one, where the network has one): each runs in its own thread with its own share
//! of the cores, exactly as it would on a GPU of its own, and they meet only in the exchange.

mod context;
mod inspect;
mod result;
mod step;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use context::StreamContext;
pub use result::BatchResult;

use crate::backend::cpu::CpuBackend;
use crate::backend::{AugmentShape, Backend, DropoutScaling, Precision};
use crate::engine::extremes::Extremes;
use crate::engine::link::Link;
use crate::engine::stream::{Stream, Tensor};
use crate::engine::timeline::Event;
use crate::engine::times::StreamTimes;
use crate::error::{Error, Result};
use crate::net::init::{BiasInit, WeightInit, initial_values};
use crate::net::plan::Plan;
use crate::net::spec::Net;

/// A stream and the threads it runs on.
struct Worker<B: Backend> {
    cores: rayon::ThreadPool,
    stream: Stream<B>,
}

/// The whole network: its streams in this process, and the link to the other process if there is one.
///
/// With two processes each calls the same methods in the same order.
pub struct Pair<B: Backend> {
    /// The plans of all streams, in whichever process they are; and as the devices run them.
    plans: Vec<Plan>,
    running: Vec<Plan>,
    workers: Vec<Worker<B>>,
    /// The network's input where the streams share it.
    input: Option<B::Buffer>,
    link: Option<Link>,
    scaling: DropoutScaling,
    /// Whether this process wants to end, and whether any did at the newest batch.
    wants_stop: bool,
    stops: bool,
}

impl Pair<CpuBackend> {
    /// The network on this machine's CPU in fp32; see [`Pair::new`].
    pub fn on_cpu(net: &Net, capacity: usize, states: usize, threads: usize, scaling: DropoutScaling) -> Result<Self> {
        Pair::new(
            net,
            StreamContext::on_cpu(net.streams, threads, Precision::Fp32, false)?,
            None,
            capacity,
            states,
            scaling,
        )
    }
}

impl<B: Backend> Pair<B> {
    /// The network on `contexts`: one per stream, or the one of this process where `link` leads to the other's.
    /// `capacity` is the largest batch and `states` the number of state tensors per parameter that the optimizer keeps.
    pub fn new(
        net: &Net,
        contexts: Vec<StreamContext<B>>,
        link: Option<Link>,
        capacity: usize,
        states: usize,
        scaling: DropoutScaling,
    ) -> Result<Self> {
        let plans = Plan::all(net)?;
        let fuses = |lrn: &_, pool: &_| contexts.iter().all(|context| context.backend.fuses(lrn, pool));
        let running: Vec<Plan> = plans.iter().map(|plan| plan.clone().fused(fuses)).collect();
        // Streams on one device that read the same images need them once.
        let shares_input = !B::QUEUES && contexts.len() > 1 && running.iter().all(Plan::only_reads_image);
        let mut workers: Vec<Worker<B>> = Vec::new();
        let mut input = None;
        for StreamContext { stream, backend, exchange, threads } in contexts {
            let cores = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(move |i| format!("stream {stream} thread {i}"));
            let cores =
                cores.build().map_err(|error| Error::Device(format!("cannot start {threads} threads: {error}")))?;
            let plan = running[stream].clone();
            if shares_input && input.is_none() {
                input = Some(backend.alloc(plan.shape(0, capacity))?);
            }
            let stream = cores.install(|| Stream::new(plan, backend, exchange, capacity, states, shares_input))?;
            workers.push(Worker { cores, stream });
        }
        Ok(Pair { plans, running, workers, input, link, scaling, wants_stop: false, stops: false })
    }

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

    /// From now on every stream records; see [`Stream::start_recording`].
    pub fn start_recording(&mut self) -> Result<()> {
        self.running = self.plans.clone();
        let plans = self.plans.clone();
        self.each(|stream| stream.start_recording(plans[stream.plan().stream].clone()))?;
        Ok(())
    }

    /// From now on batches may hold images as bytes; see [`Stream::set_input`].
    pub fn set_input(&mut self, shape: &AugmentShape, mean: &[f32]) -> Result<()> {
        self.each(|stream| stream.set_input(shape, mean))?;
        Ok(())
    }

    /// The logits of all classes of the newest batch of `n` images, one row per image; all streams must be in this
    /// process.
    pub fn logits(&mut self, n: usize) -> Result<Vec<Vec<f32>>> {
        let parts = self.each(|stream| stream.read_logits(n))?;
        let row = |image: usize| {
            parts.iter().flat_map(|part| &part[image * part.len() / n..][..part.len() / n]).copied().collect()
        };
        Ok((0..n).map(row).collect())
    }

    /// Waits for everything queued.
    pub fn settle(&mut self) -> Result<()> {
        self.each(Stream::settle_times)?;
        Ok(())
    }

    /// Each stream's times so far by the layers of [`Pair::running`]; waits for the newest step.
    pub fn times(&mut self) -> Result<Vec<StreamTimes>> {
        self.settle()?;
        let times = self.workers.iter().map(|worker| worker.stream.times().clone()).collect();
        self.of_all_streams(times)
    }

    /// Records the next training step in detail; waits for those before it.
    pub fn start_timeline(&mut self) -> Result<()> {
        self.each(Stream::start_timeline)?;
        Ok(())
    }

    /// The events of each stream in the newest training step, which began at `began`; waits for its end.
    pub fn take_timeline(&mut self, began: Instant) -> Result<Vec<Vec<Event>>> {
        let events = self.each(|stream| stream.take_timeline(began))?;
        self.of_all_streams(events)
    }

    /// The extreme values of the newest batch of `n` images, by stream.
    pub fn extremes(&mut self, n: usize) -> Result<Vec<Vec<Extremes>>> {
        let extremes = self.each(|stream| stream.extremes(n))?;
        self.of_all_streams(extremes)
    }

    /// This process' streams' findings with those of the other one.
    fn of_all_streams<T: Serialize + DeserializeOwned>(&mut self, mut ours: Vec<T>) -> Result<Vec<T>> {
        if let Some(link) = &mut self.link {
            let theirs = link.swap(&ours[0])?;
            ours.insert(1 - link.rank(), theirs);
        }
        Ok(ours)
    }

    /// Says whether this process wants to end; the streams agree on it with the next batch.
    pub fn want_stop(&mut self, wants: bool) {
        self.wants_stop = wants;
    }

    /// Whether a process wanted to end at the newest batch: all processes get the same answer.
    pub fn stops(&self) -> bool {
        self.stops
    }

    /// Forgets the times so far.
    pub fn reset_times(&mut self) {
        self.workers.iter_mut().for_each(|worker| worker.stream.reset_times());
    }

    /// The plans of all streams.
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }

    /// The same as the devices run them, where several layers may be one: what [`Pair::times`] counts.
    pub fn running(&self) -> &[Plan] {
        &self.running
    }

    /// Whether this process keeps the run directory and prints to the user.
    pub fn leads(&self) -> bool {
        self.link.as_ref().is_none_or(|link| link.rank() == 0)
    }

    /// Runs `work` in every stream at once, each on its own threads. If one fails, the other is released from the
    /// exchange; the first cause is returned.
    pub fn each<T: Send>(&mut self, work: impl Fn(&mut Stream<B>) -> Result<T> + Sync) -> Result<Vec<T>> {
        Self::all(&mut self.workers, work)
    }

    /// As [`Pair::each`], while the pair's other fields are in use.
    fn all<T: Send>(workers: &mut Vec<Worker<B>>, work: impl Fn(&mut Stream<B>) -> Result<T> + Sync) -> Result<Vec<T>> {
        let (step, work) = (tracing::Span::current(), &work);
        let step = &step;
        let results: Vec<Result<T>> = std::thread::scope(|scope| {
            let running: Vec<_> =
                workers.iter_mut().map(|worker| scope.spawn(move || run_stream(worker, step, work))).collect();
            running
                .into_iter()
                .enumerate()
                .map(|(stream, thread)| thread.join().unwrap_or_else(|panic| Err(panicked(stream, &*panic))))
                .collect()
        });
        let mut failed = Vec::new();
        let done: Vec<T> =
            results.into_iter().filter_map(|result| result.map_err(|error| failed.push(error)).ok()).collect();
        let Some(cause) = Error::cause(failed) else { return Ok(done) };
        if B::QUEUES {
            // The devices may still be at work, or hang: memory is left to the driver, which frees it with the process.
            std::mem::forget(std::mem::take(workers));
        }
        Err(cause)
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
