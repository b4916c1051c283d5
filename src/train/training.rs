//! The training loop: batches in order, gradients, a look at the loss, update; evaluation and a checkpoint after every
//! epoch.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::bad_loss;
use super::session::{EvalReport, Session, StepReport, TrainObserver};
use crate::backend::Backend;
use crate::config::{ImageOrder, OnBadLoss, Recipe};
use crate::data::Batch;
use crate::data::loader::{Loader, Order};
use crate::disk::faults;
use crate::engine::first_layer::FirstLayerFilters;
use crate::engine::pair::BatchResult;
use crate::engine::stream::Tensor;
use crate::engine::timeline::Timeline;
use crate::error::{Error, NO_SPACE, Result, Signal};
use crate::net::plan::Param;
use crate::rng::{Philox, Purpose};
use crate::run::checkpoint::{self, Writer};
use crate::run::dir::RunDir;
use crate::run::files;
use crate::run::rows::{Event, Filters, Row, Times, unix_s};

/// The number of times, about, that a run records the streams' times and the filters.
const OBSERVATIONS: u64 = 50;

/// Steps after a start that are recorded, too.
const EARLY_OBSERVATIONS: [u64; 5] = [2, 10, 100, 1000, 10_000];

/// The width in pixels of a weight of the first layer's kernels in pictures.
const FILTER_SCALE: u32 = 4;

/// The options of a run, besides its recipe.
#[derive(Clone, Copy, Debug)]
pub struct TrainOptions {
    /// Ends after so many steps in all.
    pub max_steps: Option<u64>,
    /// Checkpoints that are kept, besides the best.
    pub keep: usize,
    /// Whether TensorBoard gets the distributions of all parameters; the same in both processes of a run.
    pub histograms: bool,
}

/// The outputs of a run.
pub(super) struct Outputs<'a> {
    pub run: &'a mut RunDir,
    pub writer: Writer,
    pub histograms: bool,
    pub observer: &'a mut dyn TrainObserver,
}

/// The result of a step.
enum Stepped {
    Done(StepReport),
    /// The loss is bad; the update was not made.
    Bad {
        batch: Batch,
        loss: f64,
        why: String,
    },
}

impl<B: Backend> Session<B> {
    /// Trains to the recipe's epochs, or to `max_steps` in all if that comes first.
    ///
    /// Fails with [`Error::Diverged`] before the update where the loss is bad and the recipe says stop, and with
    /// [`Error::Interrupted`], with everything saved, after a signal.
    pub fn train(&mut self, run: &mut RunDir, options: &TrainOptions, observer: &mut dyn TrainObserver) -> Result<()> {
        let _span = tracing::info_span!("run", recipe = self.recipe.name).entered();
        let path = run.path().to_owned();
        if self.pair.leads() {
            let (states, mean) = (self.recipe.state_names().len(), self.input.mean().len());
            checkpoint::check_space(
                &path,
                options.keep,
                checkpoint::checkpoint_bytes(self.pair.plans(), states, mean),
            )?;
        }
        let writer = Writer::new(&path, options.keep);
        let mut to = Outputs { run, writer, histograms: options.histograms, observer };
        let ended = self.train_until(options.max_steps, &mut to);
        // Whatever ended it: a checkpoint that is being written is completed.
        let written = to.writer.finish();
        let signal = ended.map_err(|error| advise(error, &path))?;
        let written = written.map_err(|error| advise(error, &path))?;
        if let Some(written) = &written {
            to.saved(written.clone())?;
        }
        match signal {
            Some(signal) => {
                let checkpoint = written.unwrap_or_else(|| path.clone());
                Err(Error::Interrupted { signal, step: self.state.step, checkpoint, run: path })
            }
            None => Ok(()),
        }
    }

    /// The loop; returns what ended it before its time.
    fn train_until(&mut self, max_steps: Option<u64>, to: &mut Outputs) -> Result<Option<Signal>> {
        let per_epoch = self.steps_per_epoch();
        let planned = self.recipe.train.epochs.saturating_mul(per_epoch);
        let total = max_steps.map_or(planned, |steps| steps.min(planned));
        let (begun_at, observe_every) = (self.state.step, total.div_ceil(OBSERVATIONS).max(1));
        to.run.expect_steps(total);
        to.observer.started(self.state.step, total, total.div_ceil(per_epoch));
        if self.state.step == 0 && self.recipe.train.on_bad_loss == OnBadLoss::Rollback {
            self.save(to)?; // a checkpoint to go back to
        }
        if self.state.evaluation_due && !self.evaluate_and_save(to)? {
            return self.save_and_end(to);
        }
        let mut loader = self.start_loader(total)?;
        while self.state.step < total && !self.state.schedule.is_over(&self.recipe.schedule) {
            self.pair.want_stop(self.stop.asked().is_some());
            // In a run of days the first record would come after hours, so some steps soon after each start are
            // recorded, too.
            let (next, since) = (self.state.step + 1, self.state.step + 1 - begun_at);
            let observed = next.is_multiple_of(observe_every) || EARLY_OBSERVATIONS.contains(&since);
            if observed {
                self.pair.start_timeline()?;
            }
            let (stepped, began) = self.train_step(&mut loader)?;
            match stepped {
                Stepped::Done(report) => {
                    to.run.log(&report.row())?;
                    to.observer.stepped(&report);
                }
                Stepped::Bad { batch, loss, why } => {
                    if self.leave_out(&batch, loss, &why, to)? {
                        loader = self.start_loader(total)?;
                    }
                }
            }
            if observed {
                self.observe(began, to)?;
            }
            if let Some(written) = to.writer.poll()? {
                to.saved(written)?;
            }
            let epoch_ends = self.state.step.is_multiple_of(per_epoch);
            self.state.evaluation_due = epoch_ends || self.state.step == total;
            if self.pair.stops() || (self.state.evaluation_due && !self.evaluate_and_save(to)?) {
                return self.save_and_end(to);
            }
            let every = self.recipe.train.checkpoint_steps;
            if every > 0 && self.state.step.is_multiple_of(every) && !epoch_ends && self.state.step < total {
                self.save(to)?;
            }
        }
        if self.state.schedule.is_over(&self.recipe.schedule) {
            to.observer.stopped_early(self.state.schedule.epochs_without_better);
        }
        Ok(None)
    }

    /// Steps that make an epoch; the last one may be smaller.
    pub fn steps_per_epoch(&self) -> u64 {
        self.data.train.len().div_ceil(self.recipe.train.batch_size) as u64
    }

    /// The images of the batch that comes next.
    pub(super) fn next_indices(&self) -> Vec<u32> {
        batch_indices(&self.recipe, self.data.train.len())(self.state.step)
    }

    /// Starts to make the batches of all steps from here to `total`.
    fn start_loader(&self, total: u64) -> Result<Loader> {
        let (seed, per_epoch) = (self.recipe.train.seed, self.steps_per_epoch());
        let mut indices = batch_indices(&self.recipe, self.data.train.len());
        let orders = (self.state.step..total).map(move |step| Order {
            indices: indices(step),
            augment: Some((seed, step / per_epoch)),
            ..Order::default()
        });
        Loader::start(self.data.clone(), self.input.clone(), orders)
    }

    /// One step, and the time at which its computing began.
    fn train_step(&mut self, loader: &mut Loader) -> Result<(Stepped, Instant)> {
        let step = self.state.step;
        let _span = tracing::info_span!("step", step = step + 1).entered();
        let start = Instant::now();
        let batch = tracing::debug_span!("batch").in_scope(|| loader.wait())?;
        let (waited, seed, epoch) = (start.elapsed(), self.recipe.train.seed, step / self.steps_per_epoch());
        // The first step's batch cannot have been made ahead.
        self.waited = match self.waited {
            None => Some((Duration::ZERO, 0)),
            Some((time, steps)) => Some((time + waited, steps + 1)),
        };
        self.strike(step + 1)?;
        let began = Instant::now();
        let Session { recipe, state, pair, data, .. } = self;
        let lr = state.schedule.lr;
        let judge = |result: &mut BatchResult| {
            if faults::in_step("nan", step + 1) {
                result.loss_sum = f64::NAN;
            }
            bad_loss::why(recipe, state, data.classes.len(), result.loss())
        };
        let hyper = |param: &Param| recipe.update(param, epoch, lr, step + 1);
        let (result, fault) = pair.train_step(&batch, seed, step, judge, hyper)?;
        if let Some(why) = fault {
            return Ok((Stepped::Bad { batch, loss: result.loss(), why }, began));
        }
        self.state.step += 1;
        self.state.heldout_error = None;
        (self.state.bad_in_a_row, self.state.went_back_to) = (0, None);
        self.state.good = self.state.saved;
        self.state.loss_mean = Some(bad_loss::mean_with(self.state.loss_mean, result.loss()));
        let report = StepReport { step: self.state.step, epoch, lr, result, time: start.elapsed(), waited };
        Ok((Stepped::Done(report), began))
    }

    /// Faults that tests ask for.
    fn strike(&mut self, step: u64) -> Result<()> {
        if faults::in_step("crash", step) {
            faults::die();
        }
        if faults::in_step("panic", step) {
            self.pair.each(|stream| {
                assert!(stream.plan().stream != 1, "a fault asked for in step {step}");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Evaluates, updates the schedule, and saves; returns false where the run must end first.
    fn evaluate_and_save(&mut self, to: &mut Outputs) -> Result<bool> {
        let Some(result) = self.evaluate(to.observer)? else { return Ok(false) };
        if bad_loss::is_lost(&self.recipe, result.loss()) {
            self.leave_out_evaluated(result.loss(), to)?;
            return self.evaluate_and_save(to);
        }
        let (step, per_epoch) = (self.state.step, self.steps_per_epoch());
        let (epoch, error) = (step.div_ceil(per_epoch), result.top1_error());
        let report = EvalReport { step, epoch, result };
        to.run.log(&report.row())?;
        to.observer.evaluated(&report);
        self.state.evaluation_due = false;
        self.state.heldout_error = Some(error);
        let recipe = &self.recipe.schedule;
        if step.is_multiple_of(per_epoch) && self.state.schedule.after_epoch(recipe, step / per_epoch, error) {
            to.observer.dropped_rate(self.state.schedule.lr);
        }
        self.save(to)?;
        Ok(true)
    }

    fn save_and_end(&mut self, to: &mut Outputs) -> Result<Option<Signal>> {
        // Within an epoch there would be no checkpoint without the signal, unless one is due.
        let (step, every) = (self.state.step, self.recipe.train.checkpoint_steps);
        self.state.on_signal = every == 0 || !step.is_multiple_of(every) || step.is_multiple_of(self.steps_per_epoch());
        self.save(to)?;
        // A signal to the other process alone ends this one, too.
        Ok(Some(self.stop.asked().unwrap_or(Signal::Term)))
    }

    /// Copies the contents of a checkpoint and starts to write it.
    pub(super) fn save(&mut self, to: &mut Outputs) -> Result<()> {
        let _span = tracing::info_span!("checkpoint", step = self.state.step).entered();
        let names = self.recipe.state_names();
        let mut state = self.state.clone();
        let good = state.good;
        if self.recipe.train.on_bad_loss != OnBadLoss::Rollback {
            // Not saved: so the bits are the same whether or not the run was ended and resumed.
            (state.saved, state.good) = (None, None);
        }
        if !state.on_signal {
            self.state.saved = Some(state.step);
        }
        let snapshot = checkpoint::snapshot(state, &mut self.pair, names, self.input.mean())?;
        if let Some(written) = snapshot.map(|snapshot| to.writer.start(snapshot, good)).transpose()?.flatten() {
            to.saved(written)?;
        }
        Ok(())
    }

    /// Records the streams' times and the first layer's kernels.
    fn observe(&mut self, began: Instant, to: &mut Outputs) -> Result<()> {
        let timeline = Timeline::new(self.state.step, self.pair.take_timeline(began)?);
        to.observer.observed(began, &timeline);
        to.run.show(files::TIMELINE, &serde_json::to_vec(&timeline).unwrap_or_default())?;
        let times = self.pair.times()?;
        if let Some(row) = Times::between(self.state.step, &self.observed, &times) {
            to.run.log(&Row::Times(row))?;
        }
        self.observed = times;
        // A network whose kernels cannot be drawn trains all the same.
        if let Ok(Some(kernels)) = FirstLayerFilters::of_pair(&mut self.pair) {
            if let Ok(picture) = kernels.picture(FILTER_SCALE) {
                to.run.keep_picture(self.state.step, &picture)?;
            }
            if let Some(colours) = kernels.colours() {
                to.run.log(&Row::Filters(Filters::of(self.state.step, &colours)))?;
            }
        }
        if to.histograms {
            let streams = self.pair.read_params(&[Tensor::Value])?;
            for (stream, (plan, params)) in self.pair.plans().iter().zip(streams).enumerate() {
                for (param, tensors) in plan.params.iter().zip(params) {
                    let tag = format!("stream{stream}/{}", param.name);
                    tensors.iter().try_for_each(|values| to.run.histogram(self.state.step, &tag, values))?;
                }
            }
        }
        for text in to.observer.take_warnings() {
            to.run.journal(&Event::warning(text))?;
        }
        Ok(())
    }
}

/// The images of the batch of each step, from 0, of `images` training images: by seed and epoch alone.
fn batch_indices(recipe: &Recipe, images: usize) -> impl FnMut(u64) -> Vec<u32> + Send + use<> {
    let (seed, size, order) = (recipe.train.seed, recipe.train.batch_size, recipe.train.order);
    let per_epoch = images.div_ceil(size) as u64;
    let mut newest = (u64::MAX, Vec::new());
    move |step| {
        let epoch = step / per_epoch;
        if newest.0 != epoch {
            let drawn = if order == ImageOrder::Fixed { 0 } else { epoch as u32 };
            newest = (epoch, Philox::new(seed, Purpose::Shuffle, 0).permutation(images, drawn));
        }
        let first = (step % per_epoch) as usize * size;
        newest.1[first..(first + size).min(images)].to_vec()
    }
}

/// Adds advice to the error of a full disk.
fn advise(error: Error, run: &Path) -> Error {
    if error.exit_code() != NO_SPACE || matches!(error, Error::NoSpace { .. }) {
        return error;
    }
    let kept = checkpoint::list(run).ok().and_then(|list| list.last().map(|newest| newest.path.display().to_string()));
    let kept = kept.map_or("no checkpoint had been written".into(), |path| format!("{path} is complete"));
    let problem = format!("{error}; {kept}. Free some space and continue with --resume {}", run.display());
    Error::NoSpace { path: run.to_owned(), problem }
}

impl Outputs<'_> {
    /// Waits for the checkpoint that is being written.
    pub fn settle(&mut self) -> Result<()> {
        self.writer.finish()?.map_or(Ok(()), |written| self.saved(written))
    }

    /// A checkpoint is on disk.
    pub fn saved(&mut self, path: PathBuf) -> Result<()> {
        self.observer.saved(&path);
        let step = path.file_name().and_then(|name| name.to_str()?.strip_prefix("step-")?.parse().ok());
        self.run.journal(&Event::Checkpoint { unix_s: unix_s(), step: step.unwrap_or_default() })
    }
}
