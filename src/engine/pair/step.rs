//! A batch through both streams: training steps, and the forward pass alone.

use super::{BatchResult, Pair, Worker};
use crate::backend::{Backend, Update};
use crate::data::Batch;
use crate::engine::stream::{Mode, Scores, Stream};
use crate::error::Result;
use crate::net::plan::Param;

impl<B: Backend> Pair<B> {
    /// One training step up to the gradients, which stay on the devices; weights are not changed yet.
    /// `seed` and `step` choose the dropout masks.
    pub fn forward_backward(&mut self, batch: &Batch, seed: u64, step: u64) -> Result<BatchResult> {
        let mode = Mode { scaling: self.scaling, training: Some((seed, step)) };
        self.write_input(batch)?;
        let Pair { workers, input, .. } = self;
        let scores = Self::all(workers, |stream| {
            stream.forward(batch, &mode, input.as_ref())?;
            // Read while the device goes on with the backward pass.
            let scores = stream.start_scores(batch.len())?;
            stream.backward(batch.len(), &mode, input.as_ref(), None)?;
            stream.finish_scores(scores)
        })?;
        self.merge_scores(batch.len(), scores)
    }

    /// Applies the newest gradients.
    pub fn update(&mut self, hyper: impl Fn(&Param) -> Update + Sync) -> Result<()> {
        self.each(|stream| stream.update(&hyper))?;
        Ok(())
    }

    /// One training step: the same bits as [`Pair::forward_backward`] and [`Pair::update`]. `judge` looks at what came
    /// of the batch and may change it; where it finds a fault, there is no update, and gradients are kept.
    ///
    /// Where the device does not queue its work, the loss is looked at before the backward pass, which can then update
    /// weights as it goes: memory for the gradients of dense layers is not needed.
    pub fn train_step<T>(
        &mut self,
        batch: &Batch,
        seed: u64,
        step: u64,
        judge: impl FnOnce(&mut BatchResult) -> Option<T>,
        hyper: impl Fn(&Param) -> Update + Sync,
    ) -> Result<(BatchResult, Option<T>)> {
        if B::QUEUES {
            let mut result = self.forward_backward(batch, seed, step)?;
            let fault = judge(&mut result);
            if fault.is_none() {
                self.update(hyper)?;
            }
            return Ok((result, fault));
        }
        let mode = Mode { scaling: self.scaling, training: Some((seed, step)) };
        let mut result = self.forward(batch, &mode, |_| {})?;
        let fault = judge(&mut result);
        let Pair { workers, input, .. } = self;
        let updates = fault.is_none();
        Self::all(workers, |stream| {
            if !updates {
                return stream.backward(batch.len(), &mode, input.as_ref(), None);
            }
            stream.backward(batch.len(), &mode, input.as_ref(), Some(&hyper))?;
            stream.update(&hyper)
        })?;
        Ok((result, fault))
    }

    /// The forward pass with dropout as in training step `step` of `seed`: what finite differences need.
    pub fn training_loss(&mut self, batch: &Batch, seed: u64, step: u64) -> Result<BatchResult> {
        self.forward(batch, &Mode { scaling: self.scaling, training: Some((seed, step)) }, Stream::discard_marks)
    }

    /// The forward pass at test time.
    pub fn evaluate(&mut self, batch: &Batch) -> Result<BatchResult> {
        self.forward(batch, &Mode { scaling: self.scaling, training: None }, Stream::discard_marks)
    }

    fn forward(&mut self, batch: &Batch, mode: &Mode, after: impl Fn(&mut Stream<B>) + Sync) -> Result<BatchResult> {
        self.write_input(batch)?;
        let Pair { workers, input, .. } = self;
        let scores = Self::all(workers, |stream| {
            stream.forward(batch, mode, input.as_ref())?;
            let scores = stream.start_scores(batch.len())?;
            let scores = stream.finish_scores(scores)?;
            after(stream);
            Ok(scores)
        })?;
        self.merge_scores(batch.len(), scores)
    }

    /// Makes the input that the streams share.
    fn write_input(&mut self, batch: &Batch) -> Result<()> {
        match (&mut self.input, self.workers.first_mut()) {
            (Some(input), Some(Worker { cores, stream })) => cores.install(|| stream.write_input(batch, input)),
            _ => Ok(()),
        }
    }

    /// The network's input of the newest batch of `n` images: N C H W.
    pub fn read_input(&self, n: usize) -> Result<Vec<f32>> {
        self.workers[0].stream.read_input(n, self.input.as_ref())
    }

    /// Adds up the streams' scores: the loss is known to each that has classes, ranks are counted in each one's part.
    fn merge_scores(&mut self, images: usize, mut streams: Vec<Option<Scores>>) -> Result<BatchResult> {
        if let Some(link) = &mut self.link {
            // Every process decides on the same numbers.
            let mut ours: Vec<f32> = streams.iter().flatten().flat_map(|scores| scores.rows.clone()).collect();
            ours.push(f32::from(u8::from(self.wants_stop)));
            let mut theirs = link.swap_values(&ours)?;
            self.stops = self.wants_stop || theirs.pop() == Some(1.);
            streams
                .insert((1 - link.rank()).min(streams.len()), (!theirs.is_empty()).then_some(Scores { rows: theirs }));
        }
        if self.link.is_none() {
            self.stops = self.wants_stop;
        }
        let mut result = BatchResult { images, ..BatchResult::default() };
        let known: Vec<&Scores> = streams.iter().flatten().collect();
        for image in 0..images {
            let loss = known.first().map_or(f64::NAN, |scores| f64::from(scores.rows[2 * image]));
            // No class ranks above one that is not a number, which is no right answer for that.
            let lost = loss.is_nan();
            result.loss_sum += loss;
            let above: f32 = known.iter().map(|scores| scores.rows[2 * image + 1]).sum();
            result.top1_errors += usize::from(lost || above >= 1.);
            result.top5_errors += usize::from(lost || above >= 5.);
        }
        Ok(result)
    }
}
