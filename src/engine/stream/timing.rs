//! The timing of a stream's work.

use std::time::Instant;

use super::Stream;
use crate::backend::Backend;
use crate::engine::timeline::Event;
use crate::engine::times::Activity;
use crate::engine::times::StreamTimes;
use crate::error::Result;
use crate::exchange::Exchange;
use crate::net::swap::Pass;
use crate::net::swap::Swap;

/// A piece of work between two marks.
pub(super) struct Marked<M> {
    layer: usize,
    pass: Pass,
    activity: Activity,
    from: M,
    to: M,
}

/// Where a device queues its work, every so many training steps are observed: marks take time, and keep it from starting
/// an operation before the last one has ended.
const OBSERVED: u64 = 8;

/// A recording of the events of a step.
pub(super) struct Recording<M> {
    /// A moment before the step, on the host's clock and on the device's, with nothing queued in between.
    host: Instant,
    device: M,
    /// Their times are those since that moment.
    events: Vec<Event>,
}

impl<B: Backend> Stream<B> {
    /// Time spent so far.
    pub fn times(&self) -> &StreamTimes {
        &self.times
    }

    /// Whether the times of a training step are measured; `None` is no training step.
    pub(super) fn is_observed(&self, step: Option<u64>) -> bool {
        !B::QUEUES || self.timeline.is_some() || step.is_some_and(|step| step.is_multiple_of(OBSERVED))
    }

    /// Forgets the time spent so far.
    pub fn reset_times(&mut self) {
        self.marks.clear();
        self.older_marks.clear();
        self.times = StreamTimes::new(self.plan.layers.len());
    }

    /// Turns the marks of earlier training steps into times.
    pub(super) fn collect_times(&mut self) -> Result<()> {
        let Stream { backend, times, plan, older_marks, timeline, .. } = self;
        if let (Some(first), Some(last)) = (older_marks.first(), older_marks.last()) {
            times.total += backend.elapsed(&first.from, &last.to)?;
            times.steps += 1;
            if let Some(Recording { device, events, .. }) = timeline {
                events.clear();
                for Marked { layer, pass, activity, from, to } in older_marks.iter() {
                    let layer = plan.layers[*layer].name.to_string();
                    let (start, time) = (backend.elapsed(device, from)?, backend.elapsed(from, to)?);
                    events.push(Event::new(layer, *pass, *activity, start, time));
                }
            }
        }
        for pair in older_marks.windows(2) {
            // Each exchange stands before the waiting for it; until then the stream computed.
            if let [Marked { activity: Activity::Exchange, from, to, .. }, waiting] = pair {
                times.hidden += backend.elapsed(from, &waiting.from)?.min(backend.elapsed(from, to)?);
            }
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

    /// Records events with their times from now on, until [`Stream::take_timeline`].
    pub fn start_timeline(&mut self) -> Result<()> {
        self.settle_times()?;
        self.timeline = Some(Recording { host: Instant::now(), device: self.backend.mark()?, events: Vec::new() });
        Ok(())
    }

    /// The events of the newest training step, which began at `began`; waits for its end.
    pub fn take_timeline(&mut self, began: Instant) -> Result<Vec<Event>> {
        self.settle_times()?;
        let Some(Recording { host, events, .. }) = self.timeline.take() else { return Ok(Vec::new()) };
        let before = began.saturating_duration_since(host);
        Ok(events.into_iter().map(|event| event.earlier_by(before)).collect())
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
}

/// Marks the time around operations of one layer and pass; nothing in steps that are not observed.
pub(super) struct Timer<'a, B: Backend> {
    pub backend: &'a B,
    pub observes: bool,
    pub marks: &'a mut Vec<Marked<B::Mark>>,
    pub layer: usize,
    pub pass: Pass,
}

impl<B: Backend> Timer<'_, B> {
    /// Runs an operation.
    pub fn compute<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _span = tracing::trace_span!("compute").entered();
        self.run(Activity::Compute, work)
    }

    fn run<T>(&mut self, activity: Activity, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.observes {
            return work();
        }
        let from = self.backend.mark()?;
        let done = work()?;
        self.push(activity, from, self.backend.mark()?);
        Ok(done)
    }

    /// Finishes a swap: the time that this stream waits for it, and the time that it was in flight.
    pub fn finish_swap(
        &mut self,
        exchange: &mut dyn Exchange<B>,
        swap: &Swap,
        take: Option<&mut B::Buffer>,
    ) -> Result<()> {
        let _span = tracing::debug_span!("exchange", bytes = swap.bytes).entered();
        let backend = self.backend;
        let (from, to) = self.run(Activity::Waiting, || exchange.finish_swap(backend, swap, take))?;
        if !self.observes {
            return Ok(());
        }
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
